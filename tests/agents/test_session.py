"""Whole runs with a training that costs nothing: what the loop promises, whatever goes wrong around it."""

import asyncio
import os
import signal
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from cambrian.agents.checking import check_run
from cambrian.agents.discovery import Discovery
from cambrian.agents.errors import InfrastructureError, ModelUnavailable, RunFileError
from cambrian.agents.population import Candidate, CandidateState
from cambrian.agents.population.store import PopulationStore
from cambrian.agents.review import FolderDesk
from cambrian.agents.runfile import RunConfig
from cambrian.agents.session import Stopped, Watch, resume, start
from cambrian.agents.workspace import Workspace
from cambrian.sandbox import SANDBOXES, Job, Outcome
from cambrian.search_spaces import SPACES, Splits
from cambrian.search_spaces.declarative.space import DeclarativeSpace
from tests.support.instant import InstantSandbox
from tests.support.interrupt import interrupts_when_waiting

MakeConfig = Callable[..., RunConfig]


def outcome_of(runs: Path) -> tuple[PopulationStore, list[Candidate]]:
    store = Workspace(runs).open("last")
    return store, store.candidates()


async def test_a_run_spends_exactly_its_budget_and_says_so(config: MakeConfig, runs: Path, instant) -> None:
    lines: list[str] = []
    report = await start(config(), Workspace(runs), Watch(say=lines.append))
    store, candidates = outcome_of(runs)
    assert report.ledger.evaluations == 12 == len(instant[0].ran)
    assert report.stop_reason == "budget of 12 evaluations is spent (12 used)"
    assert store.run.status == "finished"
    assert store.inflight() == []
    assert all(c.state.ended for c in candidates)
    assert instant[0].closed
    assert len(report.lines()) <= 10
    assert [row.score for row in report.leaderboard] == sorted(
        (r.score for r in report.leaderboard), reverse=True
    )
    assert report.gain is not None and report.gain.n_control >= 3


async def test_the_random_arm_keeps_its_reserved_share(config: MakeConfig, runs: Path) -> None:
    await start(config(budget={"evaluations": 60}), Workspace(runs), Watch(say=lambda _: None))
    _, candidates = outcome_of(runs)
    arms = Counter(c.proposal.arm for c in candidates if c.score is not None)
    assert 0.25 <= arms["random"] / 60 <= 0.36
    assert arms["mutation"] > 0 and arms["crossover"] > 0


async def test_no_duplicate_is_ever_trained(config: MakeConfig, runs: Path, instant, monkeypatch) -> None:
    """A space of which every second sample repeats an earlier one."""
    fresh, drawn = DeclarativeSpace.sample, []

    def repeating(self, rng):
        drawn.append(drawn[-1] if len(drawn) % 2 else fresh(self, rng))
        return drawn[-1]

    monkeypatch.setattr(DeclarativeSpace, "sample", repeating)
    report = await start(
        config(arms={"random": 1.0}, budget={"evaluations": 20}), Workspace(runs), Watch(say=lambda _: None)
    )
    _, candidates = outcome_of(runs)
    duplicates = [c for c in candidates if c.state is CandidateState.DUPLICATE]
    assert len(duplicates) >= 15
    assert report.ledger.saved["duplicate"] == len(duplicates)
    for duplicate in duplicates:
        original = next(c for c in candidates if c.id == duplicate.duplicate_of)
        assert original.identity == duplicate.identity
        assert duplicate.score is None and duplicate.id + "-r0-s0" not in instant[0].ran


async def test_hard_limits_end_a_candidate_before_anything_is_paid(
    config: MakeConfig, runs: Path, instant
) -> None:
    await start(config(constraints=["params <= 20k"]), Workspace(runs), Watch(say=lambda _: None))
    _, candidates = outcome_of(runs)
    over = [c for c in candidates if c.static is not None and c.static.parameters > 20_000]
    assert over and all(c.state is CandidateState.INFEASIBLE for c in over)
    assert all("params" in c.reason and "20k" in c.reason.replace("20000", "20k") for c in over)
    assert not {f"{c.id}-r0-s0" for c in over} & set(instant[0].ran)


async def test_promotions_climb_the_rungs(config: MakeConfig, runs: Path) -> None:
    task = {"name": "digits", "rungs": [{"epochs": 1, "promote": 0.5}, {"epochs": 2}]}
    await start(config(task=task, budget={"evaluations": 30}), Workspace(runs), Watch(say=lambda _: None))
    store, candidates = outcome_of(runs)
    promoted = [c for c in candidates if c.rung == 1]
    assert promoted and all(len(c.rung_scores) == 2 and c.score == c.rung_scores[1] for c in promoted)
    assert {e.epochs for e in store.evaluations(promoted[0].id)} == {1, 2}


