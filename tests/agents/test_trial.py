"""What a score has to pass before anybody believes it: every way a job may end, and being reproduced."""

from __future__ import annotations

import asyncio
import io
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

import pytest
from rich.console import Console

from cambrian.agents.checking import check_run
from cambrian.agents.cli.looking import export_command, show_command
from cambrian.agents.errors import RunFileError, UserError
from cambrian.agents.population import Candidate, CandidateState
from cambrian.agents.population.store import PopulationStore
from cambrian.agents.report import end_report
from cambrian.agents.runfile import RunConfig
from cambrian.agents.session import Stopped, Watch, resume, start
from cambrian.agents.terminal import Terminal
from cambrian.agents.trial import TOP
from cambrian.agents.workspace import Workspace
from cambrian.sandbox import SANDBOXES, Isolation, Job, JobState, Outcome
from cambrian.search_spaces import SPACES
from tests.support.code_space import install
from tests.support.instant import InstantSandbox
from tests.support.nasbench import write_tables

MakeConfig = Callable[..., RunConfig]
QUIET = Watch(say=lambda _: None)
TWO_RUNGS = {"name": "digits", "rungs": [{"epochs": 1, "promote": 0.5}, {"epochs": 2}]}


class Ending(InstantSandbox):
    """Does all that a training does, outputs included, and then says that the job ended in another way."""

    states: ClassVar[dict[str, JobState]] = {}
    """By purpose, and `rung 1` for trainings of two epochs."""

    async def run(self, job: Job) -> Outcome:
        outcome = await super().run(job)
        key = "rung 1" if job.purpose == "train" and job.epochs == 2 else job.purpose
        state = self.states.get(key, outcome.state)
        return outcome.model_copy(update={"state": state, "reason": f"made to end as {state}"})


@pytest.fixture
def ending(monkeypatch: pytest.MonkeyPatch) -> dict[str, JobState]:
    states: dict[str, JobState] = {}
    monkeypatch.setattr(Ending, "states", states)
    monkeypatch.setitem(SANDBOXES._loaded, "ending", Ending)
    return states


async def run(made: RunConfig, runs: Path) -> tuple[PopulationStore, list[Candidate]]:
    await start(made, Workspace(runs), QUIET)
    store = Workspace(runs).open("last")
    return store, store.candidates()


@pytest.mark.parametrize("state", [s for s in JobState if s is not JobState.TRAINED])
async def test_who_was_not_trained_to_the_end_never_has_a_score(
    config: MakeConfig, runs: Path, ending: dict[str, JobState], state: JobState
) -> None:
    ending["train"] = state
    made = config(sandbox={"kind": "ending"}, budget={"evaluations": 2}, arms={"random": 1.0})
    store, candidates = await run(made, runs)
    assert len(store.evaluations()) == 2
    over = state is JobState.OVER_LIMIT
    for candidate in candidates:
        assert candidate.state is (CandidateState.INFEASIBLE if over else CandidateState.FAILED)
        assert (candidate.score, candidate.test_score, candidate.rung_scores) == (None, None, ())
        assert str(state) in candidate.reason
    assert not any(e.metrics or e.test_metrics or e.val_curve for e in store.evaluations())
    assert end_report(store).leaderboard == ()
    store.close()


@pytest.mark.parametrize("state", [s for s in JobState if s is not JobState.REPRODUCED])
async def test_who_cannot_be_reproduced_never_has_a_score(
    config: MakeConfig, runs: Path, ending: dict[str, JobState], state: JobState
) -> None:
    ending["reproduce"] = state
    made = config(sandbox={"kind": "ending"}, budget={"evaluations": 2}, arms={"random": 1.0})
    store, candidates = await run(made, runs)
    assert len(candidates) == 2
    for candidate in candidates:
        assert candidate.state is CandidateState.FAILED and candidate.reproduced is False
        assert (candidate.score, candidate.test_score, candidate.rung_scores) == (None, None, ())
        assert candidate.reason.startswith("not-reproduced: ") and str(state) in candidate.reason
    for evaluation in store.evaluations():
        assert (evaluation.state, evaluation.metrics, evaluation.test_metrics) == ("not-reproduced", {}, {})
    report = end_report(store)
    assert report.leaderboard == () and set(report.lost) == {c.id for c in candidates}
    assert "2 lost their score" in "\n".join(report.lines())
    store.close()


