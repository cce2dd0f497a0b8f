"""Every schema that is sent, against what strict back-ends take.

The rules are those that OpenAI documents for structured outputs; other strict servers take more, or the same.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import pytest

from cambrian.agents.analyst.lessons import lesson_schema
from cambrian.agents.checking import with_genes
from cambrian.agents.planner.answers import answer_schema
from cambrian.agents.planner.changes import Start, genes
from cambrian.agents.runfile import RunConfig
from cambrian.search_spaces import SPACES, TASKS, Space
from cambrian.search_spaces.recipe_genes import ABOUT
from tests.agents.planner.world import TinySpace, config

KEYWORDS = {
    "type", "description", "title", "enum", "const", "properties", "required", "additionalProperties",
    "items", "minItems", "maxItems", "anyOf", "$ref", "$defs",
}  # fmt: skip
"""All that we need. Sizes of arrays are left out for servers that refuse them, see `wire.Dialect`; other
bounds (`minimum`, `pattern`, ...) go to servers of one's own only, through `ModelRequest.bounds`."""
TYPES = {"string", "number", "integer", "boolean", "object", "array", "null"}
MOST_PROPERTIES, DEEPEST, MOST_VALUES, MOST_CHARS, MOST_LONG = 5000, 10, 1000, 120_000, 15_000


def faults(schema: dict[str, Any]) -> list[str]:
    """What a strict back-end would refuse in `schema`, each with its place."""
    found = list(_walk(schema, schema, "", ()))
    if schema.get("type") != "object" or "anyOf" in schema:
        found.append("the root is no plain object")
    nodes = list(_nodes(schema))
    names = [name for node in nodes for name in node.get("properties", {})]
    values = [value for node in nodes for value in [*node.get("enum", []), *_const(node)]]
    if len(names) > MOST_PROPERTIES:
        found.append(f"{len(names)} properties")
    if len(values) > MOST_VALUES:
        found.append(f"{len(values)} values of enums")
    texts = [*names, *schema.get("$defs", {}), *(value for value in values if isinstance(value, str))]
    if sum(map(len, texts)) > MOST_CHARS:
        found.append(f"{sum(map(len, texts))} characters of names and values")
    for node in nodes:
        enum = node.get("enum", [])
        if len(enum) > 250 and sum(len(str(value)) for value in enum) > MOST_LONG:
            found.append("an enum of more than 250 values is too long")
    return found


def _const(node: dict[str, Any]) -> list[Any]:
    return [node["const"]] if "const" in node else []


def _nodes(node: Any) -> Iterator[dict[str, Any]]:
    """All sub-schemas, each once."""
    if not isinstance(node, dict):
        return
    yield node
    for below in [*node.get("properties", {}).values(), *node.get("$defs", {}).values()]:
        yield from _nodes(below)
    for below in [*node.get("anyOf", []), *([node["items"]] if "items" in node else [])]:
        yield from _nodes(below)


def _walk(node: Any, root: dict[str, Any], place: str, within: tuple[str, ...]) -> Iterator[str]:
    """Faults of `node` and of all below it, references followed; `within` are the objects around it."""
    if not isinstance(node, dict):
        yield f"{place}: no object, so it allows anything"
        return
    for unknown in sorted(set(node) - KEYWORDS):
        yield f"{place}: {unknown}"
    if "$ref" in node:
        if set(node) - {"$ref", "description"}:
            yield f"{place}: a reference with something beside it"
        name = node["$ref"].removeprefix("#/$defs/")
        if name not in root.get("$defs", {}):
            yield f"{place}: reference to nothing: {node['$ref']}"
        elif f"${name}" not in within:  # a recursion is allowed, its depth is the answer's
            yield from _walk(root["$defs"][name], root, place, (*within, f"${name}"))
        return
    yield from _kinds(node, place)
    if node.get("type") == "object" or "properties" in node:
        within = (*within, place)
        yield from _object_faults(node, place, within)
    for name, below in node.get("properties", {}).items():
        yield from _walk(below, root, f"{place}.{name}", within)
    if "items" in node:
        yield from _walk(node["items"], root, f"{place}[]", within)
    for number, below in enumerate(node.get("anyOf", [])):
        yield from _walk(below, root, f"{place}|{number}", within)


def _object_faults(node: dict[str, Any], place: str, within: tuple[str, ...]) -> Iterator[str]:
    if sum(not each.startswith("$") for each in within) > DEEPEST:
        yield f"{place}: nested more than {DEEPEST} deep"
    if node.get("additionalProperties") is not False:
        yield f"{place}: additionalProperties is not false"
    if set(node.get("required", [])) != set(node.get("properties", {})):
        yield f"{place}: not all properties are required"


