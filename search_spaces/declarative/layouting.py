"""The compiler of layouts: what stands below `build`, as parts whose names are known to exist."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from cambrian.search_spaces.declarative.catalogue import REQUIRED, Block
from cambrian.search_spaces.declarative.expression import Expression, ExpressionError
from cambrian.search_spaces.declarative.grammar import Domain, Options, Record, Repeat
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
from cambrian.search_spaces.errors import UserError
from cambrian.search_spaces.registry import near_names

GLOBALS = frozenset({"input", "given", "n_outputs", "vocabulary", "graph"})
"""What expressions of a layout see beside fields and indices."""

MERGES = ("sum", "mean", "product", "concat")
ROUTES = ("tokens", "transpose", "patches")
SHORTCUTS = ("identity", "project", "where-equal")

_KEYS: dict[str, set[str]] = {
    "sequential": {"name"}, "residual": {"shortcut"}, "parallel": {"merge"}, "route": {"size", "body"},
    "repeat": {"index", "body"}, "if": {"then", "else"}, "switch": {"cases", "else"}, "graph": set(),
    "on_nodes": set(),
}  # fmt: skip
"""Compositions, and the keys that may stand beside each."""


class LayoutError(UserError):
    """A layout says something that cannot be; the message begins with the place."""


class LayoutCompiler:
    """Compiles the layouts of one space file.

    Attributes:
        indices: names of all loop indices in the file; what a loop inserts sees its index.

    Args:
        blocks: all blocks by name.
        builds: every record that has a layout, with that layout and its place.
        scalars: the values that have a layout, by `id`.
    """

    def __init__(
        self, blocks: Mapping[str, Block], builds: Iterable[tuple[Record, Any, str]], scalars: Iterable[int]
    ) -> None:
        self._blocks = blocks
        builds = list(builds)
        self._building = {*(id(record) for record, _, _ in builds), *scalars}
        self.indices = {str(name) for _, build, _ in builds for name in _found(build, "index")}
        self._record = Record("")
        self._known: frozenset[str] = frozenset()
        self._outer: frozenset[str] = frozenset()

    def compile(self, record: Record, build: Any, where: str, outer: frozenset[str]) -> Part:
        """The layout of `record`.

        Raises:
            LayoutError: an unknown block, argument, field, key or name; the message begins with `where`.
        """
        self._record, self._outer = record, outer - {"value"}
        fields = {field.name for field in record.fields}
        self._known = frozenset({*outer, *fields, *GLOBALS, *self.indices})
        if record.kind is not None:
            self._known |= {"kind"}
        return self._body(build, where)

    def _body(self, build: Any, where: str) -> Part:
        if isinstance(build, list):
            parts = tuple(self._part(part, f"{where}[{i}]") for i, part in enumerate(build))
            return parts[0] if len(parts) == 1 else SequencePart(parts)
        return self._part(build, where)

    def _part(self, part: Any, where: str) -> Part:
        if isinstance(part, str):
            return self._block(part, {}, where) if part[:1].isupper() else self._field(part, where)
        if not isinstance(part, Mapping) or not part:
            raise LayoutError(f"{where}: {part!r} is no part of a layout", hint="LANGUAGE.md lists the parts")
        key = next((key for key in part if key in _KEYS), None)
        if key is None:
            name, arguments = next(iter(part.items()))
            if len(part) > 1 or not str(name)[:1].isupper():
                raise LayoutError(
                    f"{where}: {', '.join(map(str, part))}: no such part",
                    hint=near_names(str(name), [*_KEYS, *self._blocks]),
                )
            return self._block(str(name), arguments or {}, where)
        for other in part:
            if other != key and other not in _KEYS[key]:
                raise LayoutError(
                    f"{where}: {other!r} does not go with {key}",
                    hint=near_names(str(other), sorted(_KEYS[key])),
                )
        compiled: Part = getattr(self, f"_{key}")(part, f"{where}.{key}")
        if not isinstance(compiled, FieldPart | SequencePart):
            compiled.where = where
        return compiled

    def _block(self, name: str, arguments: Any, where: str) -> BlockPart:
        block = self._blocks.get(name)
        if block is None:
            raise LayoutError(
                f"{where}: no block is called {name}", hint=near_names(name, list(self._blocks))
            )
        if not isinstance(arguments, Mapping):
            raise LayoutError(f"{where}: {name} needs a mapping of arguments, not {arguments!r}")
        for key in arguments:
            if key not in block.arguments:
                raise LayoutError(
                    f"{where}: {name} has no argument {key!r}",
                    hint=near_names(str(key), list(block.arguments)),
                )
        for key, argument in block.arguments.items():
            if argument.default is REQUIRED and key not in arguments:
                raise LayoutError(f"{where}: {name} needs the argument {key}", hint=argument.about)
        values = {key: self._value(value, f"{where}.{key}") for key, value in arguments.items()}
        for key, value in values.items():
            if isinstance(value, Expression):
                continue
            kind, allowed = block.arguments[key].kind, block.arguments[key].allowed
            if isinstance(value, str) and kind is not str:
                hint = self._forgotten_sign(value) or "an expression starts with ="
                raise LayoutError(
                    f"{where}.{key}: {name}.{key} must be {kind.__name__}, not {value!r}", hint=hint
                )
            if allowed and value not in allowed:
                hint = self._forgotten_sign(value) or f"allowed: {', '.join(map(str, allowed))}"
                raise LayoutError(f"{where}.{key}: {name}.{key} is {value!r}", hint=hint)
        return BlockPart(block, tuple(values.items()), where)

    def _forgotten_sign(self, value: object) -> str:
        """A hint where `value` is text that would be an expression over names in scope."""
        try:
            expression = Expression(value)
            expression.check_names(self._known)
        except ExpressionError:
            return ""
        return f"did you mean ={expression.text}?" if expression.names else ""

    def _value(self, value: Any, where: str) -> Value:
        if isinstance(value, str) and value.startswith("="):
            return self._expression(value[1:], where)
        if value is None or isinstance(value, bool | int | float | str):
            return value
        raise LayoutError(f"{where}: {value!r} is no plain value", hint="an expression starts with =")

    def _expression(self, text: Any, where: str) -> Expression:
        try:
            expression = Expression(text, where)
            expression.check_names(self._known)
        except ExpressionError as error:
            raise LayoutError(f"{where}: {error.message}", hint=error.hint) from None
        return expression

    def _field(self, name: str, where: str) -> FieldPart:
        field = self._record.by_name.get(name)
        if field is None:
            own = list(self._record.by_name)
            hint = f"{near_names(name, own)}; " if own else ""
            hint += "only a record's own fields can be placed; blocks are capitalised"
            if name in self._outer:
                hint = f"{name} is a field of an outer record; only a record's own fields can be placed"
            raise LayoutError(f"{where}: {self._record.name} has no field {name!r}", hint=hint)
        if not self._builds(field.domain):
            raise LayoutError(f"{where}: the field {name} builds nothing", hint="give its rule a build")
        return FieldPart(name)

    def _builds(self, domain: Domain) -> bool:
        if isinstance(domain, Repeat):
            return self._builds(domain.item)
        if isinstance(domain, Options):
            return all(id(case) in self._building for case in domain.cases.values())
        return id(domain) in self._building

    def _sequential(self, part: Mapping[str, Any], where: str) -> SequencePart:
        body = self._body(part["sequential"], where)
        parts = body.parts if isinstance(body, SequencePart) and not body.name else (body,)
        return SequencePart(parts, str(part.get("name", "")))

    def _residual(self, part: Mapping[str, Any], where: str) -> ResidualPart:
        shortcut = self._one_of(part.get("shortcut", "identity"), SHORTCUTS, f"{where}.shortcut")
        return ResidualPart(self._body(part["residual"], where), shortcut)  # type: ignore[arg-type]

    def _parallel(self, part: Mapping[str, Any], where: str) -> ParallelPart:
        branches = part["parallel"]
        if not isinstance(branches, list) or not branches:
            raise LayoutError(f"{where}: needs a list of branches", hint="each a list of parts")
        compiled = tuple(self._body(branch, f"{where}[{i}]") for i, branch in enumerate(branches))
        return ParallelPart(compiled, self._choice(part.get("merge", "sum"), MERGES, f"{where}.merge"))

    def _route(self, part: Mapping[str, Any], where: str) -> RoutePart:
        how = self._choice(part["route"], ROUTES, where)
        if "body" not in part:
            raise LayoutError(f"{where}: needs a body")
        size = self._value(part.get("size", 0), f"{where}.size")
        return RoutePart(how, self._body(part["body"], f"{where}.body"), size)

    def _repeat(self, part: Mapping[str, Any], where: str) -> RepeatPart:
        if "body" not in part:
            raise LayoutError(f"{where}: needs a body")
        body = self._body(part["body"], f"{where}.body")
        return RepeatPart(self._expression(part["repeat"], where), body, str(part.get("index", "")))

    def _if(self, part: Mapping[str, Any], where: str) -> SwitchPart:
        then = self._body(part.get("then", []), f"{where}.then")
        otherwise = self._body(part.get("else", []), f"{where}.else")
        return SwitchPart(self._expression(f"bool({part['if']})", where), ((True, then), (False, otherwise)))

    def _switch(self, part: Mapping[str, Any], where: str) -> SwitchPart:
        cases = part.get("cases")
        if not isinstance(cases, Mapping) or not cases:
            raise LayoutError(f"{where}: needs cases", hint="cases: {value: layout}")
        compiled = tuple((value, self._body(body, f"{where}.{value}")) for value, body in cases.items())
        otherwise = self._body(part["else"], f"{where}.else") if "else" in part else None
        return SwitchPart(self._expression(part["switch"], where), compiled, otherwise)

    def _graph(self, part: Mapping[str, Any], where: str) -> GraphPart:
        inside = part["graph"]
        if not isinstance(inside, Mapping) or not isinstance(inside.get("nodes"), Mapping):
            raise LayoutError(f"{where}: needs nodes", hint="nodes: {a: {input: layout}}, output: a")
        if unknown := set(inside) - {"nodes", "merge", "output"}:
            raise LayoutError(f"{where}: unknown key {sorted(unknown)[0]!r}", hint="nodes, merge, output")
        nodes: list[tuple[str, tuple[tuple[str, Part], ...]]] = []
        earlier = ["input"]
        for name, edges in inside["nodes"].items():
            if not isinstance(edges, Mapping) or not edges:
                raise LayoutError(f"{where}.{name}: needs edges", hint="{input: layout}")
            for source in edges:
                if source not in earlier:
                    raise LayoutError(
                        f"{where}.{name}: {source!r} is no earlier node",
                        hint=near_names(str(source), earlier),
                    )
            compiled = tuple((str(s), self._body(b, f"{where}.{name}.{s}")) for s, b in edges.items())
            nodes.append((str(name), compiled))
            earlier.append(str(name))
        output = inside.get("output", earlier[-1])
        outputs = tuple(output) if isinstance(output, list) else (str(output),)
        for name in outputs:
            if name not in earlier:
                raise LayoutError(f"{where}.output: no node {name!r}", hint=near_names(str(name), earlier))
        merge = self._choice(inside.get("merge", "sum"), MERGES, f"{where}.merge")
        return GraphPart(tuple(nodes), outputs, merge)

    def _on_nodes(self, part: Mapping[str, Any], where: str) -> OnNodesPart:
        return OnNodesPart(self._body(part["on_nodes"], where))

    def _choice(self, value: Any, allowed: tuple[str, ...], where: str) -> Expression | str:
        if isinstance(value, str) and value.startswith("="):
            return self._expression(value[1:], where)
        return self._one_of(value, allowed, where)

    def _one_of(self, value: Any, allowed: tuple[str, ...], where: str) -> str:
        if value not in allowed:
            raise LayoutError(f"{where}: {value!r} is not possible", hint=f"allowed: {', '.join(allowed)}")
        return str(value)


def _found(build: Any, key: str) -> Iterable[Any]:
    """Every value that stands under `key` beside a `repeat`, anywhere in a layout."""
    if isinstance(build, Mapping):
        if "repeat" in build and key in build:
            yield build[key]
        for value in build.values():
            yield from _found(value, key)
    elif isinstance(build, list):
        for value in build:
            yield from _found(value, key)
