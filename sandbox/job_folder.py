"""The folder of one job on the host, and the verdict on what the job handed in.

Both sandboxes share this module, so a job means the same in both. Nothing but the host writes here: what a
worker hands in comes over the link, and the host puts it down, capped.
"""

from __future__ import annotations

import contextlib
import re
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, ValidationError

from cambrian.sandbox.errors import InfrastructureError
from cambrian.sandbox.examination.report import Examination, ExamineSpec
from cambrian.sandbox.outputs import (
    OUTPUTS_BYTES,
    OutputError,
    Outputs,
    check_weights,
    disk,
    read_outputs,
    read_regular,
    remove_tree,
)
from cambrian.sandbox.protocol import Isolation, Job, JobState, Outcome, write_atomically
from cambrian.sandbox.reports import WorkerReport
from cambrian.sandbox.reproduction import check_claimed_latency, differences, slower_than_claimed
from cambrian.sandbox.worker.messages import Ending

RESULTS = {
    "train": ("weights.safetensors", "outputs.npz", "report.json"),
    "measure": ("report.json",),
    "examine": ("report.json",),
    "reproduce": ("outputs.npz", "report.json"),
}
"""What a worker hands in, by purpose, in its order."""
_STATUS = {"train": "trained", "measure": "measured", "examine": "examined", "reproduce": "reproduced"}
LOG, ANSWERS, ENDING = "log.txt", "answers", "ending.json"
REPORT_BYTES = 1 << 20
REASON = 2000
"""Longest reason, in characters."""