class Failing(InstantSandbox):
    """An engine that goes away at the fifth job of a purpose."""

    purpose = "train"

    async def run(self, job: Job) -> Outcome:
        self.asked = getattr(self, "asked", 0) + (job.purpose == self.purpose)
        if self.asked > 4:
            raise InfrastructureError("the engine is gone", hint="start it again")
        return await super().run(job)


@pytest.mark.parametrize("purpose", ["train", "measure", "reproduce"])
async def test_a_lost_engine_stops_the_run_and_loses_nothing(
    config: MakeConfig, runs: Path, monkeypatch, purpose: str
) -> None:
    monkeypatch.setattr(Failing, "purpose", purpose)
    monkeypatch.setitem(SANDBOXES._loaded, "failing", Failing)
    limits = ["throughput >= 1"] if purpose == "measure" else []
    made = config(sandbox={"kind": "failing"}, constraints=limits)
    with pytest.raises(InfrastructureError, match="engine is gone"):
        await start(made, Workspace(runs), Watch(say=lambda _: None))
    store, candidates = outcome_of(runs)
    assert store.run.status == "stopped" and "engine is gone" in store.run.stop_reason
    assert store.inflight(), "what was under way is kept"
    assert 2 <= len(store.evaluations()) <= 4
    ranked = [c for c in candidates if c.score is not None]
    assert ranked and all(c.reproduced for c in ranked), "nobody has a score that was not checked"
    monkeypatch.setitem(SANDBOXES._loaded, "failing", InstantSandbox)
    report = await resume("last", Workspace(runs), Watch(say=lambda _: None))
    assert report.ledger.evaluations == 12
    store, candidates = outcome_of(runs)
    assert store.inflight() == [] and all(c.state.ended for c in candidates)
    assert all(row.reproduced for row in report.leaderboard)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_a_signal_stops_cleanly_and_resume_goes_on(config: MakeConfig, runs: Path, number: int) -> None:
    landed: list[str] = []

    def on_landing(candidate: Candidate) -> None:
        landed.append(candidate.id)
        if len(landed) == 3:
            os.kill(os.getpid(), number)

    with pytest.raises(Stopped) as caught:
        await start(config(), Workspace(runs), Watch(say=lambda _: None, landed=on_landing))
    assert caught.value.number == number
    store, _ = outcome_of(runs)
    assert store.run.status == "stopped"
    report = await resume("last", Workspace(runs), Watch(say=lambda _: None))
    assert report.status == "finished" and report.ledger.evaluations == 12


async def test_a_larger_budget_goes_on_where_the_run_ended(config: MakeConfig, runs: Path) -> None:
    await start(config(), Workspace(runs), Watch(say=lambda _: None))
    report = await resume("last", Workspace(runs), Watch(say=lambda _: None), {"budget.evaluations": 20})
    assert report.ledger.evaluations == 20
    store, _ = outcome_of(runs)
    assert store.run.config["budget"]["evaluations"] == 20


async def test_the_gate_trains_only_what_a_person_approved(config: MakeConfig, runs: Path, instant) -> None:
    """A reviewer in another process answers by decision files: every third proposal is refused."""
    refused: list[str] = []
    seen: set[str] = set()
    discoveries: list[Discovery] = []

    async def reviewer() -> None:
        while True:
            await asyncio.sleep(0.05)
            for discovery in discoveries:
                desk = FolderDesk(discovery.services.store.folder / "review")
                for cid in discovery.services.population.parked():
                    if cid in seen:
                        continue
                    seen.add(cid)
                    if int(cid[2:]) % 3 == 0:
                        refused.append(cid)
                        desk.decide(cid, "reject", "too wide for us", by="ada")
                    else:
                        desk.decide(cid, "approve", "", by="ada")

    task = asyncio.create_task(reviewer())
    try:
        await start(
            config(review="gate"),
            Workspace(runs),
            Watch(say=lambda _: None, started=lambda discovery, _: discoveries.append(discovery)),
        )
    finally:
        task.cancel()
    _, candidates = outcome_of(runs)
    rejected = [c for c in candidates if c.state is CandidateState.REJECTED]
    assert rejected and {c.id for c in rejected} <= set(refused)
    assert all(c.reason == "rejected by ada: too wide for us" for c in rejected)
    trained = {c.id for c in candidates if c.score is not None}
    assert len(trained) == 12 and trained <= seen - set(refused)


