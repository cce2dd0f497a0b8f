"""Scores as normal scores: a monotone scale on which one failed training is not ten thousand good ones.

Each score becomes the standard normal quantile of its rank (Blom's positions), as in copula transforms of
Bayesian optimisation (Salinas et al. 2020, arXiv 1909.13595); on the way back the observed scores are joined
by straight lines.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


class Warp:
    """The scale of one set of scores.

    Args:
        scores: finite, at least one.
    """

    def __init__(self, scores: Floats) -> None:
        from scipy.special import ndtri
        from scipy.stats import rankdata

        places = (rankdata(scores) - 0.375) / (len(scores) + 0.25)
        self.targets: Floats = np.asarray(ndtri(places), dtype=np.float64)
        """The warped scores, in the order given."""
        order = np.argsort(self.targets, kind="stable")
        self._z, first = np.unique(self.targets[order], return_index=True)
        self._y = scores[order][first]

    @property
    def knots(self) -> tuple[Floats, Floats]:
        """Warped values and their scores, both rising, each once."""
        return self._z, self._y

    def back(self, z: Floats) -> Floats:
        """Scores of warped values; beyond the best and the worst the line through the outer tenth goes on."""
        if len(self._z) == 1:
            return np.full(np.shape(z), self._y[0])
        inside = np.interp(z, self._z, self._y)
        reach = max(1, len(self._z) // 10)
        for end, inner, beyond in ((0, reach, z < self._z[0]), (-1, -1 - reach, z > self._z[-1])):
            slope = (self._y[end] - self._y[inner]) / (self._z[end] - self._z[inner])
            inside = np.where(beyond, self._y[end] + slope * (z - self._z[end]), inside)
        return inside

    def spread(self, z: Floats, std: Floats) -> Floats:
        """Standard deviations of scores from those of warped values: half the width of one to each side."""
        return (self.back(z + std) - self.back(z - std)) / 2
