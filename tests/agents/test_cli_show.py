"""`cambrian show RUN/CANDIDATE` of one that a model proposed."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cambrian.agents.cli.app import app
from cambrian.agents.planner.exchange import ExchangeLog, Message, Usage
from cambrian.agents.population.model import CandidateState, Lesson, Verdict
from tests.agents.analyst.world import World

Show = Callable[..., str]


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """A run with a batch of two, which took a repair, and one lesson."""
    world = World(tmp_path / "run")
    log = ExchangeLog(world.store.folder)
    for role, place, cached in (("propose", "d1", 0), ("repair", "d1.2", 60), ("analyse", "c-0002", 0)):
        asked = log.begin(
            key=place,
            role=role,
            place=place,
            model="some-model",
            messages=[Message(role="user", content="the words of a question")],
            schema_name=None,
            templates={"analyse.j2": "a1"} if role == "analyse" else {"propose.j2": "p1", "system.j2": "s1"},
        )
        usage = Usage(prompt_tokens=1000, completion_tokens=50, cached_tokens=cached)
        log.write(asked.model_copy(update={"response": "{}", "calls": 1, "usage": usage, "money": 0.001}))
    world.add(0.5)
    for _ in range(2):
        world.add(0.6, arm="llm", model="some-model", idea="refine", hypothesis="wider", exchange="x-0002")
    lesson = Lesson(verdict=Verdict.REFUTED, text="Wider does not pay.", exchange="x-0003")
    world.services.teach("c-0002", lesson, "lesson")
    yield world
    world.close()


@pytest.fixture
def show(world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Show:
    def show(name: str, *more: str) -> str:
        app(["show", name, "--runs", str(tmp_path), *more], standalone_mode=False)
        return capsys.readouterr().out

    return show


def test_what_a_model_was_asked_about_a_candidate_is_shown(show: Show) -> None:
    rows: dict[str, Any] = {}
    for line in show("run/c-0002").splitlines()[1:]:
        key, _, value = line.strip().partition("  ")
        rows[key] = value.strip()
    assert (rows["model"], rows["idea"], rows["hypothesis"]) == ("some-model", "refine", "wider")
    assert rows["asked in"] == "x-0001 (propose), x-0002 (repair)"
    assert rows["prompts"] == "propose.j2 p1, system.j2 s1"
    assert rows["tokens"] == "2,000 in (60 cached), 100 out: $0.002, shared by 2 candidates"
    assert (rows["analysed in"], rows["tokens of it"]) == ("x-0003", "1,000 in, 50 out: $0.001")
    assert rows["lesson"] == "Wider does not pay."
    assert rows["the whole question"] == "cambrian prompts render run --candidate c-0002"


def test_the_data_hold_the_exchanges_without_their_texts(show: Show) -> None:
    shown = show("run/c-0002", "--json")
    exchanges = json.loads(shown)["exchanges"]
    assert [each["id"] for each in exchanges] == ["x-0001", "x-0002", "x-0003"]
    assert exchanges[0]["templates"] == {"propose.j2": "p1", "system.j2": "s1"}
    assert "the words of a question" not in shown


def test_of_others_nothing_is_said_of_models(show: Show, world: World) -> None:
    assert "model" not in show("run/c-0001") and "tokens" not in show("run/c-0001")
    lost = world.add(arm="llm", state=CandidateState.FAILED, reason="timeout", exchange="x-0099")
    assert "x-0099 (its record is gone)" in show(f"run/{lost.id}")
