"""Runs executed again from their record: the same population, or the first thing that differs, by name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cambrian.agents.errors import UserError
from cambrian.agents.population.model import Candidate
from cambrian.agents.population.store import PopulationStore
from cambrian.agents.replaying import ReplayDiverged, replay
from cambrian.agents.replaying.replay import UNCOMPARED
from cambrian.agents.runfile import RunConfig
from cambrian.agents.session import Watch, start
from cambrian.agents.workspace import Workspace
from cambrian.sandbox import SANDBOXES, Job, JobState, Outcome
from tests.support.instant import InstantSandbox

MakeConfig = Callable[..., RunConfig]
QUIET = Watch(say=lambda _: None)


def population(runs: Path, run: str) -> list[dict[str, Any]]:
    store = Workspace(runs).open(run)
    try:
        return [c.model_dump(mode="json", exclude=UNCOMPARED) for c in store.candidates()]
    finally:
        store.close()


def quiet(_line: str) -> None:
    return


async def test_two_slots_are_replayed_in_the_order_in_which_they_worked(
    config: MakeConfig, runs: Path
) -> None:
    arms = {"random": 0.2, "guided": 0.3, "mutation": 0.3, "crossover": 0.2}
    report = await start(config(budget={"evaluations": 30}, arms=arms), Workspace(runs), QUIET)
    replayed = await replay(report.run_id, Workspace(runs), quiet)
    assert population(runs, replayed.run_id) == population(runs, report.run_id)
    assert replayed.candidates == len(population(runs, report.run_id)) >= 30
    assert not (runs / replayed.run_id / "jobs").exists(), "nothing was trained"


async def test_rungs_repeats_champions_recipes_and_lost_scores(
    config: MakeConfig, runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = 0

    class Doubtful(InstantSandbox):
        async def run(self, job: Job) -> Outcome:
            nonlocal asked
            outcome = await super().run(job)
            if job.purpose == "reproduce":
                asked += 1
                if 12 <= asked < 15:  # all tries of one candidate
                    changes = {"state": JobState.NOT_REPRODUCED, "reason": "predicts something else"}
                    return outcome.model_copy(update=changes)
            return outcome

    monkeypatch.setitem(SANDBOXES._loaded, "doubtful", Doubtful)
    made = config(
        task={"name": "digits", "rungs": [{"epochs": 1, "promote": 0.3}, {"epochs": 2}]},
        budget={"evaluations": 60},
        recipe_genes={"optimizer": None},
        noise={"repeats": 3},
        champions={"top": 2, "seeds": 2},
        sandbox={"kind": "doubtful"},
    )
    report = await start(made, Workspace(runs), QUIET)
    assert report.lost, "somebody lost its score"
    replayed = await replay(report.run_id, Workspace(runs), quiet)
    assert population(runs, replayed.run_id) == population(runs, report.run_id)
