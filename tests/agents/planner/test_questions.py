"""The questions as they are sent: their form, their budget, several proposals at once, source as genotype."""

from __future__ import annotations

import json
import logging
import random
from collections.abc import Mapping
from typing import Any

import pytest

from cambrian.agents.evaluator.noise import NoiseFloor
from cambrian.agents.planner.client import estimated_tokens
from cambrian.agents.planner.context import _avoid, noise_in_words, prompt_variables
from cambrian.agents.planner.questions import Questions
from cambrian.agents.planner.templates import Templates
from cambrian.agents.population.model import Candidate, CandidateState, Expectation, Lesson, Nearest, Verdict
from cambrian.search_spaces import SPACES
from cambrian.search_spaces.space import Genotype
from tests.agents.planner.world import TinySpace, ToyTask, candidate, config, context, convnet, evaluated
from tests.support.code_space import FLAT, CodeSpace

TINY = {"width": 8, "depth": 1}
NOISE = NoiseFloor(std=0.01, low=0.006, high=0.02, degrees=4, networks=1, trainings=5, factor=2.78)


class Coded(CodeSpace):
    """Without the baselines of an installed plugin, and for source of any kind."""

    def features(self, genotype: Genotype) -> dict[str, float]:
        return {"lines": float(len(genotype["source"].splitlines()))}

    def baselines(self) -> Mapping[str, Genotype]:
        return {"perceptron": self.validate({"source": FLAT.format(width=16, depth=1, activation="relu")})}


def question(space: Any, candidates: list[Candidate], n: int = 1, **more: Any) -> str:
    asked = Questions(Templates("tiny"), context(space, candidates, **more), n).question()
    return asked.messages[1].content


def test_one_proposal_and_several() -> None:
    space, templates = convnet(), Templates("convnet")
    population = evaluated(space, 20)
    one = Questions(templates, context(space, population, seed=3)).question()
    assert one.schema_name == "proposal" and "genotype" in (one.schema or {})["properties"]
    assert "# Proposal 21\n" in one.messages[1].content
    asked = Questions(templates, context(space, population, seed=3), 4)
    several = asked.question()
    assert several.schema_name == "proposals" and set((several.schema or {})["properties"]) == {"proposals"}
    text = several.messages[1].content
    assert "# Proposals 21 to 24\nMake 4 proposals that differ from each other, in this order:\n1. " in text
    assert "Its only field, proposals, is a list of 4 objects." in several.messages[0].content
    assert len(asked.ideas) == 4 == len({str(focus) for focus in asked.variables["focuses"]})
    shown = {c["id"] for c in asked.variables["best"]}
    for number, focus in enumerate(asked.variables["focuses"], start=1):
        line = next(line for line in text.splitlines() if line.startswith(f"{number}. "))
        assert set(focus["ids"]) <= shown and all(cid in line for cid in focus["ids"])
        assert {"refine": "Improve", "combine": "Combine", "explore": "Try"}[focus["kind"]] in line
    assert asked.ideas == tuple(focus["kind"] for focus in asked.variables["focuses"])


def test_all_prompts_name_the_fields_of_the_schema() -> None:
    for name in SPACES.names():
        space = SPACES.create(name)
        for n in (1, 3):
            asked = Questions(Templates.of(space), context(space, []), n).question()
            schema = asked.schema or {}
            fields = schema["properties"]["proposals"]["items"] if n > 1 else schema
            order = ", ".join(fields["properties"])
            assert f"in this order: {order}." in asked.messages[0].content
            text = asked.messages[0].content + asked.messages[1].content
            assert "expected_effect" not in text
            for field in fields["properties"]["expectation"]["properties"]:
                assert f"{field}" in text


def test_a_question_and_its_repair_fit_the_limit(caplog: pytest.LogCaptureFixture) -> None:
    space = convnet()
    for limit in (2000, 2600, 4000):
        with caplog.at_level(logging.INFO, logger="cambrian"):
            questions = Questions(Templates("convnet"), context(space, evaluated(space, 30)), limit=limit)
        asked = questions.question()
        again = questions.repair(asked, "x" * 9000, "stages: too many " * 200)
        for request in (asked, again) if limit > 2000 else (asked,):
            assert estimated_tokens("".join(m.content for m in request.messages)) <= limit
        assert questions.cuts.tokens <= limit and len(again.messages[2].content) >= 300
    assert "question 31 is cut to 2000 tokens: " in caplog.text


def test_a_repair_keeps_the_first_question_where_there_is_room() -> None:
    space = convnet()
    questions = Questions(Templates("convnet"), context(space, evaluated(space, 5)), limit=8000)
    asked = questions.question()
    again = questions.repair(asked, "no", "stages: missing")
    assert again.messages[:2] == asked.messages and again.role == "repair"
    assert again.schema == asked.schema and "repair.j2" in again.templates


def test_equal_contexts_ask_the_same_whatever_the_limit_cut() -> None:
    space = convnet()
    for limit in (None, 2200):
        first, second = (
            Questions(Templates("convnet"), context(space, evaluated(space, 30), seed=5), 3, limit=limit)
            for _ in range(2)
        )
        assert first.question() == second.question()


