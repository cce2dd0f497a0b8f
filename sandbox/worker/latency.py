"""How long one call of a network takes, on a named device, with its spread."""

from __future__ import annotations

import gc
import time
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from cambrian.sandbox.protocol import Latency, LatencySpec

ROUNDS = 3
"""How often a network is measured at most."""
WIDE = 1.25
"""Ratio of the quartiles from which a measurement is made again."""


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


def measure(module: nn.Module, samples: Tensor, spec: LatencySpec) -> Latency:
    """Time forward passes of `samples` in eval mode, without gradients.

    Median and quartiles rather than a mean: a shared machine only ever adds time, in bursts. While the spread
    is wide or the median above the limit, up to `ROUNDS` rounds are made, and the quickest one counts.

    Args:
        module: on the device that it is to be measured on.
        samples: `(spec.batch, *input_shape)` on the same device.
        spec: warm-up and repeats.
    """
    best = _round(module, samples, spec)
    for _ in range(ROUNDS - 1):
        steady = best.q3_ms <= WIDE * best.q1_ms
        if steady and (spec.limit_ms is None or best.median_ms <= spec.limit_ms):
            break
        best = min(best, _round(module, samples, spec), key=lambda latency: latency.median_ms)
    return best


def _round(module: nn.Module, samples: Tensor, spec: LatencySpec) -> Latency:
    device = samples.device
    module.eval()
    times = np.empty(spec.repeats, dtype=np.int64)
    gc.collect()
    collecting = gc.isenabled()
    gc.disable()
    try:
        with torch.inference_mode():
            for _ in range(spec.warmup):
                module(samples)
            for i in range(spec.repeats):
                _synchronise(device)
                start = time.perf_counter_ns()
                module(samples)
                _synchronise(device)
                times[i] = time.perf_counter_ns() - start
    finally:
        if collecting:
            gc.enable()
    q1, median, q3 = (float(v) / 1e6 for v in np.percentile(times, (25, 50, 75)))
    return Latency(
        device=device_name(device),
        threads=torch.get_num_threads(),
        batch=spec.batch,
        warmup=spec.warmup,
        repeats=spec.repeats,
        median_ms=median,
        q1_ms=q1,
        q3_ms=q3,
    )


def _synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
