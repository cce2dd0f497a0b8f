"""A quality-diversity archive: the best candidate of each cell of cost and family.

As MAP-Elites keeps it (Mouret and Clune, "Illuminating search spaces by mapping elites", arXiv 1504.04909): a
grid over features that matter to people, with the best that is known in each cell. The features here are the
cost, in steps of a factor, and the family, which is what a network mostly consists of. Unlike there, the grid
is no separate population: it is read off the one that there is.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cambrian.agents.population.model import Candidate

if TYPE_CHECKING:
    from cambrian.agents.planner.arm import PopulationView
    from cambrian.search_spaces import Space

READ = 1000
"""How many of the best are read."""
STEP = math.sqrt(2.0)
"""Factor of cost from one bin to the next."""
MOST_PARTS = 2
"""Kinds of operations that name a family, at most."""
_BLOCK = "0|"
"""Before motifs that are single operations."""


@dataclass(frozen=True, order=True)
class Cell:
    """Where a candidate stands.

    Attributes:
        bin: of its cost; costs of one bin differ by less than `STEP`.
        family: what it mostly consists of; empty where its structure is not known.
    """

    bin: int
    family: str


@dataclass(frozen=True)
class Archive:
    """The best of each cell, the best of all first.

    Attributes:
        elites: by cell.
    """

    elites: Mapping[Cell, Candidate]

    @classmethod
    def of(cls, population: PopulationView, space: Space | None = None) -> Archive:
        """The archive of the feasible evaluated candidates of `population`.

        Args:
            population: its `READ` best are read.
            space: tells what its members consist of; without it only what was found in the sandbox is known.
        """
        return cls.among(population.elite(READ), space)

    @classmethod
    def among(cls, candidates: Sequence[Candidate], space: Space | None = None) -> Archive:
        """The archive of `candidates`, which are feasible and evaluated, the best of all first; see `of`."""
        elites: dict[Cell, Candidate] = {}
        for candidate, family in zip(candidates, families(candidates, space), strict=True):
            elites.setdefault(Cell(cost_bin(candidate), family), candidate)
        return cls(elites)

    @property
    def families(self) -> int:
        """How many families there are."""
        return len({cell.family for cell in self.elites})

    @property
    def bins(self) -> int:
        """How many bins of cost are in use."""
        return len({cell.bin for cell in self.elites})

    @property
    def coverage(self) -> float:
        """The share of cells that hold somebody, of all bins in use by all families that are known."""
        return len(self.elites) / (self.bins * self.families) if self.elites else 0.0

    def in_words(self) -> str:
        """Such as `12 of 20 cells, 4 families by 5 bins of cost`; empty while there is nobody."""
        if not self.elites:
            return ""
        return (
            f"{len(self.elites)} of {self.bins * self.families} cells, "
            f"{self.families} {'family' if self.families == 1 else 'families'} by {self.bins} "
            f"{'bin' if self.bins == 1 else 'bins'} of cost"
        )

    def diverse(self, k: int, exclude: Collection[str] = ()) -> list[Candidate]:
        """At most `k` elites that are most unlike those in `exclude` and each other.

        Each is of the cell that shares family and bin with the fewest of those already taken; the better one
        first where several do.

        Args:
            k: how many.
            exclude: ids of candidates that are shown anyway.
        """
        bins = Counter(cell.bin for cell, c in self.elites.items() if c.id in exclude)
        kinds = Counter(cell.family for cell, c in self.elites.items() if c.id in exclude)
        left = {cell: c for cell, c in self.elites.items() if c.id not in exclude}
        found: list[Candidate] = []
        while left and len(found) < k:
            cell = min(left, key=lambda each: bins[each.bin] + kinds[each.family])
            found.append(left.pop(cell))
            bins[cell.bin] += 1
            kinds[cell.family] += 1
        return found


def diverse(
    population: PopulationView, k: int, exclude: Collection[str] = (), space: Space | None = None
) -> list[Candidate]:
    """See `Archive.of` and `Archive.diverse`."""
    return Archive.of(population, space).diverse(k, exclude)


def cost_bin(candidate: Candidate) -> int:
    """The bin of a candidate's cost; of its parameters while its cost is not known, and 0 without both."""
    cost = candidate.cost
    if cost is None and candidate.static is not None:
        cost = float(candidate.static.parameters)
    return 0 if cost is None or cost <= 0 else math.floor(2 * math.log2(cost))


def families(candidates: Sequence[Candidate], space: Space | None = None) -> list[str]:
    """The family of each: the kinds of operations that weigh most in it and are not in everybody.

    A kind weighs its count times the logarithm of how rare it is, as terms of a text do: what all have tells
    nothing. What serves the others (norms, dropout, the last pooling) counts where there is nothing else.
    """
    kinds = [_kinds(candidate, space) for candidate in candidates]
    having = Counter(kind for counts in kinds for kind in counts)
    return [_family(counts, having, len(kinds)) for counts in kinds]


def _family(counts: Mapping[str, float], having: Mapping[str, int], n: int) -> str:
    weights = {kind: count * math.log((n + 1) / having[kind]) for kind, count in counts.items()}
    weights = {kind: w for kind, w in weights.items() if not _SERVES.search(kind)} or weights
    if not weights:
        return ""
    most = max(weights.values())
    chosen = sorted((kind for kind in weights if weights[kind] > 0.9 * most), key=lambda k: (-weights[k], k))
    return " + ".join(sorted(chosen[:MOST_PARTS]))


def _kinds(candidate: Candidate, space: Space | None) -> dict[str, float]:
    motifs: Mapping[str, float] = candidate.motifs
    if not motifs and space is not None:
        from cambrian.agents.evaluator.encoding import encode

        motifs = encode(space, candidate.genotype).motifs
    found: dict[str, float] = {}
    for label, count in motifs.items():
        if label.startswith(_BLOCK) and "(" not in label:
            kind = _kind(label.removeprefix(_BLOCK).split())
            found[kind] = found.get(kind, 0.0) + count
    return found


def _kind(words: Sequence[str]) -> str:
    """An operation without its settings: `inverted kernel 5` for `inverted silu kernel 5 expansion 3 se`."""
    name: list[str] = []
    for word, value in zip(words, [*words[1:], ""], strict=True):
        if re.fullmatch(r"[\d.]+", value):  # the first setting; of all, the kernel's size tells most
            name += [word, value] if word == "kernel" else []
            break
        if word not in _ACTIVATIONS:
            name.append(word)
    return " ".join(name or words)


_SERVES = re.compile(
    r"^(global|sequence|grid) pool|norm(1d|2d)?$|^(activation|dropout|linear|concat|flatten|scale)\b"
    r"|\b(token|tokens|positions|embedding|reduction)\b"
)
_ACTIVATIONS = frozenset(
    {"relu", "silu", "gelu", "tanh", "hardswish", "squared-relu", "elu", "mish", "identity"}
)
