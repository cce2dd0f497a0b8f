"""Runs whose time is up while a model thinks, and runs of two models one of which fails."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from cambrian.agents.ahead import AHEAD_KEY, Stock
from cambrian.agents.discovery import Discovery
from cambrian.agents.planner.exchange import ExchangeLog
from cambrian.agents.population.store import PopulationStore
from cambrian.agents.runfile import RunConfig
from cambrian.agents.session import Watch, resume, start
from cambrian.agents.workspace import Workspace
from tests.agents.planner.server import Handler, ModelServer, error
from tests.agents.test_ahead import arms_of, candidates_of, of_model, proposing, server

__all__ = ["server"]

MakeConfig = Callable[..., RunConfig]


@pytest.mark.parametrize("others", [False, True], ids=["model-only", "portfolio"])
async def test_what_is_proposed_when_time_is_up_waits_for_a_resume(
    config: MakeConfig, runs: Path, server: ModelServer, others: bool
) -> None:
    """The clock of the run is put forward while the second question is under way."""
    loops: list[Discovery] = []

    def late(handler: Handler) -> None:
        if len(server.seen) == 2:
            loops[0].account.excuse(-4000.0)
        proposing(handler)

    def note(discovery: Discovery, _store: PopulationStore) -> None:
        loops.append(discovery)

    server.says(late)
    arms = {"llm": 0.8, "mutation": 0.1, "random": 0.1} if others else {"llm": 1.0}
    made = of_model(
        config, server, {"ahead": 0}, slots=1, arms=arms, budget={"evaluations": 30, "wall_s": 3600.0}
    )
    await start(made, Workspace(runs), Watch(say=lambda _: None, started=note))
    before = arms_of(candidates_of(runs))
    assert before.count("llm") == 1, "nothing is begun when time is up"
    store = Workspace(runs).open("last")
    (kept,) = Stock.model_validate_json(store.get_meta(AHEAD_KEY) or "").ready
    assert "time budget" in store.run.stop_reason
    store.close()
    server.says(proposing)
    more = {"budget.wall_s": 90_000.0, "budget.evaluations": len(before) + 3}
    await resume("last", Workspace(runs), Watch(say=lambda _: None), more)
    assert kept.proposal in [candidate.proposal for candidate in candidates_of(runs)]


async def test_every_question_has_a_number_of_its_own(
    config: MakeConfig, runs: Path, server: ModelServer
) -> None:
    server.says(proposing)
    made = of_model(config, server, {"ahead": 0}, slots=1, arms={"llm": 1.0}, budget={"evaluations": 7})
    await start(made, Workspace(runs), Watch(say=lambda _: None))
    places = [exchange.place for exchange in ExchangeLog(Workspace(runs).folder("last")).all()]
    assert len(places) == len(set(places)) >= 4


async def test_the_arm_does_not_pause_while_another_model_answers(
    config: MakeConfig, runs: Path, server: ModelServer
) -> None:
    def by_name(handler: Handler) -> None:
        (error(401, "wrong key") if handler.seen.body["model"] == "strong" else proposing)(handler)

    server.says(by_name)
    models = {"model": None, "models": [{"model": "strong"}, {"model": "weak"}]}
    lines: list[str] = []
    await start(
        of_model(config, server, models, budget={"evaluations": 12}),
        Workspace(runs),
        Watch(say=lines.append),
    )
    assert "llm" in arms_of(candidates_of(runs))
    assert not [line for line in lines if "pauses" in line]
    (told,) = [line for line in lines if "wrong key" in line]
    assert told.startswith("model strong") and told.endswith("; weak goes on")
