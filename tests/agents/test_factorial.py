"""Recipes searched beside architectures, and the parts of the gain that each brought."""

from __future__ import annotations

import asyncio
import os
import random
import signal
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cambrian.agents.checking import check_run
from cambrian.agents.errors import RunFileError
from cambrian.agents.evaluator.parts import Scores, parts_of_gain
from cambrian.agents.factorial import FACTORIAL_KEY, Plan, cell_states
from cambrian.agents.population import Candidate, CandidateState
from cambrian.agents.population.store import PopulationStore
from cambrian.agents.report import EndReport, end_report
from cambrian.agents.review import FolderDesk
from cambrian.agents.runfile import RunConfig
from cambrian.agents.session import Stopped, Watch, resume, start
from cambrian.agents.workspace import Workspace
from cambrian.sandbox import SANDBOXES, Job, Outcome
from cambrian.sandbox.examination.identity import identity
from cambrian.search_spaces import SPACES, TASKS, Genotype
from cambrian.search_spaces.recipes import WithRecipe, recipe_changes, with_recipe_genes
from tests.support.instant import InstantSandbox

MakeConfig = Callable[..., RunConfig]

GENES: dict[str, Any] = {
    "optimizer": None,
    "learning_rate": {"log_number": [0.0001, 0.1], "per_decade": 6},
    "augment": ["none", "shift"],
}
RUNGS = {"name": "digits", "rungs": [{"epochs": 1, "promote": 0.5}, {"epochs": 2}]}


class ByRecipe(InstantSandbox):
    """What a training gives depends on its recipe as well."""

    jobs: list[Job]

    async def run(self, job: Job) -> Outcome:
        self.jobs.append(job)
        both = {"genotype": job.genotype, "recipe": job.recipe.model_dump(mode="json")}
        return await super().run(job.model_copy(update={"genotype": both}))


@pytest.fixture
def sandboxes(monkeypatch: pytest.MonkeyPatch) -> list[ByRecipe]:
    made: list[ByRecipe] = []

    def factory(**kwargs: Any) -> ByRecipe:
        made.append(ByRecipe(**kwargs))
        made[-1].jobs = []
        return made[-1]

    monkeypatch.setitem(SANDBOXES._loaded, "by-recipe", factory)
    return made


@pytest.fixture
def made(config: MakeConfig, sandboxes: list[ByRecipe]) -> MakeConfig:
    def make(**changes: Any) -> RunConfig:
        data = {
            "recipe_genes": GENES,
            "baselines": ["two-layer-cnn"],
            "arms": {"random": 1.0},  # so that the best one has hardly the task's recipe
            "sandbox": {"kind": "by-recipe"},
            "budget": {"evaluations": 20},
            "predictor": {"enabled": False},
        }
        return config(**{**data, **changes})

    return make


def quiet(**changes: Any) -> Watch:
    return Watch(say=lambda _line: None, **changes)


async def carried_out(config: RunConfig, runs: Path) -> tuple[EndReport, PopulationStore, list[Candidate]]:
    report = await start(config, Workspace(runs), quiet())
    store = Workspace(runs).open("last")
    return report, store, store.candidates()


def plan_of(store: PopulationStore) -> Plan:
    return Plan.model_validate_json(store.get_meta(FACTORIAL_KEY) or "")


def cells(store: PopulationStore) -> dict[str, float | None]:
    states = cell_states(plan_of(store), store.candidates(), store.evaluations(), "accuracy", 0)
    return {state.cell.name: state.score for state in states}


# -- arithmetic -----------------------------------------------------------------------------------------


def parts(*scores: float, noise: float = 0.0, metric: str = "accuracy", maximize: bool = True) -> Any:
    named = dict(zip(("start", "recipe", "architecture", "both"), scores, strict=True))
    return parts_of_gain(
        Scores(**named), metric=metric, maximize=maximize, noise=noise, reference="net", best="c-1", rung=0
    )