def test_source_is_shown_as_source_in_a_block_of_its_own() -> None:
    space, rng = Coded(), random.Random(0)
    population = [candidate(i, space.sample(rng), score=0.5 + i / 10, latency=1.0) for i in range(3)]
    text = question(space, population, seed=2)
    for each in population:
        assert f"```python\n{each.genotype['source'].rstrip()}\n```" in text
        assert f"```\n{each.id}: accuracy" in text
    assert "(the source below)" not in text and "\\n" not in text
    system = Questions(Templates("tiny"), context(space, population)).question().messages[0].content
    assert "Write the whole source" in system and "gene" not in system
    first = question(space, [])
    assert "```\nperceptron\n```" in first and "```python\nimport torch" in first


def test_long_source_is_cut_and_says_so() -> None:
    space = Coded()
    source = space.sample(random.Random(0))["source"] + "# filler\n" * 4000
    text = question(space, [candidate(0, {"source": source}, score=0.5, latency=1.0)], seed=2)
    assert "\n(cut here for length)\n```" in text and len(text) < 12_000


def test_what_is_a_tie_is_told_as_scores_are_shown() -> None:
    assert noise_in_words(None, ToyTask()) is None
    assert noise_in_words(NoiseFloor(), ToyTask()) is None
    told = noise_in_words(NOISE, ToyTask())
    assert told is not None and told["score"].startswith("differences in accuracy of up to 0.039 are ties")
    assert told["tie"] == pytest.approx(0.0393, abs=1e-4)
    sampled = noise_in_words(NoiseFloor(sampling=0.012), ToyTask())
    assert (
        sampled is not None
        and "up to 0.012 are" in sampled["score"]
        and "seeds add to it" in sampled["score"]
    )

    class Loss(ToyTask):
        metric = "rmse"

    told = noise_in_words(NOISE, Loss())
    assert told is not None and "rmse of up to 0.039 are ties" in told["score"]


def test_ties_are_marked_where_a_change_is_told() -> None:
    from dataclasses import replace

    parent = candidate(0, TINY, score=0.80, latency=1.0)
    tied = candidate(1, TINY | {"depth": 2}, score=0.82, latency=1.0, parents=("c-0001",))
    better = candidate(2, TINY | {"depth": 3}, score=0.90, latency=1.0, parents=("c-0001",))
    asked = replace(context(TinySpace(), [parent, tied, better]), noise=NOISE)
    text = Questions(Templates("tiny"), asked).question().messages[1].content
    assert "(+0.02, a tie)" in text and "(+0.1)" in text
    assert "Noise: differences in accuracy" in text and "beyond the noise" in text


def test_lessons_comments_and_what_paid_are_shown() -> None:
    lesson = Lesson(verdict=Verdict.REFUTED, measured="0.7 against 0.8", text="Depth does not pay here.")
    bare = Lesson(verdict=Verdict.BORNE_OUT, measured="0.9 against 0.8")
    silent = Lesson(verdict=Verdict.NO_EVIDENCE)
    expectation = Expectation(measure="score", change="higher", by_percent=2)
    made: dict[str, Any] = {"arm": "llm", "parents": ("c-0001",), "expectation": expectation}
    told = [
        candidate(0, TINY, score=0.8, latency=1.0),
        candidate(1, TINY | {"depth": 2}, score=0.7, latency=1.0, idea="refine", **made),
        candidate(2, TINY | {"depth": 3}, score=0.9, latency=1.0, idea="explore", operator="deepen", **made),
        candidate(3, TINY | {"width": 16}, score=0.85, latency=1.0, idea="explore", operator="widen", **made),
        candidate(4, TINY | {"width": 32}, score=0.85, latency=1.0, idea="refine", operator="widen", **made),
        candidate(5, {"width": 16, "depth": 3}, score=0.8, operator="deepen", arm="mutation"),
    ]
    lessons = [None, lesson, bare, silent, None, None]
    told = [c.model_copy(update={"lesson": each}) for c, each in zip(told, lessons, strict=True)]
    told[2] = told[2].model_copy(update={"comment": "ada: good, now with less memory"})
    text = question(TinySpace(), told)
    assert "expected was: accuracy higher by 2 %; refuted (0.7 against 0.8): Depth does not pay here." in text
    assert "expected was: accuracy higher by 2 %; borne out (0.9 against 0.8)" in text
    assert "no evidence" not in text
    assert "# Comments of reviewers" in text
    assert "- c-0003 (network 2; accuracy 0.9): ada: good, now with less memory" in text
    assert "- idea explore: " in text and "- operator widen: " in text and "(2 spent)" in text
    assert "arm llm" not in text, "one alone cannot be compared"
    lines = [line for line in text.splitlines() if line.startswith("- idea")]
    rates = [float(line.split(": ")[1].split()[0]) for line in lines]
    assert rates == sorted(rates, reverse=True) and len(rates) == 2


