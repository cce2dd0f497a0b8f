from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from cambrian.agents.evaluator.prompt_questions import exchanges_of, questions_of
from cambrian.agents.evaluator.prompt_report import RunPrompts, prompts_report
from cambrian.agents.evaluator.prompt_rows import PromptsReport, VersionRow
from cambrian.agents.evaluator.shares import Rate, newcombe, wilson
from cambrian.agents.planner.exchange import Exchange, ExchangeLog, Message, Usage
from cambrian.agents.population.model import (
    Candidate,
    CandidateState,
    Expectation,
    Lesson,
    Proposal,
    Verdict,
    candidate_id,
)


def exchange(number: int, role: str = "propose", place: str = "", **more: Any) -> Exchange:
    return Exchange(
        id=f"x-{number:04d}",
        key=str(number),
        role=role,
        model="m",
        messages=(
            Message(role="system", content="s"),
            Message(role="user", content=more.pop("ask", place)),
        ),
        place=place,
        **{
            "response": "{}",
            "calls": 1,
            "usage": Usage(prompt_tokens=90, completion_tokens=10),
            "money": 0.01,
            "templates": {"propose.j2": "v1"},
            "created": "2026-01-01",
        }
        | more,
    )  # fmt: skip


def candidate(
    number: int,
    asked: str | None,
    score: float | None = 0.5,
    *,
    arm: str = "llm",
    measure: Any = "score",
    **more: Any,
) -> Candidate:
    expectation = Expectation(measure=measure, change="higher")
    return Candidate(
        id=candidate_id(number),
        index=number,
        proposal=Proposal(arm=arm, genotype={}, exchange=asked, expectation=expectation),
        genotype={},
        score=score,
        rung_scores=() if score is None else (score,),
        **{"state": CandidateState.EVALUATED if score is not None else CandidateState.DUPLICATE} | more,
    )


def run(
    exchanges: list[Exchange], candidates: list[Candidate], name: str = "r", repairs: int = 1, **more: Any
) -> RunPrompts:
    return RunPrompts(
        run=name,
        space="s",
        task="t",
        maximize=more.pop("maximize", True),
        questions=questions_of(exchanges, candidates, repairs),
        candidates=candidates,
        exchanges=exchanges,
        **more,
    )


def row(report: PromptsReport, template: str, version: str) -> VersionRow:
    return next(each for each in report.rows if (each.template, each.version) == (template, version))


