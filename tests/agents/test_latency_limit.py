"""Whole runs under a hard limit on latency: who is far outside is neither measured nor trained."""

from collections.abc import Callable
from pathlib import Path

import pytest

from cambrian.agents.checking import check_run
from cambrian.agents.evaluator.admission import Admission
from cambrian.agents.planner.evolution import MutationArm
from cambrian.agents.population import Candidate, CandidateState
from cambrian.agents.population.model import CONTROL_ARM, Proposal
from cambrian.agents.runfile import RunConfig
from cambrian.agents.session import Watch, resume, start
from cambrian.agents.workspace import Workspace
from cambrian.sandbox import SANDBOXES, Job, JobState, Outcome
from cambrian.search_spaces import SPACES, Genotype
from tests.support.instant import InstantSandbox

SPACE = SPACES.create("convnet")
LIMIT_MS = 1.5


def milliseconds(genotype: Genotype) -> float:
    """What a device would take: some time for each block, and some for its work."""
    numbers = SPACE.features(genotype)
    return float(0.1 * numbers["blocks"] + 10 ** numbers["log_macs"] / 4e6)


class Timed(InstantSandbox):
    """Latency is a function of the genotype; a job over its limit ends before any training."""

    async def run(self, job: Job) -> Outcome:
        outcome = await super().run(job)
        if outcome.report is None or outcome.report.latency is None or job.latency is None:
            return outcome
        ms = milliseconds(job.genotype)
        told = outcome.report.latency.model_copy(update={"median_ms": ms, "q1_ms": ms, "q3_ms": ms})
        report = outcome.report.model_copy(update={"latency": told})
        if job.latency.limit_ms is None or ms <= job.latency.limit_ms:
            return outcome.model_copy(update={"report": report})
        state, why = JobState.OVER_LIMIT, f"{ms:.3g} ms is above the limit"
        return outcome.model_copy(update={"report": report, "state": state, "reason": why})


@pytest.fixture
def timed(config: Callable[..., RunConfig], monkeypatch: pytest.MonkeyPatch) -> Callable[..., RunConfig]:
    """Makes runs of an arm that knows no measure, and of a predictor of scores that is silent."""
    monkeypatch.setitem(SANDBOXES._loaded, "timed", Timed)
    monkeypatch.setattr(
        MutationArm,
        "_draft",
        lambda self, context, *_: Proposal(arm=self.name, genotype=context.space.sample(context.rng)),
    )

    def make(evaluations: int) -> RunConfig:
        return config(
            sandbox={"kind": "timed"},
            slots=1,
            constraints=[f"latency_ms <= {LIMIT_MS}"],
            predictor={"min_evaluations": 10_000},
            budget={"evaluations": evaluations},
        )

    return make


def told(candidates: list[Candidate]) -> list[tuple[object, ...]]:
    return [(c.id, c.genotype, c.state, c.reason, c.predicted_latency) for c in candidates]


async def test_who_is_far_outside_is_not_trained_and_the_control_arm_is_never_screened(
    timed: Callable[..., RunConfig], runs: Path
) -> None:
    report = await start(timed(28), Workspace(runs), Watch(say=lambda _: None))
    store = Workspace(runs).open("last")
    candidates, ran = store.candidates(), {e.candidate_id for e in store.evaluations()}
    dropped = [c for c in candidates if c.state is CandidateState.SCREENED]
    assert dropped
    assert all(milliseconds(c.genotype) > LIMIT_MS for c in dropped)
    assert not ran & {c.id for c in dropped}
    assert CONTROL_ARM not in {c.proposal.arm for c in dropped}
    for candidate in dropped:
        assert f"predicted {candidate.predicted_latency:.3g} ms ±" in candidate.reason
        assert f"the limit latency_ms <= {LIMIT_MS}" in candidate.reason
    made = timed(28)
    judge = Admission(made, *check_run(made, "test"), store)
    fresh = dropped[-1].model_copy(update={"state": CandidateState.PROPOSED, "reason": ""})
    assert judge.screened(fresh, may_end=True).state is CandidateState.SCREENED
    control = judge.screened(fresh, may_end=False)  # as those of the control arm are
    assert control.state is CandidateState.PROPOSED and control.predicted_latency is not None
    assert "latency: " in report.predictor and "it had not seen" in report.predictor
    assert any("latency: " in line for line in report.lines())
    assert report.ledger.saved["screened"] == len(dropped)
    store.close()


async def test_a_resumed_run_goes_on_as_an_unbroken_one(
    timed: Callable[..., RunConfig], tmp_path: Path
) -> None:
    whole, broken = Workspace(tmp_path / "whole"), Workspace(tmp_path / "broken")
    quiet = Watch(say=lambda _: None)
    await start(timed(20), whole, quiet)
    await start(timed(14), broken, quiet)
    await resume("last", broken, quiet, {"budget.evaluations": 20})
    stores = [place.open("last") for place in (whole, broken)]
    first, second = (store.candidates() for store in stores)
    assert any(c.predicted_latency is not None for c in first[-5:])
    assert told(first) == told(second)
    made = timed(20)
    space, task = check_run(made, "test")
    described = {Admission(made, space, task, store).latency.describe() for store in stores}
    assert len(described) == 1 and described != {""}
    for store in stores:
        store.close()
