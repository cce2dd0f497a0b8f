"""Counts against the enumeration of whole grammars; uniform draws against the uniform distribution."""

from __future__ import annotations

import json
import random
from collections import Counter
from pathlib import Path

import pytest

from cambrian.search_spaces.declarative.counting import Count, count, estimate, table_of
from cambrian.search_spaces.declarative.membership import complaint, fold
from tests.search_spaces.declarative.spaces import all_derivations, flat, stages, trees

RECORDS = {
    "no conditions": ("a: [1, 2, 3]\nb: {boolean: true}", True),
    "one condition": ("a: [x, y]\nb: {choice: [1, 2, 3], when: a == 'x', otherwise: 1}", True),
    "a chain, written backwards": (
        """
        a: {choice: [0, 1, 2], when: b == 1, otherwise: 0}
        b: {choice: [0, 1], when: c, otherwise: 0}
        c: {boolean: true}
        d: [1, 2]
        """,
        True,
    ),
    "a condition on the own value": (
        """
        depth: {integer: [1, 3]}
        halve: {choice: [none, first, last], when: depth > 1 or halve != 'last', otherwise: first}
        kernel: {choice: [3, 5], when: halve != 'none', otherwise: 3}
        """,
        True,
    ),
    "several groups": (
        """
        a: [x, y]
        b: {choice: [1, 2, 3], when: a == 'x', otherwise: 1}
        c: {choice: [1, 2, 3], when: a == 'y', otherwise: 1}
        d: {boolean: true}
        e: {choice: [1, 2, 3, 4], when: d, otherwise: 2}
        f: {choice: [1, 2], when: d and e > 2, otherwise: 2}
        """,
        True,
    ),
    "never and always": (
        """
        a: {choice: [1, 2], when: 1 == 2, otherwise: 1}
        b: {choice: [1, 2], when: 1 == 1, otherwise: 1}
        """,
        True,
    ),
    "lists of records": (
        """
        parts: {repeat: {fields: {a: [1, 2], b: {choice: [1, 2, 3], when: a == 1, otherwise: 2}}}, min: 0}
        """,
        True,
    ),
    "a condition on an outer value": (
        """
        on_: {boolean: true}
        parts: {repeat: {fields: {a: {choice: [1, 2, 3], when: on_, otherwise: 1}, b: [1, 2]}}, max: 2}
        """,
        False,
    ),
    "a condition on a list": (
        """
        parts: {repeat: [1, 2], min: 0, max: 2}
        a: {choice: [1, 2, 3], when: len(parts) > 1, otherwise: 3}
        """,
        False,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", RECORDS)
def test_counts_are_those_of_the_enumeration(tmp_path: Path, name: str) -> None:
    fields, exact = RECORDS[name]
    space = flat(tmp_path, fields)
    distinct = {json.dumps(fold(space, each)) for each in all_derivations(space)}
    found = count(space)
    assert found.exact is exact
    table = table_of(space)
    texts = {json.dumps(table.derivation(index)) for index in range(found.total)}
    assert len(texts) == found.total, "two numbers have the same derivation"
    if exact:
        assert found.total == len(distinct)
        assert texts == distinct
    else:
        assert texts > distinct


@pytest.mark.parametrize(("depth", "expected"), [(2, 2), (3, 2 + 2 * 2**2), (4, 2 + 2 * 10**2)])
def test_recursion_is_counted_to_its_depth(tmp_path: Path, depth: int, expected: int) -> None:
    space = trees(tmp_path, depth)
    assert count(space) == Count(expected, True)
    table = table_of(space)
    assert {json.dumps(table.derivation(i)) for i in range(expected)} == {
        json.dumps(each) for each in all_derivations(space)
    }


def test_deep_recursion_has_a_count_beyond_floats(tmp_path: Path) -> None:
    space = trees(tmp_path, depth=14)
    total = count(space).total
    assert total > 10**400
    found = estimate(space, 3, random.Random(0))
    assert 0 <= found.low <= found.members <= found.high <= total


@pytest.mark.parametrize("name", ["several groups", "a condition on an outer value"])
def test_uniform_draws_are_uniform_over_folded_derivations(tmp_path: Path, name: str) -> None:
    """Chi-square with as many classes as derivations; also where the count is but a bound."""
    space = flat(tmp_path, RECORDS[name][0])
    distinct = {json.dumps(fold(space, each)) for each in all_derivations(space)}
    rng, draws = random.Random(0), 200 * len(distinct)
    found: Counter[str] = Counter()
    while sum(found.values()) < draws:
        if (drawn := table_of(space).draw(rng)) is not None:
            found[json.dumps(drawn)] += 1
    assert set(found) == distinct
    statistic = sum((n - 200) ** 2 / 200 for n in found.values())
    freedom = len(distinct) - 1
    assert abs(statistic - freedom) < 4 * (2 * freedom) ** 0.5


def test_the_estimate_encloses_the_number_of_members(tmp_path: Path) -> None:
    space = trees(tmp_path, 4)
    members = sum(complaint(space, each) is None for each in all_derivations(space))
    assert 50 < members < 202
    found = estimate(space, 2000, random.Random(0))
    assert found.total == 202 and found.exact
    assert found.low <= members <= found.high
    assert found.high - found.low < 10
    assert found.members == int(found.accepted_share * 202)


def test_the_estimate_of_an_inexact_count_is_of_members_all_the_same(tmp_path: Path) -> None:
    space = flat(tmp_path, RECORDS["a condition on an outer value"][0])
    members = len({json.dumps(fold(space, each)) for each in all_derivations(space)})
    found = estimate(space, 4000, random.Random(1))
    assert not found.exact and found.total > members
    assert found.low <= members <= found.high


def test_large_spaces_are_counted_at_once(tmp_path: Path) -> None:
    space = stages(tmp_path)
    one = 4 * 3 * 2 * 3 * (1 + 3)  # width, depth, halve, activation, block with expansion
    assert count(space) == Count(3 * 4 * (one + one**2 + one**3), True)
