"""Inactive genes: which there are, and the one value that they are folded to."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from cambrian.search_spaces.declarative.definition import Definition
from cambrian.search_spaces.declarative.expression import ExpressionError
from cambrian.search_spaces.declarative.grammar import KIND, Domain, Field, Options, Record, Repeat, walk
from cambrian.search_spaces.space import Genotype

Folder = Callable[[Any, Mapping[str, Any]], None]
"""Folds a value in place, given the fields of the records around it."""
_NO_SCOPE: Mapping[str, Any] = {}


def fold(definition: Definition, genotype: Genotype) -> Genotype:
    """Set every inactive field to its `otherwise`, in place; returns the same dict.

    Within a record, a field is decided after those that its condition names, whatever their order in the
    file, so that folding twice changes nothing.

    Raises:
        ExpressionError: a condition cannot be computed, or conditions depend on each other in a circle.
    """
    folders = definition.cached("folding")
    if "start" not in folders:
        folders["start"] = _Compiler(definition.grammar.start).folder(definition.grammar.start)
    if folders["start"] is not None:
        folders["start"](genotype, _NO_SCOPE)
    return genotype


class _Compiler:
    """Turns domains into closures; a domain without conditions below it needs none."""

    def __init__(self, start: Domain) -> None:
        self.outer = outer_names(start)
        self.conditional = {id(domain) for domain in walk(start) if has_conditions(domain)}
        self.made: dict[int, Folder] = {}

    def folder(self, domain: Domain) -> Folder | None:
        if id(domain) not in self.conditional:
            return None
        if id(domain) not in self.made:
            # a rule that contains itself finds this forwarder instead of itself half-made
            self.made[id(domain)] = lambda value, outer: self.made[id(domain)](value, outer)
            self.made[id(domain)] = self.compile(domain)
        return self.made[id(domain)]

    def compile(self, domain: Domain) -> Folder:
        if isinstance(domain, Repeat):
            inner = self.folder(domain.item)
            assert inner is not None

            def fold_list(value: Any, outer: Mapping[str, Any]) -> None:
                for item in value:
                    inner(item, outer)

            return fold_list
        if isinstance(domain, Options):
            cases = {name: self.folder(case) for name, case in domain.cases.items()}

            def fold_option(value: Any, outer: Mapping[str, Any]) -> None:
                case = cases[value[KIND]]
                if case is not None:
                    case(value, outer)

            return fold_option
        assert isinstance(domain, Record)
        steps = [
            (field.name, field.when, field.otherwise, self.folder(field.domain))
            for field in in_order_of_need(domain, self.outer)
            if field.when is not None or id(field.domain) in self.conditional
        ]

        def fold_record(value: Any, outer: Mapping[str, Any]) -> None:
            scope = {**outer, **value}
            for name, when, otherwise, inner in steps:
                if when is not None:
                    if not when(scope):
                        value[name] = scope[name] = otherwise
                elif inner is not None:
                    inner(value[name], scope)

        return fold_record


def has_conditions(domain: Domain) -> bool:
    """Whether some field below `domain` can be inactive."""
    return any(
        field.when is not None for each in walk(domain) if isinstance(each, Record) for field in each.fields
    )


def outer_names(start: Domain) -> dict[int, frozenset[str]]:
    """For each domain the names of outer fields that conditions below it use, by the domain's id."""
    domains = list(walk(start))
    found: dict[int, frozenset[str]] = {id(domain): frozenset() for domain in domains}
    changed = True
    while changed:
        changed = False
        for domain in reversed(domains):
            names: set[str] = set()
            if isinstance(domain, Record):
                for field in domain.fields:
                    names |= found[id(field.domain)]
                    names.update(field.when.names if field.when is not None else ())
                names -= {field.name for field in domain.fields} | {KIND}
            elif isinstance(domain, Repeat):
                names |= found[id(domain.item)]
            elif isinstance(domain, Options):
                names = names.union(*(found[id(case)] for case in domain.cases.values()))
            if not names <= found[id(domain)]:
                found[id(domain)], changed = found[id(domain)] | names, True
    return found


def in_order_of_need(record: Record, outer: Mapping[int, frozenset[str]]) -> list[Field]:
    """The fields of `record`, each after those that decide whether it, or something in it, is active.

    Raises:
        ExpressionError: they need each other.
    """
    by_name = {field.name: field for field in record.fields}
    ordered: dict[str, Field] = {}

    def visit(name: str, above: tuple[str, ...]) -> None:
        if name in ordered:
            return
        if name in above:
            circle = " and ".join(above[above.index(name) :])
            raise ExpressionError(
                f"{record.name}: the conditions of {circle} depend on each other",
                hint="let one of them depend on other fields only",
            )
        field = by_name[name]
        needs = {*(field.when.names if field.when is not None else ()), *outer[id(field.domain)]}
        for other in by_name:
            if other in needs and other != name:  # a field may look at its own value
                visit(other, (*above, name))
        ordered[name] = field

    for name in by_name:
        visit(name, ())
    return list(ordered.values())
