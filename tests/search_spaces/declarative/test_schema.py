"""Schemas: members conform, what is no member mostly does not, and strict back-ends take them."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

from cambrian.agents.planner.answers import answer_schema
from cambrian.search_spaces.declarative.sampling import sample
from cambrian.search_spaces.declarative.schema import schema
from tests.contracts.space import _check_strict, conforms
from tests.search_spaces.declarative.spaces import flat, stages, trees


def test_a_record_is_an_object_with_all_its_fields(tmp_path: Path) -> None:
    space = flat(
        tmp_path,
        """
        a: {choice: [x, y], about: the letter}
        b: {choice: [1, 2], when: a == 'x', otherwise: 1}
        c: {repeat: {boolean: true}, min: 0, max: 2}
        d: [0, 0.5]
        e: [auto, 3, true]
        """,
    )
    letters = {"type": "string", "description": "the letter", "enum": ["x", "y"]}
    assert schema(space) == {
        "type": "object",
        "properties": {
            "a": letters,
            "b": {"type": "integer", "description": "counts only while a == 'x'", "enum": [1, 2]},
            "c": {
                "type": "array",
                "items": {"type": "boolean", "enum": [False, True]},
                "minItems": 0,
                "maxItems": 2,
            },
            "d": {"type": "number", "enum": [0, 0.5]},
            "e": {
                "anyOf": [
                    {"type": "boolean", "enum": [True]},
                    {"type": "integer", "enum": [3]},
                    {"type": "string", "enum": ["auto"]},
                ]
            },
        },
        "required": ["a", "b", "c", "d", "e"],
        "additionalProperties": False,
    }


def test_only_recursive_rules_are_defined_apart(tmp_path: Path) -> None:
    assert "$" not in json.dumps(schema(stages(tmp_path / "flat")))
    made = schema(trees(tmp_path / "trees"))
    assert made["properties"]["body"] == {"$ref": "#/$defs/node"}
    assert list(made["$defs"]) == ["node"]
    node = made["$defs"]["node"]
    assert node["description"] == "part of the network"
    assert [each["properties"]["kind"]["enum"] for each in node["anyOf"]] == [["conv"], ["chain"], ["add"]]


def test_members_conform_and_others_do_not(tmp_path: Path) -> None:
    rng = random.Random(0)
    for space in (stages(tmp_path / "stages"), trees(tmp_path / "trees")):
        made = schema(space)
        _check_strict(made)
        for _ in range(200):
            member = sample(space, rng)
            assert conforms(member, made)
            assert not conforms({**member, "more": 1}, made)
            spoiled = _spoiled(json.loads(json.dumps(member)), rng)
            assert not conforms(spoiled, made), spoiled


def _spoiled(member: Any, rng: random.Random) -> Any:
    """The member with one value that no table has."""
    owners = []
    todo = [member]
    while todo:
        part = todo.pop()
        entries = part.items() if isinstance(part, dict) else enumerate(part)
        for key, value in entries:
            if isinstance(value, dict | list):
                todo.append(value)
            else:
                owners.append((part, key))
    owner, key = rng.choice(owners)
    owner[key] = "nothing"
    return member


def test_the_planners_answer_refers_to_definitions_at_the_root(tmp_path: Path) -> None:
    space = trees(tmp_path)

    class OnlySchema:
        def schema(self) -> dict[str, Any]:
            return schema(space)

    made = answer_schema(OnlySchema())  # type: ignore[arg-type]
    _check_strict(made)
    rng = random.Random(1)
    answer = {
        "hypothesis": "",
        "expectation": {"measure": "score", "change": "higher", "by_percent": 1},
        "parents": [],
        "edit": "",
        "genotype": sample(space, rng),
    }
    assert conforms(answer, made)
    answer["genotype"] = {"body": {"kind": "conv", "width": 5}}
    assert not conforms(answer, made)
