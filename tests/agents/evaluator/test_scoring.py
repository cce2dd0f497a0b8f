"""From a job's outcome to an evaluation, for each kind of task."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from pydantic import ValidationError

from cambrian.agents.evaluator.scoring import evaluate
from cambrian.agents.population.model import Candidate, CandidateState, Evaluation, Proposal
from cambrian.sandbox import Isolation, Job, JobState, Latency, LatencySpec, Outcome, WorkerReport
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


def reported(folder: Path, state: JobState, ordered: LatencySpec | None, **told: Any) -> Evaluation:
    task = TASKS.create("diabetes")
    kinds: dict[JobState, Literal["trained", "measured"]]
    kinds = {JobState.TRAINED: "trained", JobState.MEASURED: "measured"}
    outcome = Outcome(
        job_id="c-0001-r0-s1",
        state=state,
        wall_s=1.0,
        isolation=Isolation(level="process"),
        report=WorkerReport(status=kinds[state]).model_copy(update=told),  # as if nobody had checked it
    )
    splits = task.load()
    np.savez(
        folder / "outputs.npz",
        val=splits.y_val,
        test=splits.y_test,
        val_epochs=np.stack([splits.y_val, splits.y_val]),
    )
    return evaluate(CANDIDATE, 0, job(task, latency=ordered), outcome, folder, task)


LATENCY = Latency(device="here", threads=1, batch=1, warmup=0, repeats=3, median_ms=1.0, q1_ms=1.0, q3_ms=1.0)


@pytest.mark.parametrize(
    "told",
    [
        {"epoch_s": (1e308, 1e308)},
        {"train_loss": (0.5, math.nan)},
        {"peak_memory_mb": math.inf},
        {"latency": LATENCY.model_copy(update={"q3_ms": math.inf})},
    ],
    ids=lambda told: next(iter(told)),
)
@pytest.mark.parametrize("state", [JobState.TRAINED, JobState.MEASURED])
def test_numbers_that_are_not_finite_are_bad_output(
    tmp_path: Path, state: JobState, told: dict[str, Any]
) -> None:
    found = reported(tmp_path, state, LatencySpec(), **told)
    assert found.state == JobState.BAD_OUTPUT and not found.metrics and found.latency is None
    assert next(iter(told)) in found.reason or "q3_ms is inf" in found.reason
    assert Evaluation.model_validate_json(found.model_dump_json()) == found


def test_a_metric_that_is_not_finite_is_bad_output(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    task = TASKS.create("diabetes")
    targets = task.load().y_val
    monkeypatch.setattr(type(task), "score", lambda *_: {"r2": -math.inf, "rmse": 1.0})
    found = scored(task, tmp_path, targets, np.stack([targets, targets]))
    assert (found.state, found.reason) == (JobState.BAD_OUTPUT, "outputs cannot be scored: r2 is -inf")
    assert not found.metrics and Evaluation.model_validate_json(found.model_dump_json()) == found


def test_a_latency_that_was_not_ordered_is_not_taken(tmp_path: Path) -> None:
    assert reported(tmp_path, JobState.TRAINED, None, latency=LATENCY).latency is None
    assert reported(tmp_path, JobState.TRAINED, LatencySpec(), latency=LATENCY).latency is not None


@pytest.mark.parametrize(
    "change",
    [
        {"metrics": {"r2": math.nan}},
        {"test_metrics": {"r2": math.inf}},
        {"val_curve": (0.5, -math.inf)},
        {"train_loss": (math.nan,)},
        {"wall_s": math.inf},
        {"train_s": math.inf},
        {"peak_memory_mb": math.nan},
        {"latency": LATENCY.model_copy(update={"throughput": math.inf})},
        {"latency": LATENCY.model_copy(update={"median_ms": math.nan})},
    ],
    ids=lambda change: next(iter(change)),
)
def test_an_evaluation_refuses_numbers_that_cannot_be_stored(change: dict[str, Any]) -> None:
    good = {
        "candidate_id": "c-0001", "rung": 0, "seed": 0, "epochs": 1, "state": "trained",
        "latency": LATENCY, "isolation": {"level": "process"},
    }  # fmt: skip
    Evaluation.model_validate(good)
    with pytest.raises(ValidationError):
        Evaluation.model_validate(good | change)


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


def test_a_row_with_a_hole_is_bad_output() -> None:
    holed = ROW.model_copy(update={"metrics": {"accuracy": math.nan}})
    found = looked_up(JobState.TRAINED, holed)
    assert found.state == JobState.BAD_OUTPUT and found.reason.endswith("accuracy is nan")


def test_a_row_over_the_limit_tells_its_latency_only() -> None:
    found = looked_up(JobState.OVER_LIMIT, ROW, latency=LatencySpec(limit_ms=4.0))
    assert not found.metrics and not found.test_metrics and found.train_s == 0.0
    assert found.latency is not None and found.reason == "why"


def test_a_job_without_a_row_has_no_score() -> None:
    found = looked_up(JobState.ERROR, None)
    assert found.state == JobState.ERROR and not found.metrics and found.latency is None
