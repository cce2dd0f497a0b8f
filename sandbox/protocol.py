"""The `Sandbox` protocol and the data that cross its boundary.

A job is one piece of work for one genotype: examine it before anything is trained, train it for the epochs
of one rung with one seed, measure its latency alone, or reproduce from its weights what it predicted.
Everything that crosses the boundary is data: a `Job` and arrays go in; a `WorkerReport`, arrays of outputs
and safetensors weights come out. Held-out labels never go in; inputs of the test split go in when the weights
have come out.

Files of one job, under `<run folder>/jobs/<job id>/`:
    job.json             the `Job`
    report.json          the worker's `WorkerReport`, written last: a job without it did not end well
    outputs.npz          float32 arrays `val` `(n_val, n_outputs)`, `test` `(n_test, n_outputs)`, and
                         `val_epochs`, what was predicted after each epoch: classes, int16
                         `(epochs, n_val)`, or values, float32 `(epochs, n_val, n_outputs)`
    weights.safetensors  the trained state dict
    ending.json          how its processes ended, by the keeper's and the host's own word
    outcome.json         the host's `Outcome`, written after all checks: such a job is never run again
    log.txt              what the worker printed, capped
"""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

from pydantic import BaseModel, ConfigDict, Field, model_validator

from cambrian.sandbox.examination.report import ExamineSpec
from cambrian.sandbox.reports import WorkerReport
from cambrian.search_spaces import Loss, Recipe, Signature, Splits, TableRow

CONTEXT = "context_"
"""What the names of the files of a task's constants begin with."""
SPACE = "space"
"""The folder beside the arrays that the space is built from, where it is a folder of text."""


def write_atomically(path: Path, content: bytes) -> None:
    """Write `content` so that `path` is never seen half full, not even after a crash."""
    part = path.with_name(path.name + ".part")
    part.write_bytes(content)
    part.replace(path)


