from __future__ import annotations

from contextlib import closing
from typing import Any

import pytest

from cambrian.agents.evaluator.admission import Admission
from cambrian.agents.evaluator.estimators import estimator_records
from cambrian.agents.population.model import Candidate, CandidateState, Proposal, candidate_id
from cambrian.agents.population.store import PopulationStore, RunRecord
from cambrian.agents.report import end_report
from cambrian.agents.runfile import RunConfig
from cambrian.search_spaces import SPACES, TASKS

SPACE, TASK = SPACES.create("mlp"), TASKS.create("wine")
NETWORK = next(iter(SPACE.baselines().values()))


def record(**config: Any) -> RunRecord:
    return RunRecord(
        run_id="r-1", name="r", space="mlp", task="wine", metric="accuracy", maximize=True, cost="latency_ms",
        created=0.0, config=config, validation_samples=400,
    )  # fmt: skip


def trained(index: int, score: float | None, **changes: Any) -> Candidate:
    """A candidate that scored so at rung 0, or was not trained."""
    made = Candidate(
        id=candidate_id(index),
        index=index,
        proposal=Proposal(arm="mutation", genotype={}),
        genotype=NETWORK,
        state=CandidateState.EVALUATED if score is not None else CandidateState.PROPOSED,
        score=score,
        rung_scores=() if score is None else (score,),
    )
    return made.model_copy(update=changes)


def population(n: int = 30) -> list[Candidate]:
    """Scores rise with the index, as `synflow` does; `params` jumps about, and the forecasts are late."""
    return [
        trained(
            i,
            i / n,
            proxies={"synflow": float(i), "params": float(i * 7 % 11)},
            prediction=i / n if i % 2 else None,
            predicted_latency=float(-i),
            latency_ms=float(i),
            latency_ratio=float(-i),
        )
        for i in range(n)
    ]


def test_every_estimator_has_a_record() -> None:
    found = {r.name: r for r in estimator_records(record(), population())}
    assert list(found) == ["predictor", "latency", "params", "synflow"]
    assert (found["synflow"].tau, found["synflow"].n, found["synflow"].role) == (1.0, 30, "filters")
    assert (found["predictor"].tau, found["predictor"].n) == (1.0, 15)
    assert found["params"].role == "advice" and abs(found["params"].tau or 1) < 0.3


def test_latency_is_compared_in_the_unit_of_the_limit() -> None:
    for limit, tau in (("latency_ms", -1.0), ("latency_ratio", 1.0)):
        run = record(constraints=[{"name": limit, "op": "<=", "bound": 2.0}])
        assert {r.name: r.tau for r in estimator_records(run, population())}["latency"] == tau


def test_the_run_file_says_how_much_a_proxy_has_to_prove() -> None:
    for least, role in ((0.3, "filters"), (1.0, "advice")):
        run = record(checks={"proxies": ["synflow"], "proxy_min_tau": least})
        assert {r.name: r.role for r in estimator_records(run, population())}["synflow"] == role


def test_who_has_no_score_tells_nothing() -> None:
    untrained = [trained(i, None, proxies={"synflow": 1.0}, prediction=0.5) for i in range(9)]
    assert estimator_records(record(), untrained) == ()


def test_the_report_tells_of_proxies_in_few_words(tmp_path: Any) -> None:
    with closing(PopulationStore(tmp_path / "r-1", create=record())) as store:
        for candidate in population():
            store.add(candidate)
        report = end_report(store, predictor="Kendall tau 0.50")
    assert [r.name for r in report.estimators] == ["predictor", "latency", "params", "synflow"]
    said = [line for line in report.lines() if line.startswith("predictor: Kendall tau 0.50; ")]
    assert len(said) == 1 and "proxies: synflow tau 1.00 on 30, filters; params" in said[0]
    assert len(report.lines()) <= 10


class TestAdmission:
    @pytest.fixture
    def store(self, tmp_path: Any) -> Any:
        with closing(PopulationStore(tmp_path / "r-1", create=record())) as store:
            yield store

    def admission(self, store: PopulationStore) -> Admission:
        config = RunConfig.model_validate(
            {
                "name": "r",
                "space": "mlp",
                "task": {"name": "wine"},
                "budget": {"evaluations": 50},
                "checks": {"proxies": ["synflow", "params"]},
            }
        )
        return Admission(config, SPACE, TASK, store)

    def test_a_proved_proxy_ends_hopeless_candidates_only(self, store: PopulationStore) -> None:
        for candidate in population():
            store.add(candidate)
        admission = self.admission(store)
        hopeless = trained(40, None, proxies={"synflow": -1.0})
        ended = admission.screened(hopeless, may_end=True)
        assert ended.state is CandidateState.SCREENED and "synflow" in ended.reason
        assert not admission.screened(hopeless, may_end=False).state.ended, "of a control arm"
        hopeful = hopeless.model_copy(update={"proxies": {"synflow": 15.0, "params": -1.0}})
        assert not admission.screened(hopeful, may_end=True).state.ended, "params has proved nothing"

    def test_a_score_is_learned_from_once_also_after_a_crash(self, store: PopulationStore) -> None:
        admission = self.admission(store)
        for candidate in population():
            store.add(candidate)
            admission.learn(candidate)
            admission.learn(candidate)
        resumed = self.admission(store)
        resumed.learn(population()[-1])
        assert resumed.proxies.summary() == admission.proxies.summary()
        assert [r.n for r in admission.proxies.summary()] == [30, 30]
