"""One job from `job.json` to `report.json`: build, measure, train, write what came out."""

from __future__ import annotations

import errno
import os
import random
import sys
import time
import traceback
from pathlib import Path

import numpy as np
import safetensors.torch
import torch
from torch import Tensor, nn

from cambrian.sandbox.protocol import (
    CONTEXT,
    EXIT_NO_SPACE,
    SPACE,
    Job,
    Latency,
    WorkerReport,
    write_atomically,
)
from cambrian.sandbox.worker.latency import measure
from cambrian.sandbox.worker.training import CandidateError, Data, History, predict, seen_of, train
from cambrian.search_spaces import SPACES, ProposalError, Signature
from cambrian.search_spaces.blocks.graph import set_context
from cambrian.search_spaces.finding import open_folder


class OverLimit(Exception):
    """The latency limit is passed; nothing is trained."""


class _Progress:
    """What is known of a job so far; a report can be made of it at any moment."""

    def __init__(self, started: float) -> None:
        self.started = started
        self.history = History()
        self.latency: Latency | None = None
        self.parameters = 0
        self.setup_s = 0.0

    def first_step(self) -> None:
        self.setup_s = time.monotonic() - self.started

    def report(self, status: str, error: str = "") -> WorkerReport:
        return WorkerReport.model_validate(
            {
                "status": status,
                "error": error[:2000],
                "train_loss": self.history.train_loss,
                "epoch_s": self.history.epoch_s,
                "setup_s": self.setup_s or time.monotonic() - self.started,
                "latency": self.latency,
                "parameters": self.parameters,
                "peak_memory_mb": peak_memory_mb(),
                "torch": torch.__version__,
            }
        )


def execute(job_folder: Path, data_folder: Path, started: float) -> int:
    """Run the job in `job_folder` and write its report there, last of all files.

    Args:
        job_folder: holds `job.json`; results are written beside it.
        data_folder: `x_train.npy`, `y_train.npy`, `x_val.npy`, `x_test.npy`, and `context_<name>.npy` for
            each constant of the task; `space/` when the space is a folder.
        started: when the job's process was started, on the clock of `time.monotonic`.

    Returns:
        An exit code: 0 when a report was written, whatever it says.
    """
    job = Job.model_validate_json((job_folder / "job.json").read_bytes())
    progress = _Progress(started)
    try:
        _run(job, job_folder, data_folder, progress)
        report = progress.report("trained")
    except OverLimit:
        report = progress.report("over-limit")
    except BaseException as error:  # a candidate may raise anything, SystemExit too
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            sys.stderr.write(f"no space left: {error}\n")
            return EXIT_NO_SPACE
        traceback.print_exc()
        report = progress.report("error", one_line(error))
    try:
        write_atomically(job_folder / "report.json", report.model_dump_json().encode())
    except OSError as error:
        sys.stderr.write(f"no report: {error}\n")
        return EXIT_NO_SPACE
    return 0


def _run(job: Job, job_folder: Path, data_folder: Path, progress: _Progress) -> None:
    torch.set_num_threads(job.limits.threads)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    seed_everything(job.seed)
    data = load_data(data_folder, device)
    folder = data_folder / SPACE
    space = open_folder(folder) if folder.is_dir() else SPACES.create(job.space)
    module = space.build(job.genotype, job.signature)
    if not isinstance(module, nn.Module):
        raise CandidateError(f"the space built a {type(module).__name__}, not an nn.Module")
    module = module.to(device)
    if data.context:
        set_context(module, data.context)
    if len(job.signature.input_shape) == 3:
        # channels last: a quarter less time on CPUs, for training and for the latency, in every candidate
        module = module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    check_outputs(module, data.x_val, job.signature)
    progress.parameters = sum(p.numel() for p in module.parameters() if p.requires_grad)
    if job.latency is not None:
        samples = latency_samples(data.x_val, job.latency.batch, job.signature)
        progress.latency = measure(module, samples, job.latency)
        if job.latency.limit_ms is not None and progress.latency.median_ms > job.latency.limit_ms:
            raise OverLimit
    seed_everything(job.seed + 1)  # so that a measurement, or none, changes nothing in the training
    val = train(
        module, data, job.recipe, job.epochs, job.seed, progress.history, progress.first_step, job.loss
    )
    np.savez(
        job_folder / "outputs.npz",
        val=val,
        test=predict(module, data.x_test),
        # with no epochs: none of the shape that there would be
        val_epochs=np.stack(progress.history.val_epochs or [seen_of(val, job.loss)])[: job.epochs],
    )
    # clones, because safetensors refuses tensors that share memory, as tied weights do
    state = {
        k: v.detach().clone(memory_format=torch.contiguous_format).cpu()
        for k, v in module.state_dict().items()
    }
    safetensors.torch.save_file(state, job_folder / "weights.safetensors")


def seed_everything(seed: int) -> None:
    """Seed every generator that a candidate may draw from, and ask torch for deterministic kernels."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)
    # a warning where torch has no deterministic kernel: such a candidate may still be trained
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]  # slow
    torch.backends.cudnn.benchmark = False


def load_data(folder: Path, device: torch.device) -> Data:
    """The arrays as tensors on `device`; on the CPU they stay on disk until they are read."""

    def read(path: Path) -> Tensor:
        # mode c: private pages, so that torch gets a writable array while the file stays as it is
        return torch.from_numpy(np.load(path, mmap_mode="c", allow_pickle=False)).to(device)

    names = ("x_train", "y_train", "x_val", "x_test")
    x_train, y_train, x_val, x_test = (read(folder / f"{name}.npy") for name in names)
    context = {path.stem.removeprefix(CONTEXT): read(path) for path in sorted(folder.glob(f"{CONTEXT}*.npy"))}
    return Data(x_train, y_train, x_val, x_test, context)


def check_outputs(module: nn.Module, inputs: Tensor, signature: Signature) -> None:
    """One small forward pass, so that a wrong shape is named before anything is paid for."""
    module.eval()
    batch = inputs[:2]
    with torch.inference_mode():
        outputs = module(batch)
    expected = (len(batch), signature.n_outputs)
    if not isinstance(outputs, Tensor):
        raise CandidateError(f"forward returns a {type(outputs).__name__}, expected a tensor {expected}")
    if tuple(outputs.shape) != expected:
        raise CandidateError(f"forward returns shape {tuple(outputs.shape)}, expected {expected}")


def latency_samples(inputs: Tensor, batch: int, signature: Signature) -> Tensor:
    """`batch` real samples, or zeros of the input shape where there are not enough of them."""
    if len(inputs) >= batch:
        return inputs[:batch].clone()
    return torch.zeros((batch, *signature.input_shape), dtype=inputs.dtype, device=inputs.device)


def peak_memory_mb() -> float:
    """Peak resident memory of this process in MiB, or what torch allocated on the GPU when it has one."""
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        return torch.cuda.max_memory_allocated() / 2**20
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    return 0.0


def one_line(error: BaseException) -> str:
    """Type, message and place of an exception; the place is the last frame outside torch."""
    message = " ".join(str(error).split())
    if isinstance(error, CandidateError | ProposalError):
        return message
    frames = traceback.extract_tb(error.__traceback__)
    ours = [f for f in frames if f"{os.sep}torch{os.sep}" not in f.filename] or list(frames)
    place = ""
    if ours:
        file = "/".join(Path(ours[-1].filename).parts[-2:])
        place = f" ({file}:{ours[-1].lineno} in {ours[-1].name})"
    head = f"{type(error).__name__}: {message}" if message else type(error).__name__
    return head[: 2000 - len(place)] + place