@pytest.mark.parametrize(
    ("k", "n", "low", "high"),
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_wilson_by_the_published_table(k: int, n: int, low: float, high: float) -> None:
    """Newcombe, Two-sided confidence intervals for the single proportion, 1998, table I, method 3."""
    assert wilson(k, n) == pytest.approx((low, high), abs=5e-5)


@pytest.mark.parametrize(
    ("newer", "older", "low", "high"),
    [
        ((56, 70), (48, 80), 0.0524, 0.3339),
        ((9, 10), (3, 10), 0.1705, 0.8090),
        ((6, 7), (2, 7), 0.0582, 0.8062),
        ((5, 56), (0, 29), -0.0381, 0.1926),
        ((10, 10), (0, 10), 0.6075, 1.0),
    ],
)
def test_newcombe_by_the_published_table(
    newer: tuple[int, int], older: tuple[int, int], low: float, high: float
) -> None:
    """Newcombe, Interval estimation for the difference, 1998, table II, method 10."""
    found = newcombe(Rate.of(*newer), Rate.of(*older))
    assert found == pytest.approx((low, high), abs=5e-5)


def test_a_share_of_nothing_has_no_interval() -> None:
    assert Rate.of(0, 0).low is None
    with pytest.raises(ValueError, match="no interval"):
        newcombe(Rate.of(0, 0), Rate.of(1, 2))
    with pytest.raises(ValueError, match="no share"):
        wilson(3, 2)


def test_turns_belong_to_their_question_by_place_and_without_one_by_its_words() -> None:
    turns = [
        exchange(1, place="d1"),
        exchange(2, place="d2"),
        exchange(3, "repair", "d1.2"),
        exchange(4, "analyse", "c-0001"),
        exchange(5, ask="old a"),
        exchange(6, ask="old b"),
        exchange(7, "repair", ask="old a"),
        exchange(8, place="d1"),
    ]
    found = questions_of(turns, [], 1)
    assert [[turn.id[-1] for turn in question.turns] for question in found] == [
        ["1", "3"], ["2"], ["5", "7"], ["6"], ["8"],
    ]  # fmt: skip


def test_which_turn_was_usable() -> None:
    def usable(turns: list[Exchange], made: list[Candidate], repairs: int = 1) -> int | None:
        return questions_of(turns, made, repairs)[0].usable_turn

    one, two = exchange(1, place="d1"), exchange(2, "repair", "d1.2")
    assert usable([one], [candidate(0, "x-0001")]) == 1
    assert usable([one, two], [candidate(0, "x-0002")]) == 2
    assert usable([one, two], []) is None, "no further turn was left"
    assert usable([one], []) == 1, "it was made ahead, and no repair was asked for"
    assert usable([one], [], repairs=0) is None
    assert usable([exchange(1, place="d1", response=None, error="down")], []) is None
    assert usable([exchange(1, place="d1", refusal="no")], []) is None


def test_the_numbers_of_one_version() -> None:
    turns = [
        exchange(1, place="d1"),
        exchange(2, place="d2"),
        exchange(3, "repair", "d2.2", templates={"propose.j2": "v1", "repair.j2": "r1"}),
        exchange(4, place="d3", response=None, error="down", usage=Usage(), money=None),
        exchange(5, "analyse", "c-0001", templates={"analyse.j2": "a1"}),
    ]
    taught = [Lesson(verdict=v) for v in (Verdict.BORNE_OUT, Verdict.REFUTED, Verdict.NO_EVIDENCE)]
    made = [
        candidate(0, "x-0001", 0.6, lesson=taught[0]),
        candidate(1, "x-0001", None, measure="memory_mb", lesson=taught[0]),
        candidate(2, "x-0003", 0.7, lesson=taught[1]),
        candidate(3, "x-0003", 0.8, lesson=taught[2]),
        *(candidate(i, None, score, arm="random") for i, score in enumerate((0.4, 0.5, 0.6), 4)),
    ]
    own = frozenset(c.id for c in made[:4] if c.score is not None)
    report = prompts_report([run(turns, made, compared=own, improved=frozenset({made[2].id, made[5].id}))])
    found = row(report, "propose.j2", "v1")
    assert (found.questions, found.calls, found.tokens) == (3, 4, 300)
    assert found.money == pytest.approx(0.03), "what cost no tokens needs no price"
    assert (found.valid_first.k, found.valid_first.n) == (1, 2), "one was never answered"
    assert (found.valid.k, found.duplicates.k, found.duplicates.n) == (2, 1, 4)
    assert (found.improved.k, found.improved.n, found.borne_out.k, found.borne_out.n) == (1, 3, 1, 2)
    assert found.tokens_per_evaluated == 100 and found.evaluated == 3
    assert found.gain.mean == pytest.approx(100 * (0.7 - 0.5) / 0.5)
    error = math.sqrt((20**2) / 3 + (100 * 0.1 / 0.5) ** 2 / 3)
    assert found.gain.high == pytest.approx(40 + 1.959964 * error)
    mended = row(report, "repair.j2", "r1")
    assert (mended.questions, mended.valid.k, mended.valid.n, mended.evaluated) == (1, 1, 1, 2)
    lesson = row(report, "analyse.j2", "a1")
    assert (lesson.questions, lesson.tokens, lesson.valid.n, lesson.evaluated) == (1, 100, 0, 0)
    assert report.comparisons == ()


def test_versions_are_told_apart_only_beyond_chance_and_what_else_changed_is_said() -> None:
    def asked(name: str, version: str, good: int, of: int, system: str) -> RunPrompts:
        templates = {"propose.j2": version, "system.j2": system}
        turns = [exchange(i, place=f"d{i}", templates=templates) for i in range(1, of + 1)]
        return run(turns, [candidate(i, f"x-{i:04d}") for i in range(1, good + 1)], name, repairs=0)

    report = prompts_report([asked("a", "v1", 10, 40, "s1"), asked("b", "v2", 36, 40, "s2")])
    valid = next(c for c in report.comparisons if (c.template, c.rate) == ("propose.j2", "valid"))
    assert (valid.older, valid.newer, valid.verdict) == ("v1", "v2", "better")
    assert valid.difference == pytest.approx(0.65) and valid.together_with == ("system.j2",)
    report = prompts_report([asked("a", "v1", 2, 4, "s"), asked("b", "v2", 4, 4, "s")])
    valid = next(c for c in report.comparisons if c.rate == "valid")
    assert valid.verdict == "no difference beyond chance" and valid.together_with == ()


def test_records_are_read_and_damaged_ones_left_out(tmp_path: Path) -> None:
    log = ExchangeLog(tmp_path)
    for number in (2, 1, 10_000):
        log.write(exchange(number))
    (log.folder / "x-0003.json").write_text("{", encoding="utf-8")
    assert [each.id for each in exchanges_of(tmp_path)] == ["x-0001", "x-0002", "x-10000"]
    assert exchanges_of(tmp_path / "none") == []
