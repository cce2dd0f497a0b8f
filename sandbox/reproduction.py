"""Whether a claim holds: predictions that fresh eyes repeat, and times that a clock outside confirms."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from cambrian.sandbox.outputs import OutputError, Outputs
from cambrian.sandbox.protocol import LatencySpec
from cambrian.sandbox.reports import Latency

TOLERANCE = 0.01
"""Largest difference that other batch sizes explain: of a class's probability, or of a value by the spread of
the training targets. Never by the candidate's own outputs, whose scale is the candidate's to choose."""
STRAY_SHARE = 0.005
"""Share of the samples that may differ by more: where a network is steep, rounding is too."""
CLOCK_SHARE = 0.6
"""Share of the time outside that a claimed latency must come to; both clocks saw the same calls."""
HANDOVER_S = 0.001
"""What it may cost to say that a block begins and ends: blocks last six times as long and longer."""
SLOWER = 2.0
"""How many times the claimed latency a prediction may take when it is made again, beside `TRANSPORT_MS`."""
TRANSPORT_MS = 0.3
"""What it costs to take one input and hand the answer over."""
WARM_UP = 4
"""First questions of the split, which warm the network up."""


def differences(
    original: Outputs,
    again: Outputs,
    orders: Mapping[str, NDArray[np.intp]],
    answers: Mapping[str, NDArray[np.float32]],
    spread: float | None,
) -> str:
    """Which predictions do not agree, in words; empty when all do.

    Args:
        original: what was predicted after training, by which the candidate was scored.
        again: what a fresh network with the same weights predicted.
        orders: `again`'s samples are those of `original` in this order, by split.
        answers: `(n, n_outputs)` by split, predictions of the first `n` samples of `again`, made one by one
            before all others.
        spread: of the training targets, where values are predicted; None where classes are.
    """
    for name, first, second in (("val", original.val, again.val), ("test", original.test, again.test)):
        reordered = first[orders[name]]
        alone = answers.get(name, second[:0])
        pairs = [(reordered, second, "predictions"), (reordered[: len(alone)], alone, "single predictions")]
        for expected, found, what in pairs:
            share = _share_that_differs(expected, found, spread)
            if share > STRAY_SHARE:
                return (
                    f"a fresh network with the same weights makes other {what} "
                    f"for {share:.1%} of the {name} samples"
                )
    return ""


def _share_that_differs(
    expected: NDArray[np.float32], found: NDArray[np.float32], spread: float | None
) -> float:
    if not len(expected):
        return 0.0
    if not np.isfinite(found).all():
        return float((~np.isfinite(found)).any(axis=1).mean())
    first, second = expected.astype(np.float64), found.astype(np.float64)
    if spread is None:
        same_class = first.argmax(axis=1) == second.argmax(axis=1)
        first, second = _probabilities(first), _probabilities(second)
        agree = same_class | (np.ptp(np.sort(first, axis=1)[:, -2:], axis=1) <= TOLERANCE)  # of a tie, either
        return float((~(agree & (np.abs(first - second).max(axis=1) <= TOLERANCE))).mean())
    return float((~(np.abs(first - second).max(axis=1) <= TOLERANCE * max(spread, 1e-9))).mean())


def _probabilities(outputs: NDArray[np.float64]) -> NDArray[np.float64]:
    """Softmax over the last axis of `(n, n_outputs)`."""
    powers = np.exp(outputs - outputs.max(axis=1, keepdims=True))
    shares: NDArray[np.float64] = powers / powers.sum(axis=1, keepdims=True)
    return shares


def slower_than_claimed(claimed_ms: float, answers_s: Sequence[float]) -> str:
    """Whether predictions took far longer than was claimed, in words; empty when not.

    Args:
        claimed_ms: milliseconds per call.
        answers_s: seconds that each answer took, by the keeper's clock: to inputs of the test split, which no
            weights can know.
    """
    timed = np.asarray(answers_s[WARM_UP:]) * 1000
    if not len(timed):
        return ""
    typical = float(np.median(timed))
    if typical <= SLOWER * claimed_ms + TRANSPORT_MS:
        return ""
    return f"a prediction took {typical:.3g} ms by a clock outside; {claimed_ms:.3g} ms were claimed"


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
    each = [max(0.0, seconds - HANDOVER_S) / calls for calls, seconds in timed]
    # the best of its rounds is what is reported, and rounds may differ
    rounds = [each[i : i + claimed.repeats] for i in range(0, len(each), claimed.repeats)]
    outside = 1000 * min(float(np.median(r)) for r in rounds if len(r) == claimed.repeats)
    if claimed.median_ms < CLOCK_SHARE * outside:
        said, seen = f"{claimed.median_ms:.3g} ms", f"{outside:.3g} ms"
        raise OutputError(f"report.json claims a latency of {said}, a clock outside saw {seen}")
