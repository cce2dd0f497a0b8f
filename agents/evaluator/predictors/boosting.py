"""Gradient boosting (Friedman 2002) as a cross-validated committee."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cambrian.agents.evaluator.predictors.committee import Committee

if TYPE_CHECKING:
    from sklearn.ensemble import GradientBoostingRegressor

Floats = NDArray[np.float64]


class BoostingPredictor(Committee):
    """Stochastic gradient boosting of shallow trees, one model a fold.

    The models differ too little to tell their errors, so that the held-out error is added to their spread.

    Args:
        trees: of each model.
        depth: of each tree.
        rate: of learning.
        options: see `Committee`.
    """

    def __init__(self, *, trees: int = 100, depth: int = 3, rate: float = 0.1, **options: Any) -> None:
        super().__init__(**options)
        self._trees, self._depth, self._rate = trees, depth, rate

    def _grow(self, rows: Floats, z: Floats, number: int) -> list[GradientBoostingRegressor]:
        from sklearn.ensemble import GradientBoostingRegressor

        model = GradientBoostingRegressor(
            n_estimators=self._trees, max_depth=self._depth, learning_rate=self._rate,
            subsample=0.8 if len(z) > 4 else 1.0,
            max_features="sqrt", min_samples_leaf=2, random_state=(self._seed * 1_000_003 + number) % 2**32,
        )  # fmt: skip
        return [model.fit(rows, z)]

    def _votes(self, members: Sequence[GradientBoostingRegressor], rows: Floats) -> Floats:
        if not len(rows):
            return np.zeros((len(members), 0))
        return np.stack([model.predict(rows) for model in members])

    def _importances(self, members: Sequence[GradientBoostingRegressor]) -> Floats:
        found: Floats = np.mean([model.feature_importances_ for model in members], axis=0)
        return found

    def _spread(self, std: Floats) -> Floats:
        found: Floats = np.sqrt(std**2 + self._noise)
        return found
