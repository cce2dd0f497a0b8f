"""Natural numbers that may be too large to write down."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import NamedTuple

MAX_BITS = 10_000
"""Grammars of more derivations than 2 to this are not counted to the last digit, nor drawn uniformly."""


class Magnitude(NamedTuple):
    """A natural number that may be too large to write down.

    Attributes:
        log2: its logarithm; minus infinity for 0.
        value: the number itself, where it has no more than `MAX_BITS` bits.
    """

    log2: float
    value: int | None

    @classmethod
    def of(cls, value: int) -> Magnitude:
        """The magnitude of a number."""
        return cls(math.log2(value) if value else -math.inf, value)

    def __str__(self) -> str:
        if self.value is not None and self.value < 10**9:
            return f"{self.value:,}"
        exponent = math.floor(self.log2 * math.log10(2))
        if exponent > 10**6:  # the logarithm is not precise enough for the digits before the exponent
            return f"10^{exponent:,}"
        digits = f"{10 ** (self.log2 * math.log10(2) - exponent):.2f}"
        return f"1.00e{exponent + 1}" if digits == "10.00" else f"{digits}e{exponent}"


def log2_sum(logs: Iterable[float]) -> float:
    """Logarithm of the sum of numbers whose logarithms are given."""
    logs = list(logs)
    most = max(logs, default=-math.inf)
    if most == -math.inf:
        return most
    return most + math.log2(math.fsum(2.0 ** (each - most) for each in logs))
