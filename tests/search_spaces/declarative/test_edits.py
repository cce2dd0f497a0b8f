"""What edits and joints do, beyond the contract."""

from __future__ import annotations

import copy
import json
import random
import re
import time
from collections import deque
from pathlib import Path
from typing import Any

import pytest

from cambrian.search_spaces import SPACES, HasOperators, UserError
from cambrian.search_spaces.declarative.definition import Definition
from cambrian.search_spaces.declarative.edits import crossover, mutate
from cambrian.search_spaces.declarative.expression import Expression
from cambrian.search_spaces.declarative.grammar import Require
from cambrian.search_spaces.declarative.membership import complaint, fold, validate
from cambrian.search_spaces.declarative.sampling import sample
from tests.search_spaces.declarative.spaces import all_derivations, flat, stages, trees


@pytest.fixture(scope="module")
def space(tmp_path_factory: pytest.TempPathFactory) -> Definition:
    return stages(tmp_path_factory.mktemp("stages"))


@pytest.fixture(scope="module")
def forest(tmp_path_factory: pytest.TempPathFactory) -> Definition:
    return trees(tmp_path_factory.mktemp("trees"), 5)


def stage(**genes: Any) -> dict[str, Any]:
    return {"block": "conv", "width": 8, "activation": "relu", **genes}


def parent(space: Definition) -> dict[str, Any]:
    second = stage(block="inverted", width=16, expansion=2, halve=True, depth=2)
    return validate(space, {"stages": [stage(), second], "head": {"wide": True}})


@pytest.fixture(scope="module")
def stage_words(space: Definition) -> set[str]:
    """Words of many edits of one design."""
    rng, genotype = random.Random(0), parent(space)
    return {mutate(space, genotype, rng)[1] for _ in range(3000)}


@pytest.fixture(scope="module")
def tree_words(forest: Definition) -> set[str]:
    """Words of many edits of one small tree."""
    rng, conv = random.Random(0), {"kind": "conv", "width": 4}
    genotype = validate(forest, {"body": {"kind": "chain", "first": conv, "second": dict(conv)}})
    return {mutate(forest, genotype, rng)[1] for _ in range(1500)}


@pytest.mark.parametrize(
    "pattern",
    [
        r"stages\[1\].width 16 -> 32",
        r"stages\[0\].activation relu -> silu",
        r"stages\[0\].block conv -> inverted \(expansion \d\)",
        r"stages\[1\].halve true -> false",
        r"stem 8 -> 12",
        r"head.dropout 0.0 -> 0.3",
        r"stages\[2\] inserted: (conv|inverted) width .*",
        r"stages\[1\] duplicated: inverted width 16 .*",
        r"stages\[0\] removed \(conv width 8 .*\)",
        r"stages\[0\] and \[1\] swapped",
        r"stages\[\*\].width one step up",
        r"stages\[\*\].activation all gelu",
        r"halve swapped between stages\[0\] and stages\[1\]",
        r"head redrawn: .*",
        r"stages redrawn: 3 items",
    ],
)
def test_all_kinds_of_edit_occur_and_say_so(stage_words: set[str], pattern: str) -> None:
    assert any(re.fullmatch(pattern, line) for line in stage_words), sorted(stage_words)


@pytest.mark.parametrize(
    "pattern",
    [
        r"body.kind chain -> add",
        r"body.first.width 4 -> 8",
        r"body.second wrapped in chain, as its (first|second)",
        r"body wrapped in add, as its (left|right)",
        r"body replaced by its part (first|second)",
        r"body.second redrawn: .*",
        r"width all 8|width everywhere all 8",
    ],
)
def test_trees_grow_shrink_and_change(tree_words: set[str], pattern: str) -> None:
    assert any(re.fullmatch(pattern, line) for line in tree_words), sorted(tree_words)


def test_a_rule_that_starts_the_grammar_can_be_wrapped_and_shrunk(tmp_path: Path) -> None:
    space = _list_space(tmp_path)
    rng = random.Random(0)
    genotype = validate(space, {"kind": "more", "rest": {"kind": "last", "width": 4}, "width": 8})
    found = {}
    for _ in range(300):
        child, words = mutate(space, genotype, rng)
        assert validate(space, child) == child
        found[words] = child
    wrapped = next(child for words, child in found.items() if words.startswith("the whole wrapped in more"))
    assert wrapped["rest"] == genotype
    shrunk = next(c for words, c in found.items() if words == "the whole replaced by its part rest")
    assert shrunk == {"kind": "last", "width": 4}
    assert any(words == "kind more -> last" for words in found)


