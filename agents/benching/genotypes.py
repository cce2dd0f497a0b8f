"""How the rows of a table name the members of a space that exists.

The first that fits, asked in this order:

1. the space says it: a method `from_row(row) -> object` (see `ReadsRows`) whose result `validate` takes;
2. a column of text that is the space's label: a declarative space whose root's label names each of its genes,
   as the cell's `|{e01}~0|+...` does, which is NAS-Bench-201's `arch_str`;
3. a column a gene, named like the keys of a genotype (`e01`, ..., `e23`);
4. a column `genotype` that holds genotypes as JSON.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Iterator, Mapping
from typing import Any, Protocol, runtime_checkable

from cambrian.agents.benching.table import Table
from cambrian.agents.errors import ProposalError, UserError
from cambrian.search_spaces import Genotype, Space
from cambrian.search_spaces.declarative.membership import canonical
from cambrian.search_spaces.declarative.space import DeclarativeSpace

JSON_COLUMN = "genotype"
WHOLLY_CHECKED = 300
"""Rows of a table for which all rules of a declarative space are checked."""


@runtime_checkable
class ReadsRows(Protocol):
    """A space that says itself how rows of tables name its members; an optional capability."""

    def from_row(self, row: Mapping[str, Any]) -> object:
        """What `validate` makes the genotype of; `row` has the table's values by column."""
        ...


def genotypes_of(space: Space, table: Table) -> list[Genotype]:
    """The canonical genotype of each row.

    Raises:
        UserError: nothing in the table names members of the space, or a row names something else.
    """
    found: list[Genotype] = []
    read = space.validate
    if isinstance(
        space, DeclarativeSpace
    ):  # rules over several genes are checked for some rows only: they are slow
        read = functools.partial(canonical, space.definition)
    every = max(1, len(table) // WHOLLY_CHECKED)
    for row, data in enumerate(_written(space, table)):
        try:
            found.append((space.validate if row % every == 0 else read)(data))
        except ProposalError as error:
            raise UserError(
                f"--table: row {row} is no member of space {space.name!r}: {error.message}",
                hint="give the space that the table is about, or --genotype-columns",
            ) from error
    return found


def _written(space: Space, table: Table) -> Iterator[object]:
    """What stands for a genotype in each row."""
    if isinstance(space, ReadsRows):
        columns = {name: table.values(name, "--table") for name in table.columns}
        for values in zip(*columns.values(), strict=True):
            yield space.from_row(dict(zip(columns, values, strict=True)))
        return
    pattern = _label_pattern(space)
    if pattern is not None:
        for name in table.columns:
            texts = table.values(name, "--table")
            if isinstance(texts[0], str) and pattern.fullmatch(texts[0].strip()):
                for text in texts:
                    match = pattern.fullmatch(str(text).strip())
                    yield match.groupdict() if match is not None else text
                return
    genes = list(space.schema().get("properties", {}))
    if genes and all(gene in table.columns for gene in genes):
        for values in zip(*(table.choices(gene, "--table") for gene in genes), strict=True):
            yield dict(zip(genes, values, strict=True))
    elif JSON_COLUMN in table.columns:
        for text in table.values(JSON_COLUMN, "--table"):
            try:
                yield json.loads(text) if isinstance(text, str) else text
            except ValueError:
                yield text
    else:
        raise UserError(
            f"--space {space.name}: no column of the table names its members",
            hint=f"it needs the columns {', '.join(genes[:8])}, or one 'genotype' with JSON; or give "
            "--genotype-columns instead",
        )


def _label_pattern(space: Space) -> re.Pattern[str] | None:
    """What reads a space's label backwards; None when its label does not name every gene once."""
    file = getattr(getattr(space, "definition", None), "file", None)
    rules = list(getattr(file, "rules", {}).values())
    label = getattr(rules[0], "label", None) if len(rules) == 1 else None
    if not label:
        return None
    genes = list(space.schema().get("properties", {}))
    parts = re.split(r"\{(\w+)\}", label)
    if sorted(parts[1::2]) != sorted(genes):
        return None
    texts = [re.escape(text) for text in parts[::2]]
    named = [f"(?P<{gene}>.+?)" for gene in parts[1::2]]
    return re.compile("".join(a + b for a, b in zip(texts, [*named, ""], strict=True)))
