"""How alike candidates are, and which earlier one each is nearest to.

Two views of the structure count equally: the motifs of what a network computes, and the genes it is written
with. In each, similarity is the generalised Jaccard index of counts, sum of minima over sum of maxima, which
is 1 for equal counts and 0 where nothing is shared. Large counts are compared by their logarithm: a cell that
is repeated fifteen times says little more than one.

Counts are kept in a table of fixed height by hashing their names (Weinberger et al., arXiv 0902.2206), one
byte each, so that a new candidate is compared with ten thousand earlier ones in a few sums of rows. Two names
rarely share a row: that shifts a similarity by about a hundredth.
"""

from __future__ import annotations

import math
import threading
import zlib
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cambrian.agents.evaluator.difference import difference
from cambrian.agents.population.model import Candidate, Nearest
from cambrian.search_spaces import Genotype

ROWS = 2048
"""Of each of the two views."""
UNEQUAL = 0.99
"""Who is no duplicate is never more similar than this."""
_SCALE = 16
_NEVER = np.iinfo(np.int64).max
_Counts = NDArray[np.uint8]
_Rows = tuple[NDArray[np.intp], _Counts]
_Views = tuple[_Rows, _Rows]


class Similarity:
    """The earlier candidates of a run, to find the nearest among them; slots may ask at the same time.

    Args:
        motifs: those of a canonical genotype, as far as they are known without running anything; None or
            empty where they are not. Then genes alone are compared.
    """

    def __init__(self, motifs: Callable[[Genotype], Mapping[str, float] | None]) -> None:
        self._motifs = motifs
        self._lock = threading.Lock()
        self._forget()

    def __len__(self) -> int:
        return len(self._ids)

    def rebuild(self, candidates: Iterable[Candidate]) -> None:
        """Forget everything, then take in all of `candidates` that are something new: a resumed run does."""
        with self._lock:
            self._forget()
            for candidate in candidates:
                related = candidate.nearest is not None or candidate.identity is not None
                if related and candidate.duplicate_of is None:
                    self._add(candidate, self._views(candidate.genotype, candidate.motifs))

    def relate(self, candidate: Candidate, motifs: Mapping[str, float] | None = None) -> Nearest | None:
        """Take in `candidate`, and tell which earlier one it is most like; None for the first.

        Args:
            candidate: its genotype is canonical. It may come again when its motifs have become known.
            motifs: of its computation graph, where its space does not know any.
        """
        views = self._views(candidate.genotype, motifs)
        with self._lock:
            n = len(self._ids)
            earlier = self._order[:n] < candidate.index
            alike = np.where(earlier, self._similarities(views), -1.0)
            self._add(candidate, views)
        if not earlier.any():
            return None
        best = n - 1 - int(alike[::-1].argmax())
        return Nearest(
            id=self._ids[best],
            similarity=round(min(float(alike[best]), UNEQUAL), 3),
            difference=difference(self._genotypes[best], candidate.genotype),
        )

    def equal(self, candidate: Candidate, original: Candidate) -> Nearest:
        """What a duplicate is most like: its `original`, written in some other way or in the same."""
        with self._lock:
            if candidate.id in self._columns:  # it was not known to be one when it was taken in
                self._order[self._columns[candidate.id]] = _NEVER
        words = difference(original.genotype, candidate.genotype)
        return Nearest(id=original.id, similarity=1.0, difference=words)

    def _add(self, candidate: Candidate, views: _Views) -> None:
        column = self._columns.get(candidate.id)
        if column is None:
            column = self._columns[candidate.id] = len(self._ids)
            self._ids.append(candidate.id)
            self._genotypes.append(candidate.genotype)
            if column == self._table.shape[1]:
                self._grow()
        else:
            self._table[:, column] = 0
        self._order[column] = candidate.index
        for view, (rows, counts) in enumerate(views):
            self._table[rows, column] = counts
            self._sums[view, column] = counts.sum(dtype=np.int64)

    def _similarities(self, views: _Views) -> NDArray[np.float64]:
        """To all that were taken in, in order."""
        n = len(self._ids)
        total, known = np.zeros(n), np.zeros(n)
        for view, (rows, counts) in enumerate(views):
            own = int(counts.sum(dtype=np.int64))
            shared = np.zeros(n, dtype=np.int32)
            least = np.empty(n, dtype=np.uint8)
            for row, count in zip(rows, counts, strict=True):
                np.minimum(self._table[row, :n], count, out=least)
                shared += least
            sums = self._sums[view, :n]
            both = (sums > 0) & (own > 0)
            total += np.where(both, shared / np.maximum(sums + own - shared, 1), 0.0)
            known += both
        return total / np.maximum(known, 1)

    def _views(self, genotype: Genotype, motifs: Mapping[str, float] | None) -> _Views:
        found = motifs or self._motifs(genotype) or {}
        return _hashed(found, 0), _hashed(gene_counts(genotype), ROWS)

    def _forget(self) -> None:
        self._ids: list[str] = []
        self._genotypes: list[Genotype] = []
        self._columns: dict[str, int] = {}
        self._table: _Counts = np.zeros((2 * ROWS, 64), dtype=np.uint8)
        self._sums = np.zeros((2, 64), dtype=np.int64)
        self._order = np.zeros(64, dtype=np.int64)

    def _grow(self) -> None:
        self._table = np.concatenate([self._table, np.zeros_like(self._table)], axis=1)
        self._sums = np.concatenate([self._sums, np.zeros_like(self._sums)], axis=1)
        self._order = np.concatenate([self._order, np.zeros_like(self._order)])


def gene_counts(genotype: Mapping[str, Any]) -> dict[str, float]:
    """What a genotype is written with: each gene's value at its place, at any place, and roughly.

    `stages[1].width=24` is also `stages[].width=24`, so that a stage put before it changes little, and
    `stages[1].width~16`, so that 24 is nearer to 16 than to 128. Texts count line by line.
    """
    found: dict[str, float] = {}

    def count(name: str) -> None:
        found[name] = found.get(name, 0.0) + 1.0

    def walk(value: Any, path: str, anywhere: str) -> None:
        if isinstance(value, Mapping):
            for key, below in value.items():
                walk(below, f"{path}.{key}", f"{anywhere}.{key}")
        elif isinstance(value, list | tuple):
            count(f"{path}#{len(value)}")
            for i, below in enumerate(value):
                walk(below, f"{path}[{i}]", f"{anywhere}[]")
        elif isinstance(value, str) and "\n" in value:
            for line in value.splitlines():
                if line.strip():
                    count(f"{path}: {line.strip()}")
        else:
            count(f"{path}={value}")
            if anywhere != path:
                count(f"{anywhere}={value}")
            if isinstance(value, int | float) and not isinstance(value, bool) and value > 0:
                count(f"{path}~{math.floor(math.log2(value))}")

    walk(genotype, "", "")
    return found


def _hashed(counts: Mapping[str, float], offset: int) -> _Rows:
    """Rows and values of the table for `counts`."""
    rows: dict[int, float] = {}
    for name, count in counts.items():
        row = offset + zlib.crc32(name.encode()) % ROWS
        rows[row] = rows.get(row, 0.0) + count
    values = [min(round(_SCALE * math.log2(1 + count)), 255) for count in rows.values()]
    return np.fromiter(rows, dtype=np.intp, count=len(rows)), np.array(values, dtype=np.uint8)