def _kinds(node: dict[str, Any], place: str) -> Iterator[str]:
    if not {"anyOf", "enum", "const", "type"} & set(node):
        yield f"{place}: neither a type nor a choice"
    kinds = node.get("type", [])
    for kind in [kinds] if isinstance(kinds, str) else kinds:
        if kind not in TYPES:
            yield f"{place}: type {kind}"
    if kinds == "array" and "items" not in node:
        yield f"{place}: an array of anything"


def settings(space: str, genes: list[str]) -> RunConfig:
    return config(space=space, task={"name": "digits"}, recipe_genes=genes)


@pytest.mark.parametrize("n", [1, 3], ids=["one", "batch"])
@pytest.mark.parametrize("name", SPACES.names())
def test_proposals(name: str, n: int) -> None:
    space = SPACES.create(name)
    assert faults(answer_schema(space, n)) == []
    if space.kind == "declarative":
        task = TASKS.create("digits")
        with_recipe = with_genes(space, settings(name, list(ABOUT)), task, "test")
        assert faults(answer_schema(with_recipe, n)) == []


@pytest.mark.parametrize("name", SPACES.names())
def test_proposals_by_changes(name: str) -> None:
    space = SPACES.create(name)
    if space.kind == "code":
        pytest.skip("source is written whole")
    rng = random.Random(name)
    for _ in range(10):
        start = Start(("c-0001", "c-0002"), tuple(genes(space, space.sample(rng))))
        assert faults(answer_schema(space, 1, start)) == []
    with_recipe = with_genes(space, settings(name, list(ABOUT)), TASKS.create("digits"), "test")
    start = Start(("c-0001",), tuple(genes(with_recipe, with_recipe.sample(rng))))
    assert faults(answer_schema(with_recipe, 1, start)) == []


def test_a_users_space() -> None:
    space: Space = TinySpace()
    assert faults(answer_schema(space)) == [] == faults(answer_schema(space, 2))


def test_lessons() -> None:
    assert faults(lesson_schema()) == []
    assert faults(lesson_schema([f"n-{i:02d}" for i in range(100)])) == []


def _object(**properties: Any) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": [*properties],
        "additionalProperties": False,
    }


def _nested(depth: int) -> dict[str, Any]:
    return {"type": "string"} if depth == 0 else _object(a=_nested(depth - 1))


@pytest.mark.parametrize(
    ("schema", "fault"),
    [
        (_object(a={"oneOf": [{"type": "string"}]}), ".a: oneOf"),
        (_object(a={"allOf": [{"type": "string"}]}), ".a: allOf"),
        (_object(a={"not": {"type": "string"}}), ".a: not"),
        (_object(a={"type": "array", "prefixItems": [{"type": "string"}]}), ".a: prefixItems"),
        (_object(a=_object() | {"patternProperties": {}}), ".a: patternProperties"),
        (_object(a={"type": "string", "default": "x"}), ".a: default"),
        (_object(a={"type": "integer", "minimum": 1}), ".a: minimum"),
        (_object(a=_object() | {"additionalProperties": True}), ".a: additionalProperties is not false"),
        (_object(a=_object(b={"type": "null"}) | {"required": []}), ".a: not all properties are required"),
        (_object(a={"type": "array", "items": {}}), ".a[]: neither a type nor a choice"),
        (_object(a={"type": "array"}), ".a: an array of anything"),
        (_object(a=True), ".a: no object, so it allows anything"),
        (_object(a={"anyOf": [{"type": "text"}]}), ".a|0: type text"),
        (_object(a={"$ref": "#/$defs/b"}), ".a: reference to nothing: #/$defs/b"),
        ({"anyOf": [_object()]}, "the root is no plain object"),
        (_object(a={"type": "integer", "enum": list(range(1001))}), "1001 values of enums"),
        (_object(a={"enum": ["x" * 60 + str(n) for n in range(251)]}), "an enum of more than 250 values"),
        (_object(**{f"p{n}": {"type": "null"} for n in range(5001)}), "5001 properties"),
        (_object(**{"p" * 60_001: {"type": "null"}, "q" * 60_000: {"type": "null"}}), "120001 characters"),
        (_nested(11), "nested more than 10 deep"),
    ],
)  # fmt: skip
def test_the_check_finds(schema: dict[str, Any], fault: str) -> None:
    assert any(fault in each for each in faults(schema))


def test_the_check_takes_what_is_allowed() -> None:
    tree = _object(kids={"type": "array", "items": {"$ref": "#/$defs/tree"}}, n={"type": ["integer", "null"]})
    assert faults(_object(a={"$ref": "#/$defs/tree"}) | {"$defs": {"tree": tree}}) == []
    assert faults(_nested(10)) == []
