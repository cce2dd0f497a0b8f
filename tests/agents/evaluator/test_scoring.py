"""From a job's outcome to an evaluation, for each kind of task."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from cambrian.agents.evaluator.scoring import evaluate
from cambrian.agents.population.model import Candidate, CandidateState, Evaluation, Proposal
from cambrian.sandbox import Isolation, Job, JobState, LatencySpec, Outcome, WorkerReport
from cambrian.search_spaces import TASKS, Recipe, TableRow, Task

CANDIDATE = Candidate(
    id="c-0001",
    index=0,
    proposal=Proposal(arm="random", genotype={}),
    genotype={},
    state=CandidateState.TRAINING,
)


def job(task: Task, **changes: object) -> Job:
    values = {
        "id": "c-0001-r0-s1", "run_id": "run", "candidate_id": "c-0001", "space": "mlp", "genotype": {},
        "signature": task.signature, "recipe": Recipe(), "epochs": 2, "seed": 1, "loss": task.loss,
    }  # fmt: skip
    return Job.model_validate(values | changes)


def scored(task: Task, folder: Path, val: np.ndarray, epochs: np.ndarray) -> Evaluation:
    test = np.zeros((len(task.load().y_test), task.signature.n_outputs), dtype=np.float32)
    np.savez(folder / "outputs.npz", val=val, test=test, val_epochs=epochs)
    outcome = Outcome(
        job_id="c-0001-r0-s1",
        state=JobState.TRAINED,
        wall_s=1.0,
        isolation=Isolation(level="process"),
        report=WorkerReport(status="trained", epoch_s=(0.5, 0.5)),
    )
    return evaluate(CANDIDATE, 0, job(task), outcome, folder, task)


def test_classes_are_scored_epoch_by_epoch(tmp_path: Path) -> None:
    task = TASKS.create("wine")
    labels = task.load().y_val
    wrong = (labels + 1) % 3
    outputs = np.eye(3, dtype=np.float32)[labels]
    found = scored(task, tmp_path, outputs, np.stack([wrong, labels]).astype(np.int16))
    assert found.metrics["accuracy"] == 1.0
    assert found.val_curve == (0.0, 1.0)


def test_values_are_scored_epoch_by_epoch(tmp_path: Path) -> None:
    task = TASKS.create("diabetes")
    targets = task.load().y_val
    halves = np.stack([np.full_like(targets, targets.mean()), targets])
    found = scored(task, tmp_path, targets, halves)
    assert (found.state, found.reason) == (JobState.TRAINED, "")
    assert found.metrics["r2"] == 1.0 and found.metrics["rmse"] == 0.0
    assert found.val_curve == pytest.approx((0.0, 1.0), abs=1e-6)
    assert found.test_metrics["r2"] < 0.1


def test_outputs_of_the_other_kind_are_bad(tmp_path: Path) -> None:
    task = TASKS.create("diabetes")
    targets = task.load().y_val
    found = scored(task, tmp_path, targets, np.zeros((2, len(targets)), dtype=np.int16))
    assert found.state == JobState.BAD_OUTPUT and not found.metrics
    assert "val_epochs" in found.reason


ROW = TableRow(
    metrics={"accuracy": 0.7}, test_metrics={"accuracy": 0.8}, latency_ms=5.0, device="Phone", train_s=350.0
)


def looked_up(state: JobState, row: TableRow | None, **changes: object) -> Evaluation:
    task = TASKS.create("nasbench201")
    outcome = Outcome(
        job_id="c-0001-r0-s1",
        state=state,
        reason="" if state is JobState.TRAINED else "why",
        wall_s=0.001,
        isolation=Isolation(level="table"),
        row=row,
    )
    return evaluate(CANDIDATE, 0, job(task, **changes), outcome, Path("nowhere"), task)


def test_a_row_is_an_evaluation_without_outputs() -> None:
    found = looked_up(JobState.TRAINED, ROW)
    assert (found.metrics, found.test_metrics) == ({"accuracy": 0.7}, {"accuracy": 0.8})
    assert found.train_s == 350.0 and found.wall_s == 0.001
    assert found.isolation.level == "table"
    assert found.latency is not None
    assert (found.latency.median_ms, found.latency.place) == (5.0, "Phone (from a table)")


def test_a_latency_that_nobody_asked_for_is_left_out() -> None:
    assert looked_up(JobState.TRAINED, ROW, latency=None).latency is None


def test_a_row_over_the_limit_tells_its_latency_only() -> None:
    found = looked_up(JobState.OVER_LIMIT, ROW, latency=LatencySpec(limit_ms=4.0))
    assert not found.metrics and not found.test_metrics and found.train_s == 0.0
    assert found.latency is not None and found.reason == "why"


def test_a_job_without_a_row_has_no_score() -> None:
    found = looked_up(JobState.ERROR, None)
    assert found.state == JobState.ERROR and not found.metrics and found.latency is None
