import pytest

from cambrian.agents.evaluator.leaderboard import leaderboard
from cambrian.agents.evaluator.noise import NoiseFloor, Repeats, noise_floor
from cambrian.agents.evaluator.ranking import soft_latency
from cambrian.agents.population.model import Candidate, CandidateState, Proposal, candidate_id
from cambrian.sandbox.examination.report import StaticFacts


def candidate(index: int, score: float | None, *, arm: str = "mutation", **changes: object) -> Candidate:
    data = {
        "id": candidate_id(index),
        "index": index,
        "proposal": Proposal(arm=arm, genotype={}),
        "genotype": {},
        "state": CandidateState.EVALUATED,
        "score": score,
        "rung": 0,
        "cost": 1.0,
    }
    return Candidate.model_validate({**data, **changes})


class TestLeaderboard:
    def test_only_feasible_evaluated_ones_stand(self) -> None:
        board = leaderboard(
            [
                candidate(0, 0.5),
                candidate(1, 0.9, feasible=False),
                candidate(2, 0.9, state=CandidateState.FAILED),
                candidate(3, None, state=CandidateState.SCREENED),
                candidate(4, 0.6, static=StaticFacts(parameters=12, flops=1, peak_memory_mb=1, depth=1)),
            ]
        )
        assert [line.id for line in board] == ["c-0005", "c-0001"]
        assert [line.place for line in board] == [1, 2]
        assert [line.parameters for line in board] == [12, None]

    def test_a_higher_rung_stands_above(self) -> None:
        board = leaderboard([candidate(0, 0.9), candidate(1, 0.8, rung=1)])
        assert [line.rung for line in board] == [1, 0]

    def test_ties_go_to_the_cheaper_then_the_older(self) -> None:
        board = leaderboard(
            [candidate(2, 0.5, cost=None), candidate(1, 0.5), candidate(0, 0.5), candidate(3, 0.5, cost=0.5)]
        )
        assert [line.id for line in board] == ["c-0004", "c-0001", "c-0002", "c-0003"]

    def test_what_is_minimised_is_ranked_upwards(self) -> None:
        board = leaderboard([candidate(0, 0.5), candidate(1, 0.4)], maximize=False)
        assert board[0].id == "c-0002" and board[0].score == 0.4

    def test_marks_ties_within_the_noise_at_the_same_rung(self) -> None:
        bound = {rung: NoiseFloor(sampling=0.01) for rung in (0, 1)}
        people = [candidate(0, 0.9), candidate(1, 0.895), candidate(2, 0.85), candidate(3, 0.9, rung=1)]
        assert [line.tied for line in leaderboard(people[:3], noise=bound)] == [False, True, False]
        assert [line.tied for line in leaderboard(people, noise=bound)] == [False] * 4

    def test_marks_the_front(self) -> None:
        people = [candidate(0, 0.9, cost=3.0), candidate(1, 0.8, cost=1.0), candidate(2, 0.7, cost=2.0)]
        assert [line.on_front for line in leaderboard(people)] == [True, True, False]

    def test_of_nobody_is_empty(self) -> None:
        assert leaderboard([]) == ()

    def test_champions_stand_by_their_means_over_fresh_seeds(self) -> None:
        """The luckiest when chosen is not the best; the fourth was never verified."""
        people = [candidate(n, score) for n, score in enumerate((0.99, 0.97, 0.96, 0.95))]
        told = dict(
            again(n, *scores) for n, scores in ((0, (0.90, 0.92)), (1, (0.96, 0.94)), (2, (0.93, 0.95)))
        )
        floor = noise_floor([made.scores for made in told.values()])
        board = leaderboard(people, repeats=told, champions=ids(3), noise={0: floor})
        assert [line.id for line in board] == ["c-0002", "c-0003", "c-0001", "c-0004"]
        assert [line.champion for line in board] == [True, True, True, False]
        assert board[0].mean == pytest.approx(0.95) and board[0].score == 0.97 and board[0].seeds == 2
        assert board[0].test_mean == pytest.approx(0.94) and board[0].std == pytest.approx(0.02 / 2**0.5)
        assert floor.half_width(2) == board[0].half_width
        # 3 degrees of freedom: t = 3.182, so that means over two seeds differ from 4.5 points on
        assert [line.tied for line in board] == [False, True, True, True]
        sharp = leaderboard(people, repeats=told, champions=ids(3), noise={0: NoiseFloor(sampling=0.015)})
        assert [line.tied for line in sharp] == [False, True, False, True]

    def test_repeats_of_who_is_no_champion_are_shown_and_rank_nobody(self) -> None:
        people = [candidate(0, 0.9), candidate(1, 0.8)]
        board = leaderboard(people, repeats=dict([again(1, 0.99, 0.97)]))
        assert [(line.id, line.champion, line.mean) for line in board] == [
            ("c-0001", False, None),
            ("c-0002", False, pytest.approx(0.98)),
        ]

    def test_a_champion_whose_repeats_all_failed_keeps_its_place_by_its_score(self) -> None:
        people = [candidate(0, 0.9), candidate(1, 0.8)]
        failed = Repeats(candidate_id="c-0001", rung=0, scores=(), test_scores=(), failed=2)
        board = leaderboard(
            people, repeats={("c-0001", 0): failed, **dict([again(1, 0.7)])}, champions=ids(2)
        )
        assert [(line.id, line.champion) for line in board] == [("c-0002", True), ("c-0001", False)]

    def test_a_slow_one_needs_a_better_score(self) -> None:
        """At twice the target the paper's exponent takes 4.7 % of the score."""
        factor = soft_latency(4.0, 2.0, -0.07)
        assert factor == pytest.approx(0.9526, abs=1e-4)
        people = [candidate(0, 0.94), candidate(1, 0.97, latency_factor=factor)]
        board = leaderboard(people)
        assert [line.id for line in board] == ["c-0001", "c-0002"]
        assert [line.reward for line in board] == [None, pytest.approx(0.97 * factor)]
        minimised = leaderboard(
            [candidate(0, 0.50), candidate(1, 0.49, latency_factor=factor)], maximize=False
        )
        assert [line.id for line in minimised] == ["c-0001", "c-0002"]
        negative = leaderboard([candidate(0, -0.10), candidate(1, -0.098, latency_factor=factor)])
        assert [line.id for line in negative] == ["c-0001", "c-0002"]


def again(index: int, *scores: float) -> tuple[tuple[str, int], Repeats]:
    cid = candidate_id(index)
    test = tuple(score - 0.01 for score in scores)
    return (cid, 0), Repeats(candidate_id=cid, rung=0, scores=scores, test_scores=test)


def ids(n: int) -> set[str]:
    return {candidate_id(index) for index in range(n)}
