"""The host's side of a job's folder: what goes in, what is believed of what comes out.

Every file of a finished job was written by code that we do not trust. It is read once, from a regular
file, with a cap on its size, into a type that can hold nothing but data; whatever does not fit is
`BAD_OUTPUT`. Both sandboxes share this module, so a job means the same in both.
"""

from __future__ import annotations

import contextlib
import errno
import io
import math
import os
import shutil
import signal
import stat
import subprocess
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray
from pydantic import ValidationError

from cambrian.sandbox.errors import InfrastructureError
from cambrian.sandbox.protocol import (
    CONTEXT,
    EXIT_NO_SPACE,
    Isolation,
    Job,
    JobState,
    Outcome,
    WorkerReport,
    write_atomically,
)
from cambrian.sandbox.worker.messages import Ending
from cambrian.search_spaces import CambrianError, Loss, Splits

ARRAYS = ("x_train", "y_train", "x_val", "x_test")
"""What a sandbox gets of a task's `Splits` beside the context; held-out labels are not among them."""
RESULTS = ("weights.safetensors", "outputs.npz", "report.json")
"""What a worker may leave behind, in the order in which it writes and we fetch."""
REPORT_BYTES = 1 << 20
OUTPUTS_BYTES = 1 << 30
LOW_DISK_BYTES = 16 << 20


class OutputError(CambrianError, ValueError):
    """What a job left behind is not what a worker writes."""


@dataclass(frozen=True)
class Outputs:
    """Raw outputs of a trained network.

    Attributes:
        val: float32 `(n_val, n_outputs)`.
        test: float32 `(n_test, n_outputs)`.
        val_epochs: what was predicted after each epoch: classes, int16 `(epochs, n_val)`, or for squared
            error values, float32 `(epochs, n_val, n_outputs)`.
    """

    val: NDArray[np.float32]
    test: NDArray[np.float32]
    val_epochs: NDArray[Any]


def read_outputs(job_folder: Path, loss: Loss = "cross-entropy") -> Outputs:
    """The outputs of a job that was trained by `loss`.

    Raises:
        OutputError: missing, malformed, or not finite.
    """
    content = read_regular(job_folder / "outputs.npz", OUTPUTS_BYTES)
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            names = sorted(archive.namelist())
            if names != ["test.npy", "val.npy", "val_epochs.npy"]:
                raise OutputError(f"outputs.npz holds {names[:5]}, expected val, test and val_epochs")
            val, test = (_read_array(archive, name, np.dtype(np.float32), 2) for name in ("val", "test"))
            kind = (np.dtype(np.int16), 2) if loss == "cross-entropy" else (np.dtype(np.float32), 3)
            return Outputs(val, test, _read_array(archive, "val_epochs", *kind))
    except (zipfile.BadZipFile, NotImplementedError, EOFError) as error:
        raise OutputError(f"outputs.npz is not an archive of arrays: {error}") from error


def _read_array(archive: zipfile.ZipFile, name: str, dtype: np.dtype[Any], axes: int) -> NDArray[Any]:
    """One array, whose header is believed only as far as there are bytes to back it."""
    info = archive.getinfo(f"{name}.npy")
    if info.compress_type != zipfile.ZIP_STORED:
        raise OutputError(f"outputs.npz: {name} is compressed")
    content = io.BytesIO(archive.read(info))
    try:
        if npy.read_magic(content) != (1, 0):
            raise OutputError(f"outputs.npz: {name} has an unknown header")
        shape, fortran, found = npy.read_array_header_1_0(content)
    except (ValueError, TypeError, SyntaxError) as error:
        raise OutputError(f"outputs.npz: {name} has a broken header") from error
    body = content.read()
    if found != dtype or fortran or len(shape) != axes or len(body) != math.prod(shape) * dtype.itemsize:
        wanted = "matrix" if axes == 2 else f"array of {axes} axes"
        raise OutputError(f"outputs.npz: {name} is {found} of shape {shape}, expected a {dtype} {wanted}")
    array = np.frombuffer(body, dtype=dtype).reshape(shape)
    if dtype.kind == "f" and not np.isfinite(array).all():
        raise OutputError(f"outputs on {name} are not finite")
    return array


def read_regular(path: Path, limit: int) -> bytes:
    """The content of a regular file with no second name: a link could stand for any file of the host.

    Raises:
        OutputError: missing, no regular file, or over `limit` bytes.
    """
    with _open_regular(path) as (file, size):
        if size > limit:
            raise OutputError(f"{path.name} has {size} bytes, allowed are {limit}")
        return file.read(limit)


@contextlib.contextmanager
def _open_regular(path: Path) -> Iterator[tuple[io.FileIO, int]]:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError as error:
        raise OutputError(f"{path.name} is missing") from error
    except OSError as error:
        raise OutputError(f"{path.name} cannot be opened: {error.strerror}") from error
    with io.FileIO(fd) as file:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode) or status.st_nlink != 1:
            raise OutputError(f"{path.name} is not a plain file")
        yield file, status.st_size