async def test_parked_proposals_survive_the_end_of_the_process(
    config: MakeConfig, runs: Path, instant
) -> None:
    made = config(review="gate", budget={"evaluations": 4, "wall_s": 60})
    lines: list[str] = []
    began = time.monotonic()
    with pytest.raises(Stopped):
        await start(made, Workspace(runs), Watch(say=interrupts_when_waiting(lines)))
    took = time.monotonic() - began
    assert len([line for line in lines if "wait for review" in line]) == 1
    store, candidates = outcome_of(runs)
    assert store.run.elapsed_s < took - 1, "waiting for a person is not counted"
    parked = [c.id for c in candidates if c.state is CandidateState.PARKED]
    assert len(parked) >= 4 and instant[0].ran == []
    desk = FolderDesk(store.folder / "review")
    for cid in parked[:4]:
        desk.decide(cid, "approve", "", by="ada")
    report = await resume("last", Workspace(runs), Watch(say=lambda _: None), {"budget.wall_s": 61})
    assert report.ledger.evaluations == 4
    _, candidates = outcome_of(runs)
    assert {c.id for c in candidates if c.score is not None} == set(parked[:4])


async def test_a_run_that_never_began_leaves_nothing(config: MakeConfig, runs: Path, monkeypatch) -> None:
    class Absent(InstantSandbox):
        async def open(
            self, run_id: str, folder: Path, splits: Splits, slots: int, space: Path | None = None
        ) -> None:
            raise InfrastructureError("no engine", hint="start it")

    monkeypatch.setitem(SANDBOXES._loaded, "absent", Absent)
    with pytest.raises(InfrastructureError, match="no engine"):
        await start(config(sandbox={"kind": "absent"}), Workspace(runs), Watch(say=lambda _: None))
    assert Workspace(runs).run_ids() == []


async def test_files_named_from_here_are_found_from_anywhere(
    config: MakeConfig, runs: Path, tmp_path: Path, monkeypatch
) -> None:
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "mine.npz", x_train=rng.random((200, 8, 8)), y_train=np.arange(200) % 4)
    monkeypatch.chdir(tmp_path)
    task = {"name": "npz", "path": "mine.npz", "rungs": [{"epochs": 1}]}
    await start(config(task=task, budget=4), Workspace(runs), Watch(say=lambda _: None))
    monkeypatch.chdir("/")
    report = await resume("last", Workspace(runs), Watch(say=lambda _: None), {"budget.evaluations": 6})
    assert report.ledger.evaluations == 6


async def test_an_exhausted_space_ends_the_run(config: MakeConfig, runs: Path, monkeypatch) -> None:
    only = SPACES.create("convnet").baselines()["two-layer-cnn"]
    monkeypatch.setattr(DeclarativeSpace, "sample", lambda self, rng: only)
    report = await start(config(arms={"random": 1.0}), Workspace(runs), Watch(say=lambda _: None))
    assert "space exhausted" in report.stop_reason and report.ledger.evaluations == 1


async def test_without_an_endpoint_one_line_says_so(config: MakeConfig, runs: Path) -> None:
    lines: list[str] = []
    arms = {"random": 0.4, "mutation": 0.2, "llm": 0.4}
    await start(config(arms=arms), Workspace(runs), Watch(say=lines.append))
    said = [line for line in lines if "no model endpoint" in line]
    assert len(said) == 1 and "goes on with the other arms" in said[0] and "OPENAI_API_KEY" in said[0]


async def test_a_run_that_wants_its_model_stops_without_an_endpoint(config: MakeConfig, runs: Path) -> None:
    made = config(arms={"random": 0.5, "llm": 0.5})
    with pytest.raises(ModelUnavailable, match=r"wants its model.*OPENAI_API_KEY is not set") as caught:
        await start(made, Workspace(runs), Watch(say=lambda _: None))
    assert caught.value.exit_code == 4 and "llm.required: false" in caught.value.hint
    assert Workspace(runs).run_ids() == [], "an empty run would only be in the way"
    required = {"required": False}
    report = await start(
        config(arms={"random": 0.5, "llm": 0.5}, llm=required), Workspace(runs), Watch(say=lambda _: None)
    )
    assert report.ledger.evaluations == 12


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"task": {"name": "digits", "dta": "x"}}, "task.dta"),
        ({"task": {"name": "npz"}}, "task.path"),
        ({"baselines": ["two-layer-cn"]}, "did you mean two-layer-cnn"),
    ],
)
def test_what_can_be_wrong_is_found_before_anything_starts(config: MakeConfig, changes, says: str) -> None:
    with pytest.raises(RunFileError) as caught:
        check_run(config(**changes), "test")
    assert says in str(caught.value)
