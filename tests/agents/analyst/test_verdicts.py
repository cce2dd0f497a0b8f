"""Verdicts: what is expected against what is measured, and what chance makes of it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cambrian.agents.analyst.analyst import Analyst
from cambrian.agents.analyst.differences import Difference, Readings, latency_bound
from cambrian.agents.analyst.tallies import tally_lines
from cambrian.agents.analyst.verdicts import hypotheses, hypotheses_text, verdict_on
from cambrian.agents.evaluator.leaderboard import rank_run
from cambrian.agents.planner.client import ScriptedClient
from cambrian.agents.planner.exchange import ExchangeLog
from cambrian.agents.planner.models import Models
from cambrian.agents.planner.questions import Questions
from cambrian.agents.planner.showing import effect
from cambrian.agents.planner.templates import Templates
from cambrian.agents.population.model import CandidateState, Expectation, Verdict
from cambrian.agents.repeats import NOISE_KEY, Order
from cambrian.sandbox import JobState
from cambrian.search_spaces import TableRow, TabularTask
from tests.agents.analyst.world import LongerTask, World, timed
from tests.agents.planner.world import TinySpace, context

UP, DOWN, SAME = (
    (lambda by=0.0, c=c: Expectation(measure="score", change=c, by_percent=by))
    for c in ("higher", "lower", "same")
)
OUT, AGAINST, NOISE, NONE = Verdict.BORNE_OUT, Verdict.REFUTED, Verdict.WITHIN_NOISE, Verdict.NO_EVIDENCE


@pytest.mark.parametrize(
    ("expected", "percent", "bound", "verdict", "said"),
    [
        (UP(1), +1.5, 0.5, OUT, ""),
        (UP(0), +0.6, 0.5, OUT, ""),
        (UP(0), +0.5, 0.5, NOISE, ""),
        (UP(1), +0.4, 0.5, NOISE, ""),
        (UP(20), +0.4, 0.5, NOISE, ""),
        (UP(1), -0.4, 0.5, NOISE, ""),
        (UP(1), -1.5, 0.5, AGAINST, "other way"),
        (UP(5), +2.0, 0.5, AGAINST, "less than half"),
        (UP(5), +2.5, 0.5, OUT, "less than expected"),
        (DOWN(5), -6.0, 0.5, OUT, ""),
        (DOWN(5), +6.0, 0.5, AGAINST, "other way"),
        (UP(1), +9.0, None, NONE, "not known"),
        (UP(5), 0.0, 0.0, AGAINST, "did not change"),
        (UP(5), +5.0, 0.0, OUT, ""),
        (SAME(2), +0.5, 1.0, OUT, ""),
        (SAME(1), +0.5, 1.0, NOISE, "cannot be excluded"),
        (SAME(2), +1.5, 1.0, OUT, ""),
        (SAME(2), +3.0, 1.0, AGAINST, "changed by more"),
        (SAME(0), 0.0, 0.0, OUT, ""),
        (SAME(0), +0.1, 0.0, AGAINST, "changed by more"),
    ],
)  # fmt: skip
def test_the_rules(
    expected: Expectation, percent: float, bound: float | None, verdict: Verdict, said: str
) -> None:
    found, words = verdict_on(expected, Difference("score", 200 + 2 * percent, 200.0, bound and 2 * bound))
    assert found is verdict
    assert said in words and bool(said) == bool(words)


def test_a_share_of_nothing_is_no_bar() -> None:
    assert verdict_on(UP(50), Difference("score", 0.2, 0.0, 0.1))[0] is OUT


@pytest.mark.parametrize(
    ("ours", "theirs", "bound"),
    [
        (timed(2.0, 0.1), timed(1.0, 0.2), 0.3),
        (timed(1.0, 0.2), timed(2.0, 0.1), 0.3),
        (timed(2.0), timed(1.0), 0.0),
        (timed(2.0, 0.0, reference=1.5), timed(1.0, 0.0, reference=1.0), 0.5),
    ],
    ids=["boxes", "either-way", "of-a-table", "the-machine-drifted"],
)
def test_latency_is_as_sure_as_its_spread(ours: Any, theirs: Any, bound: float) -> None:
    assert latency_bound(ours, theirs) == pytest.approx(bound)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    world = World(tmp_path, analyst={"lessons": "off"})
    yield world
    world.close()


def analyst_of(world: World) -> Analyst:
    exchanges = ExchangeLog(world.store.folder)
    models = Models(world.config, exchanges, ScriptedClient(["nobody asks"], exchanges))
    return Analyst(world.config, world.services, models, say=lambda _line: None)


def verdict_of(world: World, cid: str) -> Verdict:
    lesson = world.store.candidate(cid).lesson
    assert lesson is not None
    return lesson.verdict


def test_scores_are_compared_after_equal_training(world: World) -> None:
    parent, child = world.add(0.5, 0.9), world.add(0.6)
    found = Readings(world.services).difference("score", child, parent)
    assert found is not None and found.rung == 0
    assert (found.ours, found.theirs) == (0.6, 0.5)


def test_the_noise_is_that_of_the_run_where_it_is_measured(world: World) -> None:
    parent = world.add(0.80)
    child = world.add(0.83, parents=(parent.id,), expect=UP(1))
    analyst = analyst_of(world)
    analyst.look_at(parent.id)
    analyst.look_at(child.id)
    assert verdict_of(world, child.id) is OUT, "the sample alone makes 1 point"
    order = Order(candidate=parent.id, rung=0, seeds=4)
    world.store.set_meta(NOISE_KEY, order.model_dump_json())
    world.repeat(parent, 0, 0.76, 0.84, 0.78, 0.82)
    assert analyst.refresh() == 1
    assert verdict_of(world, child.id) is NOISE
    lesson = world.get(child.id).lesson
    assert lesson is not None and "chance makes up to" in lesson.measured and "80.00 %" in lesson.measured
    assert analyst.refresh() == 0, "what is as it was is not written again"


def test_a_score_that_got_its_network_chosen_does_not_count(world: World) -> None:
    lucky, child = world.add(0.90), world.add(0.85)
    world.repeat(lucky, 0, 0.80, 0.81, 0.79)
    found = Readings(world.services).difference("score", child, lucky)
    assert found is not None and found.theirs == pytest.approx(0.80)


class Table(LongerTask):
    """Looked up: the same again is the same."""

    validation_samples = 10_000
    rows = 9
    preprocessing = loss = "none"

    def lookup(self, _genotype: object, _epochs: int, _seed: int) -> TableRow:
        raise AssertionError("nobody trains here")


@pytest.mark.parametrize("gain", [0.001, 0.02], ids=["a tie", "a gain"])
def test_prompt_verdict_and_leaderboard_call_the_same_pair_a_tie(world: World, gain: float) -> None:
    world.services.task = Table()  # type: ignore[assignment]
    assert isinstance(world.services.task, TabularTask)
    parent = world.add(0.80)
    child = world.add(0.80 + gain, parents=(parent.id,), expect=UP(0.0001), operator="change value")
    analyst = analyst_of(world)
    for each in (parent, child):
        analyst.look_at(each.id)
    population = world.services.population
    shown = replace(context(TinySpace(), population.known()), population=population, noise=analyst.noise())
    board = rank_run(world.store.run, world.store.candidates(), []).board
    is_tie = gain < 0.01
    assert effect(child, shown)["tie"] is is_tie
    assert board[1].tied is is_tie
    assert (verdict_of(world, child.id) is NOISE) is is_tie
    assert analyst._weigher.effects[child.id] == ("tied" if is_tie else "better")


@pytest.mark.parametrize("words", ["", "23:26:23 and so on, word after word " * 15], ids=["bare", "worded"])
def test_a_line_of_an_effect_says_each_thing_once_and_what_was_computed_first(
    world: World, words: str
) -> None:
    parent = world.add(0.8374)
    child, other = (
        world.add(s, parents=(parent.id,), edit="width 8 to 16", expect=UP(1)) for s in (0.7413, 0.8)
    )
    analyst = analyst_of(world)
    for each in (other, child):
        analyst.look_at(each.id)
    lesson = world.get(child.id).lesson
    assert lesson is not None and "by score" in lesson.measured
    world.services.teach(child.id, lesson.model_copy(update={"text": words[:600].strip()}), "lesson")
    known = context(TinySpace(), list(world.services.population.known()))
    text = Questions(Templates("tiny"), known).question().messages[1].content
    (line,) = (line for line in text.splitlines() if line.startswith(f"- {child.id} from"))
    head = (
        f"- {child.id} from {parent.id} (width 8 to 16): accuracy 0.7413 after 1 epoch (-0.0961); "
        "expected was: accuracy higher by 1 %; refuted (it went the other way)"
    )
    assert line.startswith(head)
    rest = line.removeprefix(head)
    assert rest == "" if not words else rest.split()[-1].rstrip("…") in words.replace(",", "").split()


def test_without_noise_there_is_no_verdict_on_scores(tmp_path: Path) -> None:
    world = World(tmp_path, analyst={"lessons": "off"})
    world.store.set_run(validation_samples=0)
    parent = world.add(0.5)
    child = world.add(0.9, parents=(parent.id,), expect=UP(1))
    analyst_of(world).look_at(child.id)
    assert verdict_of(world, child.id) is NONE
    lesson = world.get(child.id).lesson
    assert lesson is not None and "not known" in lesson.measured
    world.close()


def test_large_differences_are_told_in_numbers_for_people(world: World) -> None:
    parent = world.add(0.5, parameters=1000, latency=timed(1.0, 0.4))
    wanted = Expectation(measure="params", change="higher", by_percent=10)
    child = world.add(0.5, parameters=12_400, latency=timed(2.0, 0.9), parents=(parent.id,), expect=wanted)
    analyst_of(world).look_at(child.id)
    lesson = world.get(child.id).lesson
    assert lesson is not None and "params 12.4k against 1k of c-0001: 12.4 times as much" in lesson.measured
    assert "+100 % (chance makes up to 130 %)" in lesson.measured and "e+0" not in lesson.measured


def test_what_is_exact_needs_no_noise(world: World) -> None:
    parent = world.add(0.5, parameters=1000)
    wanted = Expectation(measure="params", change="lower", by_percent=10)
    child = world.add(0.5, parameters=800, parents=(parent.id,), expect=wanted)
    other = world.add(0.5, parameters=1000, parents=(parent.id,), expect=wanted)
    for each in (child, other):
        analyst_of(world).look_at(each.id)
    assert verdict_of(world, child.id) is OUT
    assert verdict_of(world, other.id) is AGAINST


def test_latencies_of_other_devices_do_not_compare(world: World) -> None:
    wanted = Expectation(measure="latency_ms", change="lower", by_percent=10)
    parent = world.add(0.5, latency=timed(2.0, 0.1))
    near = world.add(0.5, latency=timed(1.0, 0.1), parents=(parent.id,), expect=wanted)
    far = world.add(0.5, latency=timed(1.0, 0.1, device="gpu"), parents=(parent.id,), expect=wanted)
    analyst = analyst_of(world)
    for each in (near, far):
        analyst.look_at(each.id)
    assert verdict_of(world, near.id) is OUT
    assert verdict_of(world, far.id) is NONE


def test_siblings_are_compared_and_all_arms_get_a_verdict(world: World) -> None:
    parent = world.add(0.50)
    children = [world.add(score, parents=(parent.id,)) for score in (0.40, 0.60, 0.70)]
    analyst = analyst_of(world)
    for each in (parent, *children):
        analyst.look_at(each.id)
    assert verdict_of(world, parent.id) is NONE and verdict_of(world, children[2].id) is NONE
    lesson = world.get(children[2].id).lesson
    assert (
        lesson is not None and "better than 2, worse than 0 and tied with 0 of 2 siblings" in lesson.measured
    )
    assert set(lesson.compared_with) == {parent.id, children[0].id, children[1].id}


def test_what_has_no_parents_is_held_against_the_best_of_its_time(world: World) -> None:
    best = world.add(0.50)
    better, worse = (world.add(score, expect=UP(1), against=best.id) for score in (0.60, 0.30))
    analyst = analyst_of(world)
    for each in (better, worse):
        analyst.look_at(each.id)
    assert (verdict_of(world, better.id), verdict_of(world, worse.id)) == (OUT, AGAINST)
    lesson = world.get(worse.id).lesson
    assert lesson is not None and lesson.compared_with[0] == best.id and f"of {best.id}" in lesson.measured


def test_a_parent_that_is_not_believed_any_more_is_no_evidence(world: World) -> None:
    parent = world.add(0.50)
    child = world.add(0.60, parents=(parent.id,), expect=UP(1))
    analyst = analyst_of(world)
    analyst.look_at(child.id)
    assert verdict_of(world, child.id) is OUT
    world.services.discredit(world.get(parent.id), JobState.NOT_REPRODUCED, "predicts something else")
    analyst.look_at(parent.id)
    assert verdict_of(world, child.id) is NONE


def test_a_setback_of_the_model_teaches_by_its_reason(world: World) -> None:
    failed = world.add(state=CandidateState.FAILED, reason="over_limit: 300 s `and more`", arm="llm")
    world.add(state=CandidateState.FAILED, reason="over_limit", arm="random")
    analyst = analyst_of(world)
    for cid in (failed.id, "c-0002"):
        analyst.look_at(cid)
    lesson = world.get(failed.id).lesson
    assert lesson is not None and lesson.verdict is NONE
    assert lesson.text == "No score: failed. over_limit: 300 s 'and more'"
    assert world.get("c-0002").lesson is None


def test_counting_tells_what_edits_brought(world: World) -> None:
    parent = world.add(0.5)
    for score in (0.6, 0.7, 0.4, 0.5):
        world.add(score, parents=(parent.id,), operator="widen")
    world.add(0.9, parents=(parent.id,), operator="rare")
    analyst = analyst_of(world)
    for index in range(6):
        analyst.look_at(f"c-{index + 1:04d}")
    (line,) = analyst.lines()
    assert line == (
        "edits of the kind widen: better than the parent, by more than chance, in 2 of 4, worse in 1 "
        "(better: c-0002, c-0003)"
    )


def test_hypotheses_are_counted(world: World) -> None:
    parent = world.add(0.5)
    for score in (0.6, 0.6, 0.4, 0.501):
        world.add(score, parents=(parent.id,), arm="llm", expect=UP(1))
    analyst = analyst_of(world)
    for index in range(5):
        analyst.look_at(f"c-{index + 1:04d}")
    told = hypotheses(world.store.candidates(), "params")
    assert told == {OUT: 2, AGAINST: 1, NOISE: 1}
    assert hypotheses_text(told) == (
        "hypotheses of the model about score and cost: 2 borne out, 1 refuted, 1 within the noise"
    )
    assert tally_lines(world.store.candidates(), {}, "params")[0] == hypotheses_text(told)


def test_hypotheses_about_what_the_run_does_not_rank_by_are_not_counted(world: World) -> None:
    parent = world.add(0.5, parameters=1000)
    wanted = Expectation(measure="params", change="higher", by_percent=1)
    child = world.add(0.5, parameters=1200, parents=(parent.id,), arm="llm", expect=wanted)
    analyst_of(world).look_at(child.id)
    candidates = world.store.candidates()
    assert verdict_of(world, child.id) is OUT, "it keeps its verdict"
    assert hypotheses(candidates, "params") == {OUT: 1}
    assert hypotheses(candidates, "latency_ratio") == {}


def test_a_network_that_breaks_a_hard_limit_bears_nothing_out(world: World) -> None:
    parent = world.add(0.5, parameters=1000)
    wanted = Expectation(measure="params", change="higher", by_percent=0.25)
    made = world.add(0.7, parameters=2000, parents=(parent.id,), arm="llm", operator="widen", expect=wanted)
    analyst = analyst_of(world)
    for each in (parent, made):
        analyst.look_at(each.id)
    assert verdict_of(world, made.id) is OUT
    broken = world.get(made.id).model_copy(update={"feasible": False, "reason": "params 2000 > 1500"})
    world.services.save(broken, "judge")
    assert analyst.refresh() == 1
    lesson = world.get(made.id).lesson
    assert lesson is not None and lesson.verdict is NONE
    assert lesson.measured.startswith("it breaks a hard limit: params 2000 > 1500; expected: params higher")
    assert "against 1k of c-0001" in lesson.measured, "the numbers are still told"
    assert hypotheses(world.store.candidates(), "params") == {}
    assert not analyst._weigher.effects, "no edit is praised for it"


def test_a_lesson_that_comes_while_a_slot_works_is_kept(world: World) -> None:
    before = world.add(0.5)
    analyst_of(world).look_at(before.id)
    assert before.lesson is None, "what the slot holds is older"
    world.services.save(before.model_copy(update={"reproduced": True}), "confirm")
    after = world.store.candidate(before.id)
    assert after.reproduced and after.lesson is not None
