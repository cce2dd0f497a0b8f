"""From encodings to arrays: which numbers and motifs become columns, and on what scale."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from operator import itemgetter

import numpy as np
from numpy.typing import NDArray

from cambrian.agents.evaluator.encoding import Encoding
from cambrian.agents.evaluator.predictors.warping import Warp

Floats = NDArray[np.float64]


def number_keys(encodings: Sequence[Encoding]) -> tuple[str, ...]:
    """The numbers of encodings, in a fixed order."""
    return tuple(sorted(encodings[0].numbers))


def motif_keys(encodings: Sequence[Encoding], least: int, most: int) -> tuple[str, ...]:
    """Motifs that tell the encodings apart, in a fixed order.

    Args:
        encodings: those that are learned from.
        least: a motif that fewer have, or that all have equally often, says nothing.
        most: the commonest are kept.
    """
    having: Counter[str] = Counter()
    for each in encodings:
        having.update(each.motifs.keys())
    known = [(-n, motif) for motif, n in having.items() if n >= least]
    return tuple(sorted(motif for _, motif in sorted(known)[:most]))


def check_numbers(encodings: Sequence[Encoding], keys: tuple[str, ...]) -> None:
    """Insist that all have the numbers of `keys` and no others.

    Raises:
        ValueError: they don't.
    """
    wanted = set(keys)
    for each in encodings:
        if each.numbers.keys() != wanted:
            lacking, unknown = sorted(wanted - each.numbers.keys()), sorted(each.numbers.keys() - wanted)
            raise ValueError(f"numbers differ: {lacking[:5]} are missing, {unknown[:5]} are unknown")


def numbers(encodings: Sequence[Encoding], keys: tuple[str, ...]) -> Floats:
    """The numbers of `keys`, of shape (encodings, keys).

    Raises:
        ValueError: other numbers than `keys`, or one that is not finite.
    """
    check_numbers(encodings, keys)
    found = chosen(encodings, keys)
    if not np.isfinite(found).all():
        raise ValueError("numbers must be finite")
    return found


def chosen(encodings: Sequence[Encoding], keys: tuple[str, ...]) -> Floats:
    """The numbers of `keys`, whatever others there are, of shape (encodings, keys)."""
    if not keys:
        return np.zeros((len(encodings), 0))
    take = itemgetter(*keys)
    found = np.array([take(each.numbers) for each in encodings], dtype=np.float64)
    return found.reshape(len(encodings), len(keys))


def motifs(encodings: Sequence[Encoding], keys: tuple[str, ...]) -> Floats:
    """log(1 + count) of each motif of `keys`, of shape (encodings, keys)."""
    place = {key: i for i, key in enumerate(keys)}
    found = np.zeros((len(encodings), len(keys)))
    for row, each in enumerate(encodings):
        for motif, count in each.motifs.items():
            column = place.get(motif)
            if column is not None:
                found[row, column] = count
    return np.log1p(found)


class Scale:
    """How columns are scaled: to mean 0 and variance 1 over what was seen, without outliers.

    A column with outliers, as zero-cost proxies have at degenerate networks, becomes the normal scores of its
    ranks; all others are shifted and divided.

    Args:
        seen: of shape (rows, columns); each column must vary.
        floor: the least number that a column is divided by.
        outlier: standard deviations from the mean, or twice as many interquartile ranges from the median,
            beyond which a value is one.
    """

    def __init__(self, seen: Floats, *, floor: float = 0.0, outlier: float = 4.0) -> None:
        self._center, std = seen.mean(axis=0), seen.std(axis=0)
        self._ranked: dict[int, tuple[Floats, Floats]] = {}
        low, middle, high = np.quantile(seen, (0.25, 0.5, 0.75), axis=0)
        far = np.abs(seen - self._center).max(axis=0) > outlier * std
        # many outliers hide behind the deviation that they make
        far |= np.abs(seen - middle).max(axis=0) > 2 * outlier * np.where(high > low, high - low, np.inf)
        for column in np.flatnonzero(far):
            self._ranked[int(column)] = Warp(seen[:, column]).knots
        self._std = np.maximum(std, floor)

    def __call__(self, raw: Floats) -> Floats:
        """`raw` on the scale."""
        found: Floats = np.clip((raw - self._center) / self._std, -5, 5)
        for column, (z, x) in self._ranked.items():
            found[:, column] = np.interp(raw[:, column], x, z)
        return found
