"""Rows as members of a space: the spaces of this package hold the rows of a table and nothing else."""

from __future__ import annotations

import copy
import json
import random
import sys
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cambrian.agents.benching.table import Floats
from cambrian.agents.errors import ProposalError, UserError
from cambrian.agents.evaluator.encoding import HasStructure, Structure
from cambrian.search_spaces import Genotype, HasOperators, Signature, Space

if TYPE_CHECKING:
    from torch import nn

ATTEMPTS = 32
"""Edits that are tried for one child before the nearest row is taken."""


class RowSpace(ABC):
    """What all spaces of rows share: which rows are members, their features, published numbers beside these.

    Args:
        genotypes: canonical, each once, in the order of the rows.
        proxies: a column of finite numbers a name, `(rows,)`; features called `proxy.NAME`.
    """

    name: str
    version: str
    kind: Literal["declarative", "code"] = "declarative"

    def __init__(self, genotypes: Sequence[Genotype], proxies: Mapping[str, Floats]) -> None:
        self._members = list(genotypes)
        first = self._members[0]
        flat = all(
            genotype.keys() == first.keys() and not any(isinstance(v, dict | list) for v in genotype.values())
            for genotype in self._members
        )
        self._names = tuple(first) if flat else ()
        self._row_of = {self._key(genotype): row for row, genotype in enumerate(self._members)}
        self._tables = {name: list(dict.fromkeys(g[name] for g in self._members)) for name in self._names}
        self._proxy_names = tuple(f"proxy.{name}" for name in proxies)
        self._proxies = np.stack(list(proxies.values()), axis=1) if proxies else np.zeros((self.size, 0))
        self._feature_names: tuple[str, ...] = ()
        self._features: NDArray[np.float64] | None = None
        self._structures: list[Structure | None] | None = None

    # -- rows ---------------------------------------------------------------------------------------

    @property
    def size(self) -> int:
        """Number of members."""
        return len(self._members)

    def members(self) -> Sequence[Genotype]:
        """All members, by row; not to be changed in place."""
        return self._members

    def row_of(self, genotype: Genotype) -> int | None:
        """The row of a canonical genotype; None when the table has none."""
        return self._row_of.get(self._key(genotype))

    def neighbours(self, genotype: Genotype) -> list[Genotype]:
        """All members that differ from `genotype` in one gene.

        Where genotypes are nested, genes are not told apart: what 64 mutations give, then, always the same.
        """
        if self._names:
            return [self._members[row] for rows in self._near(genotype).values() for row in rows]
        rng = random.Random(json.dumps(genotype, sort_keys=True))
        found = (self.mutate(genotype, rng)[0] for _ in range(64))
        return list({self._key(each): each for each in found}.values())

    def _find(self, data: dict[str, Any]) -> int | None:
        """The row of `data` if it is written as a member is."""
        try:
            row = self._row_of.get(self._key(data))
        except TypeError:  # no JSON
            return None
        return row if row is not None and self._members[row] == data else None

    def _key(self, genotype: Genotype) -> Any:
        if self._names:
            return tuple(genotype.get(name) for name in self._names)
        return json.dumps(genotype, sort_keys=True)

    def _near(self, genotype: Genotype) -> dict[str, list[int]]:
        """Rows that differ from `genotype` in this one gene, by gene."""
        key = list(self._key(genotype))
        found: dict[str, list[int]] = {}
        for place, name in enumerate(self._names):
            own = key[place]
            rows = []
            for value in self._tables[name]:
                if value != own:
                    key[place] = value
                    row = self._row_of.get(tuple(key))
                    if row is not None:
                        rows.append(row)
            key[place] = own
            if rows:
                found[name] = rows
        return found

    def _copy(self, row: int) -> Genotype:
        return dict(self._members[row]) if self._names else copy.deepcopy(self._members[row])

    def _nearest(self, genotype: Genotype, rng: random.Random) -> Genotype:
        """Another member that shares as many genes with `genotype` as any of 256 drawn ones."""
        own = self.row_of(genotype)
        if self.size < 2:
            raise ProposalError("the table has one row: there is nothing else to propose")
        drawn = [row for row in rng.sample(range(self.size), min(256, self.size)) if row != own]
        best = max(drawn, key=lambda row: _shared(genotype, self._members[row]))
        return self._copy(best)

    # -- the parts of `Space` that need no structure --------------------------------------------------

    def sample(self, rng: random.Random) -> Genotype:
        """See `Space.sample`: a row, each as likely as any other."""
        return self._copy(rng.randrange(self.size))

    def features(self, genotype: Genotype) -> dict[str, float]:
        """See `Space.features`; the table's proxies are among them."""
        row = self.row_of(genotype)
        if row is None:
            raise ProposalError("the table has no row for this genotype")
        proxies = dict(zip(self._proxy_names, self._proxies[row].tolist(), strict=True))
        if self._features is not None:
            return {**dict(zip(self._feature_names, self._features[row].tolist(), strict=True)), **proxies}
        return {**self._own_features(genotype), **proxies}

    def structure(self, genotype: Genotype) -> Structure | None:
        """See `HasStructure`; None where the space knows none."""
        if self._structures is not None and (row := self.row_of(genotype)) is not None:
            return self._structures[row]
        return self._own_structure(genotype)

    def read(self, rows: range) -> tuple[Floats, list[Structure | None]]:
        """Features, `(rows, features)`, and structures of some members."""
        members = [self._members[row] for row in rows]
        features = [list(self._own_features(genotype).values()) for genotype in members]
        return np.array(features, dtype=np.float64), [self._own_structure(genotype) for genotype in members]

    def prepare(self, parts: Iterable[tuple[Floats, list[Structure | None]]] | None = None) -> None:
        """Find features and structures of all members now, for all searches: a millisecond each, perhaps.

        Args:
            parts: what `read` gave for consecutive ranges, in other processes; None reads here.
        """
        features, structures = zip(*(parts or [self.read(range(self.size))]), strict=True)
        self._feature_names = tuple(self._own_features(self._members[0]))
        self._features = np.concatenate(features)
        self._structures = [
            None if each is None else Known(_interned(each.totals), _interned(each.motifs))
            for part in structures
            for each in part
        ]

    def recipe(self, genotype: Genotype) -> Mapping[str, Any]:
        """See `Space.recipe`: what is in a table was trained already."""
        return {}

    @abstractmethod
    def _own_features(self, genotype: Genotype) -> dict[str, float]: ...

    def _own_structure(self, genotype: Genotype) -> Structure | None:
        return None

    @abstractmethod
    def schema(self) -> dict[str, Any]:
        """See `Space.schema`."""

    @abstractmethod
    def validate(self, data: object) -> Genotype:
        """See `Space.validate`."""

    @abstractmethod
    def mutate(self, genotype: Genotype, rng: random.Random) -> tuple[Genotype, str]:
        """See `Space.mutate`."""

    @abstractmethod
    def crossover(self, first: Genotype, second: Genotype, rng: random.Random) -> tuple[Genotype, str]:
        """See `Space.crossover`."""

    @abstractmethod
    def build(self, genotype: Genotype, signature: Signature) -> nn.Module:
        """See `Space.build`."""

    @abstractmethod
    def draw(self, genotype: Genotype, signature: Signature) -> str:
        """See `Space.draw`."""

    @abstractmethod
    def source(self, genotype: Genotype, signature: Signature) -> str:
        """See `Space.source`."""

    @abstractmethod
    def describe(self) -> str:
        """See `Space.describe`."""

    @abstractmethod
    def summarise(self, genotype: Genotype) -> str:
        """See `Space.summarise`."""

    @abstractmethod
    def baselines(self) -> Mapping[str, Genotype]:
        """See `Space.baselines`."""