def test_parts_are_the_mean_effects_and_add_up_to_the_gain() -> None:
    found = parts(0.90, 0.93, 0.94, 0.99)
    assert found.architecture == pytest.approx(0.05), "0.04 by the old recipe, 0.06 by the new one"
    assert found.recipe == pytest.approx(0.04)
    assert found.interaction == pytest.approx(0.02)
    assert found.architecture + found.recipe == pytest.approx(0.99 - 0.90)
    assert "architecture +5.00, recipe +4.00, interaction +2.00 points" in found.verdict


def test_parts_of_what_is_minimised_are_positive_where_it_falls() -> None:
    found = parts(0.5, 0.4, 0.45, 0.35, metric="nll", maximize=False)
    assert found.architecture == pytest.approx(0.05) and found.recipe == pytest.approx(0.1)
    assert found.interaction == pytest.approx(0.0)
    assert "+0.05" in found.verdict and "of nll" in found.verdict and "±" not in found.verdict


def test_what_is_inside_the_noise_is_called_so() -> None:
    found = parts(0.90, 0.905, 0.94, 0.945, noise=0.02)
    assert found.noise == pytest.approx(0.02 / 2**0.5)
    assert "architecture +4.00 ± 1.4," in found.verdict
    assert "recipe +0.50 ± 1.4 (noise)" in found.verdict
    assert "interaction +0.00 ± 2.8 (noise)" in found.verdict or "-0.00 ± 2.8 (noise)" in found.verdict


def test_what_the_two_share_has_no_part() -> None:
    named = {"start": 0.9, "recipe": 0.9, "architecture": 0.95, "both": 0.95}
    found = parts_of_gain(
        Scores(**named), metric="accuracy", maximize=True, noise=0.02, reference="net", best="c-1", rung=0,
        same="recipe",
    )  # fmt: skip
    assert (found.recipe, found.interaction, found.noise) == (0.0, 0.0, 0.02)
    assert found.verdict.endswith("architecture +5.00 ± 2 points; the recipe is the same")


# -- identity -------------------------------------------------------------------------------------------


def test_a_network_by_another_recipe_is_another_candidate() -> None:
    task = TASKS.create("digits")
    space = with_recipe_genes(SPACES.create("convnet"), GENES, task)
    assert isinstance(space, WithRecipe)

    def of(genotype: Genotype) -> str:
        changes = recipe_changes(space, genotype, task.recipe)
        return identity(space, space.validate(genotype), task.signature, changes)

    known = space.baselines()["two-layer-cnn"]
    other = {**known, "recipe": {**known["recipe"], "optimizer": "sgd"}}
    assert of(known) == of(space.validate({"architecture": known["architecture"]}))
    assert of(known) != of(other)
    assert of(other) == of(space.validate({**known, "recipe": {"optimizer": "sgd"}}))
    wide = space.sample(random.Random(3))
    assert of(space.combine(wide, known)) != of(known)


# -- runs -----------------------------------------------------------------------------------------------


async def test_candidates_are_trained_by_their_own_recipe(
    made: MakeConfig, runs: Path, sandboxes: list[ByRecipe]
) -> None:
    _, store, candidates = await carried_out(made(), runs)
    default = TASKS.create("digits").recipe
    by_id = {c.id: c for c in candidates}
    for job in sandboxes[0].jobs:
        genotype = by_id[job.candidate_id].genotype
        assert job.genotype == genotype["architecture"]
        chosen = genotype["recipe"]
        assert (job.recipe.optimizer, job.recipe.learning_rate) == (
            chosen["optimizer"],
            chosen["learning_rate"],
        )
        assert job.recipe.augment == (
            () if chosen["augment"] == "none" else tuple(chosen["augment"].split("+"))
        )
        assert job.recipe.schedule == default.schedule and job.recipe.batch_size == default.batch_size
    assert len({job.recipe.model_dump_json() for job in sandboxes[0].jobs}) > 4
    assert any(" | default recipe" in c.summary for c in candidates)
    assert store.run.space == "convnet"


