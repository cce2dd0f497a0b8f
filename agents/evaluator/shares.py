"""Shares of counted trials with their intervals, so that luck is not read as a difference.

A share has its score interval (Wilson, Probable Inference, 1927); the difference of two independent ones has
the hybrid score interval, made of both (Newcombe, Interval Estimation for the Difference Between Independent
Proportions, 1998, method 10).
"""

from __future__ import annotations

import math

from pydantic import BaseModel, ConfigDict

Z = 1.959964
"""Quantile of the normal distribution for intervals of 95 %."""


class Rate(BaseModel):
    """`k` of `n`, with the interval that its true share lies in at 95 %; all None without any trial."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    k: int
    n: int
    share: float | None = None
    low: float | None = None
    high: float | None = None

    @classmethod
    def of(cls, k: int, n: int) -> Rate:
        """With its Wilson score interval."""
        if not n:
            return cls(k=k, n=n)
        low, high = wilson(k, n)
        return cls(k=k, n=n, share=k / n, low=low, high=high)


def wilson(k: int, n: int) -> tuple[float, float]:
    """The Wilson score interval of `k` of `n` at 95 %.

    Raises:
        ValueError: `n` is not positive, or `k` not between 0 and `n`.
    """
    if n < 1 or not 0 <= k <= n:
        raise ValueError(f"{k} of {n} is no share")
    share = k / n
    centre = share + Z * Z / (2 * n)
    spread = Z * math.sqrt(share * (1 - share) / n + Z * Z / (4 * n * n))
    scale = 1 + Z * Z / n
    # rounding must not leave the share itself outside
    return min(share, max(0.0, (centre - spread) / scale)), max(share, min(1.0, (centre + spread) / scale))


def newcombe(newer: Rate, older: Rate) -> tuple[float, float]:
    """The 95 % interval of the difference of two independent shares, `newer` minus `older`.

    Raises:
        ValueError: one of them is without any trial.
    """
    (p, a, b), (q, c, d) = (_known(rate) for rate in (newer, older))
    return p - q - math.hypot(p - a, d - q), p - q + math.hypot(b - p, q - c)


def _known(rate: Rate) -> tuple[float, float, float]:
    if rate.share is None or rate.low is None or rate.high is None:
        raise ValueError("a share of nothing has no interval")
    return rate.share, rate.low, rate.high
