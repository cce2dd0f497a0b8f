"""What a latency model knows of candidates: columns of features, and other devices as functions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Sized
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cambrian.agents.evaluator.encoding import Encoding

Floats = NDArray[np.float64]
Table = tuple[Sequence[Encoding], Sequence[float] | Floats]
"""Encodings of the candidates that were measured on one device, and their latencies in ms."""
BOOSTED_FROM = 200
"""Measurements from which a device's own latency is learnt by boosting; a linear model below that."""
_MOST = 20_000
_MOTIFS = 0.2
"""Share of the motifs in the variance of a row, beside numbers."""
_LOWEST = 0.02
"""No candidate takes less of a device's mean latency than this."""


@dataclass(frozen=True)
class Points:
    """Candidates, as the model sees them.

    Attributes:
        rows: features, shape `(n, features)`; the mean squared length of a row is about 1.
        shapes: their latency on each other device by that device's mean, shape `(n, devices)`.
        scales: mean variance of the other devices about their mean, of latencies and of their logarithms.
    """

    rows: Floats
    shapes: Floats
    scales: tuple[float, float] = (1.0, 1.0)

    def __len__(self) -> int:
        return len(self.rows)

    def take(self, indices: NDArray[np.intp]) -> Points:
        """Those candidates only."""
        return Points(self.rows[indices], self.shapes[indices], self.scales)

    def without(self, device: int) -> Points:
        """The same candidates as if that device were not known."""
        return Points(self.rows, np.delete(self.shapes, device, axis=1), self.scales)


class Columns:
    """From encodings to rows of numbers.

    Numbers are standardised, and count alike. Motifs are centred only, so that a rare one weighs little; all
    of them together make a fifth of the variance, for few samples say little of so many.

    Args:
        reference: encodings that show how the columns vary, at least one; a motif that none of them has is
            not seen later either.
    """

    def __init__(self, reference: Sequence[Encoding]) -> None:
        if not reference:
            raise ValueError("there is no encoding to learn the columns from")
        self._numbers = sorted(reference[0].numbers)
        self._motifs = sorted({key for encoding in reference for key in encoding.motifs})
        numbers, motifs = self._raw(reference)
        self._shift = (numbers.mean(axis=0), motifs.mean(axis=0))
        spread = numbers.std(axis=0)
        # A number that never varied has no scale of its own: a step of 1 is then taken for a large one.
        self._scale = np.where(spread > 1e-9, spread, 1.0)
        self._size = float(np.sqrt(np.mean(np.sum((motifs - self._shift[1]) ** 2, axis=1)))) or 1.0

    def __call__(self, encodings: Sequence[Encoding]) -> Floats:
        """Rows of shape `(len(encodings), columns)`. Raises ValueError for other numbers than it learnt."""
        numbers, motifs = self._raw(encodings)
        blocks = []
        if self._numbers:
            blocks.append((numbers - self._shift[0]) / self._scale / np.sqrt(len(self._numbers)))
            blocks[0] *= np.sqrt(1.0 - _MOTIFS) if self._motifs else 1.0
        if self._motifs:
            blocks.append((motifs - self._shift[1]) / self._size * (np.sqrt(_MOTIFS) if blocks else 1.0))
        if not blocks:
            return np.zeros((len(encodings), 1))
        rows: Floats = np.hstack(blocks)
        return rows

    def _raw(self, encodings: Sequence[Encoding]) -> tuple[Floats, Floats]:
        numbers = np.empty((len(encodings), len(self._numbers)))
        motifs = np.zeros((len(encodings), len(self._motifs)))
        place = {key: i for i, key in enumerate(self._motifs)}
        for i, encoding in enumerate(encodings):
            if len(encoding.numbers) != len(self._numbers):
                raise ValueError("the encodings have other numbers than those that were learnt from")
            try:
                numbers[i] = [encoding.numbers[key] for key in self._numbers]
            except KeyError as error:
                raise ValueError(f"an encoding lacks the number {error}") from None
            for key, count in encoding.motifs.items():
                if key in place:
                    motifs[i, place[key]] = count
        return numbers, motifs


