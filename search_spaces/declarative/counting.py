"""How many derivations a grammar has, and drawing them uniformly."""

from __future__ import annotations

import itertools
import math
import random
from bisect import bisect_right
from dataclasses import dataclass
from typing import Any, NamedTuple

from cambrian.search_spaces.declarative.definition import Definition
from cambrian.search_spaces.declarative.folding import fold, in_order_of_need, outer_names
from cambrian.search_spaces.declarative.grammar import KIND, Domain, Field, Options, Record, Repeat, Scalar
from cambrian.search_spaces.declarative.magnitude import MAX_BITS, Magnitude, log2_sum
from cambrian.search_spaces.declarative.membership import copy_of
from cambrian.search_spaces.declarative.sites import depths_of
from cambrian.search_spaces.errors import UserError
from cambrian.search_spaces.space import Genotype

MAX_ROWS = 100_000
"""Joint values of the fields that one record's conditions are about which are enumerated at most."""


class Count(NamedTuple):
    """How many distinct folded derivations there are, before rules, limits and typing.

    Attributes:
        exact: false when some condition looks at other than the values of its own record; its field then
            counts as always active, and `total` is an upper bound.
    """

    total: Magnitude
    exact: bool


def count(definition: Definition) -> Count:
    """The number of distinct folded derivations, before rules, limits and typing."""
    table = table_of(definition)
    return Count(table.magnitude, table.exact)


@dataclass(slots=True)
class _Group:
    """Fields of one record that conditions bind together.

    Attributes:
        mentioned: names of the values that conditions are about.
        dependent: name, values and folded value of the conditional fields that no condition is about.
        rows: each distinct joint value of `mentioned`, and which of `dependent` are active then.
        cumulative: running sums of the derivations of the rows.
    """

    mentioned: tuple[str, ...]
    dependent: tuple[tuple[str, tuple[Any, ...], Any], ...]
    rows: list[tuple[tuple[Any, ...], tuple[bool, ...]]]
    cumulative: list[int]

    def derivation(self, index: int) -> dict[str, Any]:
        """The values of all fields in the derivation of number `index`."""
        at = bisect_right(self.cumulative, index)
        index -= self.cumulative[at - 1] if at else 0
        row, flags = self.rows[at]
        made = dict(zip(self.mentioned, row, strict=True))
        for (name, values, otherwise), active in zip(self.dependent, flags, strict=True):
            if active:
                index, rest = divmod(index, len(values))
                made[name] = values[rest]
            else:
                made[name] = otherwise
        return made


@dataclass(slots=True)
class _Split:
    """A record's fields as independent factors."""

    groups: list[_Group]
    free: list[Field]


def table_of(definition: Definition) -> Table:
    """The definition's table, made once."""
    cache = definition.cached("counting")
    if "table" not in cache:
        cache["table"] = Table(definition)
    found: Table = cache["table"]
    return found


