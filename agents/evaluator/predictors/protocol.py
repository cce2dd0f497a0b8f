"""What every predictor of scores is: a regression from encodings to scores that knows how far to trust it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from cambrian.agents.evaluator.encoding import Encoding

Floats = NDArray[np.float64]
FOLDS = 5
"""Of every cross-validation."""


def kendall_tau(first: Sequence[float] | Floats, second: Sequence[float] | Floats) -> float | None:
    """Kendall's rank correlation (tau-b), None where it is undefined: under two points, or no variation."""
    if len(first) < 2:
        return None
    from scipy.stats import kendalltau

    if np.ptp(np.asarray(first)) == 0 or np.ptp(np.asarray(second)) == 0:
        return None
    return float(kendalltau(first, second).statistic)


@runtime_checkable
class Predictor(Protocol):
    """A regression from encodings to scores.

    Life: `fit` any number of times, each on everything known; `predict` after the first. The result of both
    is a function of the arguments alone, on every call and in every process.
    """

    trust: float | None
    """Kendall's tau between scores and predictions by models that had not seen them; None before the first
    fit, with too few points, or when the scores do not differ."""
    unseen: Floats
    """What was predicted of each point that it learned from, by models that had not seen it; as long as the
    targets of the last fit."""
    unseen_std: Floats
    """Standard deviations of those predictions."""

    def fit(self, encodings: Sequence[Encoding], targets: Sequence[float]) -> None:
        """Learn from scratch.

        Args:
            encodings: one a candidate, all with the same numbers, oldest first.
            targets: their scores.

        Raises:
            ValueError: no rows, different lengths, different numbers, or a number that is not finite.
        """
        ...

    def predict(self, encodings: Sequence[Encoding]) -> tuple[Floats, Floats]:
        """Mean and standard deviation of the predicted scores, each of shape `(len(encodings),)`.

        Raises:
            ValueError: not fitted, or other numbers than those of `fit`.
        """
        ...

    def what_matters(self, k: int = 5) -> list[tuple[str, float]]:
        """The `k` numbers and motifs that predictions depend on most, strongest first.

        Each with the change of the predicted score, in the score's units, when it rises by one standard
        deviation of what was seen; empty where the model cannot say.
        """
        ...


def checked(encodings: Sequence[Encoding], targets: Sequence[float]) -> Floats:
    """The targets of a fit as an array.

    Raises:
        ValueError: no rows, different lengths, or a target that is not finite.
    """
    if not encodings or len(encodings) != len(targets):
        raise ValueError(f"{len(encodings)} encodings for {len(targets)} targets")
    scores = np.asarray(targets, dtype=np.float64)
    if not np.isfinite(scores).all():
        raise ValueError("targets must be finite")
    return scores


def folds_of(n: int, seed: int, folds: int = FOLDS) -> NDArray[np.intp]:
    """The fold of each of `n` points; each fold is about as large as the others."""
    found: NDArray[np.intp] = np.random.default_rng(seed).permutation(n) % min(folds, n)
    return found


def kept_points(scores: Floats, most: int, maximize: bool) -> NDArray[np.intp]:
    """Which points to learn from, oldest first: all, or the newest half of `most` and the best others."""
    n = len(scores)
    if n <= most:
        return np.arange(n)
    newest = np.arange(n - most // 2, n)
    sign = 1.0 if maximize else -1.0
    best = np.argsort(-sign * scores[: newest[0]], kind="stable")[: most - most // 2]
    return np.sort(np.concatenate([best, newest]))
