"""Counts against the enumeration of whole grammars; uniform draws against the uniform distribution."""

from __future__ import annotations

import json
import math
import random
from collections import Counter
from pathlib import Path

import pytest

from cambrian.search_spaces import UserError
from cambrian.search_spaces.declarative import counting
from cambrian.search_spaces.declarative.counting import Count, count, table_of
from cambrian.search_spaces.declarative.estimating import DOUBT, estimate
from cambrian.search_spaces.declarative.expression import Expression
from cambrian.search_spaces.declarative.grammar import Require
from cambrian.search_spaces.declarative.magnitude import Magnitude
from cambrian.search_spaces.declarative.membership import complaint, fold
from cambrian.search_spaces.declarative.sampling import draw, log2_probability, sample
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
        m: {boolean: true}
        parts: {repeat: {fields: {a: {choice: [1, 2, 3], when: m, otherwise: 1}, b: [1, 2]}}, max: 2}
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
    total = found.total.value
    assert total is not None
    assert found.total.log2 == pytest.approx(math.log2(total))
    texts = {json.dumps(table.derivation(index)) for index in range(total)}
    assert len(texts) == total, "two numbers have the same derivation"
    if exact:
        assert total == len(distinct)
        assert texts == distinct
    else:
        assert texts > distinct


@pytest.mark.parametrize(("depth", "expected"), [(2, 2), (3, 2 + 2 * 2**2), (4, 2 + 2 * 10**2)])
def test_recursion_is_counted_to_its_depth(tmp_path: Path, depth: int, expected: int) -> None:
    space = trees(tmp_path, depth)
    assert count(space) == Count(Magnitude.of(expected), True)
    table = table_of(space)
    assert {json.dumps(table.derivation(i)) for i in range(expected)} == {
        json.dumps(each) for each in all_derivations(space)
    }


def test_deep_recursion_has_a_count_beyond_floats(tmp_path: Path) -> None:
    space = trees(tmp_path, depth=13)
    total = count(space).total
    assert total.value is not None and total.value > 10**400
    assert total.log2 == pytest.approx(math.log2(total.value))
    digits = str(total.value)
    assert str(total) == f"{int(digits[:5]) / 10**4:.2f}e{len(digits) - 1}"
    found = estimate(space, 3, random.Random(0))
    assert found.low.log2 <= found.high.log2 <= total.log2


def test_the_logarithm_follows_the_recursion_where_numbers_are_too_large(tmp_path: Path) -> None:
    total = count(trees(tmp_path, depth=40)).total
    exact = 2
    for _ in range(12):
        exact = 2 + 2 * exact**2
    log2 = math.log2(exact)
    for _ in range(40 - 2 - 12):
        log2 = 1 + 2 * log2
    assert total.value is None and total.log2 == pytest.approx(log2, rel=1e-9)
    assert str(total) == f"10^{math.floor(log2 * math.log10(2)):,}"


def test_large_grammars_are_sampled_by_weights_only_and_have_a_lower_bound(tmp_path: Path) -> None:
    rules = {"features": "{}", "depth": 40}
    space = trees(tmp_path / "weights", **rules)
    space.grammar.rules["node"].cumulative = (6.0, 7.0, 8.0)  # type: ignore[union-attr]
    found = estimate(space, 200, random.Random(0))
    assert not found.uniform and found.members is None
    assert 0 < found.accepted_share < 1
    assert 2 < found.low.log2 < found.high.log2
    with pytest.raises(
        UserError, match=r"space probe: 10\^[\d,]+ derivations are too many to draw uniformly"
    ):
        sample(trees(tmp_path / "uniform", sampling="uniform", **rules), random.Random(0))


@pytest.mark.parametrize("name", ["a condition on an outer value", "lists of records"])
def test_the_lower_bound_holds_where_the_truth_is_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(counting, "MAX_BITS", 3)
    space = flat(tmp_path, RECORDS[name][0])
    members = len({json.dumps(fold(space, each)) for each in all_derivations(space)})
    found = estimate(space, 4000, random.Random(0))
    assert found.members is None and found.high == count(space).total
    # without its caution the bound is an estimate of the number itself
    assert 2**found.low.log2 * DOUBT == pytest.approx(members, rel=0.25)


def test_where_no_uniform_draw_is_a_member_the_weights_give_a_bound(tmp_path: Path) -> None:
    names = [f"g{i}" for i in range(30)]
    space = flat(tmp_path, "\n".join(f"{name}: {{choice: [0, 1], weights: [50, 1]}}" for name in names))
    rule = Require(Expression(f"{' + '.join(names)} < 2"), "at most one")
    space.grammar.start.requires = (rule,)  # type: ignore[union-attr]
    found = estimate(space, 300, random.Random(0))
    assert not found.uniform and found.members is None and found.accepted_share > 0.5
    assert 0 <= found.low.log2 <= math.log2(31) < found.high.log2 < found.total.log2


def test_probabilities_of_draws_are_their_frequencies(tmp_path: Path) -> None:
    space = trees(tmp_path, 4)
    space.grammar.rules["node"].cumulative = (2.0, 3.0, 5.0)  # type: ignore[union-attr]
    everything = all_derivations(space)
    start = space.grammar.start
    shares = {json.dumps(each): 2 ** log2_probability(space, start, each, 4) for each in everything}
    assert sum(shares.values()) == pytest.approx(1)
    rng = random.Random(0)
    found = Counter(json.dumps(draw(space, start, rng, 4)) for _ in range(20_000))
    assert set(found) <= set(shares)
    for text, share in shares.items():
        assert abs(found[text] - 20_000 * share) < 5 * (20_000 * share) ** 0.5 + 5


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (15625, "15,625"), (10**9, "1.00e9"), (2**100, "1.27e30"), (999_999**9, "1.00e54")],
)
def test_magnitudes_in_words(value: int, text: str) -> None:
    assert str(Magnitude.of(value)) == text


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
    assert found.total.value == 202 and found.exact
    low, middle, high = found.low.value, found.members.value, found.high.value  # type: ignore[union-attr]
    assert low is not None and high is not None
    assert low <= members <= high and high - low < 10
    assert middle == int(found.accepted_share * 202)


def test_the_estimate_of_an_inexact_count_is_of_members_all_the_same(tmp_path: Path) -> None:
    space = flat(tmp_path, RECORDS["a condition on an outer value"][0])
    members = len({json.dumps(fold(space, each)) for each in all_derivations(space)})
    found = estimate(space, 4000, random.Random(1))
    assert not found.exact and found.total.log2 > math.log2(members)
    assert found.low.log2 <= math.log2(members) <= found.high.log2


def test_large_spaces_are_counted_at_once(tmp_path: Path) -> None:
    space = stages(tmp_path)
    one = 4 * 3 * 2 * 3 * (1 + 3)  # width, depth, halve, activation, block with expansion
    assert count(space) == Count(Magnitude.of(3 * 4 * (one + one**2 + one**3)), True)
