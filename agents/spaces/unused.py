"""Which fields and shared genes change nothing: no layout, rule or condition reads them."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from typing import Any

from cambrian.search_spaces.declarative.definition import Definition
from cambrian.search_spaces.declarative.expression import Expression
from cambrian.search_spaces.declarative.grammar import Domain, Field, Grammar, Options, Record, Scalar, walk
from cambrian.search_spaces.declarative.layout import FieldPart, expressions_of, parts_of


def unused(definition: Definition) -> list[str]:
    """Fields and genes that multiply the genotypes and not the networks, in words.

    A field is used where a layout inserts it, or an expression of a layout, a `require` or a `when` names it.
    Labels and features only tell of it. In doubt it is used: `s.width` is a use of every field `width`.
    """
    grammar = definition.grammar
    domains = list(walk(grammar.start))
    records = [domain for domain in domains if isinstance(domain, Record)]
    below = {id(record): {id(each) for each in walk(record)} for record in records}
    used: set[int] = set()
    keys: set[str] = set()
    for domain in domains:
        for name, compared in _reads(domain, keys):
            for owner in _owners(name, domain, records, below):
                used.add(id(owner))
                if compared:  # with all that is in it
                    used |= {id(f) for r in walk(owner.domain) if isinstance(r, Record) for f in r.fields}
    lines = [
        f"{_place(grammar, record)}.fields.{each.name} is used by no layout, rule or condition"
        for record in records
        for each in record.fields
        if id(each) not in used and each.name not in keys
    ]
    return lines + [
        f"genes.{name} is used by no field"
        for name in definition.file.genes
        if name not in _genes(definition)
    ]


def _reads(domain: Domain, keys: set[str]) -> Iterator[tuple[str, bool]]:
    """Names that `domain` reads, and whether as a whole; keys of records are added to `keys`."""
    expressions: list[Expression] = []
    for part in parts_of(domain.layout) if isinstance(domain, Record | Scalar) else ():
        if isinstance(part, FieldPart):
            yield part.field, False
        expressions += expressions_of(part)
    if isinstance(domain, Record):
        expressions += [require.rule for require in domain.requires]
        expressions += [each.when for each in domain.fields if each.when is not None]
    for expression in expressions:
        tree = ast.parse(expression.text, mode="eval")
        keys.update(node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute))
        compared = any(
            isinstance(side, ast.Name | ast.Subscript)
            for node in ast.walk(tree)
            if isinstance(node, ast.Compare)
            for side in (node.left, *node.comparators)
        )
        for name in expression.names:
            yield name, compared


def _owners(name: str, domain: Domain, records: list[Record], below: dict[int, set[int]]) -> list[Field]:
    """The fields that `name` may stand for in `domain`: its own one, else those of the records around it."""
    if isinstance(domain, Record) and name in domain.by_name:
        return [domain.by_name[name]]
    return [r.by_name[name] for r in records if name in r.by_name and id(domain) in below[id(r)]]


def _place(grammar: Grammar, record: Record) -> str:
    """Where a record stands in its space file: `rules.block.options.conv`, `rules.network.fields.stem`."""
    rule, *rest = record.name.split(".")
    place = f"rules.{rule}"
    if rest and isinstance(grammar.rules[rule], Options):
        place += f".options.{rest.pop(0)}"
    return place + "".join(f".fields.{name}" for name in rest)


def _genes(definition: Definition) -> set[str]:
    """Names that choices of the space file refer to."""
    found: set[str] = set()

    def look(value: Any) -> None:
        if isinstance(value, dict):
            if isinstance(value.get("use"), str):
                found.add(value["use"])
            for each in value.values():
                look(each)

    look({name: rule.model_dump() for name, rule in definition.file.rules.items()})
    return found
