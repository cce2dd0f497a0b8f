"""Trainings with fresh seeds: at the start for the noise, at the end for the champions; whatever happens."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import pytest

from cambrian.agents.champions import CHAMPIONS_KEY, ChampionsPlan
from cambrian.agents.cli.looking import show_command
from cambrian.agents.errors import InfrastructureError, RunFileError
from cambrian.agents.evaluator.noise import fresh_seed
from cambrian.agents.pace import Pace
from cambrian.agents.population import Candidate, CandidateState
from cambrian.agents.population.store import PopulationStore
from cambrian.agents.report import EndReport, end_report
from cambrian.agents.runfile import RunConfig
from cambrian.agents.sections import BudgetSection, ChampionsSection, NoiseSection
from cambrian.agents.session import Watch, resume, start
from cambrian.agents.workspace import Workspace
from cambrian.sandbox import SANDBOXES, Job, JobState, Outcome
from tests.support.instant import InstantSandbox

MakeConfig = Callable[..., RunConfig]
SEEDS = [fresh_seed(0, number) for number in range(1, 20)]
AGAIN: dict[str, Any] = {"noise": {"repeats": 3}, "champions": {"top": 3, "seeds": 2}}
RUNGS = {"name": "digits", "rungs": [{"epochs": 1, "promote": 0.5}, {"epochs": 2}]}


class Recording(InstantSandbox):
    """Knows all jobs of all its kind, by name; each can be made to fail, or not to be reproduced."""

    jobs: ClassVar[list[Job]] = []
    lost: ClassVar[set[str]] = set()
    """Ids of jobs at which the engine goes away, once."""
    forged: ClassVar[set[str]] = set()
    """Ids of trainings that cannot be reproduced."""
    broken: ClassVar[set[str]] = set()
    """Ids of trainings that give nothing."""

    async def run(self, job: Job) -> Outcome:
        self.jobs.append(job)
        if job.id in self.lost:
            self.lost.discard(job.id)
            raise InfrastructureError("the engine is gone", hint="start it again")
        outcome = await super().run(job)
        state = outcome.state
        if job.weights_of in self.forged:
            state = JobState.NOT_REPRODUCED
        elif job.id in self.broken:
            state = JobState.TIMEOUT
        return outcome.model_copy(update={"state": state, "reason": "" if state is outcome.state else "so"})


@pytest.fixture
def sandbox(monkeypatch: pytest.MonkeyPatch) -> type[Recording]:
    for name, empty in (("jobs", []), ("lost", set()), ("forged", set()), ("broken", set())):
        monkeypatch.setattr(Recording, name, empty)
    monkeypatch.setitem(SANDBOXES._loaded, "recording", Recording)
    return Recording


@pytest.fixture
def made(config: MakeConfig, sandbox: type[Recording]) -> MakeConfig:
    def make(**changes: Any) -> RunConfig:
        data = {
            "sandbox": {"kind": "recording"},
            "budget": {"evaluations": 24},
            "predictor": {"enabled": False},
        }
        return config(**{**data, "baselines": ["two-layer-cnn"], **AGAIN, **changes})

    return make


def quiet(**changes: Any) -> Watch:
    return Watch(say=lambda _line: None, **changes)


async def carried_out(
    config: RunConfig, runs: Path, **changes: Any
) -> tuple[EndReport, PopulationStore, list[Candidate]]:
    report = await start(config, Workspace(runs), quiet(**changes))
    store = Workspace(runs).open("last")
    return report, store, store.candidates()


def plan_of(store: PopulationStore) -> ChampionsPlan:
    return ChampionsPlan.model_validate_json(store.get_meta(CHAMPIONS_KEY) or "")


def repeated(store: PopulationStore) -> dict[str, list[int]]:
    found: dict[str, list[int]] = {}
    for evaluation in store.evaluations():
        if evaluation.seed:
            found.setdefault(evaluation.candidate_id, []).append(evaluation.seed)
    return found


@pytest.mark.parametrize("slots", [1, 3])
async def test_the_noise_is_measured_first_and_the_best_are_verified_last(
    made: MakeConfig, runs: Path, sandbox: type[Recording], slots: int
) -> None:
    report, store, candidates = await carried_out(made(slots=slots, task=RUNGS), runs)
    assert report.ledger.evaluations == len(store.evaluations()) == 24
    by_id = {c.id: c for c in candidates}
    order = [e for e in store.evaluations() if e.seed]
    assert [(e.candidate_id, e.rung, e.seed) for e in order[:3]] == [("c-0001", 0, s) for s in SEEDS[:3]]
    first = [e.candidate_id for e in store.evaluations()].index("c-0001")
    assert store.evaluations().index(order[2]) <= first + 3 * slots, "at the start"
    plan = plan_of(store)
    assert plan.search_ended == "the search made 18 of 24 evaluations and left 6 for repeats of the best"
    assert report.stop_reason == plan.search_ended
    chosen = [by_id[o.candidate] for o in plan.orders]
    ranked = sorted((c for c in candidates if c.score is not None), key=lambda c: (-c.rung, -(c.score or 0)))
    assert {c.id for c in chosen} == {c.id for c in ranked[:3]}
    for candidate in chosen:
        rungs = [(e.rung, e.seed) for e in store.evaluations(candidate.id) if e.seed]
        assert {(candidate.rung, s) for s in SEEDS[:2]} <= set(rungs)
    assert [e.seed for e in store.evaluations()[-6:]].count(0) == 0, "nothing comes after them"
    claims = {job.weights_of for job in sandbox.jobs if job.purpose == "reproduce"}
    assert {f"{c.id}-r{c.rung}-s{s}" for c in chosen for s in SEEDS[:2]} <= claims, "what ranks is reproduced"
    assert not any(job.latency for job in sandbox.jobs if job.seed), "latency was measured before"
    top = report.leaderboard[:3]
    assert [row.champion for row in report.leaderboard[:4]] == [True, True, True, False]
    assert [row.mean for row in top] == sorted((row.mean for row in top if row.mean), reverse=True)
    for row in top:
        scores = [e.metrics["accuracy"] for e in store.evaluations(row.id) if e.seed and e.rung == row.rung]
        assert row.mean == pytest.approx(sum(scores) / len(scores)) and row.seeds == len(scores)
    fresh = Counter(e.candidate_id for e in store.evaluations() if e.seed and e.rung == report.noise.rung)
    assert report.noise.networks == sum(n > 1 for n in fresh.values()) >= 3
    assert report.noise.degrees == sum(n - 1 for n in fresh.values()) >= 3 and report.noise.std is not None
    lines = report.lines()
    assert len(lines) <= 10 and "over 2 fresh seeds (" in lines[1] and "when chosen)" in lines[1]
    assert "the first 3 by the mean over 2 fresh seeds; noise over seeds" in "\n".join(lines)
    assert EndReport.model_validate_json(report.model_dump_json()) == report


async def test_a_repeat_changes_no_decision_of_the_search(made: MakeConfig, runs: Path) -> None:
    """Arms, promotions and predictor see scores of the run's own seed only."""
    off = {"noise": {"repeats": 0}, "champions": {"top": 0}}
    _, _, plain = await carried_out(made(slots=1, budget={"evaluations": 12}, **off), runs)
    some = {"noise": {"repeats": 2}, "champions": {"top": 2, "seeds": 2}}
    _, _, noisy = await carried_out(
        made(slots=1, budget={"evaluations": 18}, **some), runs.with_name("again")
    )
    assert [c.genotype for c in noisy] == [c.genotype for c in plain]
    assert [c.score for c in noisy] == [c.score for c in plain]
    assert [c.rung_scores for c in noisy] == [c.rung_scores for c in plain]