class Table:
    """Numbers of derivations for each domain and depth, and the derivation of each number.

    Attributes:
        log2: logarithm of the number of derivations of the whole grammar.
        total: that number; None when it has more than `MAX_BITS` bits.
        exact: see `Count`.
    """

    def __init__(self, definition: Definition) -> None:
        self.definition = definition
        self.depths = depths_of(definition)
        self.outer = outer_names(definition.grammar.start)
        self.counts: dict[tuple[int, int], int] = {}
        self.splits: dict[int, _Split] = {}
        self.sums: dict[tuple[int, int], tuple[list[list[int]], list[list[int]]]] = {}
        self.exact = True
        self.logs: dict[tuple[int, int], float] = {}
        start, deepest = definition.grammar.start, definition.grammar.max_depth
        self.log2 = self.log2_count(start, deepest)
        self.total = self.count(start, deepest) if self.log2 <= MAX_BITS else None

    @property
    def magnitude(self) -> Magnitude:
        """The number of derivations of the whole grammar."""
        return Magnitude(self.log2, None) if self.total is None else Magnitude.of(self.total)

    def draw(self, rng: random.Random) -> Genotype | None:
        """One derivation, all equally likely; None when the draw is not in canonical form.

        The latter happens only where the count is not exact: as every canonical derivation is as likely as
        any other, throwing these away keeps the draws uniform.
        """
        if self.total is None:
            name, size = self.definition.file.name, self.magnitude
            raise UserError(
                f"space {name}: {size} derivations are too many to draw uniformly",
                hint="set sampling to weights, or lower max_depth",
            )
        genotype: Genotype = self.derivation(rng.randrange(self.total))
        if self.exact:
            return genotype
        return genotype if fold(self.definition, copy_of(genotype)) == genotype else None

    def derivation(self, index: int) -> Genotype:
        """The derivation of number `index`, from 0 to `total`, exclusive."""
        grammar = self.definition.grammar
        made: Genotype = self.unrank(grammar.start, grammar.max_depth, index)
        return made

    def count(self, domain: Domain, left: int) -> int:
        """Derivations of `domain` in which at most `left` rules are nested."""
        if isinstance(domain, Scalar):
            return len(domain.values)
        if self.depths.needs[id(domain)] > left:
            return 0
        key = (id(domain), left)
        if key not in self.counts:
            self.counts[key] = self._count(domain, left)
        return self.counts[key]

    def _count(self, domain: Domain, left: int) -> int:
        inside = self.depths.inside(domain, left)
        if isinstance(domain, Repeat):
            items = self.count(domain.item, left)
            return sum(items**n for n in range(domain.least, domain.most + 1))
        if isinstance(domain, Options):
            return sum(self.count(case, inside) for case in domain.cases.values())
        assert isinstance(domain, Record)
        split = self.split(domain)
        free = math.prod(self.count(field.domain, inside) for field in split.free)
        return free * math.prod(group.cumulative[-1] for group in split.groups)

    def log2_count(self, domain: Domain, left: int) -> float:
        """Logarithm of `count`, also of numbers that are too large to write down."""
        if isinstance(domain, Scalar):
            return math.log2(len(domain.values))
        if self.depths.needs[id(domain)] > left:
            return -math.inf
        key = (id(domain), left)
        if key not in self.logs:
            self.logs[key] = self._log2_count(domain, left)
        return self.logs[key]

    def _log2_count(self, domain: Domain, left: int) -> float:
        inside = self.depths.inside(domain, left)
        if isinstance(domain, Repeat):
            items = self.log2_count(domain.item, left)
            # no item is possible at all: only the empty list, and 0 times minus infinity is no number
            return log2_sum(n * items if n else 0.0 for n in range(domain.least, domain.most + 1))
        if isinstance(domain, Options):
            return log2_sum(self.log2_count(case, inside) for case in domain.cases.values())
        assert isinstance(domain, Record)
        split = self.split(domain)
        free = sum(self.log2_count(field.domain, inside) for field in split.free)
        return free + sum(math.log2(group.cumulative[-1]) for group in split.groups)

    def split(self, record: Record) -> _Split:
        """The factors of `record`, found once."""
        if id(record) not in self.splits:
            self.splits[id(record)] = self._split(record)
        return self.splits[id(record)]

    def _split(self, record: Record) -> _Split:
        values = {f.name: f.domain.values for f in record.fields if isinstance(f.domain, Scalar)}
        tied: list[set[str]] = []
        settled: list[Field] = []
        for field in in_order_of_need(record, self.outer):
            if field.when is None:
                continue
            names = set(field.when.names) - {KIND}
            if not names <= values.keys():
                self.exact = False
                continue
            settled.append(field)
            bound = {field.name, *names}
            for other in [each for each in tied if each & bound]:
                tied.remove(other)
                bound |= other
            tied.append(bound)
        groups = []
        for names in tied:
            about = {name for f in settled if f.when and f.name in names for name in f.when.names} - {KIND}
            if math.prod(len(values[name]) for name in about) > MAX_ROWS:
                self.exact = False
                continue
            groups.append(_group(record, [f for f in settled if f.name in names], sorted(about), values))
        bound = {name for g in groups for name in (*g.mentioned, *(name for name, _, _ in g.dependent))}
        return _Split(groups, [field for field in record.fields if field.name not in bound])

    def unrank(self, domain: Domain, left: int, index: int) -> Any:
        """The derivation of `domain` with number `index`, in which at most `left` rules are nested."""
        if isinstance(domain, Scalar):
            return domain.values[index]
        if isinstance(domain, Repeat):
            items, length = self.count(domain.item, left), domain.least
            while index >= items**length:
                index -= items**length
                length += 1
            made = []
            for _ in range(length):
                index, rest = divmod(index, items)
                made.append(self.unrank(domain.item, left, rest))
            return made
        inside = self.depths.inside(domain, left)
        if isinstance(domain, Options):
            for case in domain.cases.values():
                if index < (n := self.count(case, inside)):
                    return self.unrank(case, inside, index)
                index -= n
        assert isinstance(domain, Record)
        return self._unrank_record(domain, inside, index)

    def _unrank_record(self, record: Record, left: int, index: int) -> Any:
        split = self.split(record)
        made: dict[str, Any] = {}
        for group in split.groups:
            index, rest = divmod(index, group.cumulative[-1])
            made.update(group.derivation(rest))
        for field in split.free:
            index, rest = divmod(index, self.count(field.domain, left))
            made[field.name] = self.unrank(field.domain, left, rest)
        first = {} if record.kind is None else {KIND: record.kind}
        return first | {field.name: made[field.name] for field in record.fields}


def _group(
    record: Record, settled: list[Field], about: list[str], values: dict[str, tuple[Any, ...]]
) -> _Group:
    """The joint values of the fields in `about`, folded by the conditions of `settled`, in their order."""
    dependent = [field for field in settled if field.name not in about]
    rows: dict[tuple[Any, ...], tuple[bool, ...]] = {}
    for joint in itertools.product(*(values[name] for name in about)):
        scope: dict[str, Any] = {KIND: record.kind, **dict(zip(about, joint, strict=True))}
        for field in settled:
            if field.name in about and field.when is not None and not field.when(scope):
                scope[field.name] = field.otherwise
        flags = tuple(field.when is None or bool(field.when(scope)) for field in dependent)
        rows[tuple(scope[name] for name in about)] = flags
    sizes = [len(values[field.name]) for field in dependent]
    counts = (math.prod(itertools.compress(sizes, flags)) for flags in rows.values())
    return _Group(
        tuple(about), tuple((f.name, values[f.name], f.otherwise) for f in dependent),
        list(rows.items()), list(itertools.accumulate(counts)),
    )  # fmt: skip
