"""A space file's layouts, compiled: which blocks a record builds, and how they are put together.

`where` is a part's place in the space file, such as `rules.stage.build[0]`, for messages.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from cambrian.search_spaces.declarative.catalogue import Block
from cambrian.search_spaces.declarative.expression import Expression

Value = Expression | bool | int | float | str | None
"""An argument of a block: computed for each genotype, or fixed."""


@dataclass(eq=False, slots=True)
class BlockPart:
    """One block; `arguments` in the order of the file."""

    block: Block
    arguments: tuple[tuple[str, Value], ...]
    where: str = ""


@dataclass(eq=False, slots=True)
class FieldPart:
    """What a field's record, option, or list of them builds."""

    field: str


@dataclass(eq=False, slots=True)
class SequencePart:
    """One after the other; `name` groups them under one name."""

    parts: tuple[Part, ...]
    name: str = ""


@dataclass(eq=False, slots=True)
class ResidualPart:
    """x + body(x)."""

    body: Part
    shortcut: Literal["identity", "project", "where-equal"] = "identity"
    where: str = ""


@dataclass(eq=False, slots=True)
class ParallelPart:
    """Branches on one input, merged; a `FieldPart` of a list stands for one branch an item."""

    branches: tuple[Part, ...]
    merge: Expression | str = "sum"
    where: str = ""


@dataclass(eq=False, slots=True)
class RoutePart:
    """Rearrange, apply body, rearrange back."""

    how: Expression | str
    body: Part
    size: Value = 0
    where: str = ""


@dataclass(eq=False, slots=True)
class RepeatPart:
    """`body` several times with its own weights each; `index` counts from 0."""

    times: Expression
    body: Part
    index: str = ""
    where: str = ""


@dataclass(eq=False, slots=True)
class SwitchPart:
    """One of several, by value; `if` is a switch over true and false."""

    on: Expression
    cases: tuple[tuple[Any, Part], ...]
    otherwise: Part | None = None
    where: str = ""


@dataclass(eq=False, slots=True)
class GraphPart:
    """A directed acyclic graph: each node is the merge of its edges, `(source, part)`, in order."""

    nodes: tuple[tuple[str, tuple[tuple[str, Part], ...]], ...]
    output: tuple[str, ...]
    merge: Expression | str = "sum"
    where: str = ""


@dataclass(eq=False, slots=True)
class OnNodesPart:
    """Node ids in, rows of what `body` makes of all nodes' features out."""

    body: Part
    where: str = ""


Part = (
    BlockPart
    | FieldPart
    | SequencePart
    | ResidualPart
    | ParallelPart
    | RoutePart
    | RepeatPart
    | SwitchPart
    | GraphPart
    | OnNodesPart
)


def parts_of(part: Part | None) -> Iterator[Part]:
    """`part` and all parts in it, outer before inner, without those of the fields that it refers to."""
    if part is None:
        return
    yield part
    for each in _inner(part):
        yield from parts_of(each)


def _inner(part: Part) -> Sequence[Part | None]:
    """The parts directly in `part`."""
    if isinstance(part, SequencePart):
        return part.parts
    if isinstance(part, ParallelPart):
        return part.branches
    if isinstance(part, SwitchPart):
        return (*(case for _, case in part.cases), part.otherwise)
    if isinstance(part, GraphPart):
        return [edge for _, edges in part.nodes for _, edge in edges]
    if isinstance(part, ResidualPart | RoutePart | RepeatPart | OnNodesPart):
        return (part.body,)
    return ()


def expressions_of(part: Part) -> Iterator[Expression]:
    """The expressions of `part` itself, without those of the parts in it."""
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