async def test_small_budgets_repeat_nothing_and_say_so(config: MakeConfig, runs: Path) -> None:
    report, store, _ = await carried_out(config(), runs)
    assert repeated(store) == {} and report.noise.std is None and report.champions == ""
    said = next(line for line in report.lines() if line.startswith("ranked by"))
    assert "single trainings; noise not measured: the validation sample alone makes" in said


def test_the_defaults_scale_with_the_budget() -> None:
    """5 % of the evaluations at most for the noise, 10 % for the champions; who asks for some gets them."""
    for evaluations in range(1, 400):
        noise, (top, seeds) = NoiseSection().count(evaluations), ChampionsSection().counts(evaluations)
        assert noise <= 0.05 * evaluations and top * seeds <= 0.1 * evaluations
        assert (top > 0) == (seeds > 1) == (noise > 1) == (evaluations >= 40)
    assert NoiseSection().count(60) == 3 and ChampionsSection().counts(60) == (3, 2)
    assert NoiseSection().count(float("inf")) == 5 and ChampionsSection().counts(float("inf")) == (3, 5)
    assert NoiseSection(repeats=4).count(5) == 4
    assert ChampionsSection(top=2).counts(5) == (2, 2) and ChampionsSection(seeds=4).counts(5) == (3, 4)
    assert ChampionsSection(top=0).counts(500) == ChampionsSection(seeds=0).counts(500) == (0, 0)