def _list_space(folder: Path) -> Definition:
    from cambrian.search_spaces.declarative.loading import load
    from tests.search_spaces.declarative.folder import write_space

    rules = """
    chain:
      options:
        last:
          fields: {width: [4, 8]}
          build: [{ConvNorm: {out: =width}}, GlobalPool, {Linear: {out: =n_outputs}}]
        more:
          fields: {width: [4, 8], rest: chain}
          build: [{ConvNorm: {out: =width}}, rest]
    """
    return load(write_space(folder, rules, max_depth=4))


def test_an_edit_of_one_value_changes_what_it_says(space: Definition) -> None:
    rng = random.Random(1)
    seen = 0
    for _ in range(800):
        genotype = sample(space, rng)
        child, words = mutate(space, genotype, rng)
        if found := re.fullmatch(r"stages\[(\d)\].(width|depth) (\d+) -> (\d+)", words):
            seen += 1
            index, gene = int(found[1]), found[2]
            assert genotype["stages"][index][gene] == int(found[3])
            changed = copy.deepcopy(genotype)
            changed["stages"][index][gene] = int(found[4])
            assert fold(space, changed) == child
    assert seen > 100


def test_ordered_values_mostly_move_by_one_step(space: Definition) -> None:
    rng = random.Random(2)
    genotype = parent(space)
    steps = []
    for _ in range(4000):
        found = re.fullmatch(r"stages\[0\].width 8 -> (\d+)", mutate(space, genotype, rng)[1])
        if found:
            steps.append(int(found[1]))
    # one step in 80 % and any value in 20 % of the edits, and 32 is one of three others
    assert 0.01 < steps.count(32) / len(steps) < 0.15
    assert set(steps) == {4, 16, 32}


def test_another_option_keeps_the_fields_that_both_have(tmp_path: Path) -> None:
    space = _list_space(tmp_path)
    genotype = validate(space, {"kind": "more", "width": 8, "rest": {"kind": "last", "width": 4}})
    rng = random.Random(3)
    found = {words: child for child, words in (mutate(space, genotype, rng) for _ in range(200))}
    assert found["kind more -> last"] == {"kind": "last", "width": 8}


def test_joint_edits_move_all_items_of_a_list(space: Definition) -> None:
    genotype = parent(space)
    rng = random.Random(4)
    seen = 0
    for _ in range(3000):
        child, words = mutate(space, genotype, rng)
        if words == "stages[*].width one step up":
            seen += 1
            assert [each["width"] for each in child["stages"]] == [16, 32]
        if words == "halve swapped between stages[0] and stages[1]":
            assert [each["halve"] for each in child["stages"]] == [True, False]
    assert seen > 5


def test_edits_reach_every_member(tmp_path: Path) -> None:
    """Nothing is cut off: from one member all others are reached by random edits."""
    space = trees(tmp_path, 4)
    members = {json.dumps(each) for each in all_derivations(space) if complaint(space, each) is None}
    rng = random.Random(5)
    reached = {next(iter(sorted(members)))}
    todo = deque(reached)
    for _ in range(30_000):
        genotype = json.loads(todo[0])
        todo.rotate()
        child = json.dumps(mutate(space, genotype, rng)[0])
        if child not in reached:
            reached.add(child)
            todo.appendleft(child)
        if len(reached) == len(members):
            break
    assert reached == members


def test_members_far_apart_have_neighbours_all_the_same(tmp_path: Path) -> None:
    """Two values must change at once, which no small edit does."""
    space = flat(tmp_path, "a: [0, 1]\nb: [x, y]\nc: [0, 5]")
    rule = "(a == 1) == (b == 'y') and (b == 'y') == (c == 5)"
    space.grammar.start.requires = (Require(Expression(rule), "equal"),)  # type: ignore[union-attr]
    rng = random.Random(6)
    first = {"a": 0, "b": "x", "c": 0}
    assert mutate(space, first, rng) == ({"a": 1, "b": "y", "c": 5}, "drawn anew: no small edit is valid")


