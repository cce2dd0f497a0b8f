"""Which names of its scope decide what a part of a layout becomes, given the shape that arrives."""

from __future__ import annotations

from cambrian.search_spaces.declarative.grammar import Record, Scalar
from cambrian.search_spaces.declarative.layout import (
    FieldPart,
    OnNodesPart,
    Part,
    RepeatPart,
    expressions_of,
    parts_of,
)


def needed_names(part: Part, record: Record) -> tuple[str, ...] | None:
    """Names that `part` of the layout of `record` reads, in order; None where it inserts records."""
    names: dict[str, None] = {}
    local: set[str] = set()
    for each in parts_of(part):
        if isinstance(each, FieldPart):
            domain = record.by_name[each.field].domain
            if not isinstance(domain, Scalar) or domain.layout is None:
                return None
            names.setdefault(each.field)
            inner = needed_names(domain.layout, Record("value"))
            if inner is None:
                return None
            names.update(dict.fromkeys(name for name in inner if name != "value"))
        if isinstance(each, OnNodesPart):
            names.setdefault("graph")
        if isinstance(each, RepeatPart) and each.index:
            local.add(each.index)
        for expression in expressions_of(each):
            names.update(dict.fromkeys(expression.names))
    return tuple(name for name in names if name not in local and name != "input")
