import random
import statistics

import pytest

from cambrian.agents.evaluator.noise import (
    NoiseFloor,
    fresh_seed,
    groups_of,
    noise_at,
    noise_floor,
    repeats_by_candidate,
)
from cambrian.agents.population.model import Candidate, CandidateState, Evaluation, Proposal
from cambrian.sandbox import Isolation


def test_fresh_seeds_are_their_numbers_own_and_never_the_runs() -> None:
    for seed in (0, 1, 17, fresh_seed(0, 1)):
        seeds = [fresh_seed(seed, number) for number in range(1, 200)]
        assert len(set(seeds)) == 199 and seed not in seeds and min(seeds) > 0
        assert seeds == [fresh_seed(seed, number) for number in range(1, 200)]
    assert fresh_seed(0, 1) != fresh_seed(1, 1)


def test_the_pooled_spread_is_that_of_the_groups_and_its_interval_of_chi_square() -> None:
    floor = noise_floor([(0.90, 0.92, 0.94), (0.5,), (0.80, 0.82)])
    pooled = (2 * statistics.variance((0.90, 0.92, 0.94)) + statistics.variance((0.80, 0.82))) / 3
    assert floor.std == pytest.approx(pooled**0.5)
    assert (floor.degrees, floor.networks, floor.trainings) == (3, 2, 5)
    # chi-square with 3 degrees of freedom: 0.2158 and 9.348; t: 3.182
    assert floor.low == pytest.approx((3 * pooled / 9.348) ** 0.5, rel=1e-3)
    assert floor.high == pytest.approx((3 * pooled / 0.2158) ** 0.5, rel=1e-3)
    assert floor.difference() == pytest.approx(3.182 * (2 * pooled) ** 0.5, rel=1e-3)
    assert floor.difference(3, 2) == pytest.approx(3.182 * (pooled * (1 / 3 + 1 / 2)) ** 0.5, rel=1e-3)
    assert floor.half_width(4) == pytest.approx(3.182 * (pooled / 4) ** 0.5, rel=1e-3)
    assert floor.error == pytest.approx((2 * pooled) ** 0.5)
    words = floor.in_words("accuracy")
    assert "std 1.83 %" in words and "5 trainings of 2 networks" in words


def test_equal_networks_are_called_different_as_often_as_the_test_says() -> None:
    """Two networks of one true score: about 5 % of the differences of their means pass for real."""
    rng, wrong, tries = random.Random(3), 0, 2000
    for _ in range(tries):
        groups = [[rng.gauss(0.9, 0.01) for _ in range(3)] for _ in range(4)]
        floor = noise_floor(groups)
        first, second = (statistics.fmean(group) for group in groups[:2])
        wrong += abs(first - second) > floor.difference(3, 3)
    assert 0.03 < wrong / tries < 0.07


def test_without_repeats_only_the_sample_bounds_the_noise() -> None:
    floor = noise_floor([(0.9,), ()], sampling=0.01)
    assert (floor.std, floor.degrees, floor.half_width(3)) == (None, 0, None)
    assert floor.difference(1, 5) == floor.error == 0.01
    assert "the validation sample alone makes 1.00 points" in floor.in_words("accuracy")
    assert NoiseFloor().in_words("rmse") == "noise not measured"
    calm = noise_floor([(0.9, 0.9)], sampling=0.01)
    assert calm.difference() == 0.01, "a seed that changes nothing does not make the sample larger"


def candidate(cid: str, score: float, rung: int = 0) -> Candidate:
    return Candidate(
        id=cid, index=int(cid[2:]) - 1, proposal=Proposal(arm="mutation", genotype={}), genotype={},
        state=CandidateState.EVALUATED, score=score, rung=rung, rung_scores=(score,) * (rung + 1),
    )  # fmt: skip


def evaluation(cid: str, score: float | None, seed: int, rung: int = 0) -> Evaluation:
    metrics = {} if score is None else {"accuracy": score}
    return Evaluation(
        candidate_id=cid, rung=rung, seed=seed, epochs=1, state="trained" if metrics else "timeout",
        metrics=metrics, test_metrics=metrics, isolation=Isolation(level="process"),
    )  # fmt: skip


def test_the_score_that_chose_a_champion_is_no_part_of_the_noise() -> None:
    evaluations = [
        evaluation("c-0001", 0.90, 0), evaluation("c-0001", 0.91, 11), evaluation("c-0001", 0.92, 12),
        evaluation("c-0002", 0.99, 0), evaluation("c-0002", 0.93, 11), evaluation("c-0002", None, 12),
        evaluation("c-0002", 0.95, 11, rung=1),
    ]  # fmt: skip
    repeats = repeats_by_candidate(evaluations, metric="accuracy", seed=0)
    assert set(repeats) == {("c-0001", 0), ("c-0002", 0), ("c-0002", 1)}
    assert repeats["c-0002", 0].failed == 1 and repeats["c-0002", 0].mean == 0.93
    assert repeats["c-0001", 0].std == pytest.approx(0.01 / 2**0.5)
    people = [candidate("c-0001", 0.90), candidate("c-0002", 0.99, rung=1)]
    assert groups_of(people, repeats, {"c-0002"}) == {
        ("c-0001", 0): (0.90, 0.91, 0.92),
        ("c-0002", 0): (0.93,),
        ("c-0002", 1): (0.95,),
    }


def test_a_rung_with_enough_repeats_stands_for_itself() -> None:
    """Short trainings scatter more; their noise must not hide differences of long ones."""
    short, long_ = {("c-0001", 0): (0.80, 0.86, 0.90, 0.92)}, {("c-0002", 1): (0.951, 0.953)}
    few = noise_at(1, short | long_, sampling=0.001)
    assert few.rung is None and few.degrees == 4 and few.std is not None and few.std > 0.03
    long_ |= {("c-0003", 1): (0.961, 0.963), ("c-0004", 1): (0.941, 0.942)}
    own = noise_at(1, short | long_, sampling=0.001)
    assert own.rung == 1 and own.degrees == 3 and own.std is not None and own.std < 0.002
    assert "noise over seeds at rung 1: std" in own.in_words("accuracy")
