"""Gain over the control arm: what the guided arms bring beyond random sampling at the same budget.

Relative improvement over random sampling under the same recipe, after Yang et al. (arXiv:1912.12522), who
found most published searches within the noise of it. It is reported also when there is none.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

MIN_SAMPLES = 3
"""Scores that each side needs before an interval means anything."""


class Gain(BaseModel):
    """What the other arms gained over the control arm. All gains in per cent; positive is better.

    Attributes:
        relative_mean: 100 * (mean of the others - mean of control) / |mean of control|, with the sign turned
            for metrics that are minimised. None when there is not enough data.
        low: lower end of the bootstrap interval of `relative_mean`.
        high: its upper end.
        n: evaluated candidates of the other arms.
        n_control: evaluated candidates of the control arm.
        best: best score of the other arms.
        best_control: best score of the control arm.
        matched: number of evaluations at which bests are compared, that of the smaller side.
        relative_best: the same as `relative_mean`, of the expected best of `matched` evaluations.
        best_low: lower end of its bootstrap interval. Extremes of few samples bootstrap badly: read it as a
            rough guide.
        best_high: its upper end.
        level: coverage of the intervals.
        verdict: one plain sentence.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    relative_mean: float | None = None
    low: float | None = None
    high: float | None = None
    n: int
    n_control: int
    best: float | None = None
    best_control: float | None = None
    matched: int = 0
    relative_best: float | None = None
    best_low: float | None = None
    best_high: float | None = None
    level: float = 0.95
    verdict: str


def gain_over_control(
    others: Sequence[float],
    control: Sequence[float],
    *,
    maximize: bool = True,
    control_name: str = "random",
    resamples: int = 2000,
    level: float = 0.95,
    seed: int = 0,
) -> Gain:
    """The gain of `others` over `control`.

    Give scores that compare: of one task under one recipe at one rung. Rung 0 is the fair one: everyone has
    it, and who got further was chosen for it. Known networks (baselines) belong to neither side.

    Args:
        others: scores of the arms that are judged.
        control: scores of the control arm.
        maximize: whether a higher score is better.
        control_name: what the verdict calls the control arm.
        resamples: of the percentile bootstrap.
        level: coverage of the intervals.
        seed: of the resampling; equal arguments give equal results.

    Raises:
        ValueError: a score is not finite.
    """
    import numpy as np

    ours, theirs = np.asarray(others, dtype=np.float64), np.asarray(control, dtype=np.float64)
    if not (np.isfinite(ours).all() and np.isfinite(theirs).all()):
        raise ValueError("scores must be finite")
    pick = np.max if maximize else np.min
    found = Gain(
        n=len(ours),
        n_control=len(theirs),
        best=float(pick(ours)) if len(ours) else None,
        best_control=float(pick(theirs)) if len(theirs) else None,
        level=level,
        verdict="",
    )
    lacking = [
        f"{len(scores)} evaluated of {name}, {MIN_SAMPLES} needed"
        for name, scores in ((f"the {control_name} arm", theirs), ("the other arms", ours))
        if len(scores) < MIN_SAMPLES
    ]
    if lacking:
        verdict = f"gain over {control_name} unknown, not enough data: {'; '.join(lacking)}"
        return found.model_copy(update={"verdict": verdict})
    base = float(theirs.mean())
    if base == 0.0:
        text = f"no relative gain: the mean score of the {control_name} arm is 0"
        return found.model_copy(update={"verdict": text})

    sign = 1.0 if maximize else -1.0
    matched = min(len(ours), len(theirs))
    rng = np.random.default_rng(seed)
    drawn_ours = _bootstrap(sign * ours, matched, resamples, rng)
    drawn_theirs = _bootstrap(sign * theirs, matched, resamples, rng)
    means = _relative(drawn_ours[0], drawn_theirs[0])
    bests = _relative(drawn_ours[1], drawn_theirs[1])
    tail = 50 * (1 - level)
    low, high = (float(value) for value in np.percentile(means, [tail, 100 - tail]))
    best_low, best_high = (float(value) for value in np.percentile(bests, [tail, 100 - tail]))
    ours, theirs = np.sort(sign * ours), np.sort(sign * theirs)
    mean = float(_relative(ours.mean(keepdims=True), theirs.mean(keepdims=True))[0])
    weights = [_best_weights(len(scores), matched) for scores in (ours, theirs)]
    best = float(_relative(ours[None] @ weights[0], theirs[None] @ weights[1])[0])
    return found.model_copy(
        update={
            "relative_mean": mean,
            "low": low,
            "high": high,
            "matched": matched,
            "relative_best": best,
            "best_low": best_low,
            "best_high": best_high,
            "verdict": _verdict(mean, low, high, control_name),
        }
    )


def _relative(value: Floats, base: Floats) -> Floats:
    """Per cent by which `value` exceeds `base`, both with higher as better; 0 where the base is 0."""
    import numpy as np

    size = np.abs(base)
    return 100 * np.divide(value - base, size, out=np.zeros_like(size), where=size > 0)


def _bootstrap(
    scores: Floats, matched: int, resamples: int, rng: np.random.Generator
) -> tuple[Floats, Floats]:
    """Means and expected bests of `matched`, of `resamples` resamples; in chunks to bound the memory."""
    import numpy as np

    n = len(scores)
    weights = _best_weights(n, matched)
    means, bests = [], []
    left = resamples
    while left > 0:
        rows = max(1, min(left, 1_000_000 // n))
        drawn = scores[rng.integers(0, n, size=(rows, n))]
        means.append(drawn.mean(axis=1))
        drawn.sort(axis=1)
        bests.append(drawn @ weights)
        left -= rows
    return np.concatenate(means), np.concatenate(bests)


def _best_weights(n: int, m: int) -> Floats:
    """Chance of each of `n` sorted scores to be the best of `m` drawn: C(i, m-1) / C(n, m), i from 0."""
    import numpy as np

    top = math.lgamma(n + 1) - math.lgamma(m + 1) - math.lgamma(n - m + 1)
    logs = [
        math.lgamma(i + 1) - math.lgamma(m) - math.lgamma(i - m + 2) - top if i >= m - 1 else -math.inf
        for i in range(n)
    ]
    found: Floats = np.exp(np.array(logs, dtype=np.float64))
    return found


def _verdict(mean: float, low: float, high: float, control: str) -> str:
    interval = f"interval {low:+.2f} % to {high:+.2f} %"
    if low > 0:
        return f"{mean:+.2f} % over {control} on average, {interval}"
    if high < 0:
        return f"worse than {control}: {mean:+.2f} % on average, {interval}"
    return f"no gain over {control}: {mean:+.2f} % on average, but {interval} includes 0"
