"""A Gaussian process over numbers and motifs.

The covariance is a sum of Matern 5/2 kernels, one a group of columns: genes and sizes of the genotype, sizes
of what matters, proxies, shallow motifs and deep ones. Each has its own amplitude and length scale, fitted by
marginal likelihood with weak priors; so a group that says nothing is switched off, and ten points do not
overfit. On motifs it is the Weisfeiler-Lehman kernel of Ru et al. (2020, arXiv 2006.07556) with a stationary
kernel in place of the dot product. Rasmussen and Williams (2006), chapters 2 and 5, have the formulas.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from cambrian.agents.evaluator.encoding import PROXY, Encoding
from cambrian.agents.evaluator.predictors import columns
from cambrian.agents.evaluator.predictors.protocol import FOLDS, checked, folds_of, kendall_tau
from cambrian.agents.evaluator.predictors.warping import Warp

Floats = NDArray[np.float64]

_SHALLOW = re.compile(r"0\||path\||[^>]*$")
_JITTER = 1e-6
_REFIT = 120
"""Up to this many points, folds fit their own hyper-parameters."""
_LEARN = 250
"""Points that hyper-parameters are fitted on, at most."""
_AT_ONCE = 2_000


class _Group(NamedTuple):
    """Columns that share a kernel, and their scale."""

    name: str
    keys: tuple[str, ...]
    center: Floats
    scale: Floats


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
        self._maximize, self._max_points, self._max_motifs = maximize, max_points, max_motifs
        self._iterations, self._seed = iterations, seed
        self._groups: list[_Group] = []
        self._rows: list[Floats] = []
        self._warp: Warp | None = None
        self._theta = self._weights = self._root = np.zeros(0)

    def fit(self, encodings: Sequence[Encoding], targets: Sequence[float]) -> None:
        """See `Predictor.fit`."""
        from scipy.linalg import cho_solve

        scores = checked(encodings, targets)
        self._groups = _groups(encodings, self._max_motifs)
        self._rows = [_scaled(group, encodings) for group in self._groups]
        self._warp = Warp(scores)
        z = self._warp.targets
        distances = [_distances(rows, rows) for rows in self._rows]
        self._theta = self._learned(distances, z)
        self._root = _root(_covariance(distances, self._theta), self._theta)
        self._weights = cho_solve((self._root, True), z)
        self.unseen = self._warp.back(self._held_out(distances, z))
        self.trust = kendall_tau(scores, self.unseen) if len(scores) > FOLDS else None

    def predict(self, encodings: Sequence[Encoding]) -> tuple[Floats, Floats]:
        """See `Predictor.predict`."""
        from scipy.linalg import solve_triangular

        if self._warp is None:
            raise ValueError("the predictor has not been fitted")
        means, stds = [], []
        for start in range(0, len(encodings), _AT_ONCE):
            rows = [_scaled(group, encodings[start : start + _AT_ONCE]) for group in self._groups]
            distances = [_distances(new, old) for new, old in zip(rows, self._rows, strict=True)]
            cross = _covariance(distances, self._theta)
            mean = cross @ self._weights
            inner = solve_triangular(self._root, cross.T, lower=True, check_finite=False)
            prior = np.exp(self._theta[0:-1:2]).sum()
            variance = np.maximum(prior - (inner**2).sum(axis=0), 1e-10)
            means.append(mean)
            stds.append(np.sqrt(variance))
        if not means:
            return np.zeros(0), np.zeros(0)
        mean, std = np.concatenate(means), np.concatenate(stds)
        return self._warp.back(mean), self._warp.spread(mean, std)

    def _learned(self, distances: list[Floats], z: Floats) -> Floats:
        """Logarithms of amplitude and length scale of each group, then of the noise."""
        from scipy.optimize import minimize

        if len(z) > _LEARN:
            kept = np.sort(np.random.default_rng(self._seed).permutation(len(z))[:_LEARN])
            distances, z = [each[np.ix_(kept, kept)] for each in distances], z[kept]
        start = _prior_means(len(distances))
        if len(z) < 3 or np.ptp(z) == 0:
            return start
        low, high = start - 6, start + 4
        found = minimize(
            _loss, start, args=(distances, z), jac=True, method="L-BFGS-B",
            bounds=list(zip(low, high, strict=True)), options={"maxiter": self._iterations},
        )  # fmt: skip
        learned: Floats = found.x
        return learned

    def _held_out(self, distances: list[Floats], z: Floats) -> Floats:
        """Predictions of each point from the folds that it is not in."""
        from scipy.linalg import cho_solve

        fold_of = folds_of(len(z), self._seed)
        found = np.zeros(len(z))
        for fold in range(int(fold_of.max()) + 1):
            out = fold_of == fold
            known = ~out
            if not known.any():
                continue
            inside = [each[np.ix_(known, known)] for each in distances]
            theta = self._learned(inside, z[known]) if len(z) <= _REFIT else self._theta
            root = _root(_covariance(inside, theta), theta)
            across = _covariance([each[np.ix_(out, known)] for each in distances], theta)
            found[out] = across @ cho_solve((root, True), z[known])
        return found


def _groups(encodings: Sequence[Encoding], max_motifs: int) -> list[_Group]:
    keys = columns.number_keys(encodings)
    least = 2 if len(encodings) > 3 else 1
    motifs = columns.motif_keys(encodings, least, max_motifs)
    named = {
        "genes": tuple(k for k in keys if not k.startswith((PROXY, "live."))),
        "live": tuple(k for k in keys if k.startswith("live.")),
        "proxies": tuple(k for k in keys if k.startswith(PROXY)),
        "shallow": tuple(m for m in motifs if _SHALLOW.match(m)),
        "deep": tuple(m for m in motifs if not _SHALLOW.match(m)),
    }
    columns.numbers(encodings, keys)
    found = []
    for name, chosen in named.items():
        if not chosen:
            continue
        raw = _raw(name, chosen, encodings)
        center, scale = raw.mean(axis=0), raw.std(axis=0)
        tells = scale > 1e-9
        if tells.any() or name == "genes":
            kept = tuple(key for key, each in zip(chosen, tells, strict=True) if each)
            found.append(_Group(name, kept, center[tells], scale[tells]))
    return found


def _raw(name: str, keys: tuple[str, ...], encodings: Sequence[Encoding]) -> Floats:
    if name in ("shallow", "deep"):
        return columns.motifs(encodings, keys)
    return np.array([[e.numbers[k] for k in keys] for e in encodings]).reshape(len(encodings), len(keys))


def _scaled(group: _Group, encodings: Sequence[Encoding]) -> Floats:
    """Columns of variance 1 by their number, so that rows of any group are about as far apart."""
    raw = _raw(group.name, group.keys, encodings)
    scaled: Floats = np.clip((raw - group.center) / group.scale, -5, 5) / np.sqrt(max(1, len(group.keys)))
    return scaled


def _distances(first: Floats, second: Floats) -> Floats:
    """Euclidean distances between rows."""
    squared = (first**2).sum(1)[:, None] + (second**2).sum(1)[None] - 2 * first @ second.T
    return np.asarray(np.sqrt(np.maximum(squared, 0.0)))


def _prior_means(groups: int) -> Floats:
    return np.array([np.log(0.5), 0.0] * groups + [np.log(0.05)])


_PRIOR_STD = (2.0, 1.0, 2.0)
"""Of the logarithms of amplitude, length scale and noise."""


def _covariance(distances: list[Floats], theta: Floats) -> Floats:
    total = np.zeros_like(distances[0])
    for i, each in enumerate(distances):
        d = each * (np.sqrt(5) / np.exp(theta[2 * i + 1]))
        total += np.exp(theta[2 * i]) * (1 + d + d * d / 3) * np.exp(-d)
    return total


def _root(covariance: Floats, theta: Floats) -> Floats:
    from scipy.linalg import cholesky

    noisy = covariance + (np.exp(theta[-1]) + _JITTER) * np.eye(len(covariance))
    found: Floats = cholesky(noisy, lower=True, check_finite=False)
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
    away = (theta - _prior_means(len(distances))) / np.array(
        [*_PRIOR_STD[:2] * len(distances), _PRIOR_STD[2]]
    )
    gradient += away / np.array([*_PRIOR_STD[:2] * len(distances), _PRIOR_STD[2]])
    loss = 0.5 * z @ weights + np.log(np.diag(root)).sum() + 0.5 * (away**2).sum()
    return float(loss), gradient