class TableSpace(RowSpace):
    """A space that exists, restricted to the members that a table holds.

    Edits are the space's own, tried until one leads to a row.

    Args:
        space: the whole space.
        genotypes: canonical, each once.
        proxies: see `RowSpace`.
    """

    def __init__(self, space: Space, genotypes: Sequence[Genotype], proxies: Mapping[str, Floats]) -> None:
        self.inner = space
        self.name, self.version, self.kind = space.name, f"{space.version}+table", space.kind
        super().__init__(genotypes, proxies)

    def schema(self) -> dict[str, Any]:
        """See `Space.schema`."""
        return self.inner.schema()

    def validate(self, data: object) -> Genotype:
        """See `Space.validate`."""
        if isinstance(data, dict) and (row := self._find(data)) is not None:
            return self._copy(row)
        genotype = self.inner.validate(data)
        if self.row_of(genotype) is None:
            raise ProposalError(f"the table has no row for {self.inner.summarise(genotype)}")
        return genotype

    def mutate(self, genotype: Genotype, rng: random.Random) -> tuple[Genotype, str]:
        """See `Space.mutate`."""
        for _ in range(ATTEMPTS):
            child, words = self.inner.mutate(genotype, rng)
            if self.row_of(child) is not None:
                return child, words
        return self._nearest(genotype, rng), "to a near row of the table"

    def operators(self) -> Mapping[str, float]:
        """See `HasOperators.operators`: the space's own."""
        return self.inner.operators() if isinstance(self.inner, HasOperators) else {}

    def mutate_by(
        self, genotype: Genotype, rng: random.Random, weights: Mapping[str, float]
    ) -> tuple[Genotype, str, str]:
        """See `HasOperators.mutate_by`."""
        assert isinstance(self.inner, HasOperators)
        for _ in range(ATTEMPTS):
            child, words, kind = self.inner.mutate_by(genotype, rng, weights)
            if self.row_of(child) is not None:
                return child, words, kind
        return self._nearest(genotype, rng), "to a near row of the table", ""

    def crossover(self, first: Genotype, second: Genotype, rng: random.Random) -> tuple[Genotype, str]:
        """See `Space.crossover`."""
        for _ in range(ATTEMPTS):
            child, words = self.inner.crossover(first, second, rng)
            if self.row_of(child) is not None:
                return child, words
        return self._nearest(first, rng), "to a near row of the table"

    def build(self, genotype: Genotype, signature: Signature) -> nn.Module:
        """See `Space.build`."""
        return self.inner.build(genotype, signature)

    def describe(self) -> str:
        """See `Space.describe`."""
        return f"{self.inner.describe().rstrip()}\n\nOnly {self.size} members have a row in the table."

    def summarise(self, genotype: Genotype) -> str:
        """See `Space.summarise`."""
        return self.inner.summarise(genotype)

    def draw(self, genotype: Genotype, signature: Signature) -> str:
        """See `Space.draw`."""
        return self.inner.draw(genotype, signature)

    def source(self, genotype: Genotype, signature: Signature) -> str:
        """See `Space.source`."""
        return self.inner.source(genotype, signature)

    def baselines(self) -> Mapping[str, Genotype]:
        """See `Space.baselines`: those that the table holds."""
        return {n: g for n, g in self.inner.baselines().items() if self.row_of(g) is not None}

    def _own_features(self, genotype: Genotype) -> dict[str, float]:
        return self.inner.features(genotype)

    def _own_structure(self, genotype: Genotype) -> Structure | None:
        return self.inner.structure(genotype) if isinstance(self.inner, HasStructure) else None


class Known(NamedTuple):
    """A structure whose labels are the same objects as those of all others: thousands are kept."""

    totals: dict[str, float]
    motifs: dict[str, float]


def _interned(numbers: Mapping[str, float]) -> dict[str, float]:
    return {sys.intern(name): value for name, value in numbers.items()}


def not_built(name: str) -> UserError:
    """What is raised where a network is asked of a space that knows columns only."""
    return UserError(
        f"space {name!r} is made of the columns of a table: what its members are as networks is not known",
        hint="give --space, a space that can build them",
    )


def _shared(first: Mapping[str, Any], second: Mapping[str, Any]) -> int:
    return sum(second.get(gene) == value for gene, value in first.items())
