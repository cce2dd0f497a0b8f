"""A Gaussian process over numbers and motifs.

The covariance is a sum of Matern 5/2 kernels, one a group of columns: genes and sizes of the genotype, sizes
of what matters, proxies, paths, and all other motifs. Each has its own amplitude and length scale, fitted by
marginal likelihood with weak priors; so a group that says nothing is switched off, and ten points do not
overfit. On motifs it is the Weisfeiler-Lehman kernel of Ru et al. (2020, arXiv 2006.07556) with a stationary
kernel in place of the dot product. Rasmussen and Williams (2006), chapters 2 and 5, have the formulas.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from cambrian.agents.evaluator.encoding import Encoding
from cambrian.agents.evaluator.predictors import columns, kernel
from cambrian.agents.evaluator.predictors.protocol import (
    FOLDS,
    checked,
    folds_of,
    kendall_tau,
    kept_points,
)
from cambrian.agents.evaluator.predictors.warping import Warp

Floats = NDArray[np.float64]

_REFIT = 120
"""Up to this many points, folds fit their own hyper-parameters."""
_AT_ONCE = 2_000


class GaussianProcess:
    """Gaussian process regression on normal scores.

    Args:
        max_points: above it, half the points are the newest and the others the best of the rest.
        maximize: whether a higher score is better; decides which old points are worth keeping.
        max_motifs: the commonest motifs that are looked at.
        iterations: of the optimiser of hyper-parameters.
        seed: of the folds.
    """

    def __init__(
        self,
        *,
        maximize: bool = True,
        max_points: int = 1_000,
        max_motifs: int = 1_000,
        iterations: int = 40,
        seed: int = 0,
    ) -> None:
        self.trust: float | None = None
        self.unseen: Floats = np.zeros(0)
        self.unseen_std: Floats = np.zeros(0)
        self._maximize, self._max_points, self._max_motifs = maximize, max_points, max_motifs
        self._iterations, self._seed = iterations, seed
        self._groups: list[kernel.Group] = []
        self._rows: list[Floats] = []
        self._keys: tuple[str, ...] = ()
        self._warp: Warp | None = None
        self._theta = self._weights = self._root = np.zeros(0)

    def fit(self, encodings: Sequence[Encoding], targets: Sequence[float]) -> None:
        """See `Predictor.fit`. About 0.1 s at 100 points, 0.4 s at 500."""
        from scipy.linalg import cho_solve

        scores = checked(encodings, targets)
        kept = kept_points(scores, self._max_points, self._maximize)
        learned = [encodings[i] for i in kept]
        self._keys = columns.number_keys(encodings)
        columns.numbers(encodings, self._keys)
        self._groups = kernel.groups(learned, self._keys, self._max_motifs)
        self._rows = [kernel.scaled(group, learned) for group in self._groups]
        self._warp = Warp(scores[kept])
        z = self._warp.targets
        distances = [kernel.distances(rows, rows) for rows in self._rows]
        self._theta = self._learn(distances, z)
        self._root = kernel.root(kernel.covariance(distances, self._theta, (len(z), len(z))), self._theta)
        self._weights = cho_solve((self._root, True), z)
        self.unseen, self.unseen_std = np.zeros(len(scores)), np.zeros(len(scores))
        if len(kept) < len(scores):
            self.unseen, self.unseen_std = self.predict(encodings)
        mean, std = self._held_out(distances, z)
        self.unseen[kept], self.unseen_std[kept] = self._warp.back(mean), self._warp.spread(mean, std)
        self.trust = kendall_tau(scores[kept], self.unseen[kept]) if len(kept) > FOLDS else None

    def predict(self, encodings: Sequence[Encoding]) -> tuple[Floats, Floats]:
        """See `Predictor.predict`. About 0.3 s for 10,000 candidates after 100 points."""
        if self._warp is None:
            raise ValueError("the predictor has not been fitted")
        columns.check_numbers(encodings, self._keys)
        mean, std = np.zeros(len(encodings)), np.zeros(len(encodings))
        for start in range(0, len(encodings), _AT_ONCE):
            part = encodings[start : start + _AT_ONCE]
            rows = [kernel.scaled(group, part) for group in self._groups]
            distances = [kernel.distances(new, old) for new, old in zip(rows, self._rows, strict=True)]
            cross = kernel.covariance(distances, self._theta, (len(part), len(self._weights)))
            here = slice(start, start + len(part))
            mean[here], std[here] = cross @ self._weights, kernel.deviation(self._root, cross, self._theta)
        return self._warp.back(mean), self._warp.spread(mean, std)

    def what_matters(self, k: int = 5) -> list[tuple[str, float]]:
        """See `Predictor.what_matters`: mean gradients of the prediction at what was seen."""
        if self._warp is None:
            return []
        unit = float(self._warp.spread(np.zeros(1), np.ones(1))[0])
        found: list[tuple[str, float]] = []
        for i, (group, rows) in enumerate(zip(self._groups, self._rows, strict=True)):
            amplitude, length = np.exp(self._theta[2 * i : 2 * i + 2])
            d = kernel.distances(rows, rows) * (np.sqrt(5) / length)
            pull = (1 + d) * np.exp(-d) * self._weights
            slopes = -5 / 3 * amplitude / length**2 * (pull.sum(axis=1)[:, None] * rows - pull @ rows)
            effects = slopes.mean(axis=0) / np.sqrt(len(group.keys)) * unit
            found += zip(group.keys, map(float, effects), strict=True)
        return sorted(found, key=lambda each: (-abs(each[1]), each[0]))[:k]

    def _learn(self, distances: list[Floats], z: Floats) -> Floats:
        return kernel.learn(distances, z, iterations=self._iterations, seed=self._seed)

    def _held_out(self, distances: list[Floats], z: Floats) -> tuple[Floats, Floats]:
        """Predictions of each point from the folds that it is not in, and their standard deviations."""
        from scipy.linalg import cho_solve

        fold_of = folds_of(len(z), self._seed)
        mean, std = np.zeros(len(z)), np.ones(len(z))
        for fold in range(int(fold_of.max()) + 1):
            out = fold_of == fold
            known = ~out
            if not known.any():
                continue
            inside = [each[np.ix_(known, known)] for each in distances]
            theta = self._learn(inside, z[known]) if len(z) <= _REFIT else self._theta
            n = int(known.sum())
            root = kernel.root(kernel.covariance(inside, theta, (n, n)), theta)
            apart = [each[np.ix_(out, known)] for each in distances]
            across = kernel.covariance(apart, theta, (len(z) - n, n))
            mean[out] = across @ cho_solve((root, True), z[known])
            std[out] = kernel.deviation(root, across, theta)
        return mean, std
