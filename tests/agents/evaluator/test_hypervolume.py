import random

import pytest

from cambrian.agents.evaluator.hypervolume import FIRST, hypervolume, hypervolume_of_run, reference_point
from cambrian.agents.population.model import Candidate, CandidateState, Evaluation, Proposal, candidate_id
from cambrian.agents.population.store import RunRecord
from cambrian.agents.sections import Constraint
from cambrian.sandbox import Isolation

LIMIT = Constraint.parse("latency_ms <= 4")
RUN = RunRecord(
    run_id="r", name="r", space="convnet", task="digits", metric="accuracy", maximize=True,
    cost="latency_ms", created=0.0, config={"seed": 3, "constraints": [LIMIT.model_dump()]},
)  # fmt: skip


def candidate(index: int, score: float, cost: float, **changes: object) -> Candidate:
    made = Candidate(
        id=candidate_id(index), index=index, proposal=Proposal(arm="mutation", genotype={}), genotype={},
        state=CandidateState.EVALUATED, score=score, rung=0, rung_scores=(score,), cost=cost,
        ended_order=index + 1,
    )  # fmt: skip
    return made.model_copy(update=changes)


def evaluation(of: Candidate, score: float | None = None, seed: int = 3, rung: int = 0) -> Evaluation:
    value = of.rung_scores[0] if score is None else score
    return Evaluation(
        candidate_id=of.id, rung=rung, seed=seed, epochs=1, state="trained", metrics={"accuracy": value},
        isolation=Isolation(level="process"),
    )  # fmt: skip


def volume(
    points: list[tuple[float, ...]], reference: tuple[float, ...], n: int, rng: random.Random
) -> float:
    """By Monte Carlo in the unit box, all objectives minimised."""
    hits = 0
    for _ in range(n):
        drawn = [rng.random() * edge for edge in reference]
        hits += any(all(p <= d for p, d in zip(point, drawn, strict=True)) for point in points)
    box = 1.0
    for edge in reference:
        box *= edge
    return box * hits / n


@pytest.mark.parametrize("objectives", [2, 3, 4])
def test_it_is_the_volume_that_the_points_dominate(objectives: int) -> None:
    rng = random.Random(objectives)
    points = [tuple(rng.random() for _ in range(objectives)) for _ in range(6)]
    reference = (1.0, 0.9, 0.8, 0.7)[:objectives]
    found = hypervolume(points, reference, [False] * objectives)
    assert found == pytest.approx(volume(points, reference, 20_000, rng), abs=0.012)
    turned = [(-point[0], *point[1:]) for point in points]
    assert hypervolume(turned, (-reference[0], *reference[1:]), [True] + [False] * (objectives - 1)) == (
        pytest.approx(found)
    )
    assert hypervolume([], reference, [False] * objectives) == 0.0
    with pytest.raises(ValueError, match="differ in length"):
        hypervolume(points, reference[1:], [False] * objectives)


def test_the_curve_counts_what_is_better_than_the_reference_and_cheaper() -> None:
    people = [
        candidate(0, 0.5, 3.0),
        candidate(1, 0.7, 2.0),
        candidate(2, 0.9, 9.0, feasible=False),
        candidate(3, 0.6, 2.5),
        candidate(4, 0.9, 3.0),
        candidate(5, 0.8, 1.0, state=CandidateState.FAILED),
    ]
    made = [evaluation(c) for c in people]
    made.insert(2, evaluation(people[1], 0.99, seed=77))  # a repeat is no new point
    found = hypervolume_of_run(RUN, people, made, None)
    assert found is not None
    assert (found.reference.score, found.reference.cost) == (0.5, 4.0)
    assert found.reference.reason.startswith("the limit of 4 ms and the worst score of the first 4")
    # 0.2 wide and 2 high; then 0.2 more, 1 high
    assert found.curve == ((1, 0.0), (2, pytest.approx(0.4)), (6, pytest.approx(0.6)))
    assert (found.value, found.front) == (pytest.approx(0.6), 2)
    assert found.share == pytest.approx(0.6 / (0.5 * 4))
    assert "30.0 % of the box from 50.00 %, 4 ms" in found.verdict


def test_a_promotion_adds_its_point_and_takes_none_away() -> None:
    climbed = candidate(0, 0.8, 2.0, rung=1, rung_scores=(0.6, 0.8))
    low = candidate(1, 0.5, 3.0)
    made = [evaluation(low), evaluation(climbed), evaluation(climbed, 0.8, rung=1)]
    found = hypervolume_of_run(RUN, [climbed, low], made, None)
    assert found is not None
    assert found.curve == ((1, 0.0), (2, pytest.approx(0.2)), (3, pytest.approx(0.6)))


def test_the_reference_is_that_of_the_first_and_stays() -> None:
    first = [candidate(n, 0.5 + 0.01 * n, 1.0 + n) for n in range(FIRST)]
    worse = candidate(FIRST, 0.1, 50.0)
    free = RUN.model_copy(update={"config": {"seed": 3}})
    found = reference_point([*first, worse], [], free)
    assert found is not None and (found.score, found.cost) == (0.5, float(FIRST))
    late = candidate(FIRST + 1, 0.95, 1.0)
    kept = reference_point(first[4:], [], free)
    assert kept is not None
    told = hypervolume_of_run(free, [*first, late], [evaluation(late)], kept.model_dump_json())
    assert told is not None and told.reference == kept
    assert told.value == pytest.approx((0.95 - 0.54) * (FIRST - 1))
    assert reference_point([], [], free) is None and hypervolume_of_run(free, [], [], None) is None


def test_of_what_is_minimised_there_is_no_share() -> None:
    run = RUN.model_copy(update={"metric": "rmse", "maximize": False})
    people = [candidate(0, 2.0, 1.0), candidate(1, 1.5, 2.0)]
    made = [evaluation(c).model_copy(update={"metrics": {"rmse": c.score}}) for c in people]
    found = hypervolume_of_run(run, people, made, None)
    assert found is not None and found.share is None
    assert found.value == pytest.approx(0.5 * 2.0)