class _Data(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class JobLimits(_Data):
    """What one job may use.

    Attributes:
        wall_s: seconds from start to report; after it every process of the job is ended.
        memory_mb: resident memory of all its processes, without swap.
        threads: CPU cores, and the number of torch's threads.
        processes: processes and threads of the operating system.
        file_mb: size of any one file that it writes.
        log_kb: how much of what it prints is kept.
    """

    wall_s: float = Field(default=300.0, gt=0)
    memory_mb: int = Field(default=2048, ge=64)
    threads: int = Field(default=1, ge=1)
    processes: int = Field(default=64, ge=1)
    file_mb: int = Field(default=256, ge=1)
    log_kb: int = Field(default=64, ge=1)


class LatencySpec(_Data):
    """How latency is measured: one sample at a time unless `batch` says otherwise, in eval mode.

    Attributes:
        batch: samples per call.
        warmup: calls before the clock starts.
        repeats: timed blocks of calls, each beside one of the reference network; the report holds the median
            and the quartiles over blocks.
        throughput_batch: samples per call where samples a second are measured; None leaves that out.
        limit_ms: when the median is above it, the job ends before any training is paid for.
    """

    batch: int = Field(default=1, ge=1)
    warmup: int = Field(default=10, ge=0)
    repeats: int = Field(default=20, ge=3)
    throughput_batch: int | None = Field(default=64, ge=1)
    limit_ms: float | None = Field(default=None, gt=0)


Purpose = Literal["train", "measure", "examine", "reproduce"]


class Job(_Data):
    """One piece of work.

    Attributes:
        id: unique within the run and fit for a file name; `<candidate>-r<rung>-s<seed>`.
        space: registered name of the space that builds the genotype, unless `open` was given its folder.
        generated_code: whether the genotype is source that a model wrote; only a container may run it,
            unless the user trusts it.
        latency: None when latency is not to be measured (again).
        loss: what training minimises.
        purpose: `train`: measure and train; `measure`: measure only; `examine`: find out what `examine` asks
            for, on the CPU and without any training; `reproduce`: load the weights of the job `weights_of`
            into a fresh network, in a fresh sandbox, and see whether it predicts the same.
        weights_of: id of a job that ended `TRAINED`; given if and only if `purpose` is `reproduce`.
        claimed_ms: for reproducing: milliseconds per call that were claimed of the network on this device,
            for the batch of `latency`; None when nothing but the original's report tells of it.
        examine: what to find out; given if and only if `purpose` is `examine`.
    """

    id: str = Field(pattern=r"^[A-Za-z0-9_-][A-Za-z0-9_.-]{0,79}$")
    run_id: str
    candidate_id: str
    space: str
    genotype: dict[str, Any]
    signature: Signature
    recipe: Recipe
    epochs: int = Field(ge=0)
    seed: int
    limits: JobLimits = JobLimits()
    latency: LatencySpec | None = LatencySpec()
    loss: Loss = "cross-entropy"
    generated_code: bool = False
    purpose: Purpose = "train"
    weights_of: str | None = None
    claimed_ms: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    examine: ExamineSpec | None = None

    @model_validator(mode="after")
    def _fields_fit_the_purpose(self) -> Job:
        for field, purpose in (("weights_of", "reproduce"), ("examine", "examine")):
            if (getattr(self, field) is None) == (self.purpose == purpose):
                raise ValueError(f"{field!r} goes with the purpose {purpose!r}")
        return self


class JobState(StrEnum):
    """How a job ended. Only `TRAINED` may ever have a score."""

    TRAINED = "trained"
    MEASURED = "measured"
    EXAMINED = "examined"  # whatever was found
    REPRODUCED = "reproduced"  # a fresh network with the same weights predicted the same
    NOT_REPRODUCED = "not-reproduced"  # it did not, or took far longer than was claimed
    OVER_LIMIT = "over-limit"  # latency above the job's limit, nothing trained
    ERROR = "error"  # the candidate raised
    TIMEOUT = "timeout"
    OUT_OF_MEMORY = "out-of-memory"
    KILLED = "killed"  # ended by a signal or an exit code of its own
    BAD_OUTPUT = "bad-output"  # outputs missing, malformed, of wrong shape or not finite


class Isolation(_Data):
    """The isolation that an evaluation really had.

    Attributes:
        level: the sandbox's kind; `table` when nothing was run and results were looked up.
        not_enforced: what this sandbox could not stop, one short phrase each; empty for a hardened container.
    """

    level: Literal["docker", "process", "table"]
    not_enforced: tuple[str, ...] = ()


class Outcome(_Data):
    """How a job ended, as the host saw it; saved as `outcome.json`.

    Attributes:
        reason: one line for people and for the planner; empty when trained.
        wall_s: seconds from submission to end, by the host's clock.
        first_step_s: seconds from submission to the first training step, by the host's clock; None without
            one.
        start: how the job's process came to be: `cold` and `warm` containers, `fork` of a process that has
            imported torch.
        report: None when the worker left none that could be read, or when nothing was run.
        row: what was looked up, when nothing was run.
    """

    job_id: str
    state: JobState
    reason: str = ""
    wall_s: float
    first_step_s: float | None = None
    start: Literal["cold", "warm", "fork"] | None = None
    isolation: Isolation
    report: WorkerReport | None = None
    row: TableRow | None = None


@runtime_checkable
class Sandbox(Protocol):
    """A place where candidates run.

    Life: `open` once, any number of `run` (at most `slots` at a time), `close` once. All methods may be
    called from one event loop only. A job that fails is an `Outcome`; an engine that fails is an
    `InfrastructureError`, after which the job may be run again.
    """

    isolation: Isolation

    async def open(
        self, run_id: str, folder: Path, splits: Splits, slots: int, space: Path | None = None
    ) -> None:
        """Get ready for a run: end what a dead process of this run left behind, place the data.

        Args:
            run_id: label of everything that is started.
            folder: the run's folder; jobs go to `folder / "jobs"`.
            splits: the task's data and context; `y_val` and `y_test` are not used.
            slots: how many jobs will run at a time.
            space: the space folder that jobs build from; None makes the space from its registered name.

        Raises:
            UserError: the space folder is too large or holds no text.
            InfrastructureError: the engine does not answer, or the image cannot be built.
        """
        ...

    async def run(self, job: Job) -> Outcome:
        """Run `job` to its end and return how it ended; its files lie under `folder / "jobs" / job.id`.

        A job whose `outcome.json` exists is not run again: that outcome is returned. A job whose report is
        complete but unread (we died in between) is read, not run. Cancelling the call ends every process of
        the job and leaves no outcome.

        Raises:
            InfrastructureError: the engine or the disk failed; no outcome was written.
        """
        ...

    async def close(self) -> None:
        """End everything that was started. Safe to call twice."""
        ...
