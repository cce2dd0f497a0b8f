"""From a job's raw outputs to an evaluation: the host computes every score, with labels it kept to itself."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np

from cambrian.agents.population.model import Candidate, Evaluation
from cambrian.sandbox import Job, JobState, Outcome
from cambrian.sandbox.outputs import read_outputs
from cambrian.sandbox.table import latency_of
from cambrian.search_spaces import TabularTask, Task


def evaluate(
    candidate: Candidate, rung: int, job: Job, outcome: Outcome, folder: Path, task: Task
) -> Evaluation:
    """Score a finished job.

    Args:
        candidate: whose job it was.
        rung: the fidelity it was trained at.
        job: as it was submitted.
        outcome: as the sandbox returned it.
        folder: the job's folder, which holds the outputs.
        task: keeper of the held-out labels.

    Returns:
        The evaluation; only one whose outcome is `TRAINED` has metrics. What was looked up rather than run is
        taken from the outcome's row. A number that is not finite makes it `BAD_OUTPUT`, without any numbers.
    """
    try:
        return _evaluate(candidate, rung, job, outcome, folder, task)
    except _NotFiniteError as error:
        return Evaluation(
            candidate_id=candidate.id,
            rung=rung,
            seed=job.seed,
            epochs=job.epochs,
            state=JobState.BAD_OUTPUT,
            reason=str(error),
            wall_s=outcome.wall_s if math.isfinite(outcome.wall_s) else 0.0,
            isolation=outcome.isolation,
        )


class _NotFiniteError(Exception):
    """A number is infinite or NaN; the message says which."""


def _evaluate(
    candidate: Candidate, rung: int, job: Job, outcome: Outcome, folder: Path, task: Task
) -> Evaluation:
    if outcome.row is not None or isinstance(task, TabularTask):
        return _from_row(candidate, rung, job, outcome)
    report = outcome.report
    metrics: dict[str, float] = {}
    test_metrics: dict[str, float] = {}
    curve: tuple[float, ...] = ()
    state, reason = outcome.state, outcome.reason
    if state is JobState.TRAINED:
        try:
            outputs = read_outputs(folder, job.loss)
            metrics = task.score(outputs.val, "val")
            test_metrics = task.score(outputs.test, "test")
            curve = tuple(_score_epoch(task, seen) for seen in outputs.val_epochs)
        except (OSError, ValueError) as error:
            metrics, test_metrics, curve = {}, {}, ()
            state, reason = JobState.BAD_OUTPUT, f"outputs cannot be scored: {error}"
    # A latency that nobody ordered had no witness, so it is not taken.
    latency = report.latency if report and job.latency is not None else None
    train_s = sum(report.epoch_s) if report else 0.0
    _see_finite("outputs cannot be scored", metrics, test_metrics, {"a metric of an epoch": curve})
    _see_finite(
        "report.json cannot be believed",
        {"train_loss": report.train_loss if report else (), "the sum of epoch_s": train_s},
        {"peak_memory_mb": report.peak_memory_mb if report else 0.0, "wall_s": outcome.wall_s},
        latency.model_dump() if latency is not None else {},
    )
    return Evaluation(
        candidate_id=candidate.id,
        rung=rung,
        seed=job.seed,
        epochs=job.epochs,
        state=state,
        reason=reason,
        metrics=metrics,
        test_metrics=test_metrics,
        val_curve=curve,
        train_loss=report.train_loss if report else (),
        latency=latency,
        wall_s=outcome.wall_s,
        train_s=train_s,
        peak_memory_mb=report.peak_memory_mb if report else 0.0,
        isolation=outcome.isolation,
    )


def _from_row(candidate: Candidate, rung: int, job: Job, outcome: Outcome) -> Evaluation:
    """The evaluation of a job that was looked up; a row beyond a limit tells its latency only."""
    row = outcome.row
    scored = row if outcome.state is JobState.TRAINED else None
    if row is not None:
        told = {"latency_ms": row.latency_ms, "train_s": row.train_s}
        _see_finite("the table cannot be believed", row.metrics, row.test_metrics, told)
    return Evaluation(
        candidate_id=candidate.id,
        rung=rung,
        seed=job.seed,
        epochs=job.epochs,
        state=outcome.state,
        reason=outcome.reason,
        metrics=scored.metrics if scored else {},
        test_metrics=scored.test_metrics if scored else {},
        latency=latency_of(row) if row and job.latency is not None else None,
        wall_s=outcome.wall_s,
        train_s=scored.train_s if scored else 0.0,
        isolation=outcome.isolation,
    )


def _see_finite(otherwise: str, *found: Mapping[str, object]) -> None:
    for numbers in found:
        for name, value in numbers.items():
            for number in value if isinstance(value, Iterable) and not isinstance(value, str) else (value,):
                if isinstance(number, float) and not math.isfinite(number):
                    raise _NotFiniteError(f"{otherwise}: {name} is {number}")


def _score_epoch(task: Task, seen: np.ndarray) -> float:
    """The task's metric of values `(n, n_outputs)`, or of classes `(n,)` as if each were predicted surely."""
    if seen.ndim > 1:
        return task.score(seen, "val")[task.metric]
    classes = seen
    outputs = np.zeros((len(classes), task.signature.n_outputs), dtype=np.float32)
    outputs[np.arange(len(classes)), classes] = 1.0
    return task.score(outputs, "val")[task.metric]
