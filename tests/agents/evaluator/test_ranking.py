import random

import pytest

from cambrian.agents.evaluator.ranking import ParetoFront, broken, leaderboard
from cambrian.agents.population.model import Candidate, CandidateState, Proposal, candidate_id
from cambrian.agents.sections import Constraint
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


class TestBroken:
    @pytest.mark.parametrize(
        ("constraint", "value", "text"),
        [
            ("latency_ms <= 2", 2.714, "latency_ms 2.71 > 2"),
            ("latency_ms <= 2", 2.00001, "latency_ms 2.00001 > 2"),
            ("params <= 100k", 100_001.0, "params 100001 > 100000"),
            ("params >= 1k", 12.0, "params 12 < 1000"),
            ("memory_mb <= 64", float("nan"), "memory_mb nan > 64"),
            ("flops <= 1m", float("inf"), "flops inf > 1e+06"),
        ],
    )
    def test_says_what_is_broken_and_by_what(self, constraint: str, value: float, text: str) -> None:
        parsed = Constraint.parse(constraint)
        assert broken([parsed], {parsed.name: value}) == [text]

    def test_bounds_are_inclusive(self) -> None:
        bounds = [Constraint.parse("latency_ms <= 2"), Constraint.parse("params >= 1k")]
        assert broken(bounds, {"latency_ms": 2.0, "params": 1000.0}) == []

    def test_unknown_values_are_not_broken_yet(self) -> None:
        assert broken([Constraint.parse("latency_ms <= 2")], {"params": 5.0}) == []

    def test_tells_all_of_them(self) -> None:
        bounds = [Constraint.parse("latency_ms <= 2"), Constraint.parse("params <= 1k")]
        assert len(broken(bounds, {"latency_ms": 3.0, "params": 2000.0})) == 2


def dominated(point: tuple[float, float], others: list[tuple[float, float]], sign: int) -> bool:
    return any(
        sign * other[0] >= sign * point[0] and other[1] <= point[1] and other != point for other in others
    )


class TestParetoFront:
    @pytest.mark.parametrize("maximize", [True, False])
    def test_equals_the_definition(self, maximize: bool) -> None:
        """Against brute force, on a grid so coarse that ties of every kind occur."""
        for seed in range(60):
            rng = random.Random(seed)
            front, points = ParetoFront(maximize=maximize), {}
            for n in range(40):
                point = (float(rng.randrange(8)), float(rng.randrange(8)))
                inside = front.add(f"c{n}", *point)
                points[f"c{n}"] = point
                assert inside == (f"c{n}" in front)
            sign = 1 if maximize else -1
            wanted = {p for p in points.values() if not dominated(p, list(points.values()), sign)}
            found = [(point.score, point.cost) for point in front.points()]
            assert set(found) == wanted
            assert len(found) == len(wanted) == len(front)
            assert found == sorted(found, key=lambda point: -sign * point[0])

    def test_the_first_of_equals_stands(self) -> None:
        front = ParetoFront()
        assert front.add("a", 1.0, 1.0)
        assert not front.add("b", 1.0, 1.0)
        assert "a" in front and "b" not in front

    def test_a_changed_point_equals_a_fresh_front(self) -> None:
        rng = random.Random(4)
        front, points = ParetoFront(), {}
        for _ in range(300):
            name = f"c{rng.randrange(25)}"
            points[name] = (float(rng.randrange(6)), float(rng.randrange(6)))
            front.add(name, *points[name])
            fresh = ParetoFront()
            for each, point in points.items():
                fresh.add(each, *point)
            assert front.points() == fresh.points()

    @pytest.mark.parametrize("values", [(float("nan"), 1.0), (1.0, float("inf"))])
    def test_refuses_what_is_not_finite(self, values: tuple[float, float]) -> None:
        with pytest.raises(ValueError, match="c-0001"):
            ParetoFront().add("c-0001", *values)


class TestLeaderboard:
    def test_only_feasible_evaluated_ones_stand(self) -> None:
        board = leaderboard(
            [
                candidate(0, 0.5),
                candidate(1, 0.9, feasible=False),
                candidate(2, 0.9, state=CandidateState.FAILED),
                candidate(3, None, state=CandidateState.SCREENED),
                candidate(4, 0.6, static=StaticFacts(parameters=12, flops=1, peak_memory_mb=1, depth=1)),
            ],
            10,
        )
        assert [line.id for line in board] == ["c-0005", "c-0001"]
        assert [line.place for line in board] == [1, 2]
        assert [line.parameters for line in board] == [12, None]

    def test_a_higher_rung_stands_above(self) -> None:
        board = leaderboard([candidate(0, 0.9), candidate(1, 0.8, rung=1)], 2)
        assert [line.rung for line in board] == [1, 0]

    def test_ties_go_to_the_cheaper_then_the_older(self) -> None:
        board = leaderboard(
            [candidate(2, 0.5, cost=None), candidate(1, 0.5), candidate(0, 0.5), candidate(3, 0.5, cost=0.5)],
            4,
        )
        assert [line.id for line in board] == ["c-0004", "c-0001", "c-0002", "c-0003"]

    def test_what_is_minimised_is_ranked_upwards(self) -> None:
        board = leaderboard([candidate(0, 0.5), candidate(1, 0.4)], 1, maximize=False)
        assert board[0].id == "c-0002" and board[0].score == 0.4

    def test_marks_ties_within_the_noise_at_the_same_rung(self) -> None:
        people = [candidate(0, 0.9), candidate(1, 0.895), candidate(2, 0.85), candidate(3, 0.9, rung=1)]
        assert [line.tied for line in leaderboard(people[:3], 3, noise=0.01)] == [False, True, False]
        assert [line.tied for line in leaderboard(people, 4, noise=0.01)] == [False] * 4

    def test_marks_the_front(self) -> None:
        people = [candidate(0, 0.9, cost=3.0), candidate(1, 0.8, cost=1.0), candidate(2, 0.7, cost=2.0)]
        assert [line.on_front for line in leaderboard(people, 3)] == [True, True, False]

    def test_of_nobody_is_empty(self) -> None:
        assert leaderboard([], 5) == ()
