"""The covariance of the Gaussian process: groups of columns, each with a Matern 5/2 kernel of its own.

`theta` is everywhere the logarithms of amplitude and length scale of each group, then of the noise.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from cambrian.agents.evaluator.encoding import LIVE, PATH, PROXY, Encoding
from cambrian.agents.evaluator.predictors import columns

Floats = NDArray[np.float64]

JITTER = 1e-6
_LEARN = 250
"""Points that hyper-parameters are fitted on, at most."""
_MOTIF_FLOOR = 0.5
"""Motifs that nearly all have equally often, or nearly none has, are not blown up to the weight of others."""
_PRIOR = ((np.log(0.5), 1.0), (0.0, 0.5), (np.log(0.05), 1.0))
"""Means and standard deviations of the logarithms of amplitude, length scale and noise."""


class Group(NamedTuple):
    """Columns that share a kernel, and their scale."""

    name: str
    keys: tuple[str, ...]
    scale: columns.Scale


def groups(encodings: Sequence[Encoding], keys: tuple[str, ...], max_motifs: int) -> list[Group]:
    """The groups of columns that tell `encodings` apart.

    Args:
        encodings: what the columns are scaled by.
        keys: of all numbers.
        max_motifs: the commonest motifs that are looked at.
    """
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
            found.append(Group(name, kept, columns.Scale(raw[:, tells], floor=floor)))
    return found


def _raw(name: str, keys: tuple[str, ...], encodings: Sequence[Encoding]) -> Floats:
    of_motifs = name in ("paths", "motifs")
    return columns.motifs(encodings, keys) if of_motifs else columns.chosen(encodings, keys)


def scaled(group: Group, encodings: Sequence[Encoding]) -> Floats:
    """Columns of variance 1 by their number, so that rows of any group are about as far apart."""
    scaled: Floats = group.scale(_raw(group.name, group.keys, encodings)) / np.sqrt(len(group.keys))
    return scaled


def distances(first: Floats, second: Floats) -> Floats:
    """Euclidean distances between rows."""
    squared = (first**2).sum(1)[:, None] + (second**2).sum(1)[None] - 2 * first @ second.T
    return np.asarray(np.sqrt(np.maximum(squared, 0.0)))


def _prior(number: int) -> tuple[Floats, Floats]:
    """Means and standard deviations of all hyper-parameters' logarithms."""
    found = np.array([*_PRIOR[:2] * number, _PRIOR[2]])
    return found[:, 0], found[:, 1]


def covariance(distances: Sequence[Floats], theta: Floats, shape: tuple[int, int]) -> Floats:
    """The covariance of rows whose distances, by group, are of `shape`."""
    total = np.zeros(shape)
    for i, each in enumerate(distances):
        d = each * (np.sqrt(5) / np.exp(theta[2 * i + 1]))
        total += np.exp(theta[2 * i]) * (1 + d + d * d / 3) * np.exp(-d)
    return total


def root(covariance: Floats, theta: Floats) -> Floats:
    """The Cholesky factor of a covariance with the noise on its diagonal, lower."""
    from scipy.linalg import cholesky

    noisy = covariance + (np.exp(theta[-1]) + JITTER) * np.eye(len(covariance))
    found: Floats = cholesky(noisy, lower=True, check_finite=False)
    return found


def deviation(factor: Floats, cross: Floats, theta: Floats) -> Floats:
    """Standard deviations of the function at rows of `cross`, the noise left out."""
    from scipy.linalg import solve_triangular

    inner = solve_triangular(factor, cross.T, lower=True, check_finite=False)
    found: Floats = np.sqrt(np.maximum(np.exp(theta[0:-1:2]).sum() - (inner**2).sum(axis=0), JITTER))
    return found


def loss(theta: Floats, distances: Sequence[Floats], z: Floats) -> tuple[float, Floats]:
    """Negative log posterior of hyper-parameters, and its gradient."""
    from scipy.linalg import cho_solve
    from scipy.linalg.lapack import dpotri

    parts, slopes = [], []
    for i, each in enumerate(distances):
        d = each * (np.sqrt(5) / np.exp(theta[2 * i + 1]))
        decay = np.exp(theta[2 * i]) * np.exp(-d)
        parts.append((1 + d + d * d / 3) * decay)
        slopes.append(decay * d * d * (1 + d) / 3)
    factor = root(np.sum(parts, axis=0), theta)
    weights = cho_solve((factor, True), z, check_finite=False)
    inverse = dpotri(factor, lower=1)[0]
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
    found = 0.5 * z @ weights + np.log(np.diag(factor)).sum() + 0.5 * (away**2).sum()
    return float(found), gradient


def learn(distances: Sequence[Floats], z: Floats, *, iterations: int = 40, seed: int = 0) -> Floats:
    """Logarithms of amplitude and length scale of each group, then of the noise, by marginal likelihood.

    Args:
        distances: of the rows that are learned from, one square array a group.
        z: targets, of about mean 0 and variance 1.
        iterations: of the optimiser.
        seed: of the sample that is looked at where there are many rows.
    """
    from scipy.optimize import minimize

    if len(z) > _LEARN:
        kept = np.sort(np.random.default_rng(seed).permutation(len(z))[:_LEARN])
        distances, z = [each[np.ix_(kept, kept)] for each in distances], z[kept]
    start = _prior(len(distances))[0]
    if len(z) < 3 or np.ptp(z) == 0 or not distances:
        return start
    found = minimize(
        loss, start, args=(distances, z), jac=True, method="L-BFGS-B",
        bounds=list(zip(start - 6, start + 4, strict=True)), options={"maxiter": iterations},
    )  # fmt: skip
    learned: Floats = found.x
    return learned
