"""A Gaussian process over numbers and motifs.

The covariance is a sum of Matern 5/2 kernels, one a group of columns: genes and sizes of the genotype, sizes
of what matters, proxies, paths, and all other motifs. Each has its own amplitude and length scale, fitted by
marginal likelihood with weak priors; so a group that says nothing is switched off, and ten points do not
overfit. On motifs it is the Weisfeiler-Lehman kernel of Ru et al. (2020, arXiv 2006.07556) with a stationary
kernel in place of the dot product. Rasmussen and Williams (2006), chapters 2 and 5, have the formulas.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from cambrian.agents.evaluator.encoding import LIVE, PATH, PROXY, Encoding
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

_JITTER = 1e-6
_REFIT = 120
"""Up to this many points, folds fit their own hyper-parameters."""
_LEARN = 250
"""Points that hyper-parameters are fitted on, at most."""
_AT_ONCE = 2_000
_MOTIF_FLOOR = 0.5
"""Motifs that nearly all have equally often, or nearly none has, are not blown up to the weight of others."""
_PRIOR = ((np.log(0.5), 1.0), (0.0, 0.5), (np.log(0.05), 1.0))
"""Means and standard deviations of the logarithms of amplitude, length scale and noise."""


class _Group(NamedTuple):
    """Columns that share a kernel, and their scale."""

    name: str
    keys: tuple[str, ...]
    scale: columns.Scale


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
        self._groups: list[_Group] = []
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
        self._groups = _groups(learned, self._keys, self._max_motifs)
        self._rows = [_scaled(group, learned) for group in self._groups]
        self._warp = Warp(scores[kept])
        z = self._warp.targets
        distances = [_distances(rows, rows) for rows in self._rows]
        self._theta = self._learned(distances, z)
        self._root = _root(_covariance(distances, self._theta, (len(z), len(z))), self._theta)
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
            rows = [_scaled(group, part) for group in self._groups]
            distances = [_distances(new, old) for new, old in zip(rows, self._rows, strict=True)]
            cross = _covariance(distances, self._theta, (len(part), len(self._weights)))
            here = slice(start, start + len(part))
            mean[here], std[here] = cross @ self._weights, _deviation(self._root, cross, self._theta)
        return self._warp.back(mean), self._warp.spread(mean, std)

    def what_matters(self, k: int = 5) -> list[tuple[str, float]]:
        """See `Predictor.what_matters`: mean gradients of the prediction at what was seen."""
        if self._warp is None:
            return []
        unit = float(self._warp.spread(np.zeros(1), np.ones(1))[0])
        found: list[tuple[str, float]] = []
        for i, (group, rows) in enumerate(zip(self._groups, self._rows, strict=True)):
            amplitude, length = np.exp(self._theta[2 * i : 2 * i + 2])
            d = _distances(rows, rows) * (np.sqrt(5) / length)
            pull = (1 + d) * np.exp(-d) * self._weights
            slopes = -5 / 3 * amplitude / length**2 * (pull.sum(axis=1)[:, None] * rows - pull @ rows)
            effects = slopes.mean(axis=0) / np.sqrt(len(group.keys)) * unit
            found += zip(group.keys, map(float, effects), strict=True)
        return sorted(found, key=lambda each: (-abs(each[1]), each[0]))[:k]

    def _learned(self, distances: list[Floats], z: Floats) -> Floats:
        """Logarithms of amplitude and length scale of each group, then of the noise."""
        from scipy.optimize import minimize

        if len(z) > _LEARN:
            kept = np.sort(np.random.default_rng(self._seed).permutation(len(z))[:_LEARN])
            distances, z = [each[np.ix_(kept, kept)] for each in distances], z[kept]
        start = _prior(len(distances))[0]
        if len(z) < 3 or np.ptp(z) == 0 or not distances:
            return start
        low, high = start - 6, start + 4
        found = minimize(
            _loss, start, args=(distances, z), jac=True, method="L-BFGS-B",
            bounds=list(zip(low, high, strict=True)), options={"maxiter": self._iterations},
        )  # fmt: skip
        learned: Floats = found.x
        return learned

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
            theta = self._learned(inside, z[known]) if len(z) <= _REFIT else self._theta
            n = int(known.sum())
            root = _root(_covariance(inside, theta, (n, n)), theta)
            apart = [each[np.ix_(out, known)] for each in distances]
            across = _covariance(apart, theta, (len(z) - n, n))
            mean[out] = across @ cho_solve((root, True), z[known])
            std[out] = _deviation(root, across, theta)
        return mean, std


def _groups(encodings: Sequence[Encoding], keys: tuple[str, ...], max_motifs: int) -> list[_Group]:
    motifs = columns.motif_keys(encodings, min(2, len(encodings) // 2), max_motifs)
    named = {
        "genes": tuple(k for k in keys if not k.startswith((PROXY, LIVE))),
        "live": tuple(k for k in keys if k.startswith(LIVE)),
        "proxies": tuple(k for k in keys if k.startswith(PROXY)),
        "paths": tuple(m for m in motifs if m.startswith(PATH)),
        "motifs": tuple(m for m in motifs if not m.startswith(PATH)),
    }
    found = []
    for name, chosen in named.items():
        raw = _raw(name, chosen, encodings)
        tells = raw.std(axis=0) > 1e-9
        if tells.any():
            kept = tuple(key for key, each in zip(chosen, tells, strict=True) if each)
            floor = _MOTIF_FLOOR if name in ("paths", "motifs") else 0.0
            found.append(_Group(name, kept, columns.Scale(raw[:, tells], floor=floor)))
    return found


def _raw(name: str, keys: tuple[str, ...], encodings: Sequence[Encoding]) -> Floats:
    of_motifs = name in ("paths", "motifs")
    return columns.motifs(encodings, keys) if of_motifs else columns.chosen(encodings, keys)


def _scaled(group: _Group, encodings: Sequence[Encoding]) -> Floats:
    """Columns of variance 1 by their number, so that rows of any group are about as far apart."""
    scaled: Floats = group.scale(_raw(group.name, group.keys, encodings)) / np.sqrt(len(group.keys))
    return scaled


def _distances(first: Floats, second: Floats) -> Floats:
    """Euclidean distances between rows."""
    squared = (first**2).sum(1)[:, None] + (second**2).sum(1)[None] - 2 * first @ second.T
    return np.asarray(np.sqrt(np.maximum(squared, 0.0)))


def _prior(groups: int) -> tuple[Floats, Floats]:
    """Means and standard deviations of all hyper-parameters' logarithms."""
    found = np.array([*_PRIOR[:2] * groups, _PRIOR[2]])
    return found[:, 0], found[:, 1]