class Ended(BaseModel):
    """How a job ended, before anybody judged what it handed in; saved as `ending.json`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    ending: Ending
    wall_s: float
    first_step_s: float | None = None
    start: Literal["cold", "warm", "fork"] | None = None


class JobFolder:
    """The folder of one job.

    Args:
        root: the run's folder.
        job: the job.
        n_val: samples of the validation split.
        n_test: samples of the test split.
        spread: of the training targets, where values are predicted.

    Attributes:
        caps: most bytes of each result file.
        orders: in which order a reproducing job got the inputs of each split.
        asked: how many of each split, the first in that order, it got one by one before.
    """

    def __init__(self, root: Path, job: Job, n_val: int, n_test: int, spread: float | None = None) -> None:
        self.job = job
        self.path = root / "jobs" / job.id
        self.caps = {
            name: REPORT_BYTES if name == "report.json" else job.limits.file_mb << 20
            for name in RESULTS[job.purpose]
        }
        self.orders: dict[str, NDArray[np.intp]] = {}
        self.asked: dict[str, int] = {}
        self._samples = {"val": n_val, "test": n_test}
        self._spread = None if job.loss == "cross-entropy" else (spread or 1.0)

    def settled(self, isolation: Isolation) -> Outcome | None:
        """The outcome when there is one already, or when all has come that one can be made of."""
        with contextlib.suppress(OutputError, ValidationError):
            return Outcome.model_validate_json(read_regular(self.path / "outcome.json", 2 * REPORT_BYTES))
        if self.job.purpose == "reproduce":
            return None  # the order that its inputs came in is not known any more
        try:
            known = Job.model_validate_json(read_regular(self.path / "job.json", OUTPUTS_BYTES))
            ended = Ended.model_validate_json(read_regular(self.path / ENDING, OUTPUTS_BYTES))
        except (OutputError, ValidationError):
            return None
        if known != self.job:
            return None
        outcome = self._judge(ended, isolation)
        # one that is bad may be half of what there was: it is run again
        return None if outcome.state is JobState.BAD_OUTPUT else self._tidied(outcome)

    def prepare(self) -> None:
        """Make the folder anew, with nothing but `job.json` in it.

        Raises:
            InfrastructureError: the disk failed.
        """
        with disk(f"prepare {self.path}"):
            remove_tree(self.path)
            self.path.mkdir(parents=True)
            write_atomically(self.path / "job.json", self.job.model_dump_json().encode())

    def receive(self, name: str, content: bytes, last: bool) -> None:
        """Put down a part of a file that came over the link; what is not due is dropped.

        Raises:
            InfrastructureError: the disk failed or is full.
        """
        if name not in self.caps and name not in (LOG, ANSWERS):
            return
        path = self.path / f"{name}.part"
        with disk(f"write to {self.path}"):
            with path.open("ab") as file:
                file.write(content)
            if last:
                path.replace(self.path / name)

    def has(self, name: str) -> bool:
        """Whether `name` has come, all of it."""
        return (self.path / name).exists()

    def weights_to_reproduce(self) -> bytes:
        """The weights of the job that this one reproduces.

        Raises:
            InfrastructureError: they are gone.
        """
        path = self._original / "weights.safetensors"
        with disk(f"read {path}"):
            return path.read_bytes()

    @property
    def _original(self) -> Path:
        return self.path.parent / (self.job.weights_of or "")

    def record(self, outcome: Outcome) -> Outcome:
        """Save the outcome: nothing is run for this job any more.

        Raises:
            InfrastructureError: the disk failed or is full; no outcome was written.
        """
        with disk(f"write {self.path / 'outcome.json'}"):
            write_atomically(self.path / "outcome.json", outcome.model_dump_json().encode())
        return outcome

    def conclude(
        self,
        ending: Ending,
        isolation: Isolation,
        wall_s: float,
        first_step_s: float | None = None,
        start: Literal["cold", "warm", "fork"] | None = None,
    ) -> Outcome:
        """Judge what the job handed in, and save the outcome.

        Raises:
            InfrastructureError: the job was lost, or the disk failed or is full; no outcome was written.
        """
        if ending.why in ("lost", "stopped"):
            raise InfrastructureError(
                f"job {self.job.id} was lost: {ending.note or ending.why}", hint="resume the run"
            )
        ended = Ended(ending=ending, wall_s=wall_s, first_step_s=first_step_s, start=start)
        with disk(f"write {self.path / ENDING}"):
            write_atomically(self.path / ENDING, ended.model_dump_json().encode())
        return self._tidied(self._judge(ended, isolation))

    def _tidied(self, outcome: Outcome) -> Outcome:
        """Save an outcome that was judged, and remove what it makes useless."""
        with disk(f"tidy {self.path}"):
            for path in (*self.path.glob("*.part"), self.path / ANSWERS):
                path.unlink(missing_ok=True)
            if outcome.state is not JobState.TRAINED:  # nobody will look at them
                for name in ("outputs.npz", "weights.safetensors"):
                    (self.path / name).unlink(missing_ok=True)
        return self.record(outcome)

    def _judge(self, how: Ended, isolation: Isolation) -> Outcome:
        """The verdict."""
        report: WorkerReport | None = None
        problem = ""
        try:
            report = self._report()
        except OutputError as error:
            problem = error.message
        ended = _ended_badly(how.ending, self.job)
        if ended is not None:
            state, reason = ended
        elif report is None:
            state, reason = JobState.BAD_OUTPUT, problem
        else:
            try:
                state, reason = self._state_of(report, how.ending)
            except OutputError as error:
                state, reason = JobState.BAD_OUTPUT, error.message
            except InfrastructureError:
                raise
            except Exception as error:  # no result may end the run, whatever it makes of its reader
                state, reason = JobState.BAD_OUTPUT, f"cannot be judged: {type(error).__name__}"
        return Outcome(
            job_id=self.job.id,
            state=state,
            reason=_one_line(reason)[:REASON],
            wall_s=how.wall_s,
            first_step_s=how.first_step_s,
            start=how.start,
            isolation=isolation,
            report=report,
        )

    def _report(self) -> WorkerReport:
        content = read_regular(self.path / "report.json", REPORT_BYTES)
        try:
            report = WorkerReport.model_validate_json(content)
        except ValidationError as error:
            place = ".".join(str(part)[:40] for part in error.errors()[0]["loc"])
            raise OutputError(f"report.json is malformed at {place or 'its start'}") from error
        except Exception as error:
            raise OutputError(f"report.json cannot be read: {type(error).__name__}") from error
        return report

    def _state_of(self, report: WorkerReport, ending: Ending) -> tuple[JobState, str]:
        if report.status == "error":
            memory = "MemoryError" in report.error or "can't allocate memory" in report.error
            memory = memory or "OutOfMemoryError" in report.error
            state = JobState.OUT_OF_MEMORY if memory else JobState.ERROR
            return state, report.error or "the candidate raised"
        if self.job.latency is not None and report.latency is not None:
            check_claimed_latency(report.latency, self.job.latency, ending.timed)
        if report.status == "over-limit":
            return JobState.OVER_LIMIT, self._over_limit(report)
        expected = _STATUS[self.job.purpose]
        if report.status != expected:
            raise OutputError(f"report.json says {report.status!r}, expected {expected!r}")
        if self.job.purpose == "reproduce":
            return self._compare(ending)
        if self.job.examine is not None:
            check_examination(report.examination, self.job.examine)
            return JobState.EXAMINED, ""
        if self.job.latency is not None and report.latency is None:
            raise OutputError("report.json holds no latency")
        if self.job.purpose == "measure":
            return JobState.MEASURED, ""
        if not len(report.train_loss) == len(report.epoch_s) == self.job.epochs:
            raise OutputError(f"report.json tells of {len(report.train_loss)} epochs of {self.job.epochs}")
        self._outputs(self.job.epochs)
        check_weights(self.path / "weights.safetensors")
        return JobState.TRAINED, ""

    def _compare(self, ending: Ending) -> tuple[JobState, str]:
        """Whether the predictions are those of the original job, and made as fast as was claimed."""
        again = self._outputs(epochs=0)
        original = read_outputs(self._original, self.job.loss)
        made = np.frombuffer(read_regular(self.path / ANSWERS, OUTPUTS_BYTES), dtype=np.float32)
        answers = _by_split(made.reshape(-1, self.job.signature.n_outputs), self.asked)
        problem = differences(original, again, self.orders, answers, self._spread)
        claimed_ms = self._claimed_ms()
        if not problem and claimed_ms is not None:
            of_test = len(ending.answers_s) * self.asked.get("test", 0) // max(1, sum(self.asked.values()))
            problem = slower_than_claimed(claimed_ms, ending.answers_s[len(ending.answers_s) - of_test :])
        return (JobState.NOT_REPRODUCED, problem) if problem else (JobState.REPRODUCED, "")

    def _claimed_ms(self) -> float | None:
        if self.job.claimed_ms is not None:
            return self.job.claimed_ms
        outcome = Outcome.model_validate_json(read_regular(self._original / "outcome.json", 2 * REPORT_BYTES))
        latency = outcome.report.latency if outcome.report is not None else None
        return latency.median_ms if latency is not None else None

    def _over_limit(self, report: WorkerReport) -> str:
        limit = self.job.latency.limit_ms if self.job.latency is not None else None
        if limit is None or report.latency is None or report.latency.median_ms <= limit:
            raise OutputError("report.json claims a latency limit that was not passed")
        return (
            f"latency {report.latency.median_ms:.3g} ms (lower quartile {report.latency.q1_ms:.3g} ms) "
            f"is above the limit of {limit:g} ms on {report.latency.device}"
        )

    def _outputs(self, epochs: int) -> Outputs:
        """What was handed in of predictions, with those after each of so many epochs."""
        outputs = read_outputs(self.path, self.job.loss)
        for name, array in (("val", outputs.val), ("test", outputs.test)):
            expected = (self._samples[name], self.job.signature.n_outputs)
            if array.shape != expected:
                raise OutputError(f"outputs on {name} have shape {array.shape}, expected {expected}")
        classes = self.job.loss == "cross-entropy"
        each = (self._samples["val"],) if classes else outputs.val.shape
        seen, wanted = outputs.val_epochs, (epochs, *each)
        if seen.shape != wanted:
            raise OutputError(f"val_epochs has shape {seen.shape}, expected {wanted}")
        if classes and seen.size and not 0 <= seen.min() <= seen.max() < self.job.signature.n_outputs:
            raise OutputError("val_epochs holds classes that there are not")
        last = outputs.val.argmax(axis=1) if classes else outputs.val
        if len(seen) and not np.array_equal(seen[-1], last):
            raise OutputError("val_epochs does not end with the predictions on val")
        return outputs


def check_examination(found: Examination | None, spec: ExamineSpec) -> None:
    """See that an examination tells of what was asked, and of nothing else.

    Raises:
        OutputError: it does not.
    """
    if found is None:
        raise OutputError("report.json holds no examination")
    unasked = {
        "an identity": found.identity is not None and not spec.identity,
        "findings": bool(found.findings) and not spec.behaviour,
        "motifs": bool(found.motifs) and not spec.motifs,
        "proxies": not found.proxies.keys() <= set(spec.proxies),
    }
    for what, is_there in unasked.items():
        if is_there:
            raise OutputError(f"report.json holds {what} that nobody asked for")
    if spec.behaviour and not found.findings:
        raise OutputError("report.json holds no findings")
    if found.identity is not None and not re.fullmatch(r"[a-z][0-9]{1,3}:[0-9a-f]{32}", found.identity):
        raise OutputError("report.json holds an identity that is none")
    names = [finding.check for finding in found.findings]
    if len(names) != len(set(names)):
        raise OutputError("report.json holds two findings of one check")


def _by_split(answers: NDArray[np.float32], asked: Mapping[str, int]) -> dict[str, NDArray[np.float32]]:
    """The answers `(n, n_outputs)` of each split."""
    if len(answers) != sum(asked.values()):
        raise OutputError(f"{len(answers)} single predictions instead of {sum(asked.values())}")
    parts = np.split(answers, np.cumsum(list(asked.values()))[:-1]) if asked else []
    return dict(zip(asked, parts, strict=True))


def _one_line(text: str) -> str:
    """`text` as people and prompts may be shown it: one line, no control characters."""
    return "".join(c for c in " ".join(text.split()) if c.isprintable())


def _ended_badly(ending: Ending, job: Job) -> tuple[JobState, str] | None:
    """The state that the processes' end alone decides; None when the files decide."""
    limits = job.limits
    by_limit = {
        "timeout": (JobState.TIMEOUT, f"took longer than {limits.wall_s:g} s"),
        "memory": (JobState.OUT_OF_MEMORY, f"used more than {limits.memory_mb} MiB of memory"),
        "processes": (JobState.KILLED, f"started more than {limits.processes} processes and threads"),
        "flood": (JobState.BAD_OUTPUT, f"handed in more than {limits.file_mb} MiB"),
        "forged": (JobState.BAD_OUTPUT, "wrote what no worker writes to the channel of its results"),
        "undue": (JobState.BAD_OUTPUT, "asked for held-out inputs that were not due"),
        "gone": (JobState.KILLED, "ended the process that watches over it"),
    }
    if ending.why in by_limit:
        return by_limit[ending.why]
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
