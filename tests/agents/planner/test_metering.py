"""What is believed of a server's count."""

from __future__ import annotations

from typing import Any

import pytest

from cambrian.agents.planner.metering import ALLOWANCE, Sent, usage_in

SENT = Sent(chars=400, size=900, answer_tokens=50)
TEXT = "x" * 80
ESTIMATE = (100, 20, 0, True)


def said(usage: Any, text: str = TEXT) -> tuple[int, int, int, bool]:
    found = usage_in(usage, SENT, text, size=300)
    return (found.prompt_tokens, found.completion_tokens, found.cached_tokens, found.estimated)


@pytest.mark.parametrize(
    ("usage", "found"),
    [
        ({"prompt_tokens": 90, "completion_tokens": 30, "total_tokens": 120}, (90, 30, 0, False)),
        ({"input_tokens": 90, "output_tokens": 30}, (90, 30, 0, False)),
        ({"prompt_tokens": "90", "completion_tokens": 30.0}, (90, 30, 0, False)),
        # thinking that is left out of the answer's tokens
        ({"prompt_tokens": 90, "completion_tokens": 30, "total_tokens": 200}, (90, 110, 0, True)),
        ({"prompt_tokens": 90, "completion_tokens": 30, "total_tokens": 1}, (90, 30, 0, True)),
        ({"prompt_tokens": 90, "completion_tokens": 30, "total_tokens": 10**12}, (90, 30, 0, True)),
        ({"prompt_tokens": 90, "completion_tokens": 30, "total_tokens": "many"}, (90, 30, 0, False)),
        (
            {"prompt_tokens": 90, "completion_tokens": 3, "prompt_tokens_details": {"cached_tokens": 64}},
            (90, 3, 64, False),
        ),
        (
            {"input_tokens": 90, "output_tokens": 3, "input_tokens_details": {"cached_tokens": 6400}},
            (90, 3, 90, False),
        ),
        (
            {"prompt_tokens": 90, "completion_tokens": 3, "prompt_tokens_details": {"cached_tokens": -6}},
            (90, 3, 0, False),
        ),
        ({"prompt_tokens": 90, "completion_tokens": 3, "prompt_tokens_details": [1]}, (90, 3, 0, False)),
    ],
)
def test_what_is_believed(usage: Any, found: tuple[int, int, int, bool]) -> None:
    assert said(usage) == found


@pytest.mark.parametrize(
    "usage",
    [
        None,
        "many",
        [],
        {},
        {"prompt_tokens": 90},
        {"prompt_tokens": -90, "completion_tokens": 3},
        {"prompt_tokens": 90, "completion_tokens": "three"},
        {"prompt_tokens": 90, "completion_tokens": None},
        {"prompt_tokens": True, "completion_tokens": True},
        {"prompt_tokens": 90.5, "completion_tokens": 3},
        {"prompt_tokens": float("nan"), "completion_tokens": float("inf")},
        {"prompt_tokens": 10**400, "completion_tokens": 3},
        {"prompt_tokens": "9" * 5000, "completion_tokens": 3},
        {"prompt_tokens": SENT.size + ALLOWANCE + 1, "completion_tokens": 3},
        {"prompt_tokens": 90, "completion_tokens": 300 + ALLOWANCE + 1},
        {"prompt_tokens": 0, "completion_tokens": 3},
        {"prompt_tokens": 90, "completion_tokens": 0},
        {"total_tokens": 93},
    ],
)
def test_what_is_not_believed_is_estimated(usage: Any) -> None:
    assert said(usage) == ESTIMATE


def test_no_answer_costs_no_answer_tokens() -> None:
    assert said({"prompt_tokens": 90, "completion_tokens": 0}, text="") == (90, 0, 0, False)