@contextlib.contextmanager
def disk(what: str) -> Iterator[None]:
    """Turn a disk that fails into an `InfrastructureError` that says `what` could not be done."""
    try:
        yield
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        raise InfrastructureError(
            f"cannot {what}: {error.strerror or error}",
            hint="free some disk space, then resume" if full else "check the run folder and its permissions",
        ) from error


def write_arrays(folder: Path, splits: Splits) -> list[Path]:
    """Write what a sandbox gets of `splits` as `.npy` files, and return them.

    Raises:
        InfrastructureError: the disk failed.
    """
    arrays = {name: getattr(splits, name) for name in ARRAYS}
    arrays |= {f"{CONTEXT}{name}": array for name, array in splits.context.items()}
    written = [folder / f"{name}.npy" for name in arrays]
    with disk(f"write the task's data to {folder}"):
        folder.mkdir(parents=True, exist_ok=True)
        for path, array in zip(written, arrays.values(), strict=True):
            np.save(path, np.ascontiguousarray(array), allow_pickle=False)
    return written


def remove_tree(path: Path) -> None:
    """Remove a folder that a candidate wrote in, however deep and with whatever permissions."""
    try:
        shutil.rmtree(path)
    except FileNotFoundError:
        return
    except (OSError, RecursionError):
        for command in (["chmod", "-R", "u+rwX"], ["rm", "-rf"]):
            subprocess.run([*command, "--", str(path)], check=False, capture_output=True)
        if path.exists():
            raise OSError(errno.EACCES, f"{path} cannot be removed") from None


