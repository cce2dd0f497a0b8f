"""What a worker says of its job: data that nobody believes before the host has looked at them."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from cambrian.sandbox.examination.report import Examination, Printable


class _Data(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


Name = Annotated[str, Field(max_length=200), Printable]
"""A short text of the worker's that people will read."""
Finite = Annotated[float, Field(allow_inf_nan=False, ge=-1e30, le=1e30)]
Seconds = Annotated[float, Field(allow_inf_nan=False, ge=0, le=1e8)]
Milliseconds = Annotated[float, Field(allow_inf_nan=False, gt=0, le=1e9)]
Amount = Annotated[float, Field(allow_inf_nan=False, ge=0, le=1e15)]


class Latency(_Data):
    """A latency measured on a named device; all times in milliseconds per call.

    Of a latency that was looked up in a table no spread is known: `repeats` is 1, the quartiles are the
    median, and `threads` is 0, which means not known.

    Attributes:
        calls: calls in each of the `repeats` timed blocks.
        noisy: whether the spread was still too wide after every repetition.
        alone: whether nothing else of ours ran on the same cores or GPU meanwhile.
        reference: name and version of the network that was timed in turns with this one; empty for none.
        reference_ms: its median per call.
        ratio: median over pairs of blocks of this network's time by the reference's: survives a busy
            machine, and tells more of another machine than milliseconds do.
        throughput: samples a second in batches of `throughput_batch`.
        memory_mb: peak of one call, in MiB: parameters, buffers and all tensors alive at a time.
    """

    device: Name
    threads: int = Field(ge=0, le=10**6)
    batch: int = Field(ge=1, le=10**9)
    warmup: int = Field(ge=0, le=10**9)
    repeats: int = Field(ge=1, le=10**6)
    median_ms: Milliseconds
    q1_ms: Milliseconds
    q3_ms: Milliseconds
    calls: int = Field(default=1, ge=1, le=10**6)
    noisy: bool = False
    alone: bool = False
    reference: Name = ""
    reference_ms: Milliseconds | None = None
    ratio: Milliseconds | None = None
    throughput_batch: int | None = Field(default=None, ge=1, le=10**9)
    throughput: Amount | None = None
    memory_mb: Amount | None = None

    @property
    def place(self) -> str:
        """Device and number of threads, as people read it."""
        threads = f", {self.threads} thread{'s' if self.threads > 1 else ''}" if self.threads else ""
        return self.device + threads


class WorkerReport(_Data):
    """What the worker says of a job. Its numbers describe the run; the score is computed by the host.

    Attributes:
        status: `trained`, `measured`, `examined`, `reproduced` (predictions were made; the host compares
            them) by the job's purpose; `over-limit` when latency passed the job's limit and nothing was
            trained; `error` when the candidate raised.
        error: the last line of the exception and its place, at most 2,000 characters.
        train_loss: mean training loss of each epoch.
        epoch_s: seconds of each epoch.
        setup_s: seconds from process start to first training step, imports included.
        examination: what was found, of a job that was to examine.
    """

    status: Literal["trained", "measured", "examined", "reproduced", "over-limit", "error"]
    error: str = Field(default="", max_length=2000)
    train_loss: tuple[Finite, ...] = ()
    epoch_s: tuple[Seconds, ...] = ()
    setup_s: Seconds = 0.0
    latency: Latency | None = None
    parameters: int = Field(default=0, ge=0, le=10**13)
    peak_memory_mb: Amount = 0.0
    torch: Name = ""
    examination: Examination | None = None
