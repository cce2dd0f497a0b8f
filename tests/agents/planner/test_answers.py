from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from cambrian.agents.errors import ProposalError
from cambrian.agents.planner.answers import answer_schema, find_json, parse_answer
from tests.agents.planner.world import TinySpace, convnet

GOOD = {
    "hypothesis": "wider is better",
    "expected_effect": "accuracy +0.02",
    "parents": ["c-0001"],
    "edit": "width 8 to 16",
    "genotype": {"width": 16, "depth": 1},
}
FORBIDDEN = {
    "oneOf",
    "allOf",
    "not",
    "prefixItems",
    "patternProperties",
    "propertyNames",
    "unevaluatedProperties",
    "dependentSchemas",
    "if",
    "then",
    "else",
    "default",
    "format",
}


def walk(schema: Any) -> Iterator[dict[str, Any]]:
    """Every sub-schema; the names of properties are no keywords."""
    if isinstance(schema, list):
        for item in schema:
            yield from walk(item)
    if not isinstance(schema, dict):
        return
    yield schema
    for key, value in schema.items():
        if key in ("properties", "$defs"):
            for below in value.values():
                yield from walk(below)
        elif key not in ("enum", "const", "required", "description"):
            yield from walk(value)


@pytest.mark.parametrize("space", [convnet(), TinySpace()], ids=lambda space: space.name)
def test_the_schema_is_fit_for_strict_back_ends(space: Any) -> None:
    schema = answer_schema(space)
    parts = list(walk(schema))
    assert len(parts) > 7
    for part in parts:
        assert not FORBIDDEN & set(part), part
        assert not isinstance(part.get("type"), list)
        if part.get("type") == "object":
            assert part["additionalProperties"] is False
            assert sorted(part["required"]) == sorted(part["properties"])
        if part.get("type") == "array":
            assert isinstance(part["items"], dict)
    assert list(schema["properties"]) == ["hypothesis", "expected_effect", "parents", "edit", "genotype"]


def test_definitions_of_a_space_are_lifted_to_the_root() -> None:
    class Recursive(TinySpace):
        def schema(self) -> dict[str, Any]:
            return {"$ref": "#/$defs/cell", "$defs": {"cell": {"type": "object"}}}

    schema = answer_schema(Recursive())
    assert schema["$defs"] == {"cell": {"type": "object"}}
    assert schema["properties"]["genotype"] == {"$ref": "#/$defs/cell"}


@pytest.mark.parametrize(
    "text",
    [
        json.dumps(GOOD),
        json.dumps(GOOD, indent=2),
        f"```json\n{json.dumps(GOOD)}\n```",
        f"Sure! Here it is:\n```JSON\n{json.dumps(GOOD, indent=1)}\n```\nGood luck {{}}.",
        f'First I thought of ```json\n{{"n": \n```, but:\n```\n{json.dumps(GOOD)}\n```',
        f'<think>maybe {{"width": 9}}? or\n```json\n{{}}\n```</think>\n{json.dumps(GOOD)}',
        f"My answer: {json.dumps(GOOD)} I hope that }} helps.",
        json.dumps(GOOD) + "\n" + json.dumps(GOOD),
    ],
)
def test_the_object_is_found_in_what_models_write(text: str) -> None:
    answer, genotype = parse_answer(text, TinySpace())
    assert answer.model_dump(mode="json") == GOOD
    assert genotype == {"width": 16, "depth": 1}


def test_braces_and_quotes_within_strings_do_not_end_the_object() -> None:
    tricky = GOOD | {"edit": 'from "}" to \\"{" and \\'}
    assert parse_answer(f"so: {json.dumps(tricky)} done", TinySpace())[0].edit == tricky["edit"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "the answer is empty"),
        ("<think>hm</think>  ", "the answer is empty"),
        ("I would make it wider.", "holds no JSON object"),
        ("[1, 2]", "not one valid JSON object"),
        ('{"hypothesis": "cut of', "not one valid JSON object: EOF while parsing"),
        ('{"a": NaN}', "not one valid JSON object"),
        ('{"a": "\\ud800"}', "not one valid JSON object"),
        ("{" * 100_000, "not one valid JSON object"),
        ('{"a":' * 5_000 + "1" + "}" * 5_000, "not one valid JSON object"),
        ("{}", "hypothesis: Field required"),
        (json.dumps(GOOD | {"plan": "x"}), "plan: Extra inputs are not permitted"),
        (json.dumps(GOOD | {"genotype": "wide"}), "genotype: Input should be a valid dictionary"),
        (json.dumps(GOOD | {"parents": ["c"] * 99}), "parents: "),
        (json.dumps(GOOD | {"genotype": {"width": 9, "depth": 1}}), "width: 9 is not allowed"),
    ],
)
def test_what_is_wrong_is_told(text: str, message: str) -> None:
    with pytest.raises(ProposalError, match=message):
        parse_answer(text, TinySpace())


def test_the_last_of_several_blocks_is_the_answer() -> None:
    assert find_json('```json\n{"n": 1}\n```\nNo, better:\n```json\n{"n": 2}\n```') == {"n": 2}


def test_long_texts_are_cut_and_put_on_one_line() -> None:
    answer, _ = parse_answer(json.dumps(GOOD | {"hypothesis": "so\n" * 5000}), TinySpace())
    assert len(answer.hypothesis) == 600 and "\n" not in answer.hypothesis