class KnownDevice:
    """Another device, as a function that its measurements teach: it may have measured other candidates.

    Its predictions stand for the measurements even where there are some: their noise is the device's own.

    Args:
        name: for messages.
        encodings: of the candidates that were measured on it, at least two; of a table with more than 20,000
            the first ones are taken.
        milliseconds: their latencies, positive.
        columns: shared by all devices of one model.

    Raises:
        ValueError: fewer than two measurements, or latencies that are not positive.
    """

    def __init__(
        self,
        name: str,
        encodings: Sequence[Encoding],
        milliseconds: Sequence[float] | Floats,
        columns: Columns,
    ) -> None:
        values = checked(encodings, milliseconds)[:_MOST]
        if len(values) < 2:
            raise ValueError(f"device {name!r} has {len(values)} measurements, needs two")
        self.name, self.columns = name, columns
        self.rows: Floats = columns(encodings[:_MOST])
        self.relative: Floats = values / values.mean()
        self._boosted = len(values) >= BOOSTED_FROM
        if self._boosted:
            from sklearn.ensemble import HistGradientBoostingRegressor

            self._model = HistGradientBoostingRegressor(
                max_iter=150, learning_rate=0.1, early_stopping=False, random_state=0
            )
            self._model.fit(self.rows, self.relative)
        else:
            kernel = self.rows @ self.rows.T + 0.05 * np.eye(len(self.rows))
            self._weights: Floats = self.rows.T @ np.linalg.solve(kernel, self.relative - 1.0)

    def shape(self, rows: Floats) -> Floats:
        """Latency by the device's mean for rows of its `columns`, shape `(len(rows),)`."""
        said = self._model.predict(rows) if self._boosted else 1.0 + rows @ self._weights
        return np.maximum(np.asarray(said, dtype=np.float64), _LOWEST)


def known_devices(
    tables: Mapping[str, Table], reference: Sequence[Encoding] | None = None
) -> list[KnownDevice]:
    """The devices of these tables, in the order of their names; those with fewer than two rows are left out.

    Args:
        tables: what was measured on each device, by its name.
        reference: encodings that show how the features vary over the space; None takes those of the tables.
    """
    tables = {name: tables[name] for name in sorted(tables) if len(tables[name][1]) > 1}
    if not tables:
        return []
    seen = reference or [encoding for encodings, _ in tables.values() for encoding in spaced(encodings)]
    columns = Columns(seen)
    return [KnownDevice(name, *table, columns) for name, table in tables.items()]


def spaced(encodings: Sequence[Encoding], most: int = 500) -> Sequence[Encoding]:
    """At most so many of them, evenly spaced."""
    return encodings[:: max(-(-len(encodings) // most), 1)]


def checked(encodings: Sized, milliseconds: Sequence[float] | Floats) -> Floats:
    """The latencies as an array. Raises ValueError when they do not fit the encodings or are not positive."""
    values = np.asarray(milliseconds, dtype=np.float64)
    if len(encodings) != len(values) or not len(values):
        raise ValueError(f"{len(encodings)} encodings for {len(values)} latencies")
    if not (np.isfinite(values).all() and (values > 0).all()):
        raise ValueError("latencies must be positive and finite")
    return values


def scales_of(shapes: Floats) -> tuple[float, float]:
    """`Points.scales` for candidates that stand for the space; 1 where fewer than two devices are known."""
    if shapes.shape[1] < 2 or not len(shapes):
        return 1.0, 1.0
    found = [values - values.mean(axis=1, keepdims=True) for values in (shapes, np.log(shapes))]
    first, second = (max(float(np.mean(each**2)), 1e-12) for each in found)
    return first, second
