"""Growth: how work, memory and time of a network grow with the length of its sequences.

Work and memory are counted call by call (see `counting`), so they are exact and say the same on every
machine; memory is what a forward pass keeps for the backward pass, and its largest tensor.

A network's work is a constant, a part that is linear in the length (its perceptrons), and the part that its
mixer adds, which alone decides what becomes of long sequences. At lengths that double, the differences
D(n) = w(2n) - w(n) know nothing of the constant, and D(2n) - 2 D(n) nothing of the linear part: of a
quadratic mixer it is 6 c n^2, of one in n log n it grows linearly, of a linear one it is 0. The exponent is
the slope of that on a doubly logarithmic scale, however small the mixer's share. Time is too noisy for
differences: its exponent is the plain slope over the longest sequences, which the linear part can only lower.
"""

from __future__ import annotations

import itertools
import math
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from cambrian.sandbox.examination.counting import Counted, count
from cambrian.sandbox.examination.report import Finding

CHECK = "growth"
LENGTHS = (64, 128, 256, 512, 1024)
LEAST = 4
"""Lengths without which nothing is fitted."""
PATIENCE_S = 0.4
"""Seconds of a pass after which no longer sequence is tried."""
MEMORY = 192 << 20
"""Bytes of a pass after which no longer sequence is tried."""
SHARE = 2e-4
"""Of the work at the longest sequence: a part that is smaller is none."""
SLACK = 0.05
"""By how much an exponent may be above the limit: counts are exact, powers of short sequences are not."""
TIMED = 3
CLEAR_S = 2e-3
"""Time of the longest sequence below which calls themselves are what takes it, not their work."""
ENOUGH_S = 0.1
"""Time of a length after which no further pass is timed: noise is small beside it."""

_clock = time.process_time


@dataclass(frozen=True)
class Slope:
    """An exponent, and the standard error of its fit; 0 where two points leave none."""

    exponent: float
    error: float


def growth(module: nn.Module, sample: Tensor, max_exponent: float | None) -> Finding:
    """How the network grows, in eval mode.

    Args:
        module: the network.
        sample: one sequence, ids `(1, length)` or values `(1, length, channels)`.
        max_exponent: largest exponent of work, memory and time that is no failure; None allows all.
    """
    module.eval()
    counted, lengths = _climb(module, sample)
    if len(lengths) < LEAST:
        return Finding(
            check=CHECK,
            verdict="skipped" if max_exponent is None else "failed",
            detail=f"takes too few lengths to fit anything: {', '.join(map(str, lengths)) or 'none'}",
        )
    slopes = {
        "work": long_run([counted[n].work for n in lengths]),
        # the largest tensor may be another one when sequences are long: differences would jump there
        "memory": max(
            long_run([counted[n].kept for n in lengths]),
            slope([max(1, counted[n].largest) for n in lengths[-2:]]),
            key=lambda found: found.exponent,
        ),
    }
    timed, longest_s = _timed(module, sample, lengths[-TIMED:])
    if timed is not None:
        slopes["time"] = timed
    numbers: dict[str, float] = {
        "shortest": lengths[0],
        "longest": lengths[-1],
        "longest_ms": 1e3 * longest_s,
    }
    for name, one in slopes.items():
        numbers |= {f"{name}_exponent": one.exponent, f"{name}_error": one.error}
    said = ", ".join(f"{name} {one.exponent:.2f} ± {one.error:.2f}" for name, one in slopes.items())
    said = f"exponents over lengths {lengths[0]} to {lengths[-1]}: {said}"
    over = [
        name
        for name, one in slopes.items()
        if max_exponent is not None
        and one.exponent - (2 if name == "time" else 1) * one.error > max_exponent + SLACK
    ]
    if over:
        verb = "outgrows" if len(over) == 1 else "outgrow"
        said = f"{' and '.join(over)} {verb} length to the power {max_exponent:g}; {said}"
    return Finding(check=CHECK, verdict="failed" if over else "passed", detail=said[:380], numbers=numbers)


def _climb(module: nn.Module, sample: Tensor) -> tuple[dict[int, Counted], list[int]]:
    """Work and memory by length: of long sequences where the network takes them, else of shorter ones."""
    length = sample.shape[1]
    own = [length >> shift for shift in range(4, -1, -1) if length >> shift >= 2]
    # doubling exactly: what was rounded off is left out
    own = [own[0] << i for i in range(len(own))] if own else []
    counted: dict[int, Counted] = {}
    for ladder in (LENGTHS, own):
        counted = {}
        for n in ladder:
            began = time.perf_counter()
            try:
                counted[n] = count(module, _resized(sample, n))
            except Exception:  # a length that the network does not take
                break
            if time.perf_counter() - began > PATIENCE_S or counted[n].kept + counted[n].largest > MEMORY:
                break
        if len(counted) >= LEAST:
            break
    return counted, sorted(counted)


def _resized(sample: Tensor, length: int) -> Tensor:
    return sample[:, torch.arange(length) % sample.shape[1]]


def long_run(values: Sequence[float]) -> Slope:
    """The exponent that decides what becomes of `values` at lengths that double, see the module's text."""
    first = [b - a for a, b in itertools.pairwise(values)]
    beyond = [b - 2 * a for a, b in itertools.pairwise(first)]
    least = SHARE * values[-1]
    if beyond and beyond[-1] > least:
        run: list[float] = []
        for value in reversed(beyond):
            if value <= 0:
                break
            run.insert(0, value)
        if len(run) > 1:
            return slope(run)
    growing = [value for value in first[-2:] if value > least]
    if len(growing) == 2:
        return slope(growing)
    return Slope(0.0, 0.0) if first[-1] <= least else Slope(1.0, 0.0)


def slope(values: Sequence[float]) -> Slope:
    """Least squares of the logarithms of positive `values` at lengths that double."""
    return fit([float(1 << i) for i in range(len(values))], values)


def fit(lengths: Sequence[float], values: Sequence[float]) -> Slope:
    """The exponent of a power law through positive `values` by least squares of the logarithms."""
    xs, ys = [math.log(n) for n in lengths], [math.log(v) for v in values]
    x, y = statistics.fmean(xs), statistics.fmean(ys)
    spread = sum((a - x) ** 2 for a in xs)
    exponent = sum((a - x) * (b - y) for a, b in zip(xs, ys, strict=True)) / spread
    if len(xs) < 3:
        return Slope(exponent, 0.0)
    left = sum((b - y - exponent * (a - x)) ** 2 for a, b in zip(xs, ys, strict=True))
    return Slope(exponent, math.sqrt(left / (len(xs) - 2) / spread))


def _timed(module: nn.Module, sample: Tensor, lengths: Sequence[int]) -> tuple[Slope | None, float]:
    """The exponent of processor time, None where calls are too short, and seconds of the longest."""
    medians = []
    with torch.no_grad():
        for n in lengths:
            inputs = _resized(sample, n)
            times: list[float] = []
            module(inputs)
            while len(times) < 3 and sum(times) < ENOUGH_S:
                began = _clock()
                module(inputs)
                times.append(_clock() - began)
            medians.append(max(statistics.median(times), 1e-7))
    return (fit(lengths, medians) if medians[-1] > CLEAR_S else None), medians[-1]
