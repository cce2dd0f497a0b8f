"""Whether a claim holds: predictions that fresh eyes repeat, and times that a clock outside confirms."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from cambrian.sandbox.outputs import OutputError, Outputs
from cambrian.sandbox.protocol import Latency, LatencySpec

TOLERANCE = 0.01
"""Largest difference of a sample's outputs, by the spread of all outputs, that batch sizes explain."""
STRAY_SHARE = 0.005
"""Share of the samples that may differ by more: where a network is steep, rounding is too."""
CLOCK_SHARE = 0.6
"""Share of the time outside that a claimed latency must come to; both clocks saw the same calls."""
HANDOVER_S = 0.002
"""What it may cost to say that a block begins and ends: blocks last longer."""
SLOWER = 2.0
"""How many times the claimed latency a prediction may take when it is made again, beside `TRANSPORT_MS`."""
TRANSPORT_MS = 0.5
"""What it costs to hand one input over and get the answer back."""
WARM_UP = 8
"""First questions, which warm the network up."""


def differences(
    original: Outputs,
    again: Outputs,
    orders: Mapping[str, NDArray[np.intp]],
    answers: Mapping[str, NDArray[np.float32]],
    claimed: Latency | None,
    answers_s: Sequence[float],
) -> str:
    """What does not agree, in words; empty when everything does.

    Args:
        original: what was predicted after training, by which the candidate was scored.
        again: what a fresh network with the same weights predicted.
        orders: `again`'s samples are those of `original` in this order, by split.
        answers: `(n, n_outputs)` by split, predictions of the first `n` samples of `again`, made one by one
            before all others.
        claimed: the latency that was reported; None when it was measured elsewhere.
        answers_s: seconds that each batch of `answers` took, by the keeper's clock.
    """
    for name, first, second in (("val", original.val, again.val), ("test", original.test, again.test)):
        reordered = first[orders[name]]
        alone = answers.get(name, second[:0])
        pairs = [(reordered, second, "predictions"), (reordered[: len(alone)], alone, "single predictions")]
        for expected, found, what in pairs:
            share = _share_that_differs(expected, found, float(np.std(first)))
            if share > STRAY_SHARE:
                return (
                    f"a fresh network with the same weights makes other {what} "
                    f"for {share:.1%} of the {name} samples"
                )
    timed = np.asarray(answers_s[WARM_UP:]) * 1000
    if claimed is not None and len(timed):
        fast = float(timed.min())  # of many: a busy machine only ever adds time
        if fast > SLOWER * claimed.median_ms + TRANSPORT_MS:
            return (
                f"a prediction took {fast:.3g} ms by a clock outside; {claimed.median_ms:.3g} ms were claimed"
            )
    return ""


def _share_that_differs(expected: NDArray[np.float32], found: NDArray[np.float32], spread: float) -> float:
    if not len(expected):
        return 0.0
    apart = np.abs(expected.astype(np.float64) - found).max(axis=1)
    return float((apart > TOLERANCE * max(spread, 1e-6)).mean())


def check_claimed_latency(claimed: Latency, spec: LatencySpec, timed: Sequence[tuple[int, float]]) -> None:
    """See that the latency that a worker reports is what the keeper's clock saw of the same calls.

    Args:
        claimed: as the worker reports it.
        spec: as it was ordered.
        timed: calls and seconds of each block, by the keeper's clock.

    Raises:
        OutputError: it is not.
    """
    if claimed.batch != spec.batch or claimed.repeats < min(3, spec.repeats) or len(timed) < claimed.repeats:
        raise OutputError("report.json holds a latency that was not measured as ordered")
    # The fastest block: a busy machine adds time to either clock, and only ever adds.
    outside = 1000 * min(max(0.0, seconds - HANDOVER_S) / calls for calls, seconds in timed)
    if claimed.median_ms < CLOCK_SHARE * outside:
        said, seen = f"{claimed.median_ms:.3g} ms", f"{outside:.3g} ms"
        raise OutputError(f"report.json claims a latency of {said}, a clock outside saw {seen}")
