"""Expressions: what they may say, what they see, how they fail."""

from __future__ import annotations

from typing import Any

import pytest

from cambrian.search_spaces.declarative.expression import Expression, ExpressionError
from cambrian.search_spaces.declarative.shape import image


@pytest.mark.parametrize(
    ("text", "scope", "value"),
    [
        ("width * 2 + 1", {"width": 8}, 17),
        ("block in ('conv', 'pool')", {"block": "pool"}, True),
        ("2 if down and i == 0 else 1", {"down": True, "i": 0}, 2),
        ("sum(s.width for s in stages)", {"stages": [{"width": 8}, {"width": 24}]}, 32),
        ("stages[0].head.size", {"stages": [{"head": {"size": 3}}]}, 3),
        ("[e for e in edges if e != 'none']", {"edges": ["none", "conv"]}, ["conv"]),
        ("max(1, ceil(n / 4))", {"n": 9}, 3),
        ("divisor(n, 8)", {"n": 12}, 6),
        ("divisor(n, 8)", {"n": 7}, 7),
        ("input.channels * input.height", {"input": image(3, 8, 4)}, 24),
        ("'x%d' % depth if depth > 1 else ''", {"depth": 3}, "x3"),
    ],
)
def test_values(text: str, scope: dict[str, Any], value: object) -> None:
    assert Expression(text)(scope) == value


@pytest.mark.parametrize(
    ("text", "value"), [("2 ** n", 8), ("n ** 0.5 > 1.7", True), ("1 << n", 8), ("2 ** -n", 0.125)]
)
def test_powers(text: str, value: object) -> None:
    assert Expression(text)({"n": 3}) == value


@pytest.mark.parametrize(
    "text",
    [
        "10 ** 10 ** 10", "n ** n ** n", "2 ** (10 ** 60)", "(2 ** 64) ** 64", "2.0 ** 99", "1 << 10 ** 10",
        "1 << n", "len([0] * n ** 6)", "n ** 6 * 'ab'", "3 * str(n) * n ** 6",
        "sum(range(200000))", "len(range(n ** 20))", "divisor(n ** 9, n ** 9)", "(0 - n) ** 0.5",
    ],
)  # fmt: skip
def test_work_is_bounded(text: str) -> None:
    with pytest.raises(ExpressionError, match="fails: ") as caught:
        Expression(text)({"n": 100})
    assert len(caught.value.message) < 150


def test_at_most_two_ranges() -> None:
    assert Expression("sum(i * j for i in range(3) for j in range(3))")({}) == 9
    with pytest.raises(ExpressionError, match="3 ranges"):
        Expression("sum(1 for i in range(9) for j in range(9) for k in range(9))")


def test_failures_tell_place_and_values() -> None:
    with pytest.raises(ExpressionError) as caught:
        Expression("width // (heads - 1)", "rules.x.build[0].out")({"width": 8, "heads": 1})
    said = "rules.x.build[0].out: expression 'width // (heads - 1)' fails: integer division or modulo by zero"
    assert caught.value.message == said
    assert "with width = 8, heads = 1" in caught.value.hint


def test_names_are_those_that_the_scope_must_have() -> None:
    assert Expression("depth + sum(s.width for s in stages)").names == ("depth", "stages")


@pytest.mark.parametrize(
    "text",
    [
        "__import__('os')", "(1).__class__", "open('x')", "lambda: 1", "stages.__len__()", "x := 1", "f'{x}'",
        "[].append(1)", "_x", "{**x}", "await x", "a b", "",
    ],
)  # fmt: skip
def test_what_is_no_expression_is_refused(text: str) -> None:
    with pytest.raises(ExpressionError):
        Expression(text)


def test_a_function_that_does_not_exist_is_told_with_near_names() -> None:
    with pytest.raises(ExpressionError, match="log3") as caught:
        Expression("log3(x)")
    assert "log2" in caught.value.hint


def test_unknown_names_are_told_with_near_names() -> None:
    with pytest.raises(ExpressionError, match="widht") as caught:
        Expression("widht + 1").check_names(["width", "depth"])
    assert "width" in caught.value.hint


@pytest.mark.parametrize(
    ("text", "scope"), [("1 / n", {"n": 0}), ("a + b", {"a": 1, "b": "x"}), ("s.width", {"s": {}}), ("x", {})]
)
def test_failures_name_the_expression(text: str, scope: dict[str, Any]) -> None:
    with pytest.raises(ExpressionError) as caught:
        Expression(text)(scope)
    assert repr(text) in caught.value.message
