"""One job inside a worker: build, measure, train, hand in what came out; or examine, or reproduce.

What is held out is not in the data folder. Inputs of the validation split come from the host when the first
epoch has ended, those of the test split when the trained weights have been handed in, labels never.
"""

from __future__ import annotations

import io
import os
import sys
import time
import traceback
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from torch import Tensor, nn

from cambrian.sandbox.examination.report import Examination
from cambrian.sandbox.protocol import Job
from cambrian.sandbox.reports import Latency, WorkerReport
from cambrian.sandbox.worker.channel import Channel
from cambrian.sandbox.worker.examine import examine
from cambrian.sandbox.worker.latency import measure
from cambrian.sandbox.worker.network import (
    array_of,
    check_outputs,
    count_trainable,
    load_data,
    make_network,
    seed_everything,
    some_samples,
    space_of,
)
from cambrian.sandbox.worker.training import CandidateError, Data, History, predict, seen_of, train
from cambrian.search_spaces import ProposalError

AGAIN_BATCH = 200
"""Samples per forward pass when predictions are reproduced: others than in training, so that a network whose
answer depends on a sample's neighbours is found out."""


class OverLimit(Exception):
    """The latency limit is passed; nothing is trained."""


class _Progress:
    """What is known of a job so far; a report can be made of it at any moment."""

    def __init__(self, started: float, channel: Channel) -> None:
        self.started, self.channel = started, channel
        self.history = History()
        self.latency: Latency | None = None
        self.examination: Examination | None = None
        self.parameters = 0
        self.setup_s = 0.0

    def first_step(self) -> None:
        self.channel.tell("first-step")
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
                "examination": self.examination,
                "parameters": self.parameters,
                "peak_memory_mb": peak_memory_mb(),
                "torch": torch.__version__,
            }
        )


class _Clock:
    """Tells the keeper when a timed block begins and ends, so that it can look at its own clock."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel

    def begin(self, calls: int) -> None:
        """`calls` calls of the network begin."""
        self._channel.tell("begin", calls=calls)
        self._channel.receive()  # it has looked

    def end(self) -> None:
        """They have ended."""
        self._channel.tell("end")
        self._channel.receive()


def execute(channel: Channel, job: Job, data_folder: Path, started: float) -> int:
    """Run `job` and hand in its results, the report last.

    Args:
        channel: to the keeper.
        job: what to do.
        data_folder: `x_train.npy`, `y_train.npy`, and `context_<name>.npy` for each constant of the task;
            `space/` when the space is a folder.
        started: when the job began, on the clock of `time.monotonic`.

    Returns:
        An exit code: 0 when a report was handed in, whatever it says.
    """
    progress = _Progress(started, channel)
    try:
        status = _PURPOSES[job.purpose](job, data_folder, progress)
        report = progress.report(status)
    except OverLimit:
        report = progress.report("over-limit")
    except BaseException as error:  # a candidate may raise anything, SystemExit too
        try:
            traceback.print_exc()
        except BaseException:  # of an exception that cannot be printed, or into a closed stream
            sys.stderr = Path(os.devnull).open("w")  # noqa: SIM115
        report = progress.report("error", one_line(error))
    channel.put("report.json", report.model_dump_json().encode())
    return 0


def _build(job: Job, data_folder: Path, progress: _Progress) -> tuple[nn.Module, Data]:
    """The network, ready on its device, and the data."""
    torch.set_num_threads(job.limits.threads)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    seed_everything(job.seed)
    data = load_data(data_folder, device, progress.channel)
    module = make_network(space_of(job, data_folder), job, data)
    check_outputs(module, data.x_train, job.signature)
    progress.parameters = count_trainable(module)
    return module, data


def _examine(job: Job, data_folder: Path, progress: _Progress) -> str:
    torch.set_num_threads(1)
    seed_everything(job.seed)
    data = load_data(data_folder, torch.device("cpu"), progress.channel)
    space = space_of(job, data_folder)
    module = make_network(space, job, data)
    check_outputs(module, data.x_train, job.signature)
    progress.parameters = count_trainable(module)
    progress.examination = examine(job, space, data)
    return "examined"


def _train(job: Job, data_folder: Path, progress: _Progress) -> str:
    module, data = _build(job, data_folder, progress)
    _measure(job, module, data, progress)
    seed_everything(job.seed + 1)  # so that a measurement, or none, changes nothing in the training
    val = train(
        module, data, job.recipe, job.epochs, job.seed, progress.history, progress.first_step, job.loss
    )
    # before the inputs of the test split are asked for: the host gives them in return for the weights only
    progress.channel.put("weights.safetensors", safetensors.torch.save(state_of(module)))
    arrays = {
        "val": val,
        "test": predict(module, data.held_out("test")),
        # with no epochs: none of the shape that there would be
        "val_epochs": np.stack(progress.history.val_epochs or [seen_of(val, job.loss)])[: job.epochs],
    }
    _hand_in(progress.channel, arrays)
    return "trained"


def _measure_only(job: Job, data_folder: Path, progress: _Progress) -> str:
    module, data = _build(job, data_folder, progress)
    _measure(job, module, data, progress)
    return "measured"


def _measure(job: Job, module: nn.Module, data: Data, progress: _Progress) -> None:
    if job.latency is None:
        return
    header, _ = progress.channel.ask("quiet")
    try:
        latency = measure(
            module,
            some_samples(data.x_train, job.latency.batch),
            job.latency,
            clock=_Clock(progress.channel),
            bulk=lambda n: some_samples(data.x_train, n),
        )
    finally:
        progress.channel.tell("loud")
    progress.latency = latency.model_copy(update={"alone": bool(header.get("alone"))})
    if job.latency.limit_ms is not None and latency.median_ms > job.latency.limit_ms:
        raise OverLimit


def _reproduce(job: Job, data_folder: Path, progress: _Progress) -> str:
    """Predict with the weights of another job: first one by one against the keeper's clock, then the rest."""
    module, data = _build(job, data_folder, progress)
    _, weights = progress.channel.ask("weights")
    module.load_state_dict(safetensors.torch.load(bytes(weights)))
    del weights
    _answer_questions(module, progress.channel, data.x_train.device)
    seed_everything(job.seed + 2)
    val, test = (predict(module, data.held_out(name), AGAIN_BATCH) for name in ("val", "test"))
    empty = (
        np.empty((0, len(val)), np.int16)
        if job.loss == "cross-entropy"
        else np.empty((0, *val.shape), np.float32)
    )
    _hand_in(progress.channel, {"val": val, "test": test, "val_epochs": empty})
    return "reproduced"


def _answer_questions(module: nn.Module, channel: Channel, device: torch.device) -> None:
    module.eval()
    channel.ask_for_questions()
    with torch.inference_mode():
        while "over" not in (question := channel.receive()).header:
            inputs = array_of(question.header, question.payload).to(device)
            channel.answer(module(inputs).float().cpu().contiguous().numpy().tobytes())


_PURPOSES = {"train": _train, "measure": _measure_only, "examine": _examine, "reproduce": _reproduce}


def _hand_in(channel: Channel, arrays: dict[str, Any]) -> None:
    packed = io.BytesIO()
    np.savez(packed, **arrays)
    channel.put("outputs.npz", packed.getbuffer())


def state_of(module: nn.Module) -> dict[str, Tensor]:
    """The state dict as plain tensors; clones, because safetensors refuses tensors that share memory."""
    return {
        k: v.detach().clone(memory_format=torch.contiguous_format).cpu()
        for k, v in module.state_dict().items()
    }


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
