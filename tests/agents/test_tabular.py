"""A whole run on a table: nothing is trained, and everything says so."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from cambrian.agents.checking import check_run
from cambrian.agents.population import CandidateState
from cambrian.agents.runfile import RunConfig
from cambrian.agents.session import Watch, start
from cambrian.agents.workspace import Workspace
from cambrian.search_spaces import UserError
from cambrian.search_spaces.recipe_genes import make_genes
from cambrian.search_spaces.tasks.nasbench201 import NasBench201
from tests.support.nasbench import write_tables


async def test_a_run_on_a_table(config: Callable[..., RunConfig], tmp_path: Path, runs: Path) -> None:
    folder = write_tables(tmp_path)
    report = await start(
        config(
            space="cell",
            task={"name": "nasbench201", "data": str(folder)},
            sandbox={"kind": "auto"},
            cost="latency_ms",
            budget={"evaluations": 16},
            constraints=["latency_ms <= 12000"],
            predictor={"enabled": False},
        ),
        Workspace(runs),
        Watch(say=lambda _: None),
    )
    assert report.ledger.evaluations == 16
    store = Workspace(runs).open("last")
    assert store.run.sandbox == "table"
    assert store.run.validation_samples == 25_000
    task = NasBench201(data=folder)
    candidates = {c.id: c for c in store.candidates()}
    scored = [e for e in store.evaluations() if e.metrics]
    assert {e.epochs for e in scored} == {12, 200}
    for evaluation in scored:
        row = task.lookup(candidates[evaluation.candidate_id].genotype, evaluation.epochs, evaluation.seed)
        assert evaluation.metrics == row.metrics and evaluation.test_metrics == row.test_metrics
        assert evaluation.train_s == row.train_s
        assert evaluation.isolation.level == "table"
    for candidate in candidates.values():
        if candidate.state is CandidateState.EVALUATED:
            known = task.lookup(candidate.genotype, 12, 0).latency_ms
            assert candidate.latency_ms == pytest.approx(known) and known is not None and known <= 12_000
        elif candidate.state is CandidateState.INFEASIBLE:
            assert "above the limit" in candidate.reason
    best = report.leaderboard[0]
    assert best.score == max(e.metrics["accuracy"] for e in scored if e.epochs == 200)
    store.close()


def test_a_table_has_one_recipe() -> None:
    with pytest.raises(UserError, match="learning_rate: task nasbench201 is a table"):
        make_genes({"learning_rate": None}, NasBench201())


@pytest.mark.parametrize(
    ("task", "kind", "says"),
    [("digits", "table", "has none"), ("nasbench201", "process", "nothing to train on")],
)
def test_a_sandbox_that_does_not_fit_the_task_is_told_before_the_start(
    config: Callable[..., RunConfig], tmp_path: Path, task: str, kind: str, says: str
) -> None:
    options = {"data": str(write_tables(tmp_path))} if task == "nasbench201" else {}
    made = config(space="cell", task={"name": task, **options}, sandbox={"kind": kind})
    with pytest.raises(UserError, match=says):
        check_run(made, "a run file")