async def test_the_parts_are_measured_within_the_budget(
    made: MakeConfig, runs: Path, sandboxes: list[ByRecipe]
) -> None:
    report, store, candidates = await carried_out(made(), runs)
    assert report.ledger.evaluations == len(sandboxes[0].ran) <= 20
    assert report.parts is not None and report.parts.scores is not None
    added = [c for c in candidates if c.proposal.arm == "factorial"]
    assert len(added) == 2 and all(c.state is CandidateState.EVALUATED for c in added)
    plan, scores = plan_of(store), report.parts.scores
    baseline = next(c for c in candidates if c.proposal.arm == "baseline")
    best = next(c for c in candidates if c.id == plan.best)
    assert scores.start == baseline.score and scores.both == best.score
    assert report.parts.architecture is not None and report.parts.recipe is not None
    assert report.parts.architecture + report.parts.recipe == pytest.approx(scores.both - scores.start)
    assert best.score == max(c.score for c in candidates if c.score is not None and c not in added)
    swapped = {c.genotype["recipe"]["optimizer"] + str(c.genotype["architecture"]) for c in added}
    assert len(swapped) == 2
    lines = report.lines()
    assert len(lines) <= 10
    said = [line for line in lines if line.startswith(f"parts of the gain of {best.id} over two-layer-cnn")]
    assert len(said) == 1 and "±" in said[0]
    assert EndReport.model_validate_json(report.model_dump_json()) == report
    assert report.gain is not None and (report.gain.n, report.gain.n_control) == (0, 20 - 1 - 2)


def better(monkeypatch: pytest.MonkeyPatch, shares: dict[str, float]) -> None:
    """Candidates of these ids have these scores, about."""
    outputs = InstantSandbox._outputs

    def better_outputs(labels: Any, share: float, job: Job, rng: Any) -> Any:
        return outputs(labels, shares.get(job.candidate_id, share), job, rng)

    monkeypatch.setattr(InstantSandbox, "_outputs", staticmethod(better_outputs))


@pytest.mark.parametrize("slots", [1, 3])
async def test_evaluations_that_the_parts_do_not_need_go_back_to_the_search(
    made: MakeConfig, runs: Path, monkeypatch: pytest.MonkeyPatch, slots: int
) -> None:
    better(monkeypatch, {"c-0001": 0.999})
    report, store, candidates = await carried_out(made(budget={"evaluations": 10}, slots=slots), runs)
    assert report.parts is not None and "the best candidate is two-layer-cnn" in report.parts.verdict
    assert report.ledger.evaluations == len(store.evaluations()) == 10
    assert report.stop_reason == "budget of 10 evaluations is spent (10 used)"
    assert not [c for c in candidates if c.proposal.arm == "factorial"]


