"""A cross-validated committee: what trees and boosting share.

The members are split into folds; each group learns without one fold. All members together predict, and the
group that has not seen a point judges the trust. So one fit pays for both, at the cost of each member seeing
a little less (Parmanto et al. 1996).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cambrian.agents.evaluator.encoding import Encoding
from cambrian.agents.evaluator.predictors import columns
from cambrian.agents.evaluator.predictors.protocol import (
    FOLDS,
    checked,
    folds_of,
    kendall_tau,
    kept_points,
)
from cambrian.agents.evaluator.predictors.warping import Warp

Floats = NDArray[np.float64]


class Committee(ABC):
    """Members that learn normal scores from numbers and motifs.

    Args:
        maximize: whether a higher score is better; decides which old points are worth keeping.
        max_points: above it, half the points are the newest and the others the best of the rest.
        max_motifs: the commonest motifs that are looked at.
        seed: of the members and the folds.
    """

    def __init__(
        self, *, maximize: bool = True, max_points: int = 500, max_motifs: int = 200, seed: int = 0
    ) -> None:
        self.trust: float | None = None
        self.unseen: Floats = np.zeros(0)
        self.unseen_std: Floats = np.zeros(0)
        self._maximize, self._max_points, self._max_motifs = maximize, max_points, max_motifs
        self._seed = seed
        self._keys: tuple[str, ...] = ()
        self._motifs: tuple[str, ...] = ()
        self._warp: Warp | None = None
        self._rows = np.zeros((0, 0))
        self._members: list[Any] = []
        self._noise = 0.0

    @abstractmethod
    def _grow(self, rows: Floats, z: Floats, number: int) -> list[Any]:
        """The members of one group, deterministic given `number`, of the group."""

    @abstractmethod
    def _votes(self, members: Sequence[Any], rows: Floats) -> Floats:
        """What each member says of each row, of shape (members, rows)."""

    @abstractmethod
    def _importances(self, members: Sequence[Any]) -> Floats:
        """How much each column matters, of shape (columns,)."""

    def fit(self, encodings: Sequence[Encoding], targets: Sequence[float]) -> None:
        """See `Predictor.fit`."""
        scores = checked(encodings, targets)
        kept = kept_points(scores, self._max_points, self._maximize)
        self._keys = columns.number_keys(encodings)
        learned = [encodings[i] for i in kept]
        self._motifs = columns.motif_keys(learned, min(2, len(kept) // 2), self._max_motifs)
        rows = self._matrix(encodings)
        self._rows = rows[kept]
        self._warp = Warp(scores[kept])
        z = self._warp.targets
        fold_of = folds_of(len(kept), self._seed)
        folds = int(fold_of.max()) + 1
        self._members = []
        mean, std = np.zeros(len(kept)), np.ones(len(kept))
        for fold in range(folds):
            out = fold_of == fold
            known = ~out if folds > 1 else out
            group = self._grow(self._rows[known], z[known], fold)
            votes = self._votes(group, self._rows[out])
            mean[out], std[out] = votes.mean(axis=0), votes.std(axis=0)
            self._members += group
        self._noise = float(np.mean((mean - z) ** 2)) if len(kept) > folds else 0.0
        std = self._spread(std)
        self.unseen, self.unseen_std = np.zeros(len(scores)), np.zeros(len(scores))
        if len(kept) < len(scores):
            self.unseen, self.unseen_std = self.predict(encodings)
        self.unseen[kept], self.unseen_std[kept] = self._warp.back(mean), self._warp.spread(mean, std)
        self.trust = kendall_tau(scores[kept], self.unseen[kept]) if len(kept) > FOLDS else None

    def predict(self, encodings: Sequence[Encoding]) -> tuple[Floats, Floats]:
        """See `Predictor.predict`."""
        if self._warp is None:
            raise ValueError("the predictor has not been fitted")
        votes = self._votes(self._members, self._matrix(encodings))
        mean, std = votes.mean(axis=0), self._spread(votes.std(axis=0))
        return self._warp.back(mean), self._warp.spread(mean, std)

    def what_matters(self, k: int = 5) -> list[tuple[str, float]]:
        """See `Predictor.what_matters`: the columns that splits gain most by, and slopes of predictions."""
        if self._warp is None:
            return []
        unit = float(self._warp.spread(np.zeros(1), np.ones(1))[0])
        said = self._votes(self._members, self._rows).mean(axis=0) * unit
        scale = self._rows.std(axis=0)
        away = (self._rows - self._rows.mean(axis=0)) / np.where(scale > 0, scale, 1.0)
        slopes = (away * said[:, None]).mean(axis=0)
        gains = self._importances(self._members)
        names = [*self._keys, *self._motifs]
        order = sorted(range(len(names)), key=lambda i: (-gains[i], names[i]))[:k]
        return [(names[i], float(slopes[i])) for i in order if gains[i] > 0]

    def _spread(self, std: Floats) -> Floats:
        """Standard deviations from those between members."""
        return std

    def _matrix(self, encodings: Sequence[Encoding]) -> Floats:
        """Numbers and motifs, of shape (encodings, columns)."""
        return np.hstack([columns.numbers(encodings, self._keys), columns.motifs(encodings, self._motifs)])
