"""A layout as an indented tree of words: what a rule of a space builds."""

from __future__ import annotations

from collections.abc import Sequence

from cambrian.search_spaces.declarative.expression import Expression
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
    Value,
)
from cambrian.search_spaces.declarative.phrases import condition, scalar

_MERGED = {"sum": "summed", "mean": "averaged", "product": "multiplied", "concat": "concatenated"}
_ROUTES = {
    "tokens": "on the pixels as tokens",
    "transpose": "with channels and positions exchanged",
    "patches": "on patches",
}
_SHORTCUTS = {
    "identity": "x + f(x), f:",
    "project": "x + f(x), x projected where shapes differ, f:",
    "where-equal": "x + f(x) where shapes are equal, f:",
}


def tree(part: Part) -> list[str]:
    """The lines of a layout, indented by two blanks a level.

    Fields stand in angle brackets, conditions and numbers as they are written.
    """
    if isinstance(part, BlockPart):
        arguments = ", ".join(f"{name}={_value(value)}" for name, value in part.arguments)
        return [f"{part.block.name}({arguments})" if arguments else part.block.name]
    if isinstance(part, FieldPart):
        return [f"<{part.field}>"]
    if isinstance(part, SequencePart):
        lines = [line for each in part.parts for line in tree(each)] or ["nothing"]
        return [f"{part.name}:", *_indented(lines)] if part.name else lines
    if isinstance(part, ResidualPart):
        return [_SHORTCUTS[part.shortcut], *_indented(tree(part.body))]
    if isinstance(part, ParallelPart):
        merged = _one_of(part.merge, _MERGED, "merged by")
        return [f"in parallel, {merged}:", *_listed(part.branches)]
    if isinstance(part, RoutePart):
        size = f" of size {_value(part.size)}" if part.how == "patches" else ""
        return [f"{_one_of(part.how, _ROUTES, 'routed as')}{size}:", *_indented(tree(part.body))]
    if isinstance(part, RepeatPart):
        index = f" ({part.index} counts from 0)" if part.index else ""
        return [f"{part.times.text} times{index}:", *_indented(tree(part.body))]
    if isinstance(part, SwitchPart):
        return _switch(part)
    if isinstance(part, GraphPart):
        return _graph(part)
    assert isinstance(part, OnNodesPart)
    return ["on all nodes of the graph, then the rows that are asked for:", *_indented(tree(part.body))]


def _switch(part: SwitchPart) -> list[str]:
    text = part.on.text
    if text.startswith("bool(") and {value for value, _ in part.cases} == {True, False}:
        cases = dict(part.cases)
        lines = [f"if {condition(Expression(text[5:-1]))}:", *_indented(tree(cases[True]))]
        otherwise = tree(cases[False])
        return lines if otherwise == ["nothing"] else [*lines, "else:", *_indented(otherwise)]
    lines = [f"by {text}:"]
    for value, case in part.cases:
        lines += _headed(scalar(value), tree(case))
    return lines + (_headed("else", tree(part.otherwise)) if part.otherwise is not None else [])


def _graph(part: GraphPart) -> list[str]:
    merged = _one_of(part.merge, _MERGED, "merged by")
    lines = [f"a graph whose nodes are their edges, {merged}; output {', '.join(part.output)}:"]
    for name, edges in part.nodes:
        for source, edge in edges:
            lines += _headed(f"{source} to {name}", tree(edge))
    return lines


def _headed(head: str, lines: Sequence[str]) -> list[str]:
    if len(lines) == 1:
        return [f"  {head}: {lines[0]}"]
    return [f"  {head}:", *(f"    {line}" for line in lines)]


def _listed(branches: Sequence[Part]) -> list[str]:
    found = []
    for branch in branches:
        first, *others = tree(branch)
        found += [f"  - {first}", *(f"    {line}" for line in others)]
    return found


def _indented(lines: Sequence[str]) -> list[str]:
    return [f"  {line}" for line in lines]


def _one_of(value: Expression | str, words: dict[str, str], computed: str) -> str:
    return f"{computed} {value.text}" if isinstance(value, Expression) else words[value]


def _value(value: Value) -> str:
    return value.text if isinstance(value, Expression) else scalar(value)