def test_rare_small_edits_are_found(tmp_path: Path) -> None:
    """One edit of some 3,000 is valid, so that it takes the systematic search."""
    space = flat(tmp_path, "a: {integer: [0, 1500], step: 1}\nb: {integer: [0, 1500], step: 1}")
    rule = "a == b or (a == 3 and b == 1400)"
    space.grammar.start.requires = (Require(Expression(rule), "equal"),)  # type: ignore[union-attr]
    child, words = mutate(space, {"a": 3, "b": 1400}, random.Random(7))
    assert (child, words) in (
        ({"a": 3, "b": 3}, "b 1400 -> 3"),
        ({"a": 1400, "b": 1400}, "a 3 -> 1400"),
        ({"a": 1400, "b": 1400}, "a, b all 1400"),
        ({"a": 3, "b": 3}, "a, b all 3"),
    )


@pytest.mark.parametrize("fields", ["a: [1]", "a: [0, 1]\nb: [0, 1]"])
def test_a_space_of_one_member_is_the_users_error(tmp_path: Path, fields: str) -> None:
    space = flat(tmp_path, fields)
    genotype = dict.fromkeys((line[0] for line in fields.splitlines()), 1)
    if "b" in genotype:
        rule = Require(Expression("a + b == 2"), "both must be 1")
        space.grammar.start.requires = (rule,)  # type: ignore[union-attr]
    with pytest.raises(UserError, match="space probe has a single member"):
        mutate(space, genotype, random.Random(0))


def test_children_are_made_of_their_parents(space: Definition) -> None:
    rng = random.Random(8)
    lengths = set()
    for _ in range(500):
        first, second = sample(space, rng), sample(space, rng)
        before = copy.deepcopy([first, second])
        child, words = crossover(space, first, second, rng)
        assert [first, second] == before
        assert validate(space, child) == child and len(words) <= 100
        n = max(k for k in range(4) if child["stages"][:k] == first["stages"][:k])
        rest = child["stages"][n:]
        assert not rest or rest == second["stages"][-len(rest) :]
        lengths.add((len(first["stages"]), len(second["stages"]), len(child["stages"])))
        for gene in ("dropout", "wide"):
            assert child["head"][gene] in (first["head"][gene], second["head"][gene])
        assert child["stem"] in (first["stem"], second["stem"])
    assert (1, 1, 2) in lengths and (3, 3, 1) in lengths


def test_trees_exchange_subtrees(forest: Definition) -> None:
    rng = random.Random(9)
    seen = 0
    for _ in range(400):
        first, second = sample(forest, rng), sample(forest, rng)
        child, words = crossover(forest, first, second, rng)
        assert validate(forest, child) == child and len(words) <= 100
        found = re.fullmatch(r"(body[a-z.]*) of the first replaced by (body[a-z.]*) of the second", words)
        if found:
            seen += 1
            assert _at(child, found[1]) == _at(second, found[2])
    assert seen > 100


def _at(genotype: dict[str, Any], path: str) -> Any:
    part: Any = genotype
    for name in path.split("."):
        part = part[name]
    return part


def test_parents_that_cannot_be_joined_give_the_first(space: Definition) -> None:
    genotype = parent(space)
    child, words = crossover(space, genotype, copy.deepcopy(genotype), random.Random(0))
    assert validate(space, child) == child
    only = flat(space.folder.parent / "only", "a: [1, 2]")
    child, words = crossover(only, {"a": 1}, {"a": 1}, random.Random(0))
    assert child == {"a": 1} and words.startswith("the first unchanged")


def test_long_walks_stay_inside(forest: Definition, space: Definition) -> None:
    for definition in (forest, space):
        rng = random.Random(10)
        genotype = sample(definition, rng)
        start = time.process_time()
        for _ in range(1000):
            before = json.dumps(genotype)
            child, words = mutate(definition, genotype, rng)
            assert json.dumps(genotype) == before and child != genotype
            assert 0 < len(words) <= 100 and "\n" not in words
            assert validate(definition, child) == child
            genotype = child
        assert time.process_time() - start < 5


def test_the_kind_of_an_edit_can_be_chosen_and_is_told() -> None:
    space = SPACES.open("convnet")
    assert isinstance(space, HasOperators)
    genotype = space.sample(random.Random(0))
    usual = space.operators()
    for seed in range(20):
        told = space.mutate_by(genotype, random.Random(seed), usual)
        assert told[:2] == space.mutate(genotype, random.Random(seed)) and told[2] in usual
    only = {name: float(name == "insert item") for name in usual}
    assert {space.mutate_by(genotype, random.Random(n), only)[2] for n in range(20)} <= {"insert item", ""}
