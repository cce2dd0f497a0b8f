"""Which distribution random members have."""

from __future__ import annotations

import json
import random
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from cambrian.search_spaces.declarative.loading import SpaceFileError
from cambrian.search_spaces.declarative.membership import complaint
from cambrian.search_spaces.declarative.sampling import draw, sample
from cambrian.search_spaces.declarative.sites import depths_of
from tests.search_spaces.declarative.spaces import all_derivations, flat, stages, trees


def test_values_lengths_and_options_follow_their_weights(tmp_path: Path) -> None:
    space = flat(
        tmp_path,
        """
        a: {choice: [x, y, z], weights: [1, 0, 3]}
        b: [1, 2]
        items: {repeat: [1, 2], min: 0, max: 2, weights: [2, 1, 1]}
        """,
    )
    rng = random.Random(0)
    members = [sample(space, rng) for _ in range(4000)]
    letters = Counter(member["a"] for member in members)
    assert set(letters) == {"x", "z"}
    assert abs(letters["x"] - 1000) < 120
    assert abs(sum(member["b"] == 1 for member in members) - 2000) < 130
    lengths = Counter(len(member["items"]) for member in members)
    assert [abs(lengths[n] - expected) < 130 for n, expected in ((0, 2000), (1, 1000), (2, 1000))] == [
        True
    ] * 3


def test_rejection_leaves_the_proportions_of_the_members(tmp_path: Path) -> None:
    space = flat(
        tmp_path,
        "a: {choice: [0, 1], weights: [1, 3]}\nb: {choice: [0, 1], weights: [1, 1]}",
    )
    expected = {(0, 0): 1 / 8, (0, 1): 1 / 8, (1, 0): 3 / 8, (1, 1): 3 / 8}
    space.grammar.start.requires = _rule("a + b > 0")  # type: ignore[union-attr]
    rng = random.Random(1)
    found = Counter((m["a"], m["b"]) for m in (sample(space, rng) for _ in range(7000)))
    assert (0, 0) not in found
    for pair in ((0, 1), (1, 0), (1, 1)):
        assert abs(found[pair] / 7000 - expected[pair] / (7 / 8)) < 0.025


def _rule(text: str) -> Any:
    from cambrian.search_spaces.declarative.expression import Expression
    from cambrian.search_spaces.declarative.grammar import Require

    return (Require(Expression(text), f"{text} must hold"),)


def test_uniform_sampling_draws_each_member_equally_often(tmp_path: Path) -> None:
    space = trees(tmp_path, 4, sampling="uniform")
    members = {json.dumps(each) for each in all_derivations(space) if complaint(space, each) is None}
    rng = random.Random(2)
    found = Counter(json.dumps(sample(space, rng)) for _ in range(100 * len(members)))
    assert set(found) == members
    statistic = sum((n - 100) ** 2 / 100 for n in found.values())
    assert abs(statistic - (len(members) - 1)) < 4 * (2 * len(members)) ** 0.5


def test_weights_and_depth_decide_in_recursive_rules(tmp_path: Path) -> None:
    space = trees(tmp_path, 4)
    rng = random.Random(3)
    node = space.grammar.rules["node"]
    depths = depths_of(space)
    for left in (1, 2, 3):
        drawn = [draw(space, node, rng, left) for _ in range(600)]
        assert {depths.used(node, each) for each in drawn} == set(range(1, left + 1))
        kinds = Counter(each["kind"] for each in drawn)
        assert left == 1 or all(abs(kinds[kind] - 200) < 60 for kind in ("conv", "chain", "add"))


def test_all_members_can_be_drawn(tmp_path: Path) -> None:
    space = trees(tmp_path, 3)
    members = {json.dumps(each) for each in all_derivations(space) if complaint(space, each) is None}
    rng = random.Random(4)
    assert {json.dumps(sample(space, rng)) for _ in range(500)} == members


def test_equal_generators_draw_equal_members(tmp_path: Path) -> None:
    first, second = stages(tmp_path / "one"), stages(tmp_path / "two")
    one, two = random.Random(5), random.Random(5)
    assert [sample(first, one) for _ in range(50)] == [sample(second, two) for _ in range(50)]


@pytest.mark.parametrize("sampling", ["weights", "uniform"])
def test_a_space_without_members_says_why(tmp_path: Path, sampling: str) -> None:
    space = flat(tmp_path, "a: [1, 2]\nb: [1, 2]", sampling=sampling)
    space.grammar.start.requires = _rule("a + b > 4")  # type: ignore[union-attr]
    with pytest.raises(SpaceFileError) as caught:
        sample(space, random.Random(0))
    assert "none of 10,000 random designs is valid; 10,000 times: a + b > 4 must hold" in caught.value.message
