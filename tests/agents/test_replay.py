"""Runs executed again from their record: the same population, or the first thing that differs, by name."""

from __future__ import annotations

import asyncio
import json
import random
import sqlite3
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cambrian.agents.cli.prompts_reported import report_command
from cambrian.agents.errors import InfrastructureError, UserError
from cambrian.agents.evaluator.admission import Admission
from cambrian.agents.lifecycle import Lifecycle, LifeState
from cambrian.agents.planner.llm import LLMArm
from cambrian.agents.population import Candidate
from cambrian.agents.replaying import ReplayDiverged, ReplayMiss, replay
from cambrian.agents.replaying.launch import _unlimited
from cambrian.agents.replaying.replay import UNCOMPARED
from cambrian.agents.runfile import RunConfig
from cambrian.agents.sections import LLMSection
from cambrian.agents.session import Watch, resume, start
from cambrian.agents.workspace import Workspace
from cambrian.sandbox import SANDBOXES, Job, JobState, Outcome
from cambrian.search_spaces import SPACES
from tests.agents.planner.server import Handler, ModelServer, answer, error, model_server
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


def proposing(batch_of: int = 1) -> Callable[[Handler], None]:
    """Answers with members of the space that differ from question to question, and with lessons."""
    space = SPACES.create("convnet")

    def respond(handler: Handler) -> None:
        n = len(handler.world.seen)
        schema = handler.seen.schema
        assert schema is not None
        if "lesson" in schema["properties"]:
            notes = {
                "supports": [],
                "contradicts": [],
                "new": [{"claim": f"claim {n % 3}", "scope": "small"}],
            }
            answer(json.dumps({"lesson": f"lesson {n} is that wider pays", "notes": notes}))(handler)
            return
        reasons = {
            "hypothesis": "wider is better",
            "expectation": {"measure": "score", "change": "higher", "by_percent": 1},
        }
        if "changes" in schema["properties"]:
            parents = schema["properties"]["parents"]["items"]["enum"]
            rng = random.Random(n)
            cases = schema["properties"]["changes"]["items"]["anyOf"]
            single = [case["properties"] for case in cases if "enum" in case["properties"]["to"]]
            changes = [
                {"gene": rng.choice(case["gene"]["enum"]), "to": rng.choice(case["to"]["enum"])}
                for case in rng.sample(single, 2)
            ]
            answer(json.dumps(reasons | {"parents": parents, "changes": changes}))(handler)
            return
        made = [
            reasons
            | {
                "parents": ["c-0001"],
                "edit": f"edit {n}",
                "genotype": space.sample(random.Random(f"{n}/{i}")),
            }
            for i in range(3)
        ]
        answer(json.dumps({"proposals": made} if "proposals" in schema["properties"] else made[0]))(handler)

    return respond


def slowly(respond: Callable[[Handler], None]) -> Callable[[Handler], None]:
    """Answers when the test lets it."""

    def wait(handler: Handler) -> None:
        handler.world.released.wait(20)
        respond(handler)

    return wait


@pytest.fixture
def server() -> Iterator[ModelServer]:
    with model_server() as server:
        yield server


def asking(config: MakeConfig, server: ModelServer, **changes: Any) -> RunConfig:
    settings: dict[str, Any] = {
        "arms": {"random": 0.2, "mutation": 0.3, "llm": 0.5},
        "llm": {"model": "test-model", "base_url": server.url, "retries": 0},
        "budget": {"evaluations": 20},
        "analyst": {"lessons": "all"},
    }
    return config(**settings | changes)


async def test_a_run_with_a_model_needs_neither_key_nor_server(
    config: MakeConfig, runs: Path, server: ModelServer
) -> None:
    bad = [answer("no JSON"), error(500), answer(None, refusal="no")]
    server.says(*[proposing()] * 4, *bad, proposing())
    made = asking(config, server)
    report = await start(made, Workspace(runs), QUIET)
    recorded = population(runs, report.run_id)
    assert sum(c["proposal"]["arm"] == "llm" and c["score"] is not None for c in recorded) >= 3
    assert any(c["lesson"] and c["lesson"]["text"] for c in recorded)
    asked = len(server.seen)
    replayed = await replay(report.run_id, Workspace(runs), quiet)
    assert population(runs, replayed.run_id) == recorded
    assert len(server.seen) == asked and replayed.questions > 5


