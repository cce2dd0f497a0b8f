"""What MLflow's run of a discovery run tells of ranking: champions, noise, hypervolume, arms, estimators."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from cambrian.agents.evaluator.arms import ArmRow
from cambrian.agents.evaluator.estimators import estimator_records
from cambrian.agents.evaluator.spending import ANALYST, UNREADABLE
from cambrian.agents.recorder.entries import moments
from cambrian.agents.recorder.tracking import MetricPoint

if TYPE_CHECKING:  # brings matplotlib
    from cambrian.agents.recorder.pictures.scene import Scene


def ranking_metrics(scene: Scene, arms: Sequence[ArmRow]) -> tuple[MetricPoint, ...]:
    """Metrics of the parent run; hypervolume is a curve, once its reference point stands.

    Args:
        scene: the population.
        arms: what each arm did.
    """
    run = scene.run
    now = max([c.ended_s or 0.0 for c in scene.candidates], default=0.0) or run.created
    step = len(scene.evaluations)
    values: dict[str, float | None] = {
        f"noise_{run.metric}": scene.ranked.noise.std,
        f"noise_{run.metric}_low": scene.ranked.noise.low,
        f"noise_{run.metric}_high": scene.ranked.noise.high,
    }
    leader = next(iter(scene.ranked.board), None)
    if leader is not None and leader.champion:
        values |= {f"mean_{run.metric}": leader.mean, f"std_{run.metric}": leader.std}
        values |= {f"mean_test_{run.metric}": leader.test_mean, "fresh_seeds": float(leader.seeds)}
    for row in arms:
        no_arm = row.arm in (ANALYST, UNREADABLE)
        told = {} if no_arm else row.model_dump(exclude={"arm", "low", "high", "asked"})
        if row.asked is not None:
            told |= {f"llm_{name}": value for name, value in row.asked.model_dump().items()}
        values |= {f"arm.{row.arm}/{name}": value for name, value in told.items()}
    for record in estimator_records(run, scene.candidates):
        values |= {f"tau.{record.name}": record.tau, f"tau.{record.name}/candidates": float(record.n)}
    points = [MetricPoint(key, float(v), now, step) for key, v in values.items() if v is not None]
    found = scene.hypervolume
    if found is not None and scene.reference is not None:
        times = moments(run, scene.candidates, scene.evaluations, now)
        points += [MetricPoint("hypervolume", value, times[at - 1], at) for at, value in found.curve]
        points.append(MetricPoint("hypervolume", found.value, now, step))
    return tuple(point for point in points if math.isfinite(point.value))
