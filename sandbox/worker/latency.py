"""How long one call of a network takes on a named device, how that spreads, and what memory it needs."""

from __future__ import annotations

import contextlib
import gc
import os
import statistics
import timeit
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol

os.environ.setdefault("KINETO_LOG_LEVEL", "8")  # read at the profiler's first use; else it prints

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd.profiler import profile
from torch.nn.parameter import is_lazy
from torch.utils.benchmark import Timer

from cambrian.sandbox.protocol import LatencySpec
from cambrian.sandbox.reports import Latency
from cambrian.sandbox.worker.reference import NAME, reference

ROUNDS = 3
"""How often a network is measured at most."""
WIDE = 1.15
"""Ratio of the quartiles from which a measurement is made again, and at last called noisy."""
BLOCK_S = 0.006
"""Seconds that a timed block lasts, unless one call lasts longer."""
BULK_S = 0.06
"""Seconds after which no more large batches are timed."""
BULK_CALLS = 5

# Bound before any candidate is imported: what a candidate puts in place of them is not called.
_seconds = timeit.default_timer
_synchronise = torch.cuda.synchronize


class Clock(Protocol):
    """Told when a block of the candidate's calls begins and ends, so that others can time it as well."""

    def begin(self, calls: int) -> None:
        """`calls` calls of the candidate follow, those that `Timer.timeit` makes to warm up included."""
        ...

    def end(self) -> None:
        """They have ended, on a GPU too."""
        ...


class _Silent:
    def begin(self, calls: int) -> None:
        """Nobody listens."""

    def end(self) -> None:
        """Nobody listens."""


@dataclass(frozen=True)
class _Round:
    """Milliseconds per call of paired blocks: the candidate's, and the reference's right beside it."""

    own: tuple[float, ...]
    reference: tuple[float, ...]
    calls: int

    @property
    def ratios(self) -> list[float]:
        return [a / b for a, b in zip(self.own, self.reference, strict=True)]

    @property
    def median(self) -> float:
        return statistics.median(self.own)

    @property
    def spread(self) -> float:
        q1, q3 = np.percentile(self.own, (25, 75))
        return float(q3 / q1)


