from __future__ import annotations

import pytest

from cambrian.agents.wording import (
    clean,
    escape_markdown,
    flatten_config,
    flatten_genes,
    one_line,
    plural,
    show_change,
    show_cost,
    show_count,
    show_number,
    show_percent,
    show_score,
)


@pytest.mark.parametrize(
    ("metric", "value", "text"),
    [
        ("accuracy", 0.97134, "97.13 %"),
        ("accuracy", 0.99437, "99.44 %"),
        ("accuracy", 1.0, "100.00 %"),
        ("balanced_accuracy", 0.5, "50.00 %"),
        ("loss", 0.123456, "0.1235"),
        ("accuracy", None, "-"),
    ],
)
def test_scores(metric: str, value: float | None, text: str) -> None:
    assert show_score(metric, value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (950, "950"),
        (23_400, "23.4k"),
        (999_999, "1,000k"),
        (1_234_567, "1.23M"),
        (2.5e9, "2.5G"),
        (None, "-"),
    ],
)
def test_counts(value: float | None, text: str) -> None:
    assert show_count(value) == text


@pytest.mark.parametrize(
    ("percent", "text"),
    [
        (0.0, "+0 %"),
        (0.123456, "+0.123 %"),
        (-5.5556, "-5.56 %"),
        (110.4, "+110 %"),
        (-1140.0, "-1,140 %"),
        (1140.0, "12.4 times as much"),
        (5e6, "50,001 times as much"),
    ],
)
def test_changes_need_no_powers_of_ten(percent: float, text: str) -> None:
    assert show_change(percent) == text


@pytest.mark.parametrize(
    ("percent", "text"),
    [(0.9, "0.9 %"), (12.34, "12 %"), (99.7, "100 %"), (110.0, "110 %"), (2e4, "20,000 %")],
)
def test_per_cents_need_no_powers_of_ten(percent: float, text: str) -> None:
    assert show_percent(percent, 2) == text


def test_numbers_have_all_digits_before_the_point() -> None:
    assert [show_number(value, 2) for value in (0.0123, 99.4, 99.6, 1234.5)] == [
        "0.012",
        "99",
        "100",
        "1,234",
    ]
    assert show_number(12_345.6, sign=True) == "+12,346" and show_number(-0.25, sign=True) == "-0.25"


def test_costs_have_units() -> None:
    assert show_cost("latency_ms", 1234.5) == "1,234 ms" and show_cost("memory_mb", 999.7) == "1,000 MiB"
    assert show_score("mse", 12345.6) == "12,346"
    assert show_cost("latency_ms", 0.12345) == "0.123 ms"
    assert show_cost("memory_mb", 7.5) == "7.5 MiB"
    assert show_cost("params", 12_000) == "12k"


def test_foreign_text_is_cleaned() -> None:
    assert clean("a\x00\x1b[31mb\u202e\u200bc\r\nd\te") == "a[31mbc\nd e"
    assert clean("a\n\n\n\n\nb") == "a\n\nb"
    assert clean("x" * 50, 10) == "x" * 9 + "…"
    assert one_line("a\n  b\tc") == "a b c"


@pytest.mark.parametrize(
    "text", ["![x](http://evil.example/y.png)", "[here](http://evil.example)", "<b>hi</b>", "# big", "a | b"]
)
def test_foreign_text_brings_no_markdown(text: str) -> None:
    escaped = escape_markdown(text)
    assert not {"![", "](", "<", "://"} & {escaped[i : i + n] for n in (1, 2, 3) for i in range(len(escaped))}
    assert not escaped.startswith("#") and " | " not in escaped


def test_genes_are_few_short_lines() -> None:
    genes = flatten_genes(
        {"width": 8, "se": True, "stages": [{"kernel": 3}, {"kernel": 5, "r": 0.25}], "source": "a\nb"}
    )
    assert genes == {"width": "8", "se": "yes", "stages.1": "kernel=3", "stages.2": "kernel=5 r=0.25"}


def test_configurations_become_dotted_keys() -> None:
    flat = flatten_config({"a": {"b": {"c": 1}, "d": None}, "e": [1, 2], "f": {}, "g": [{"h": 1}, {"h": 2}]})
    assert flat == {"a.b.c": "1", "a.d": "none", "e": "1,2", "f": "none", "g": "h=1; h=2"}


def test_one_is_no_plural() -> None:
    assert [plural(n, "proposal") for n in (0, 1, 2)] == ["0 proposals", "1 proposal", "2 proposals"]