async def test_who_fails_above_keeps_what_it_had_but_never_a_forged_score(
    config: MakeConfig, runs: Path, ending: dict[str, JobState]
) -> None:
    """A longer training of a network that trusted code built may well take too long."""
    ending["rung 1"] = JobState.TIMEOUT
    made = config(sandbox={"kind": "ending"}, task=TWO_RUNGS, budget={"evaluations": 12})
    store, candidates = await run(made, runs)
    tried = [c for c in candidates if c.tried_rung == 1]
    assert tried and all(c.rung == 0 and c.score == c.rung_scores[0] for c in tried)
    assert all("rung 1: timeout" in c.reason for c in tried)
    store.close()


class Doubtful(InstantSandbox):
    """One in three trainings cannot be reproduced, and every one of a higher rung."""

    async def run(self, job: Job) -> Outcome:
        outcome = await super().run(job)
        if job.purpose != "reproduce":
            return outcome
        self.ran.append(job.id)
        if int(job.candidate_id[2:]) % 3 and job.epochs == 1:
            return outcome
        return outcome.model_copy(update={"state": JobState.NOT_REPRODUCED, "reason": "other predictions"})


@pytest.fixture
def doubtful(monkeypatch: pytest.MonkeyPatch) -> list[Doubtful]:
    made: list[Doubtful] = []
    monkeypatch.setitem(SANDBOXES._loaded, "doubtful", lambda: made.append(Doubtful()) or made[-1])
    return made


async def test_the_first_places_are_reproduced_and_the_others_are_not_asked(
    config: MakeConfig, runs: Path, doubtful: list[Doubtful]
) -> None:
    made = config(sandbox={"kind": "doubtful"}, budget={"evaluations": 40}, arms={"random": 1.0})
    store, candidates = await run(made, runs)
    board = end_report(store).leaderboard
    assert len(board) == TOP and all(row.reproduced for row in board)
    again = [job.id for job in doubtful[0].claims if job.id.endswith("-again")]
    assert len(again) == len(set(again)) < 40, "each once, and not all"
    lost = [c for c in candidates if c.reproduced is False]
    assert lost and all(int(c.id[2:]) % 3 == 0 and c.score is None for c in lost)
    assert all("other predictions" in c.reason for c in lost), "which the planner is told"
    unasked = [c for c in candidates if c.reproduced is None and c.score is not None]
    assert unasked and all(c.score is not None and c.score <= board[-1].score for c in unasked)
    store.close()


class Busy(InstantSandbox):
    """Reproduces at the second attempt, whose state may be anything; for one candidate never."""

    async def run(self, job: Job) -> Outcome:
        outcome = await super().run(job)
        if job.purpose != "reproduce":
            return outcome
        attempts = sum(each.weights_of == job.weights_of for each in self.claims)
        if attempts == 2 and job.candidate_id != "c-0002":
            return outcome
        state = (JobState.TIMEOUT, JobState.KILLED, JobState.NOT_REPRODUCED)[attempts - 1]
        return outcome.model_copy(update={"state": state, "reason": f"attempt {attempts}"})


async def test_a_busy_machine_condemns_nobody_and_three_attempts_are_all(
    config: MakeConfig, runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Busy] = []
    monkeypatch.setitem(SANDBOXES._loaded, "busy", lambda: made.append(Busy()) or made[-1])
    busy = config(sandbox={"kind": "busy"}, budget={"evaluations": 4}, arms={"random": 1.0})
    store, candidates = await run(busy, runs)
    for candidate in candidates:
        ids = [job.id for job in made[0].claims if job.candidate_id == candidate.id]
        assert ids == [f"{candidate.id}-r0-s0-again{n}" for n in ("", "2", "3")[: len(ids)]]
        if candidate.id == "c-0002":
            assert len(ids) == 3 and candidate.score is None
            assert candidate.reason == "not-reproduced: attempt 3", "the last one's"
        else:
            assert len(ids) == 2 and candidate.score is not None and candidate.reproduced
    store.close()


@pytest.mark.parametrize(
    "limits", [(), ("latency_ratio <= 99",)], ids=["measured with the training", "measured before it"]
)
async def test_who_is_reproduced_is_held_to_the_latency_that_ranks_it_at_every_rung(
    config: MakeConfig, runs: Path, instant: list[InstantSandbox], limits: tuple[str, ...]
) -> None:
    made = config(task=TWO_RUNGS, constraints=list(limits), latency={"batch": 4}, budget={"evaluations": 8})
    store, candidates = await run(made, runs)
    asked = instant[0].claims
    assert {job.weights_of and job.weights_of.split("-r")[1] for job in asked} == {"0-s0", "1-s0"}
    latency = {c.id: c.latency_ms for c in candidates}
    for job in asked:
        assert job.claimed_ms == latency[job.candidate_id] is not None
        assert job.latency is not None and job.latency.batch == 4
    store.close()


