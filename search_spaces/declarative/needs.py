"""Which names of its scope decide what a part of a layout becomes, given the shape that arrives."""

from __future__ import annotations

from collections.abc import Iterator

from cambrian.search_spaces.declarative.expression import Expression
from cambrian.search_spaces.declarative.grammar import Record, Scalar
from cambrian.search_spaces.declarative.layout import (
    BlockPart,
    FieldPart,
    GraphPart,
    OnNodesPart,
    ParallelPart,
    Part,
    RepeatPart,
    ResidualPart,
    RoutePart,
    SequencePart,
    SwitchPart,
)


def needed_names(part: Part, record: Record) -> tuple[str, ...] | None:
    """Names that `part` of the layout of `record` reads, in order; None where it inserts records."""
    names: dict[str, None] = {}
    local: set[str] = set()
    for each in _parts(part):
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
        for expression in _expressions(each):
            names.update(dict.fromkeys(expression.names))
    return tuple(name for name in names if name not in local and name != "input")


def _parts(part: Part) -> Iterator[Part]:
    """`part` and all parts below it."""
    yield part
    for below in _below(part):
        yield from _parts(below)


def _below(part: Part) -> tuple[Part, ...]:
    if isinstance(part, SequencePart):
        return part.parts
    if isinstance(part, ParallelPart):
        return part.branches
    if isinstance(part, SwitchPart):
        return (*(case for _, case in part.cases), *([part.otherwise] if part.otherwise else []))
    if isinstance(part, GraphPart):
        return tuple(edge for _, edges in part.nodes for _, edge in edges)
    if isinstance(part, ResidualPart | RoutePart | RepeatPart | OnNodesPart):
        return (part.body,)
    return ()


def _expressions(part: Part) -> Iterator[Expression]:
    values: tuple[object, ...] = ()
    if isinstance(part, BlockPart):
        values = tuple(value for _, value in part.arguments)
    elif isinstance(part, SwitchPart):
        values = (part.on,)
    elif isinstance(part, RepeatPart):
        values = (part.times,)
    elif isinstance(part, RoutePart):
        values = (part.how, part.size)
    elif isinstance(part, ParallelPart | GraphPart):
        values = (part.merge,)
    return (value for value in values if isinstance(value, Expression))