async def test_a_run_that_was_stopped_while_it_asked_is_replayed(
    config: MakeConfig, runs: Path, server: ModelServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Resumed, another arm draws in the place of the question that was begun, and its answer is awaited."""
    made = asking(
        config,
        server,
        arms={"random": 0.2, "guided": 0.4, "llm": 0.4},
        llm={"model": "test-model", "base_url": server.url, "retries": 0, "ahead": 0},
        slots=1,
        warmup=8,
        analyst={"lessons": "off"},
    )
    server.says(answer("no JSON"), slowly(proposing()), proposing())
    running = asyncio.create_task(start(made, Workspace(runs), QUIET))
    while len(server.seen) < 2:
        await asyncio.sleep(0.01)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    server.released.set()
    with monkeypatch.context() as patch:
        patch.setattr(LLMArm, "ready", lambda _self, _population: False)
        report = await resume("last", Workspace(runs), QUIET)
    store = Workspace(runs).open(report.run_id)
    arms: defaultdict[str, list[str]] = defaultdict(list)
    for entry in store.journal():
        if entry.kind == "ask":
            arms[entry.subject].append(entry.data["arm"])
    store.close()
    assert ["llm", "guided"] in arms.values()
    replayed = await replay(report.run_id, Workspace(runs), quiet)
    assert population(runs, replayed.run_id) == population(runs, report.run_id)


@pytest.mark.parametrize("judged", [False, True])
async def test_a_run_that_died_around_a_judgement_is_replayed(
    config: MakeConfig, runs: Path, monkeypatch: pytest.MonkeyPatch, judged: bool
) -> None:
    """Before it the score is known to the next process at once; after it the step is taken twice."""
    judge, order, others = Lifecycle._judge, list[str](), asyncio.Event()

    async def dying(self: Lifecycle, state: LifeState) -> LifeState:
        order.append(state["candidate"])
        if len(order) < 7:
            return await judge(self, state)
        if judged:
            await judge(self, state)
        raise InfrastructureError("the disk is gone")

    async def late(self: Lifecycle, state: LifeState) -> LifeState:
        """Who was about to be judged is so after others, which are predicted meanwhile."""
        if state["candidate"] == order[6] and not judged:
            await asyncio.wait_for(others.wait(), 60)
        elif len(self._do.store.evaluations()) >= 9:
            others.set()
        return await judge(self, state)

    made = config(
        budget={"evaluations": 16}, arms={"random": 0.5, "mutation": 0.5}, predictor={"min_evaluations": 7}
    )
    with monkeypatch.context() as patch:
        patch.setattr(Lifecycle, "_judge", dying)
        with pytest.raises(InfrastructureError):
            await start(made, Workspace(runs), QUIET)
        patch.setattr(Lifecycle, "_judge", late)
        report = await resume("last", Workspace(runs), QUIET)
    recorded = population(runs, report.run_id)
    assert any(c["prediction"] is not None for c in recorded)
    replayed = await replay(report.run_id, Workspace(runs), quiet)
    assert population(runs, replayed.run_id) == recorded


async def test_who_is_screened_while_a_score_comes_in_is_so_by_what_is_known_then(
    config: MakeConfig, runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    screened, learn = Admission.screened, Admission.learn
    one, come = threading.Lock(), threading.Event()

    def slow(self: Admission, candidate: Candidate, may_end: bool) -> Candidate:
        found = screened(self, candidate, may_end)
        if 3 <= len(self._learned) < 7 and one.acquire(blocking=False):  # the other slot works on
            come.wait(20)
        return found

    def noting(self: Admission, candidate: Candidate) -> None:
        learn(self, candidate)
        if len(self._learned) >= 7:
            come.set()

    with monkeypatch.context() as patch:
        patch.setattr(Admission, "screened", slow)
        patch.setattr(Admission, "learn", noting)
        report = await start(config(predictor={"min_evaluations": 7}), Workspace(runs), QUIET)
    assert one.locked() and come.is_set()
    replayed = await replay(report.run_id, Workspace(runs), quiet)
    assert population(runs, replayed.run_id) == population(runs, report.run_id)


async def test_replays_are_no_further_evidence(
    config: MakeConfig, runs: Path, server: ModelServer, capsys: pytest.CaptureFixture[str]
) -> None:
    server.says(proposing())
    report = await start(asking(config, server, budget={"evaluations": 12}), Workspace(runs), QUIET)
    replayed = await replay(report.run_id, Workspace(runs), quiet)
    capsys.readouterr()
    report_command([], None, as_json=True, runs=runs)
    told = json.loads(capsys.readouterr().out)
    assert {run for row in told["rows"] for run in row["runs"]} == {report.run_id}
    assert told["skipped"] == {replayed.run_id: f"it does {report.run_id} again"}


async def test_answers_by_changes_are_replayed(config: MakeConfig, runs: Path, server: ModelServer) -> None:
    server.says(proposing())
    made = asking(config, server)
    made = made.model_copy(update={"llm": made.llm.model_copy(update={"answers": "changes"})})
    report = await start(made, Workspace(runs), QUIET)
    recorded = population(runs, report.run_id)
    told = [c["proposal"] for c in recorded if c["proposal"]["arm"] == "llm"]
    assert any(each["edit"] and each["parents"] for each in told)
    assert any("changes" in seen.schema["properties"] for seen in server.seen if seen.schema is not None)
    replayed = await replay(report.run_id, Workspace(runs), quiet)
    assert population(runs, replayed.run_id) == recorded


def test_what_a_local_model_was_asked_for_is_asked_again_without_it(config: MakeConfig) -> None:
    class Kept:
        def get_meta(self, _key: str) -> str:
            return LLMSection(local="model.gguf").model_dump_json()

    again = _unlimited(config(), Kept()).llm  # type: ignore[arg-type]
    assert again.local is None and again.by_changes


async def test_a_changed_prompt_is_a_miss_that_names_it(
    config: MakeConfig, runs: Path, server: ModelServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.says(proposing())
    report = await start(asking(config, server, budget={"evaluations": 12}), Workspace(runs), QUIET)
    folder = tmp_path / "own" / "base"
    folder.mkdir(parents=True)
    (folder / "system.j2").write_text("{% extends 'shipped/base/system.j2' %}")
    monkeypatch.setenv("CAMBRIAN_PROMPTS", str(folder.parent))
    same = await replay(report.run_id, Workspace(runs), quiet)
    assert same.candidates, "another version of a template that says the same is no other question"
    (folder / "system.j2").write_text("You propose networks, {{ task.name }} ones.")
    with pytest.raises(ReplayMiss, match=r"question d\d+ \(propose\).*x-000\d: template system\.j2 is .* "):
        await replay(report.run_id, Workspace(runs), quiet)
    kept = Workspace(runs).open("last").run
    assert kept.status == "stopped" and "system.j2" in kept.stop_reason


async def test_a_run_without_a_journal_says_so(config: MakeConfig, runs: Path) -> None:
    report = await start(config(budget={"evaluations": 2}), Workspace(runs), QUIET)
    with sqlite3.connect(runs / report.run_id / "population.sqlite") as db:
        db.execute("DELETE FROM journal")
    with pytest.raises(UserError, match="has no journal"):
        await replay(report.run_id, Workspace(runs), quiet)


async def test_what_differs_is_named(config: MakeConfig, runs: Path) -> None:
    report = await start(config(budget={"evaluations": 8}), Workspace(runs), QUIET)
    with sqlite3.connect(runs / report.run_id / "population.sqlite") as db:
        db.execute("UPDATE evaluations SET body = json_set(body, '$.metrics.accuracy', 0.5) WHERE seq = 2")
    with pytest.raises(ReplayDiverged, match=r"c-000\d"):
        await replay(report.run_id, Workspace(runs), quiet)