def _covariance(distances: list[Floats], theta: Floats, shape: tuple[int, int]) -> Floats:
    total = np.zeros(shape)
    for i, each in enumerate(distances):
        d = each * (np.sqrt(5) / np.exp(theta[2 * i + 1]))
        total += np.exp(theta[2 * i]) * (1 + d + d * d / 3) * np.exp(-d)
    return total


def _root(covariance: Floats, theta: Floats) -> Floats:
    from scipy.linalg import cholesky

    noisy = covariance + (np.exp(theta[-1]) + _JITTER) * np.eye(len(covariance))
    found: Floats = cholesky(noisy, lower=True, check_finite=False)
    return found


def _deviation(root: Floats, cross: Floats, theta: Floats) -> Floats:
    """Standard deviations of the function at rows of `cross`, the noise left out."""
    from scipy.linalg import solve_triangular

    inner = solve_triangular(root, cross.T, lower=True, check_finite=False)
    found: Floats = np.sqrt(np.maximum(np.exp(theta[0:-1:2]).sum() - (inner**2).sum(axis=0), _JITTER))
    return found


def _loss(theta: Floats, distances: list[Floats], z: Floats) -> tuple[float, Floats]:
    """Negative log posterior of hyper-parameters, and its gradient."""
    from scipy.linalg import cho_solve
    from scipy.linalg.lapack import dpotri

    parts, slopes = [], []
    for i, each in enumerate(distances):
        d = each * (np.sqrt(5) / np.exp(theta[2 * i + 1]))
        decay = np.exp(theta[2 * i]) * np.exp(-d)
        parts.append((1 + d + d * d / 3) * decay)
        slopes.append(decay * d * d * (1 + d) / 3)
    root = _root(np.sum(parts, axis=0), theta)
    weights = cho_solve((root, True), z, check_finite=False)
    inverse = dpotri(root, lower=1)[0]
    inverse = inverse + np.tril(inverse, -1).T
    inner = inverse - np.outer(weights, weights)
    gradient = np.empty(len(theta))
    for i, (part, slope) in enumerate(zip(parts, slopes, strict=True)):
        gradient[2 * i] = 0.5 * np.sum(inner * part)
        gradient[2 * i + 1] = 0.5 * np.sum(inner * slope)
    gradient[-1] = 0.5 * np.trace(inner) * np.exp(theta[-1])
    center, width = _prior(len(distances))
    away = (theta - center) / width
    gradient += away / width
    loss = 0.5 * z @ weights + np.log(np.diag(root)).sum() + 0.5 * (away**2).sum()
    return float(loss), gradient
