"""Predictors: from features to the score that a genotype may reach, and how far to trust that."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from sklearn.tree import ExtraTreeRegressor

Floats = NDArray[np.float64]
Features = Mapping[str, float]


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
    """A regression from features to scores.

    Life: `fit` any number of times, each on everything known; `predict` after the first. The result of both
    is a function of the arguments alone, on every call and in every process.
    """

    trust: float | None
    """Kendall's tau between scores and predictions by models that had not seen them; None before the first
    fit, with too few points, or when the scores do not differ."""

    def fit(self, features: Sequence[Features], targets: Sequence[float]) -> None:
        """Learn from scratch.

        Args:
            features: one mapping a candidate, all with the same keys, oldest first.
            targets: their scores.

        Raises:
            ValueError: no rows, different lengths, different keys, or a number that is not finite.
        """
        ...

    def predict(self, features: Sequence[Features]) -> tuple[Floats, Floats]:
        """Mean and standard deviation of the predicted scores, each of shape `(len(features),)`.

        Raises:
            ValueError: not fitted, or other keys than those of `fit`.
        """
        ...


class TreePredictor:
    """Extremely randomised trees (Geurts et al. 2006) as a cross-validated committee.

    The trees are split into `folds` groups; each group learns without one fold. All trees together predict,
    and their spread is the uncertainty; the group that has not seen a point judges the trust. So one fit
    pays for both, at the cost of each tree seeing a little less (Parmanto et al. 1996).

    Args:
        maximize: whether a higher score is better; decides which old points are worth keeping.
        trees: in all folds together.
        folds: of the cross-validation.
        max_points: above it, half the points are the newest and the others the best of the rest.
        seed: of the trees and the folds.
    """

    def __init__(
        self, *, maximize: bool = True, trees: int = 50, folds: int = 5, max_points: int = 500, seed: int = 0
    ) -> None:
        self.trust: float | None = None
        self._sign = 1.0 if maximize else -1.0
        self._trees, self._folds, self._max_points, self._seed = trees, folds, max_points, seed
        self._keys: tuple[str, ...] = ()
        self._forest: list[ExtraTreeRegressor] = []

    def fit(self, features: Sequence[Features], targets: Sequence[float]) -> None:
        """See `Predictor.fit`. About 1 ms a tree at 100 points, 3 ms at 500."""
        from sklearn.tree import ExtraTreeRegressor

        if not features or len(features) != len(targets):
            raise ValueError(f"{len(features)} rows of features for {len(targets)} targets")
        keys = tuple(sorted(features[0]))
        scores = np.asarray(targets, dtype=np.float64)
        if not np.isfinite(scores).all():
            raise ValueError("targets must be finite")
        kept = self._kept(scores)
        rows, scores = _matrix([features[i] for i in kept], keys), scores[kept]
        folds = min(self._folds, len(scores))
        fold_of = np.random.default_rng(self._seed).permutation(len(scores)) % folds
        each = -(-self._trees // folds)
        forest: list[ExtraTreeRegressor] = []
        unseen = np.zeros(len(scores))
        for fold in range(folds):
            known = fold_of != fold if folds > 1 else np.ones(len(scores), dtype=bool)
            for _ in range(each):
                tree = ExtraTreeRegressor(
                    max_features=1.0, random_state=(self._seed * 1_000_003 + len(forest)) % 2**32
                )
                tree.fit(rows[known], scores[known])
                forest.append(tree)
                unseen[fold_of == fold] += tree.tree_.predict(rows[fold_of == fold]).reshape(-1) / each
        self._keys, self._forest = keys, forest
        self.trust = kendall_tau(scores, unseen) if len(scores) > folds else None

    def predict(self, features: Sequence[Features]) -> tuple[Floats, Floats]:
        """See `Predictor.predict`. Well under a millisecond for a handful of rows."""
        if not self._forest:
            raise ValueError("the predictor has not been fitted")
        rows = _matrix(features, self._keys)
        votes = np.stack([tree.tree_.predict(rows).reshape(len(rows)) for tree in self._forest])
        return votes.mean(axis=0), votes.std(axis=0)

    def _kept(self, scores: Floats) -> NDArray[np.intp]:
        """Indices of the points to learn from, oldest first."""
        n, cap = len(scores), self._max_points
        if n <= cap:
            return np.arange(n)
        newest = np.arange(n - cap // 2, n)
        best = np.argsort(-self._sign * scores[: newest[0]], kind="stable")[: cap - cap // 2]
        return np.sort(np.concatenate([best, newest]))


def _matrix(features: Sequence[Features], keys: tuple[str, ...]) -> NDArray[np.float32]:
    """`features` as an array of shape (rows, keys), in float32 as trees store their thresholds."""
    for row in features:
        if row.keys() != set(keys):
            lacking, unknown = sorted(set(keys) - row.keys()), sorted(row.keys() - set(keys))
            raise ValueError(f"features differ: {lacking[:5]} are missing, {unknown[:5]} are unknown")
    found = np.array([[row[key] for key in keys] for row in features], dtype=np.float32)
    if not np.isfinite(found).all():
        raise ValueError("features must be finite")
    return found.reshape(len(features), len(keys))
