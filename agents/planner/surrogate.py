"""A Gaussian process posterior over a pool of members, conditioned on one observation after another.

Guided proposals need the posterior at thousands of members after every single evaluation, which fitting a
predictor anew each time would not give in time. Hyper-parameters are learned at a few sizes of the population
only; in between the Cholesky factor and the pool's projections grow by a row, at a cost linear in the pool.

The covariance is that of `evaluator.predictors.gp`.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from cambrian.agents.evaluator.encoding import Encoding
from cambrian.agents.evaluator.predictors import kernel

Floats = NDArray[np.float64]
Singles = NDArray[np.float32]

MARGIN = 0.3
"""Of `log_regret`: what counts as near the best, in standard deviations of the better half."""
_MOST_MOTIFS = 400
_LEAST_VARIANCE = 1e-6


def log_regret(scores: Floats) -> Floats:
    """Targets on which the best differ most: -log(best - score + margin), to mean 0 and variance 1.

    Of a search only the top of the ranking matters, and there scores lie close together while bad ones are
    spread far out. Distances to the best on a logarithmic scale are what Jones's EGO and SMAC use for losses
    near 0 (Hutter et al. 2009, arXiv 0910.1236, section 3); the margin keeps noise at the top from mattering.

    Args:
        scores: higher is better, shape (n,).
    """
    best = scores.max()
    better = np.sort(scores)[len(scores) // 2 :]
    margin = MARGIN * better.std()
    if margin <= 0:
        margin = max(MARGIN * float(scores.std()), 1e-12)
    found = -np.log(best - scores + margin)
    return np.asarray((found - found.mean()) / max(float(found.std()), 1e-12))


class Columns:
    """How encodings become rows of numbers: by groups that share a kernel, on the scale of a reference set.

    Args:
        reference: members that are typical of what will be asked for: all of them, or a sample.
    """

    def __init__(self, reference: Sequence[Encoding]) -> None:
        keys = tuple(sorted(reference[0].numbers))
        self._groups = kernel.groups(reference, keys, _MOST_MOTIFS)

    def __call__(self, encodings: Sequence[Encoding]) -> list[Singles]:
        """One array a group, of shape (encodings, columns of the group)."""
        return [kernel.scaled(group, encodings).astype(np.float32) for group in self._groups]


def learn(rows: Sequence[Singles], targets: Floats) -> Floats:
    """Hyper-parameters for observations `rows` (by group) with `targets`, by marginal likelihood."""
    distances = [kernel.distances(each.astype(np.float64), each.astype(np.float64)) for each in rows]
    return kernel.learn(distances, targets)


class Posterior:
    """What observations say of all members of a pool.

    Args:
        pool: rows of all members, by group.
        theta: hyper-parameters, as `learn` gives them.
    """

    def __init__(self, pool: Sequence[Singles], theta: Floats) -> None:
        self._pool, self._theta = list(pool), theta
        self._squares = [np.einsum("ij,ij->i", each, each) for each in self._pool]
        size = len(pool[0]) if pool else 0
        self._prior = float(np.exp(theta[0:-1:2]).sum())
        self._noise = float(np.exp(theta[-1])) + 1e-6
        self._at: list[int] = []
        self._root = np.zeros((0, 0))
        self._inner = np.zeros((0, size), dtype=np.float32)
        self._explained = np.zeros(size, dtype=np.float32)

    @property
    def rows(self) -> tuple[int, ...]:
        """Rows of the pool that it is conditioned on, in order."""
        return tuple(self._at)

    def observe(self, row: int) -> None:
        """Condition on one more member; a row may come several times."""
        from scipy.linalg import solve_triangular

        n = len(self._at)
        cross = self._covariance(row)
        across = cross[self._at].astype(np.float64)
        below = solve_triangular(self._root, across, lower=True) if n else np.zeros(0)
        corner = float(np.sqrt(max(self._prior + self._noise - below @ below, 1e-8)))
        root = np.zeros((n + 1, n + 1))
        root[:n, :n], root[n, :n], root[n, n] = self._root, below, corner
        inner = (cross - below.astype(np.float32) @ self._inner[:n]) / np.float32(corner)
        if n == len(self._inner):  # grow by half, so that adding rows costs no copy each
            grown = np.zeros((n + n // 2 + 16, self._inner.shape[1]), dtype=np.float32)
            grown[:n] = self._inner[:n]
            self._inner = grown
        self._inner[n] = inner
        self._explained += inner * inner
        self._root = root
        self._at.append(row)

    def at(self, targets: Floats) -> tuple[Floats, Floats]:
        """Mean and standard deviation at all members, `(pool,)` each, for `targets` of what was observed."""
        from scipy.linalg import solve_triangular

        n = len(self._at)
        weights = solve_triangular(self._root, targets, lower=True)
        mean = weights.astype(np.float32) @ self._inner[:n]
        return mean.astype(np.float64), self._deviation()

    def believing(self, rows: Sequence[int]) -> Floats:
        """Standard deviation at all members if those of `rows` were known to reach just their mean.

        The mean would stay what it is (Ginsbourger et al. 2010, Kriging is well-suited to parallelize
        optimization).
        """
        if not rows:
            return self._deviation()
        branch = copy.copy(self)
        branch._at = list(self._at)
        branch._inner = self._inner[: len(self._at)].copy()
        branch._explained = self._explained.copy()
        for row in rows:
            branch.observe(row)
        return branch._deviation()

    def _deviation(self) -> Floats:
        variance = np.maximum(self._prior - self._explained, _LEAST_VARIANCE)
        return np.asarray(np.sqrt(variance.astype(np.float64)))

    def _covariance(self, row: int) -> Singles:
        """Of one member with all."""
        total = np.zeros(len(self._explained), dtype=np.float32)
        for i, (each, squares) in enumerate(zip(self._pool, self._squares, strict=True)):
            d = np.maximum(squares + squares[row] - 2 * (each @ each[row]), 0)
            np.sqrt(d, out=d)
            d *= np.float32(np.sqrt(5) / np.exp(self._theta[2 * i + 1]))
            decay = np.exp(-d)
            total += np.float32(np.exp(self._theta[2 * i])) * (1 + d + d * d / 3) * decay
        return total


def expected_improvement(mean: Floats, std: Floats, best: float) -> Floats:
    """Expected improvement over `best` (Mockus 1975; Jones et al. 1998), higher targets being better."""
    from scipy.special import ndtr

    z = (mean - best) / std
    density = np.exp(-0.5 * z * z) / np.sqrt(2 * np.pi)
    return np.asarray(std * (z * ndtr(z) + density))
