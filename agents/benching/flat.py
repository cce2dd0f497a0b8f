"""A space of a table's own columns: each is a gene with the values that occur, each row is a member."""

from __future__ import annotations

import hashlib
import json
import math
import random
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from cambrian.agents.benching.members import ATTEMPTS, RowSpace, not_built
from cambrian.agents.benching.table import Floats, Value
from cambrian.agents.errors import ProposalError
from cambrian.search_spaces import Genotype, Signature, near_names

if TYPE_CHECKING:
    from torch import nn

STEP = 0.8
"""Share of edits of an ordered gene that go to the nearest value on either side."""
MOST_ONE_HOT = 64
"""Values of a categorical gene that get a feature each; the rarer ones share one."""
LINE = 100


class FlatSpace(RowSpace):
    """One gene a column. Numbers are ordered, all else is categorical.

    It has everything of `Space` but networks: `build`, `draw` and `source` raise `UserError`.

    Args:
        name: of the table.
        columns: values by name, one a row; rows must differ.
        proxies: see `RowSpace`.
    """

    def __init__(
        self, name: str, columns: Mapping[str, Sequence[Value]], proxies: Mapping[str, Floats]
    ) -> None:
        rows = zip(*columns.values(), strict=True)
        super().__init__([dict(zip(columns, row, strict=True)) for row in rows], proxies)
        self.name = name
        self.genes: dict[str, list[Value]] = {gene: _sorted(set(v)) for gene, v in columns.items()}
        self.ordered = {g for g, values in self.genes.items() if _is_numeric(values) and len(values) > 2}
        told = json.dumps([self.genes, self.size])
        self.version = f"1-{hashlib.sha256(told.encode()).hexdigest()[:8]}"
        self._place = {g: {value: i for i, value in enumerate(v)} for g, v in self.genes.items()}
        self._columns = {gene: self._columns_of(gene, columns[gene]) for gene in self.genes}

    def schema(self) -> dict[str, Any]:
        """See `Space.schema`."""
        genes = {
            gene: {"type": _json_type(values), "enum": list(values)} for gene, values in self.genes.items()
        }
        return {
            "type": "object",
            "properties": genes,
            "required": list(genes),
            "additionalProperties": False,
        }

    def validate(self, data: object) -> Genotype:
        """See `Space.validate`."""
        if not isinstance(data, Mapping):
            raise ProposalError(f"a {type(data).__name__} is no genotype: it is an object of genes")
        for key in data:
            if key not in self.genes:
                raise ProposalError(
                    f"{str(key)[:40]}: unknown gene", hint=near_names(str(key), list(self.genes))
                )
        for gene, place in self._place.items():
            if gene not in data:
                raise ProposalError(f"{gene}: is missing")
            value = data[gene]
            if isinstance(value, dict | list) or value not in place:
                known = ", ".join(map(str, self.genes[gene][:20]))
                raise ProposalError(f"{gene}: {str(value)[:40]!r} is not one of {known}")
        row = self.row_of(dict(data))
        if row is None:
            told = ", ".join(f"{gene}={data[gene]}" for gene in self.genes)
            raise ProposalError(f"the table has no row with {told}"[:300])
        return self._copy(row)

    def mutate(self, genotype: Genotype, rng: random.Random) -> tuple[Genotype, str]:
        """See `Space.mutate`: one gene gets another value whose row exists; several where none does."""
        near = self._near(genotype)
        if not near:
            return self._nearest(genotype, rng), "to the nearest row of the table"
        gene = rng.choice(list(near))
        child = self._copy(self._step(gene, genotype[gene], near[gene], rng))
        return child, f"{gene} {_short(genotype[gene])} -> {_short(child[gene])}"[:LINE]

    def crossover(self, first: Genotype, second: Genotype, rng: random.Random) -> tuple[Genotype, str]:
        """See `Space.crossover`: each gene of either parent, tried until a row has them all."""
        differing = [gene for gene in self.genes if first[gene] != second[gene]]
        parents = (first, second)
        for _ in range(ATTEMPTS if len(differing) > 1 else 0):
            child = {gene: rng.choice(parents)[gene] for gene in self.genes}
            if child not in parents and self.row_of(child) is not None:
                taken = sum(child[gene] == second[gene] for gene in differing)
                return child, f"{taken} of {len(differing)} differing genes from the second"
        child, words = self.mutate(first, rng)
        return child, f"of the first alone: {words}"[:LINE]

    def build(self, genotype: Genotype, signature: Signature) -> nn.Module:
        """Raises `UserError`: columns are no network."""
        raise not_built(self.name)

    def draw(self, genotype: Genotype, signature: Signature) -> str:
        """Raises `UserError`, as `build`."""
        raise not_built(self.name)

    def source(self, genotype: Genotype, signature: Signature) -> str:
        """Raises `UserError`, as `build`."""
        raise not_built(self.name)

    def describe(self) -> str:
        """See `Space.describe`."""
        lines = [
            f"{self.size} rows of the table {self.name}: an architecture is one row, and only combinations "
            "of values that have a row are members. What a column means is not known beyond its name.",
            "",
        ]
        for gene, values in self.genes.items():
            shown = ", ".join(map(str, values[:40])) + (", ..." if len(values) > 40 else "")
            kind = "ordered" if gene in self.ordered else "a choice"
            lines.append(f"- {gene} ({kind} of {len(values)}): {shown}")
        return "\n".join(lines)

    def summarise(self, genotype: Genotype) -> str:
        """See `Space.summarise`."""
        line = " ".join(f"{gene}={_short(genotype[gene])}" for gene in self.genes)
        if len(line) > LINE:
            line = " ".join(_short(genotype[gene]) for gene in self.genes)
        if len(line) <= LINE:
            return line
        return f"row {self.row_of(genotype)}: {line}"[: LINE - 1] + "…"

    def baselines(self) -> Mapping[str, Genotype]:
        """See `Space.baselines`: a table names none."""
        return {}

    def _own_features(self, genotype: Genotype) -> dict[str, float]:
        found: dict[str, float] = {}
        for gene, columns in self._columns.items():
            found.update(columns[genotype[gene]])
        return found

    def _step(self, gene: str, value: Value, rows: list[int], rng: random.Random) -> int:
        """One of `rows`: most of the time the nearest value on either side where values are ordered."""
        if gene in self.ordered and rng.random() < STEP:
            place = self._place[gene]
            here = place[value]
            places = {place[self._members[row][gene]]: row for row in rows}
            below = [at for at in places if at < here]
            above = [at for at in places if at > here]
            return places[rng.choice([*([max(below)] if below else []), *([min(above)] if above else [])])]
        return rng.choice(rows)

    def _columns_of(self, gene: str, column: Sequence[Value]) -> dict[Value, dict[str, float]]:
        """The features of each value of a gene."""
        values = self.genes[gene]
        if gene in self.ordered:
            numbers = [float(value) for value in values]
            scaled = numbers[0] > 0 and numbers[-1] / numbers[0] >= 8
            return {v: {gene: math.log2(n) if scaled else n} for v, n in zip(values, numbers, strict=True)}
        counts: dict[Value, int] = {}
        for value in column:
            counts[value] = counts.get(value, 0) + 1
        shown = sorted(values, key=lambda value: -counts[value])[:MOST_ONE_HOT]
        rare = {f"{gene}=others": 0.0} if len(values) > len(shown) else {}
        found = {}
        for value in values:
            one_hot = {f"{gene}={other}": float(other == value) for other in shown} | rare
            if value not in shown:
                one_hot[f"{gene}=others"] = 1.0
            found[value] = one_hot
        return found


def _is_numeric(values: Sequence[Value]) -> bool:
    return all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)


def _sorted(values: set[Value]) -> list[Value]:
    """Numbers by size, all else by its text."""
    given = list(values)
    if _is_numeric(given):
        return sorted(given, key=float)
    return sorted(given, key=lambda value: (str(type(value)), str(value)))


def _json_type(values: Sequence[Value]) -> str:
    """Columns hold values of one type, but for whole numbers among others."""
    kinds = {bool: "boolean", int: "integer", float: "number", str: "string"}
    return max(kinds[type(value)] for value in values)


def _short(value: Value) -> str:
    text = f"{value:g}" if isinstance(value, float) else str(value)
    return text if len(text) <= 24 else text[:23] + "…"