async def test_the_best_with_the_tasks_recipe_leaves_nothing_to_measure(
    made: MakeConfig, runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sample = WithRecipe.sample
    monkeypatch.setattr(WithRecipe, "sample", lambda self, rng: self.combine(sample(self, rng), None))
    better(monkeypatch, {"c-0004": 0.999})
    report, _, _ = await carried_out(made(budget={"evaluations": 10}), runs)
    assert report.ledger.evaluations == 10
    assert report.stop_reason == "budget of 10 evaluations is spent (10 used)"
    assert report.parts is not None and "the recipe is the same" in report.parts.verdict


async def test_a_better_one_among_those_that_went_back_lacks_its_parts(
    made: MakeConfig, runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    better(monkeypatch, {"c-0001": 0.95, "c-0009": 0.999})
    report, store, _ = await carried_out(made(budget={"evaluations": 10}, slots=1), runs)
    assert plan_of(store).best == "c-0009"
    assert plan_of(store).search_ended == (
        "the search made 9 of 10 evaluations and left 1 for the parts of the gain"
    )
    assert report.parts is not None and "1 of 4 trainings lack: the budget ended" in report.parts.verdict
    assert report.ledger.evaluations == 10
    report = await resume("last", Workspace(runs), quiet(), {"budget.evaluations": 11})
    assert report.ledger.evaluations == 11
    assert report.parts is not None and report.parts.scores is not None, "what was measured is not lost"


async def test_all_four_are_trained_for_as_long(made: MakeConfig, runs: Path) -> None:
    """With rungs the pairs go to the best candidate's rung at once, for one evaluation each."""
    _, store, candidates = await carried_out(made(task=RUNGS, budget={"evaluations": 30}), runs)
    plan = plan_of(store)
    assert plan.rung == 1
    assert len(store.evaluations()) <= 30
    added = [c for c in candidates if c.proposal.arm == "factorial" and c.score is not None]
    assert added
    for candidate in added:
        assert [e.rung for e in store.evaluations(candidate.id)] == [1]
        assert (candidate.rung, candidate.rung_scores, candidate.tried_rung) == (1, (), 1)
        assert candidate.latency_ms is not None, "limits on latency hold for it as well"
    assert None not in cells(store).values()


async def test_without_a_baseline_a_random_candidate_is_the_reference(made: MakeConfig, runs: Path) -> None:
    report, store, candidates = await carried_out(made(baselines=[]), runs)
    assert report.parts is not None and report.parts.scores is not None
    reference = next(c for c in candidates if c.id == plan_of(store).reference)
    assert reference.proposal.arm == "random"
    assert report.ledger.evaluations <= 20


async def test_a_pair_that_is_in_the_population_is_not_paid_again(
    made: MakeConfig, runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With two recipes and one architecture beside the baseline, all pairs have been tried by the search."""
    space = SPACES.create("convnet")
    pool = [space.baselines()["two-layer-cnn"], space.sample(random.Random(1))]

    def one_of_four(self: WithRecipe, rng: random.Random) -> Genotype:
        return {"architecture": rng.choice(pool), "recipe": {"optimizer": rng.choice(("adamw", "sgd"))}}

    monkeypatch.setattr(WithRecipe, "sample", one_of_four)
    monkeypatch.setattr("cambrian.agents.discovery.FRUITLESS_LIMIT", 40)
    config = made(recipe_genes={"optimizer": None}, slots=1)
    report, store, candidates = await carried_out(config, runs)
    assert "space exhausted" in report.stop_reason
    assert report.ledger.evaluations == 4
    assert not [c for c in candidates if c.proposal.arm == "factorial"]
    assert None not in cells(store).values()
    assert report.parts is not None and report.parts.scores is not None


async def test_a_run_killed_before_its_parts_measures_them_when_resumed(
    made: MakeConfig, runs: Path, sandboxes: list[ByRecipe]
) -> None:
    def on_landing(candidate: Candidate) -> None:
        if candidate.proposal.arm == "factorial":
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(Stopped):
        await start(made(slots=1), Workspace(runs), quiet(landed=on_landing))
    store = Workspace(runs).open("last")
    before, plan = len(store.evaluations()), plan_of(store)
    assert end_report(store).parts is not None
    assert "not measured" in end_report(store).parts.verdict  # type: ignore[union-attr]
    store.close()
    report = await resume("last", Workspace(runs), quiet())
    store = Workspace(runs).open("last")
    assert plan_of(store) == plan
    assert report.parts is not None and report.parts.scores is not None
    assert report.ledger.evaluations == before + 1 == 20
    again = Counter(job for sandbox in sandboxes for job in sandbox.ran)
    assert max(again.values()) == 1
    whole = await start(made(slots=1), Workspace(runs.with_name("whole")), quiet())
    assert whole.parts == report.parts


async def test_a_larger_budget_searches_on_and_measures_anew(made: MakeConfig, runs: Path) -> None:
    first = await start(made(), Workspace(runs), quiet())
    report = await resume("last", Workspace(runs), quiet(), {"budget.evaluations": 40})
    assert report.ledger.evaluations <= 40
    assert first.parts is not None and report.parts is not None and report.parts.scores is not None
    store = Workspace(runs).open("last")
    best = max(
        (c for c in store.candidates() if c.proposal.arm != "factorial" and c.score is not None),
        key=lambda c: c.score or 0,
    )
    assert report.parts.best == best.id
    finished = await resume("last", Workspace(runs), quiet())
    assert finished.ledger.evaluations == report.ledger.evaluations, "nothing is left to do"


async def test_a_budget_that_is_too_small_says_so(made: MakeConfig, runs: Path) -> None:
    report, _, _ = await carried_out(made(budget={"evaluations": 5}), runs)
    assert report.ledger.evaluations == 5
    assert report.parts is not None and "a budget of 5 evaluations is too small" in report.parts.verdict


async def test_when_time_is_over_it_says_so(made: MakeConfig, runs: Path, sandboxes: list[ByRecipe]) -> None:
    class Clock:
        """Time passes by evaluations only."""

        def __call__(self) -> float:
            return 10.0 * sum(len(sandbox.ran) for sandbox in sandboxes)

    from cambrian.agents import budget

    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(budget.Account.__init__.__kwdefaults__, "clock", Clock())
        report, _, _ = await carried_out(made(budget={"wall_s": 100}, slots=1), runs)
        assert report.parts is not None and report.parts.scores is not None, "time is left for it"
        assert report.ledger.evaluations <= 10
        patch.setattr("cambrian.agents.pace.Pace.mean_s", lambda self, rung: 0.0)
        late, _, _ = await carried_out(made(budget={"wall_s": 100}, slots=1), runs.with_name("late"))
    assert late.parts is not None and "2 of 4 trainings lack: the budget ended before" in late.parts.verdict


async def test_the_gate_asks_for_the_pairs_too(made: MakeConfig, runs: Path) -> None:
    discoveries: list[Any] = []

    async def reviewer() -> None:
        seen: set[str] = set()
        while True:
            await asyncio.sleep(0.05)
            for discovery in discoveries:
                services = discovery.services
                desk = FolderDesk(services.store.folder / "review")
                for cid in set(services.population.parked()) - seen:
                    seen.add(cid)
                    refused = services.population.get(cid).proposal.arm == "factorial"
                    desk.decide(cid, "reject" if refused else "approve", "not worth it", by="ada")

    task = asyncio.create_task(reviewer())
    try:
        report = await start(
            made(review="gate", budget={"evaluations": 8}),
            Workspace(runs),
            quiet(started=lambda discovery, _store: discoveries.append(discovery)),
        )
    finally:
        task.cancel()
    assert report.parts is not None
    assert "rejected by ada: not worth it" in report.parts.verdict
    assert report.ledger.evaluations == 6
    assert report.stop_reason == "the search made 6 of 8 evaluations and left 2 for the parts of the gain"


async def test_a_run_without_recipe_genes_has_no_parts(config: MakeConfig, runs: Path) -> None:
    report, store, _ = await carried_out(config(baselines=["two-layer-cnn"]), runs)
    assert report.parts is None and store.get_meta(FACTORIAL_KEY) is None
    assert report.ledger.evaluations == 12


def test_wrong_genes_are_found_before_anything_starts(made: MakeConfig) -> None:
    with pytest.raises(RunFileError, match="recipe_genes: lerning_rate: a recipe has no such part"):
        made(recipe_genes=["lerning_rate"])
    with pytest.raises(RunFileError, match=r"recipe_genes: optimizer stands there twice"):
        made(recipe_genes=["optimizer", "optimizer"])
    with pytest.raises(RunFileError, match=r"test: recipe_genes\.optimizer: 'lion' is not possible"):
        check_run(made(recipe_genes={"optimizer": ["sgd", "lion"]}), "test")


@pytest.mark.slow
async def test_real_trainings_by_recipe(config: MakeConfig, runs: Path) -> None:
    report = await start(
        config(
            recipe_genes=["optimizer", "learning_rate", "batch_size"],
            task={"name": "digits", "rungs": [{"epochs": 1}], "train_samples": 200},
            constraints=["params <= 50k"],
            arms={"random": 1.0},
            sandbox={"kind": "process"},
            budget={"evaluations": 12},
            slots=1,
        ),
        Workspace(runs),
        quiet(),
    )
    assert report.parts is not None and report.parts.scores is not None
    assert report.ledger.evaluations <= 12