class Honest(InstantSandbox):
    """A device that knows every network to be slow."""

    async def run(self, job: Job) -> Outcome:
        outcome = await super().run(job)
        if job.purpose != "reproduce" or int(job.candidate_id[2:]) % 2:
            return outcome
        return outcome.model_copy(update={"state": JobState.NOT_REPRODUCED, "reason": "much slower"})


async def test_code_timed_on_a_device_is_reproduced_there_as_well(
    config: MakeConfig,
    runs: Path,
    tmp_path: Path,
    instant: list[InstantSandbox],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    device = Honest()
    monkeypatch.setattr("cambrian.sandbox.select.ProcessSandbox", lambda **_: device)
    monkeypatch.syspath_prepend(str(install(tmp_path / "plugin")))
    common = {"devices": {"desk": {"kind": "process", "threads": 2}}, "arms": {"random": 1.0}}
    common |= {"latency": {"device": "desk"}, "budget": {"evaluations": 4}}
    trusted = {"kind": "instant", "trust_generated_code": True}
    try:
        store, candidates = await run(config(space="coded", sandbox=trusted, **common), runs)
    finally:
        SPACES._loaded.pop("coded", None)
        sys.modules.pop("code_space", None)
    assert len(candidates) == 4
    at_home = {job.candidate_id: job for job in instant[0].claims}
    for candidate in candidates:
        assert (at_home[candidate.id].claimed_ms, at_home[candidate.id].latency) == (None, None)
        jobs = [job for job in device.claims if job.candidate_id == candidate.id]
        forged = candidate.index % 2 == 1
        assert len(jobs) == (3 if forged else 1)
        for job in jobs:
            assert job.claimed_ms == candidate.latency_ms is not None and job.limits.threads == 2
        assert (candidate.score is None) is forged
        if forged:
            assert candidate.reason == "not-reproduced: on device desk: much slower"
        assert not (store.folder / "devices" / "desk" / "jobs" / f"{candidate.id}-r0-s0").exists()
    store.close()

    device.claims.clear()
    store, _ = await run(config(**common), runs / "declarative")
    assert not device.claims and instant[1].claims, "trusted code builds these: they cannot tell"
    store.close()


@pytest.mark.timeout(120)
async def test_a_real_device_reproduces_code_with_files_of_the_training(
    config: MakeConfig, runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(install(tmp_path / "plugin")))
    made = config(
        space="coded",
        sandbox={"kind": "process", "trust_generated_code": True},
        devices={"desk": {"kind": "process"}},
        latency={"device": "desk", "repeats": 3},
        arms={"random": 1.0},
        budget={"evaluations": 1},
    )
    try:
        store, (candidate,) = await run(made, runs)
    finally:
        SPACES._loaded.pop("coded", None)
        sys.modules.pop("code_space", None)
    assert candidate.reproduced and candidate.score is not None
    again = store.folder / "devices" / "desk" / "jobs" / f"{candidate.id}-r0-s0-again"
    job = Job.model_validate_json((again / "job.json").read_text())
    assert job.claimed_ms == candidate.latency_ms
    outcome = Outcome.model_validate_json((again / "outcome.json").read_text())
    assert outcome.state is JobState.REPRODUCED
    store.close()


async def test_a_forged_climb_takes_the_scores_below_as_well(
    config: MakeConfig, runs: Path, doubtful: list[Doubtful]
) -> None:
    made = config(sandbox={"kind": "doubtful"}, task=TWO_RUNGS, budget={"evaluations": 16})
    store, candidates = await run(made, runs)
    climbed = [c for c in candidates if c.tried_rung == 1]
    assert climbed
    for candidate in climbed:
        assert candidate.state is CandidateState.FAILED
        assert (candidate.score, candidate.rung, candidate.rung_scores) == (None, -1, ())
        assert not any(e.metrics for e in store.evaluations(candidate.id)), "the predictor reads them"
    store.close()


async def test_who_moves_up_when_others_fall_is_reproduced_before_the_end(
    config: MakeConfig, runs: Path, doubtful: list[Doubtful], instant: list[InstantSandbox]
) -> None:
    """A population of an older Cambrian, which reproduced nobody."""
    made = config(budget={"evaluations": 30}, arms={"random": 1.0})
    store, candidates = await run(made, runs)
    store.close()
    writer = PopulationStore(Workspace(runs).folder("last"))
    for candidate in candidates:
        writer.update(candidate.model_copy(update={"reproduced": None}))
    config_then = {**writer.run.config, "sandbox": {"kind": "doubtful"}}
    writer.set_run(config=config_then)
    writer.close()
    fallen: list[str] = []
    report = await resume(
        "last", Workspace(runs), Watch(say=lambda _: None, landed=lambda c: fallen.append(c.id))
    )
    assert report.ledger.evaluations == 30, "checking is no evaluation"
    assert len(report.leaderboard) == TOP and all(row.reproduced for row in report.leaderboard)
    assert fallen and set(fallen) == set(report.lost)
    asked = {job.partition("-r")[0] for job in doubtful[0].ran}
    assert asked == {row.id for row in report.leaderboard} | set(report.lost)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_a_signal_while_a_score_is_reproduced(
    config: MakeConfig, runs: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    class Interrupted(InstantSandbox):
        asked = 0

        async def run(self, job: Job) -> Outcome:
            if job.purpose == "reproduce":
                type(self).asked += 1
                if self.asked == 3:
                    os.kill(os.getpid(), number)
                    await asyncio.sleep(5)
            return await super().run(job)

    monkeypatch.setitem(SANDBOXES._loaded, "interrupted", Interrupted)
    with pytest.raises(Stopped) as caught:
        await start(config(sandbox={"kind": "interrupted"}), Workspace(runs), QUIET)
    assert caught.value.number == number
    store = Workspace(runs).open("last")
    waiting = [store.candidate(cid) for cid, _ in store.inflight()]
    assert any(candidate.score is None for candidate in waiting)
    # the other slot's may just have got its score, and have been reproduced before
    assert all(candidate.score is None or candidate.reproduced for candidate in waiting)
    trained = len(list((store.folder / "jobs").iterdir()))
    store.close()
    report = await resume("last", Workspace(runs), QUIET)
    assert report.ledger.evaluations == 12 and all(row.reproduced for row in report.leaderboard)
    log = (Workspace(runs).folder("last") / "instant.log").read_text().splitlines()
    assert len(log) == len(set(log)) == 12 >= trained, "nothing was trained again"


async def test_limits_on_ratio_and_throughput_end_a_candidate_before_it_is_trained(
    config: MakeConfig, runs: Path, instant: list[InstantSandbox]
) -> None:
    made = config(constraints=["latency_ratio <= 1.5", "throughput >= 2k"], budget={"evaluations": 20})
    store, candidates = await run(made, runs)
    over = [c for c in candidates if c.state is CandidateState.INFEASIBLE]
    good = [c for c in candidates if c.score is not None]
    assert over and good
    for candidate in good:
        assert candidate.latency_ratio is not None and candidate.latency_ratio <= 1.5
        assert candidate.throughput is not None and candidate.throughput >= 2000
    for candidate in over:
        assert "latency_ratio" in candidate.reason or "throughput" in candidate.reason
        assert candidate.latency_ms is not None, "known, for those who learn from it"
    ran = set(instant[0].ran)
    assert {f"{c.id}-r0-s0-m" for c in (*over, *good)} <= ran
    assert {f"{c.id}-r0-s0" for c in over}.isdisjoint(ran)
    store.close()


async def test_latency_is_measured_on_the_named_device_first(
    config: MakeConfig, runs: Path, instant: list[InstantSandbox]
) -> None:
    devices = {"desk": {"kind": "process", "threads": 1}}
    made = config(devices=devices, latency={"device": "desk", "repeats": 3}, budget={"evaluations": 3})
    store, _ = await run(made, runs)
    jobs = store.folder / "devices" / "desk" / "jobs"
    for evaluation in store.evaluations():
        name = f"{evaluation.candidate_id}-r0-s0"
        measured = Job.model_validate_json((jobs / f"{name}-m" / "job.json").read_text())
        assert (measured.purpose, measured.limits.threads) == ("measure", 1)
        assert evaluation.latency is not None and evaluation.latency.device != "instant"
        assert evaluation.device_name == "desk" and evaluation.latency.ratio is not None
        assert evaluation.isolation.level == "process"
        assert store.candidate(evaluation.candidate_id).latency_ms == evaluation.latency.median_ms
    assert instant[0].ran and not any(job.endswith("-m") for job in instant[0].ran)
    store.close()


async def test_too_slow_on_the_device_is_never_trained(
    config: MakeConfig, runs: Path, instant: list[InstantSandbox], monkeypatch: pytest.MonkeyPatch
) -> None:
    device = InstantSandbox()
    monkeypatch.setattr("cambrian.sandbox.select.ProcessSandbox", lambda **_: device)
    made = config(
        devices={"desk": {"kind": "process"}},
        latency={"device": "desk"},
        constraints=["latency_ms <= 0.7"],
        budget={"evaluations": 16},
    )
    store, candidates = await run(made, runs)
    over = {c.id for c in candidates if c.state is CandidateState.INFEASIBLE}
    good = {c.id for c in candidates if c.score is not None}
    assert over and good
    assert {job.partition("-r")[0] for job in instant[0].ran} == good
    assert {job.partition("-r")[0] for job in device.ran} == good | over
    assert all(job.endswith("-m") for job in device.ran) and device.closed
    assert {e.state for e in store.evaluations() if e.candidate_id in over} == {"over-limit"}
    assert all(e.device_name == "desk" and e.latency is not None for e in store.evaluations())
    store.close()


async def test_a_long_reason_takes_a_line_and_no_screen(
    config: MakeConfig, runs: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Verbose(InstantSandbox):
        async def run(self, job: Job) -> Outcome:
            outcome = await super().run(job)
            reason = "no\x1b[2J\n" + "way " * 5000
            return outcome.model_copy(update={"state": JobState.ERROR, "reason": reason})

    monkeypatch.setitem(SANDBOXES._loaded, "verbose", Verbose)
    made = config(sandbox={"kind": "verbose"}, budget={"evaluations": 1}, arms={"random": 1.0})
    printed = io.StringIO()
    with Terminal(console=Console(file=printed, soft_wrap=True)) as terminal:
        await start(made, Workspace(runs), terminal.watch())
    (line,) = [line for line in printed.getvalue().splitlines() if "c-0001" in line]
    assert "error: no" in line and len(line) < 400 and "\x1b" not in line
    capsys.readouterr()
    show_command("c-0001", False, runs)
    text = capsys.readouterr().out
    assert text.count("error") == 2 and len(text) < 3000 and "\x1b" not in text
    with pytest.raises(UserError, match="was not trained") as caught:
        export_command("c-0001", None, False, runs)
    assert len(caught.value.message) < 400


def test_nothing_is_measured_in_a_table(config: MakeConfig, tmp_path: Path) -> None:
    task = {"name": "nasbench201", "data": str(write_tables(tmp_path))}
    common = {"space": "cell", "task": task, "sandbox": {"kind": "auto"}}
    for changes, field in (
        ({"constraints": ["latency_ratio <= 3"]}, "constraints"),
        ({"cost": "latency_ratio"}, "cost"),
        ({"devices": {"desk": {}}, "latency": {"device": "desk"}}, "latency.device"),
    ):
        with pytest.raises(RunFileError, match=f"{field}: task 'nasbench201' is a table"):
            check_run(config(**common, **changes), "a run file")


async def test_a_clock_that_jumps_by_a_day_changes_nothing(
    config: MakeConfig, runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Budget and order of a run do not come from the clock on the wall, which anybody may set."""
    real, calls = time.time, 0

    def jumping() -> float:
        nonlocal calls
        calls += 1
        return real() + 86_400 * (1, 0, -1)[calls // 10 % 3]

    steady = config(slots=1, budget={"evaluations": 25, "wall_s": 600})
    first, expected = await run(steady, runs / "steady")
    monkeypatch.setattr(time, "time", jumping)
    report = await start(steady, Workspace(runs / "jumping"), QUIET)
    assert calls > 20 and report.ledger.evaluations == 25 and report.ledger.wall_s < 120
    monkeypatch.setattr(time, "time", real)
    second = Workspace(runs / "jumping").open("last")
    found = second.candidates()
    stamps = [c.ended_s for c in sorted(found, key=lambda c: c.ended_order)]
    assert stamps != sorted(stamps, key=lambda s: s or 0.0), "the clock did jump"

    def essence(candidates: list[Candidate]) -> list[tuple[object, ...]]:
        return [(c.id, c.identity, c.proposal.arm, c.state, c.score, c.ended_order) for c in candidates]

    assert essence(found) == essence(expected)
    for store in (first, second):
        store.close()


def test_the_store_itself_refuses_a_score_of_one_that_failed(tmp_path: Path, config: MakeConfig) -> None:
    from tests.agents.population.test_store import RECORD, candidate

    store = PopulationStore(tmp_path / "run", create=RECORD)
    for state in CandidateState:
        if state.ended and state is not CandidateState.EVALUATED:
            with pytest.raises(ValueError, match="has a score"):
                store.update(candidate(0, state=state, score=0.9))
    store.close()


def test_isolation_is_the_weakest_of_all_jobs() -> None:
    from cambrian.agents.trial import _weakest

    docker, process = (
        Isolation(level="docker", not_enforced=("a",)),
        Isolation(level="process", not_enforced=("b",)),
    )
    assert _weakest(docker, process) == Isolation(level="process", not_enforced=("a", "b"))
    assert _weakest(docker, docker) == docker