def test_what_was_made_of_the_same_parent_is_not_to_be_made_again() -> None:
    parent = candidate(0, TINY, score=0.8, latency=1.0)
    child = candidate(
        1, TINY | {"depth": 2}, score=0.7, latency=1.0, parents=("c-0001",), edit="depth 1 to 2"
    )
    failed = candidate(
        2, TINY | {"depth": 3}, state=CandidateState.FAILED, parents=("c-0001",), edit="depth 1 to 3"
    )
    near = candidate(3, TINY | {"width": 16}, score=0.75, latency=1.0).model_copy(
        update={"nearest": Nearest(id="c-0001", similarity=0.9)}
    )
    far = candidate(4, {"width": 32, "depth": 3}, score=0.5, latency=1.0)
    doubles = [
        candidate(
            5 + i, TINY, state=CandidateState.DUPLICATE, reason="computes the same as c-0005"
        ).model_copy(update={"duplicate_of": "c-0005"})
        for i in range(2)
    ]
    focus = {"kind": "refine", "ids": ["c-0001"]}
    for seed in range(40):
        asked = context(TinySpace(), [parent, child, failed, near, far, *doubles], seed=seed)
        variables = prompt_variables(asked)
        if variables["focus"] == focus:
            break
    told = _avoid(asked, [focus], asked.population.setbacks(9), above=())
    assert {t["id"]: (t["outcome"], t["times"]) for t in told} == {
        "c-0003": ("failed", 1),
        "c-0002": ("accuracy 0.7", 1),
        "c-0004": ("accuracy 0.75", 1),
        "c-0005": ("accuracy 0.5", 3),
    }
    text = Templates("tiny").render("propose.j2", variables | {"avoid": told}).text
    assert "- c-0002 from c-0001, depth 1 to 2: accuracy 0.7\n" in text
    assert "- c-0005, network 4: accuracy 0.5; proposed 3 times\n" in text
    # all of these stand further up, among the best, the edits or the setbacks
    assert [t["id"] for t in variables["avoid"]] == ["c-0005"], "how often it came back is not said there"
    hidden = _avoid(asked, [focus], asked.population.setbacks(9), above={"c-0003"})
    assert {t["id"] for t in hidden} == {"c-0002", "c-0004", "c-0005"}


def test_only_what_was_edited_stands_among_the_edits() -> None:
    """Samples and baselines changed nothing; they would crowd out what edits brought."""
    edited = [
        candidate(i, TINY, score=0.7, latency=1.0, parents=("c-0001",), edit=f"edit {i}") for i in (1, 2)
    ]
    orphan = candidate(3, TINY, score=0.6, latency=1.0, parents=("c-0099",), edit="of nobody")
    samples = [candidate(i, TINY, score=0.5, latency=1.0) for i in range(4, 16)]
    first = candidate(0, TINY, score=0.8, latency=1.0)
    told = prompt_variables(context(TinySpace(), [first, *edited, orphan, *samples]))["effects"]
    assert [(e["id"], e["score_change"]) for e in told] == [("c-0003", "-0.1"), ("c-0002", "-0.1")]
    assert "What the latest edits brought" not in question(TinySpace(), [first, *samples])


def test_sections_are_apart_from_each_other() -> None:
    ended = [
        candidate(i, TINY, state=state, reason="why", parents=("c-0001",), edit="e")
        for i, state in enumerate((CandidateState.REJECTED, CandidateState.FAILED), start=20)
    ]
    double = candidate(22, TINY, state=CandidateState.DUPLICATE).model_copy(update={"duplicate_of": "c-0001"})
    good = evaluated(TinySpace(), 4)
    said = good[1].model_copy(update={"comment": "mind the memory"})
    lines = question(TinySpace(), [good[0], said, *good[2:], *ended, double]).splitlines()
    found = [i for i, line in enumerate(lines) if line.startswith("# ")]
    titles = {lines[i] for i in found}
    assert titles >= {
        "# Rejected by a reviewer",
        "# Comments of reviewers",
        "# Proposals that came to nothing",
        "# Tried already",
    }
    assert all(lines[i - 1] == "" for i in found[1:])


def test_others_are_shown_that_differ_from_the_best() -> None:
    space = convnet()
    variables = prompt_variables(context(space, evaluated(space, 60)))
    best, others = ({c["id"] for c in variables[name]} for name in ("best", "diverse"))
    assert len(others) == 3 and not best & others
    assert all(json.loads(c["genotype"]) for c in variables["diverse"])


def test_every_shipped_prompt_leaves_room_for_history() -> None:
    """With the default limit no space's prompt is cut to less than its best and its latest effects."""
    limit = config().llm.prompt_tokens
    for name in SPACES.names():
        space = SPACES.create(name)
        asked = Questions(Templates.of(space), context(space, evaluated(space, 30)), 2, limit=limit)
        assert asked.cuts.left_out == {}, name


def test_a_recipe_beside_source_is_shown() -> None:
    from cambrian.agents.planner.showing import genotype_and_source

    both = {"architecture": {"source": "import torch\nx = 1\n"}, "recipe": {"learning_rate": 0.1}}
    genotype, source = genotype_and_source(both, Coded())
    assert json.loads(genotype)["recipe"] == {"learning_rate": 0.1}
    assert json.loads(genotype)["architecture"] == {"source": "(the source below)"}
    assert source == "import torch\nx = 1"
