import random

import pytest

from cambrian.agents.evaluator.ranking import ParetoFront, broken
from cambrian.agents.sections import Constraint


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
