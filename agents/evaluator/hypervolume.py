"""Hypervolume of score and cost over a run: how much of the box below a reference point is dominated.

It grows when the front moves anywhere, which no single best score shows (Zitzler and Thiele, "Multiobjective
Evolutionary Algorithms: A Comparative Case Study and the Strength Pareto Approach", IEEE TEVC 1999). Values
compare only below one reference point, so that of a run is fixed early and kept: the cost's limit if the run
has one, else the highest cost of the first feasible candidates; and their worst score. Points beyond it add
nothing.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence

from pydantic import BaseModel, ConfigDict

from cambrian.agents.evaluator.ranking import ParetoFront
from cambrian.agents.population.model import Candidate, CandidateState, Evaluation
from cambrian.agents.population.store import PopulationStore, RunRecord
from cambrian.agents.population.view import Population
from cambrian.agents.sections import Constraint
from cambrian.agents.wording import is_ratio, show_cost, show_score

HYPERVOLUME_KEY = "hypervolume"
"""Under this key the store keeps the reference point."""
FIRST = 8
"""Feasible candidates with a score from which the reference point is taken."""


class _Data(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Reference(_Data):
    """The point below which volume is counted.

    Attributes:
        score: in the task's metric.
        cost: in the unit of the run's cost.
        reason: where both come from.
    """

    score: float
    cost: float
    reason: str


class Hypervolume(_Data):
    """Of a run.

    Attributes:
        value: in units of score times cost.
        share: of the box between the reference point and a perfect score at no cost; None for metrics that
            know no perfect one.
        front: members of the front below the reference point.
        curve: number of an evaluation and the value after it, where it changed.
        verdict: one plain sentence.
    """

    reference: Reference
    value: float
    share: float | None = None
    front: int
    curve: tuple[tuple[int, float], ...] = ()
    verdict: str


def hypervolume(
    points: Sequence[Sequence[float]], reference: Sequence[float], maximize: Sequence[bool]
) -> float:
    """The volume that `points` dominate and that dominates `reference`, by moocore.

    Args:
        points: one row a point, one column an objective; any number of objectives.
        reference: one value an objective.
        maximize: for each objective, whether more is better.

    Raises:
        ValueError: the numbers of columns differ.
    """
    if not len(reference) == len(maximize) or any(len(point) != len(reference) for point in points):
        raise ValueError(
            f"points, reference {list(reference)} and maximize {list(maximize)} differ in length"
        )
    if not points:
        return 0.0
    import moocore
    import numpy as np

    rows = np.asarray(points, dtype=np.float64)
    return float(moocore.hypervolume(rows, ref=list(reference), maximise=list(maximize)))


def reference_point(
    candidates: Iterable[Candidate], constraints: Iterable[Constraint], run: RunRecord
) -> Reference | None:
    """The reference point by the first `FIRST` that ended feasible with a score; None when there are none."""
    points = [(c, *point) for c in candidates if (point := _point(c)) is not None]
    first = sorted(points, key=lambda entry: (entry[0].ended_order, entry[0].index))[:FIRST]
    if not first:
        return None
    bound = min((c.bound for c in constraints if c.name == run.cost and c.op == "<="), default=None)
    scores = [score for _, score, _ in first]
    worst = min(scores) if run.maximize else max(scores)
    dearest = max(cost for _, _, cost in first)
    whose = "worst score" if bound is not None else "worst score and cost"
    by_limit = f"the limit of {show_cost(run.cost, bound)} and " if bound is not None else ""
    reason = f"{by_limit}the {whose} of the first {len(first)} feasible candidates"
    return Reference(score=worst, cost=dearest if bound is None else bound, reason=reason)


def fix_reference(store: PopulationStore, population: Population) -> None:
    """Keep the reference point in the store once enough candidates tell it; then it never changes."""
    if len(population.elite(FIRST)) < FIRST or store.get_meta(HYPERVOLUME_KEY) is not None:
        return
    run = store.run
    everybody = population.elite(len(population))
    if (found := reference_point(everybody, _constraints(run), run)) is not None:
        store.set_meta(HYPERVOLUME_KEY, found.model_dump_json())


def hypervolume_of_run(
    run: RunRecord, candidates: Sequence[Candidate], evaluations: Sequence[Evaluation], kept: str | None
) -> Hypervolume | None:
    """The hypervolume over a run's evaluations; None while nobody feasible has a score and a cost.

    A point is what an evaluation with the run's seed gave: one of a low rung stays where it was when its
    candidate climbs on. Those of candidates that lost their score are left out.

    Args:
        run: its record.
        candidates: all of them.
        evaluations: all of them, in order.
        kept: what the store keeps under `HYPERVOLUME_KEY`; without it the point is a provisional one.
    """
    reference = Reference.model_validate_json(kept) if kept is not None else None
    reference = reference or reference_point(candidates, _constraints(run), run)
    if reference is None:
        return None
    point, sides = (reference.score, reference.cost), (run.maximize, False)
    front, value = ParetoFront(maximize=run.maximize), 0.0
    curve: list[tuple[int, float]] = []
    for step, cid, score, cost in _attained(run, candidates, evaluations):
        if front.add(f"{cid}/{step}", score, cost):
            now = hypervolume([(each.score, each.cost) for each in front.points()], point, sides)
            if not curve or now != value:
                curve.append((step, now))
            value = now
    inside = sum(_is_below(each.score, each.cost, reference, run.maximize) for each in front.points())
    box = (1 - reference.score) * reference.cost
    share = value / box if is_ratio(run.metric) and run.maximize and box > 0 else None
    shown = f"{100 * share:.1f} %" if share is not None else f"{value:.4g}"
    corner = f"{show_score(run.metric, reference.score)}, {show_cost(run.cost, reference.cost)}"
    return Hypervolume(
        reference=reference,
        value=value,
        share=share,
        front=inside,
        curve=tuple(curve),
        verdict=f"hypervolume {shown}{' of the box' if share is not None else ''} from {corner}",
    )


def _constraints(run: RunRecord) -> list[Constraint]:
    return [Constraint.model_validate(item) for item in run.config.get("constraints") or ()]


def _point(candidate: Candidate) -> tuple[float, float] | None:
    """First score and cost of a candidate that may be on a front."""
    ranks = candidate.state is CandidateState.EVALUATED and candidate.feasible
    score = candidate.rung_scores[0] if candidate.rung_scores else candidate.score
    if not ranks or score is None or candidate.cost is None or not math.isfinite(candidate.cost):
        return None
    return score, candidate.cost


def _attained(
    run: RunRecord, candidates: Iterable[Candidate], evaluations: Iterable[Evaluation]
) -> Iterator[tuple[int, str, float, float]]:
    costs = {c.id: point[1] for c in candidates if (point := _point(c)) is not None}
    seed = run.config.get("seed", 0)
    for step, evaluation in enumerate(evaluations, start=1):
        cost = costs.get(evaluation.candidate_id)
        if cost is not None and evaluation.seed == seed and run.metric in evaluation.metrics:
            yield step, evaluation.candidate_id, evaluation.metrics[run.metric], cost


def _is_below(score: float, cost: float, reference: Reference, maximize: bool) -> bool:
    better = score > reference.score if maximize else score < reference.score
    return better and cost < reference.cost