class JobFolder:
    """The folder of one job, and `work` in it, the only part that a worker may write to.

    What a worker left in `work` is moved up by us when its processes are gone: so nothing beside `work`,
    least of all an `outcome.json`, can have been written by a candidate.

    Args:
        root: the run's folder.
        job: the job.
        n_val: samples of the validation split.
        n_test: samples of the test split.
    """

    def __init__(self, root: Path, job: Job, n_val: int, n_test: int) -> None:
        self.job = job
        self.path = root / "jobs" / job.id
        self.work = self.path / "work"
        self._samples = {"val": n_val, "test": n_test}

    def settled(self, isolation: Isolation) -> Outcome | None:
        """The outcome when there is one already, or when a complete report waits to be read."""
        with contextlib.suppress(OutputError, ValidationError):
            return Outcome.model_validate_json(read_regular(self.path / "outcome.json", 2 * REPORT_BYTES))
        try:
            known = Job.model_validate_json(read_regular(self.path / "job.json", OUTPUTS_BYTES))
            if (self.work / "report.json").exists():
                self._collect()
            report = self._report()
        except (OutputError, ValidationError):
            return None
        if known != self.job:
            return None
        wall_s = report.setup_s + sum(report.epoch_s)
        outcome = self._judge(Ending(why="exit", code=0), isolation, wall_s)
        return None if outcome.state is JobState.BAD_OUTPUT else self._save(outcome)

    def prepare(self) -> None:
        """Make the folder anew, with nothing but `job.json` in it and in `work`.

        Raises:
            InfrastructureError: the disk failed.
        """
        with disk(f"prepare {self.path}"):
            remove_tree(self.path)
            self.work.mkdir(parents=True)
            content = self.job.model_dump_json().encode()
            write_atomically(self.path / "job.json", content)
            (self.work / "job.json").write_bytes(content)

    def record(self, outcome: Outcome) -> Outcome:
        """Save the outcome of a job for which nothing was run.

        Raises:
            InfrastructureError: the disk failed or is full; no outcome was written.
        """
        with disk(f"prepare {self.path}"):
            remove_tree(self.work)
        return self._save(outcome)

    def conclude(self, ending: Ending, isolation: Isolation, wall_s: float) -> Outcome:
        """Check what the job left behind, save the outcome, remove what no job has to write.

        Raises:
            InfrastructureError: the disk failed or is full; no outcome was written.
        """
        if ending.why == "lost" or (ending.code == EXIT_NO_SPACE and self._disk_is_low()):
            full = ending.code == EXIT_NO_SPACE
            raise InfrastructureError(
                f"job {self.job.id} was lost: {'no space left on the disk' if full else ending.note}",
                hint="free some disk space, then resume" if full else "resume the run",
            )
        self._collect()
        return self._save(self._judge(ending, isolation, wall_s))

    def _collect(self) -> None:
        """Move results up out of `work`, the report last, and remove the rest."""
        with disk(f"collect the results of {self.path}"):
            for name in RESULTS:
                source = self.work / name
                if source.is_symlink() or source.is_file():
                    source.replace(self.path / name)
            remove_tree(self.work)

    def _disk_is_low(self) -> bool:
        return shutil.disk_usage(self.path).free < LOW_DISK_BYTES

    def _save(self, outcome: Outcome) -> Outcome:
        with disk(f"write {self.path / 'outcome.json'}"):
            write_atomically(self.path / "outcome.json", outcome.model_dump_json().encode())
        return outcome

    def _judge(self, ending: Ending, isolation: Isolation, wall_s: float) -> Outcome:
        report: WorkerReport | None = None
        problem = ""
        try:
            report = self._report()
        except OutputError as error:
            problem = error.message
        ended = _ended_badly(ending, self.job)
        if ended is not None:
            state, reason = ended
        elif report is None:
            state, reason = JobState.BAD_OUTPUT, problem
        else:
            try:
                state, reason = self._state_of(report)
            except OutputError as error:
                state, reason = JobState.BAD_OUTPUT, error.message
        return Outcome(
            job_id=self.job.id,
            state=state,
            reason=_one_line(reason),
            wall_s=wall_s,
            isolation=isolation,
            report=report,
        )

    def _report(self) -> WorkerReport:
        content = read_regular(self.path / "report.json", REPORT_BYTES)
        try:
            report = WorkerReport.model_validate_json(content)
        except ValidationError as error:
            place = ".".join(str(part) for part in error.errors()[0]["loc"])
            raise OutputError(f"report.json is malformed at {place or 'its start'}") from error
        numbers = [*report.train_loss, *report.epoch_s, report.setup_s, report.peak_memory_mb]
        if report.latency is not None:
            numbers += [report.latency.q1_ms, report.latency.median_ms, report.latency.q3_ms]
        if not all(math.isfinite(number) for number in numbers):
            raise OutputError("report.json holds numbers that are not finite")
        return report

    def _state_of(self, report: WorkerReport) -> tuple[JobState, str]:
        if report.status == "error":
            memory = "MemoryError" in report.error or "can't allocate memory" in report.error
            memory = memory or "OutOfMemoryError" in report.error
            state = JobState.OUT_OF_MEMORY if memory else JobState.ERROR
            return state, report.error or "the candidate raised"
        if report.status == "over-limit":
            return JobState.OVER_LIMIT, self._over_limit(report)
        if self.job.latency is not None and report.latency is None:
            raise OutputError("report.json holds no latency")
        if not len(report.train_loss) == len(report.epoch_s) == self.job.epochs:
            raise OutputError(f"report.json tells of {len(report.train_loss)} epochs of {self.job.epochs}")
        self._check_outputs()
        return JobState.TRAINED, ""

    def _over_limit(self, report: WorkerReport) -> str:
        limit = self.job.latency.limit_ms if self.job.latency is not None else None
        if limit is None or report.latency is None or report.latency.median_ms <= limit:
            raise OutputError("report.json claims a latency limit that was not passed")
        return (
            f"latency {report.latency.median_ms:.3g} ms (lower quartile {report.latency.q1_ms:.3g} ms) "
            f"is above the limit of {limit:g} ms on {report.latency.device}"
        )

    def _check_outputs(self) -> None:
        outputs = read_outputs(self.path, self.job.loss)
        for name, array in (("val", outputs.val), ("test", outputs.test)):
            expected = (self._samples[name], self.job.signature.n_outputs)
            if array.shape != expected:
                raise OutputError(f"outputs on {name} have shape {array.shape}, expected {expected}")
        classes = self.job.loss == "cross-entropy"
        each = (self._samples["val"],) if classes else outputs.val.shape
        seen, expected = outputs.val_epochs, (self.job.epochs, *each)
        if seen.shape != expected:
            raise OutputError(f"val_epochs has shape {seen.shape}, expected {expected}")
        if classes and seen.size and not 0 <= seen.min() <= seen.max() < self.job.signature.n_outputs:
            raise OutputError("val_epochs holds classes that there are not")
        with _open_regular(self.path / "weights.safetensors") as (_, size):
            if size < 8:
                raise OutputError("weights.safetensors is empty")


def _one_line(text: str) -> str:
    """`text` as people and prompts may be shown it: one line, no control characters."""
    return "".join(c for c in " ".join(text.split()) if c.isprintable())


def _ended_badly(ending: Ending, job: Job) -> tuple[JobState, str] | None:
    """The state that the processes' end alone decides; None when the files decide."""
    limits = job.limits
    if ending.why == "timeout":
        return JobState.TIMEOUT, f"took longer than {limits.wall_s:g} s"
    if ending.why == "memory":
        return JobState.OUT_OF_MEMORY, f"used more than {limits.memory_mb} MiB of memory"
    if ending.why == "processes":
        return JobState.KILLED, f"started more than {limits.processes} processes and threads"
    if ending.code == 0:
        return None
    if ending.code is None:
        return JobState.KILLED, "was ended from outside"
    if ending.code > 0:
        return JobState.KILLED, f"ended with exit code {ending.code}"
    try:
        name = signal.Signals(-ending.code).name
    except ValueError:
        name = f"number {-ending.code}"
    return JobState.KILLED, f"ended by signal {name}"