class _Timed:
    """One network with its inputs, timed in blocks of a fixed number of calls."""

    def __init__(self, module: nn.Module, inputs: Tensor, warmup: int) -> None:
        self._device = inputs.device
        # an own timer: the default one asks torch, by a name that can be replaced, whether to synchronise
        self._timer = Timer(
            "module(inputs)",
            globals={"module": module, "inputs": inputs},
            num_threads=torch.get_num_threads(),
            timer=self._now,
        )
        self._call = partial(module, inputs)
        per_call = [self.call() for _ in range(max(1, warmup))]
        self.calls = max(1, round(BLOCK_S / statistics.median(per_call[len(per_call) // 2 :])))

    def call(self) -> float:
        """Seconds of one call."""
        start = self._now()
        self._call()
        return self._now() - start

    def block(self) -> float:
        """Milliseconds per call of one block."""
        return self._timer.timeit(self.calls).median * 1e3

    @property
    def calls_made(self) -> int:
        """Calls that one block makes in all, with those by which `Timer.timeit` warms up."""
        return self.calls + max(self.calls // 100, 2)

    def _now(self) -> float:
        if self._device.type == "cuda":
            _synchronise(self._device)
        return _seconds()


def device_name(device: torch.device) -> str:
    """The model name of the CPU or GPU, as the vendor calls it."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    for line in lines:
        key, _, value = line.partition(":")
        if key.strip() in ("model name", "Hardware", "Processor") and value.strip():
            return " ".join(value.split())
    import platform

    return platform.processor() or platform.machine() or "unknown CPU"


def measure(
    module: nn.Module,
    samples: Tensor,
    spec: LatencySpec,
    clock: Clock | None = None,
    bulk: Callable[[int], Tensor] | None = None,
) -> Latency:
    """Time forward passes of `samples` in eval mode, without gradients.

    Blocks of calls of this network and of the reference network are timed in turns, first one, then the
    other first, by `torch.utils.benchmark`. Whatever slows the machine for longer than a pair of blocks slows
    both, and their ratio stays. Medians and quartiles over blocks rather than a mean: a shared machine only
    ever adds time, in bursts. While the spread is wide or the median above the limit, up to `ROUNDS` rounds
    are made; the one with the smallest spread counts, one within the limit before one above it. The ratio is
    that of all rounds: it doesn't grow with the noise, and the more pairs the better.

    Candidate code runs in this process and can make all of this say what it likes; only `clock`, whose other
    end is in another process, sees it then. Throughput and memory have no such witness.

    Args:
        module: on the device that it is to be measured on.
        samples: `(spec.batch, *input_shape)` on the same device.
        spec: warm-up, blocks, the batch that throughput is measured at.
        clock: told of every block of `module` that counts for the latency.
        bulk: gives that many samples; None leaves throughput out.
    """
    module.eval()
    clock = clock or _Silent()
    with torch.inference_mode(), _no_collection():
        network, inputs = reference(samples.device)
        own, other = _Timed(module, samples, spec.warmup), _Timed(network, inputs, spec.warmup)
        limit = spec.limit_ms or float("inf")

        def badness(of: _Round) -> tuple[bool, float]:
            return of.median > limit, of.spread

        rounds = [_round(own, other, spec.repeats, clock)]
        best = rounds[0]
        while len(rounds) < ROUNDS and (best.spread > WIDE or best.median > limit):
            rounds.append(_round(own, other, spec.repeats, clock))
            best = min(rounds, key=badness)
        throughput = None
        if bulk is not None and spec.throughput_batch is not None:
            throughput = spec.throughput_batch / _bulk_s(module, bulk(spec.throughput_batch))
        memory_mb = peak_memory_mb(module, samples)
    q1, q3 = (float(v) for v in np.percentile(best.own, (25, 75)))
    return Latency(
        device=device_name(samples.device),
        threads=torch.get_num_threads(),
        batch=spec.batch,
        warmup=spec.warmup,
        repeats=spec.repeats,
        calls=best.calls,
        median_ms=best.median,
        q1_ms=q1,
        q3_ms=q3,
        noisy=best.spread > WIDE,
        reference=NAME,
        reference_ms=statistics.median(best.reference),
        ratio=statistics.median(ratio for one in rounds for ratio in one.ratios),
        throughput_batch=None if throughput is None else spec.throughput_batch,
        throughput=throughput,
        memory_mb=memory_mb,
    )


def _round(own: _Timed, other: _Timed, repeats: int, clock: Clock) -> _Round:
    times: list[float] = []
    beside: list[float] = []
    for i in range(repeats):
        if i % 2:
            beside.append(other.block())
        clock.begin(own.calls_made)
        times.append(own.block())
        clock.end()
        if not i % 2:
            beside.append(other.block())
    return _Round(tuple(times), tuple(beside), own.calls)


def _bulk_s(module: nn.Module, inputs: Tensor) -> float:
    """Median seconds of a few calls, each timed alone: large batches last long enough for that."""
    timer = _Timed(module, inputs, 1)
    times: list[float] = []
    while not times or (len(times) < BULK_CALLS and sum(times) < BULK_S):
        times.append(timer.call())
    return statistics.median(times)


@contextlib.contextmanager
def _no_collection() -> Iterator[None]:
    gc.collect()
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            gc.enable()


def peak_memory_mb(module: nn.Module, samples: Tensor) -> float:
    """MiB of all tensors alive at the worst moment of a call: parameters, buffers, inputs and what it makes.

    On a CPU by the allocations that torch's profiler sees, which include what kernels use for themselves as
    long as they get it from torch's allocator; on a GPU by the allocator's own record, above what was alive
    before the call.
    """
    held = {}
    for tensor in (*module.parameters(), *module.buffers(), samples):
        if not is_lazy(tensor):  # such a one was not needed so far, so it takes no memory
            storage = tensor.untyped_storage()
            held[storage.data_ptr()] = storage.nbytes()
    with torch.inference_mode():
        made = _peak_on_gpu(module, samples) if samples.is_cuda else _peak_on_cpu(module, samples)
    return (sum(held.values()) + made) / 2**20


def _peak_on_gpu(module: nn.Module, samples: Tensor) -> int:
    device = samples.device
    torch.cuda.synchronize(device)
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    module(samples)
    torch.cuda.synchronize(device)
    return torch.cuda.max_memory_allocated(device) - before


def _peak_on_cpu(module: nn.Module, samples: Tensor) -> int:
    with profile(profile_memory=True, use_kineto=False) as profiled:
        module(samples)
    events = [e for e in profiled.kineto_results.events() if e.name() == "[memory]"]
    alive = peak = 0
    for event in sorted(events, key=lambda e: e.start_ns()):
        alive += event.nbytes()
        peak = max(peak, alive)
    return peak
