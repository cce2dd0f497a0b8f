"""From encodings to arrays: which numbers and motifs become columns, and on what scale."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from cambrian.agents.evaluator.encoding import Encoding

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


def numbers(encodings: Sequence[Encoding], keys: tuple[str, ...]) -> Floats:
    """The numbers of `keys`, of shape (encodings, keys).

    Raises:
        ValueError: other numbers than `keys`, or one that is not finite.
    """
    wanted = set(keys)
    for each in encodings:
        if each.numbers.keys() != wanted:
            lacking, unknown = sorted(wanted - each.numbers.keys()), sorted(each.numbers.keys() - wanted)
            raise ValueError(f"numbers differ: {lacking[:5]} are missing, {unknown[:5]} are unknown")
    found = np.array([[each.numbers[key] for key in keys] for each in encodings], dtype=np.float64)
    if not np.isfinite(found).all():
        raise ValueError("numbers must be finite")
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