def test_a_budget_of_time_is_reckoned_in_evaluations_once_one_was_timed() -> None:
    pace, limit = Pace(), BudgetSection(wall_s=300)
    assert pace.expected(limit, slots=2) == 0.0
    pace.note(0, 10.0)
    pace.note(1, 50.0)
    assert pace.expected(limit, slots=2) == 60.0
    assert pace.expected(BudgetSection(wall_s=300, evaluations=40), slots=2) == 40.0


async def test_death_at_any_job_changes_nothing(
    made: MakeConfig, runs: Path, sandbox: type[Recording]
) -> None:
    """The engine goes away at repeats of both kinds, and while one of them is reproduced."""
    whole, whole_store, _ = await carried_out(made(slots=1), runs.with_name("whole"))
    champions = [order.candidate for order in plan_of(whole_store).orders]
    trained = [f"{cid}-r0-s{SEEDS[1]}" for cid in champions]
    stops = [f"c-0001-r0-s{SEEDS[1]}", trained[0], f"{trained[0]}-again", f"{trained[2]}-again"]
    sandbox.lost.update(stops)
    began = False
    for _ in stops:
        with pytest.raises(InfrastructureError):
            if began:
                await resume("last", Workspace(runs), quiet())
            else:
                began = True
                await start(made(slots=1), Workspace(runs), quiet())
        store = Workspace(runs).open("last")
        end_report(store).lines()
        store.close()
    report = await resume("last", Workspace(runs), quiet())
    assert sandbox.lost == set()
    store = Workspace(runs).open("last")
    assert plan_of(store) == plan_of(whole_store)
    assert report.leaderboard == whole.leaderboard and report.noise == whole.noise
    assert store.evaluations() == whole_store.evaluations()
    log = (store.folder / "instant.log").read_text().split()
    assert max(Counter(log).values()) == 1, "nothing was trained twice"


async def test_a_champion_that_is_not_what_it_claimed_loses_its_score(
    made: MakeConfig, runs: Path, sandbox: type[Recording]
) -> None:
    _, store, _ = await carried_out(made(slots=1), runs.with_name("whole"))
    first, second, third = (order.candidate for order in plan_of(store).orders)
    sandbox.forged.add(f"{first}-r0-s{SEEDS[1]}")
    sandbox.broken.add(f"{second}-r0-s{SEEDS[0]}")
    report, store, candidates = await carried_out(made(slots=1), runs)
    gone = next(c for c in candidates if c.id == first)
    assert gone.state is CandidateState.FAILED and gone.score is None and gone.reproduced is False
    assert not any(e.metrics for e in store.evaluations(first))
    rows = {row.id: row for row in report.leaderboard}
    assert first not in rows and report.lost == (first,)
    assert rows[second].seeds == 1 and rows[second].champion, "a time-out is no forgery of trusted code"
    assert rows[third].seeds == 2
    assert "(3 of 6 trainings gave a score)" in report.champions
    assert all(row.reproduced for row in report.leaderboard), "who moved up was reproduced"


