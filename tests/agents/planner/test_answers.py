from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from cambrian.agents.errors import ProposalError
from cambrian.agents.planner.answers import (
    ProposalAnswer,
    answer_bounds,
    answer_schema,
    find_json,
    parse_answers,
)
from tests.agents.planner.world import TinySpace, convnet

GOOD: dict[str, Any] = {
    "hypothesis": "wider is better",
    "expectation": {"measure": "score", "change": "higher", "by_percent": 2.0},
    "parents": ["c-0001"],
    "edit": "width 8 to 16",
    "genotype": {"width": 16, "depth": 1},
}


def read(text: str, space: Any) -> tuple[ProposalAnswer, dict[str, Any]]:
    """The one proposal of an answer."""
    found, problems = parse_answers(text, space)
    assert len(found) == 1 and not problems
    return found[0]


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


@pytest.mark.parametrize("n", [1, 3])
@pytest.mark.parametrize("space", [convnet(), TinySpace()], ids=lambda space: space.name)
def test_the_schema_is_fit_for_strict_back_ends(space: Any, n: int) -> None:
    schema = answer_schema(space, n)
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
    one = schema["properties"]["proposals"]["items"] if n > 1 else schema
    assert list(one["properties"]) == ["hypothesis", "expectation", "parents", "edit", "genotype"]
    for part in walk(schema | {"properties": {"proposals": one | {"properties": _without_genotype(one)}}}):
        assert not {"minItems", "maxItems", "minimum", "maximum", "maxLength", "pattern"} & set(part), part


def _without_genotype(one: dict[str, Any]) -> dict[str, Any]:
    """What this module adds to the space's own schema."""
    return {name: below for name, below in one["properties"].items() if name != "genotype"}


@pytest.mark.parametrize("n", [1, 3])
def test_bounds_are_apart_from_the_schema_and_of_its_own_properties(n: int) -> None:
    schema, bounds = answer_schema(TinySpace(), n), answer_bounds(TinySpace(), n)
    assert set(bounds) <= set(schema["properties"])
    bounded = {name: below | bounds.get(name, {}) for name, below in schema["properties"].items()}
    if n > 1:
        assert bounded["proposals"]["minItems"] == bounded["proposals"]["maxItems"] == n
        item = bounded["proposals"]["items"]
        assert item["required"] == schema["properties"]["proposals"]["items"]["required"]
        bounded = item["properties"]
    assert bounded["hypothesis"]["maxLength"] == 300 and bounded["hypothesis"]["type"] == "string"
    assert bounded["expectation"]["properties"]["by_percent"]["minimum"] == 0
    assert bounded["expectation"]["required"] == ["measure", "change", "by_percent"]
    assert bounded["genotype"] == TinySpace().schema()


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
    answer, genotype = read(text, TinySpace())
    assert answer.model_dump(mode="json", exclude={"expected_effect", "changes"}) == GOOD
    assert genotype == {"width": 16, "depth": 1}


def test_braces_and_quotes_within_strings_do_not_end_the_object() -> None:
    tricky = GOOD | {"edit": 'from "}" to \\"{" and \\'}
    assert read(f"so: {json.dumps(tricky)} done", TinySpace())[0].edit == tricky["edit"]


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
        (json.dumps({k: v for k, v in GOOD.items() if k != "expectation"}), "expectation is missing"),
        (json.dumps(GOOD | {"expectation": "better"}), "expectation: Input should be a valid dict"),
        (json.dumps(GOOD | {"expectation": {"measure": "luck", "change": "higher"}}), "expectation.measure"),
        (
            json.dumps(GOOD | {"expectation": GOOD["expectation"] | {"by_percent": -1}}),
            "expectation.by_percent",
        ),
        ('{"proposals": []}', "the list is empty"),
        ('{"proposals": [1, {}]}', "proposal 1: is no JSON object; proposal 2: hypothesis: Field required"),
        ('{"proposals": {}}', "hypothesis: Field required"),
        (json.dumps(GOOD | {"plan": "x"}), "plan: Extra inputs are not permitted"),
        (json.dumps(GOOD | {"genotype": "wide"}), "genotype: Input should be a valid dictionary"),
        (json.dumps(GOOD | {"parents": ["c"] * 99}), "parents: "),
        (json.dumps(GOOD | {"genotype": {"width": 9, "depth": 1}}), "width: 9 is not allowed"),
    ],
)
def test_what_is_wrong_is_told(text: str, message: str) -> None:
    with pytest.raises(ProposalError, match=message):
        read(text, TinySpace())


def test_the_last_of_several_blocks_is_the_answer() -> None:
    assert find_json('```json\n{"n": 1}\n```\nNo, better:\n```json\n{"n": 2}\n```') == {"n": 2}


def test_long_texts_are_cut_and_put_on_one_line() -> None:
    answer, _ = read(json.dumps(GOOD | {"hypothesis": "so\n" * 5000}), TinySpace())
    assert len(answer.hypothesis) == 600 and "\n" not in answer.hypothesis


def test_an_edit_may_be_empty_but_not_left_out() -> None:
    assert read(json.dumps(GOOD | {"edit": ""}), TinySpace())[0].edit == ""
    without = {name: value for name, value in GOOD.items() if name != "edit"}
    with pytest.raises(ProposalError, match="the field edit is missing"):
        read(json.dumps(without), TinySpace())


def test_an_expectation_in_words_is_still_understood() -> None:
    old = {name: value for name, value in GOOD.items() if name != "expectation"}
    answer, _ = read(json.dumps(old | {"expected_effect": "accuracy +0.02"}), TinySpace())
    assert answer.expectation is None and answer.expected_effect == "accuracy +0.02"


def test_a_sign_that_says_the_same_twice_is_understood() -> None:
    expected = {"measure": "latency_ms", "change": "lower", "by_percent": -12.5}
    answer, _ = read(json.dumps(GOOD | {"expectation": expected}), TinySpace())
    assert answer.expectation is not None and answer.expectation.by_percent == 12.5


def test_one_bad_proposal_of_several_does_not_lose_the_others() -> None:
    other = GOOD | {"genotype": {"width": 8, "depth": 3}}
    several = [GOOD, GOOD | {"genotype": {"width": 9, "depth": 1}}, GOOD | {"edit": 1}, GOOD, other]
    found, problems = parse_answers(json.dumps({"proposals": several}), TinySpace(), 5)
    assert [genotype for _, genotype in found] == [GOOD["genotype"], other["genotype"]]
    assert [problem.partition(":")[0] for problem in problems] == ["proposal 2", "proposal 3", "proposal 4"]
    assert "9 is not allowed" in problems[0] and "edit" in problems[1] and "earlier one" in problems[2]


def test_the_form_of_an_answer_may_be_the_other_one() -> None:
    assert len(parse_answers(json.dumps(GOOD), TinySpace(), 3)[0]) == 1
    several = {"proposals": [GOOD, GOOD | {"genotype": {"width": 8, "depth": 3}}]}
    found, _ = parse_answers(json.dumps(several), TinySpace(), 1)
    assert [genotype for _, genotype in found] == [GOOD["genotype"]]


def test_a_flood_of_proposals_is_not_read_to_its_end() -> None:
    found, problems = parse_answers(json.dumps({"proposals": [GOOD] * 5000}), TinySpace(), 16)
    assert len(found) == 1 and len(problems) == 15