async def test_a_larger_budget_chooses_anew_and_forgets_no_mean(made: MakeConfig, runs: Path) -> None:
    first, store, _ = await carried_out(made(), runs)
    old = plan_of(store)
    report = await resume("last", Workspace(runs), quiet(), {"budget.evaluations": 36})
    store = Workspace(runs).open("last")
    new = plan_of(store)
    assert report.ledger.evaluations == 36
    assert old.budget["evaluations"] == 24 and new.budget["evaluations"] == 36
    assert max(Counter((e.candidate_id, e.rung, e.seed) for e in store.evaluations()).values()) == 1
    both = {o.candidate for o in old.orders} & {o.candidate for o in new.orders}
    means = {row.id: row.mean for row in first.leaderboard}
    assert all(row.mean == means[row.id] for row in report.leaderboard if row.id in both)
    finished = await resume("last", Workspace(runs), quiet())
    assert finished.ledger.evaluations == 36, "nothing is left to do"


async def test_time_is_kept_for_the_champions(made: MakeConfig, runs: Path, sandbox: type[Recording]) -> None:
    from cambrian.agents import budget

    def clock() -> float:
        return 10.0 * sum(job.purpose == "train" for job in sandbox.jobs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(budget.Account.__init__.__kwdefaults__, "clock", clock)
        report, store, _ = await carried_out(made(budget={"wall_s": 200}, slots=1), runs)
    assert 16 <= report.ledger.evaluations <= 20
    made_again = repeated(store)
    assert all(set(SEEDS[:2]) <= set(made_again[o.candidate]) for o in plan_of(store).orders), "all in time"
    assert "beside those for repeats of the best" in report.stop_reason


async def test_by_soft_latency_the_slow_lose(made: MakeConfig, runs: Path) -> None:
    objective = {"kind": "soft-latency", "target_ms": 0.3, "exponent": -1.0}
    report, store, candidates = await carried_out(made(objective=objective, cost="latency_ms"), runs)
    scored = {c.id: c for c in candidates if c.score is not None}
    for c in scored.values():
        assert c.latency_ms is not None and c.latency_factor == pytest.approx(0.3 / c.latency_ms)
    unverified = [row for row in report.leaderboard if not row.champion]
    rewards = [row.score * 0.3 / (row.latency_ms or 1) for row in unverified]
    assert [row.reward for row in unverified] == [pytest.approx(reward) for reward in rewards]
    assert rewards == sorted(rewards, reverse=True)
    best = max(scored.values(), key=lambda c: (c.score or 0) / (c.latency_ms or 1))
    assert best.id in plan_of(store).ids()
    assert report.objective == "soft-latency" and "ranked by score weighed by latency" in report.lines()[4]


def test_what_is_asked_for_must_fit(made: MakeConfig) -> None:
    with pytest.raises(RunFileError, match="noise, champions: 13 repeats are more than half of 24"):
        made(champions={"top": 5, "seeds": 2})
    with pytest.raises(RunFileError, match=r"objective\.target_ms: 'soft-latency' needs a target"):
        made(objective="soft-latency")
    assert made(objective="soft-latency", constraints=["latency_ms <= 2"]).target_ms == 2.0
    with pytest.raises(RunFileError, match="'target_ms' goes with 'kind: soft-latency'"):
        made(objective={"kind": "score", "target_ms": 2})
    with pytest.raises(RunFileError, match=r"objective\.kind"):
        made(objective="sharpe")


async def test_show_tells_means_seeds_and_arms(
    made: MakeConfig, runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report, store, _ = await carried_out(made(), runs)
    store.close()
    capsys.readouterr()
    show_command("last", False, runs)
    text = capsys.readouterr().out
    leader = report.leaderboard[0]
    assert f"{leader.mean:.4f} ±{leader.half_width:.4f} (2)" in text and "fresh seeds: mean ± 95 %" in text
    rows = [line.split() for line in text.splitlines()]
    assert [row[1:5] for row in rows if row[:1] == ["baseline"]] == [["1", "0", "0", "1"]], (
        "proposals to evaluated"
    )
    show_command(f"last/{leader.id}", False, runs)
    text = capsys.readouterr().out
    assert f"fresh seed {SEEDS[0]}" in text and f"mean over {leader.seeds} fresh seeds" in text
    assert f"{leader.mean:.4f} (test {leader.test_mean:.4f}, standard deviation {leader.std:.4f})" in text
