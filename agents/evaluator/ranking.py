"""Constraints, the order of candidates, and the Pareto front of score and cost."""

from __future__ import annotations

import bisect
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from cambrian.agents.population.model import Candidate, CandidateState
from cambrian.agents.sections import Constraint


def broken(constraints: Iterable[Constraint], values: Mapping[str, float]) -> list[str]:
    """The constraints that `values` break, each as `latency_ms 2.71 > 2`.

    A constraint on a value that is not known yet (no latency before the sandbox has run) is not broken.
    A value that is no number breaks every constraint on it.
    """
    found = []
    for constraint in constraints:
        value = values.get(constraint.name)
        if value is None or constraint.holds(value):
            continue
        sign = ">" if constraint.op == "<=" else "<"
        found.append(f"{constraint.name} {_shown(value, constraint.bound)} {sign} {constraint.bound:g}")
    return found


def _shown(value: float, bound: float) -> str:
    """`value` in as few digits as tell it from `bound`: never `2 > 2`."""
    if value.is_integer() and abs(value) < 1e15:
        return str(int(value))
    texts = (f"{value:.{digits}g}" for digits in range(3, 17))
    return next((text for text in texts if not math.isclose(float(text), bound, rel_tol=1e-12)), repr(value))


def soft_latency(latency_ms: float | None, target_ms: float | None, exponent: float) -> float:
    """What MnasNet weighs a score with: (latency / target)^exponent (Tan et al., arXiv 1807.11626, eq. 2).

    1 where there is no target, and for a latency that was not measured.
    """
    if target_ms is None or latency_ms is None or latency_ms <= 0:
        return 1.0
    return math.pow(latency_ms / target_ms, exponent)


@dataclass(frozen=True)
class Point:
    """A member of a Pareto front: `score` in the metric's own sense, `cost` to be minimised."""

    id: str
    score: float
    cost: float


class ParetoFront:
    """The candidates that no other beats in score and cost at once, kept up to date one by one.

    Of points that are equal in both, the first one added stands for all. Adding a new point costs O(log n)
    plus the number of points that it drives out. A point whose values got worse (a score re-read at a higher
    rung) may uncover others; only then is the front built anew, from all points ever added.

    Args:
        maximize: whether a higher score is better.
    """

    def __init__(self, *, maximize: bool = True) -> None:
        self._sign = 1.0 if maximize else -1.0
        self._all: dict[str, Point] = {}
        # Cheapest first; along it the score (times sign) rises strictly.
        self._front: list[Point] = []

    def add(self, id: str, score: float, cost: float) -> bool:
        """Add a point, or change the one of this id; whether it is on the front now.

        Raises:
            ValueError: score or cost is not finite.
        """
        if not (math.isfinite(score) and math.isfinite(cost)):
            raise ValueError(f"{id}: score {score} and cost {cost} must be finite")
        point, old = Point(id, score, cost), self._all.get(id)
        self._all[id] = point
        if old is None:
            return self._place(point)
        if old == point:
            return any(member.id == id for member in self._front)
        self._front = []
        for each in self._all.values():
            self._place(each)
        return any(member.id == id for member in self._front)

    def remove(self, id: str) -> None:
        """Take a point away, if it was ever added; those that it hid come back."""
        if self._all.pop(id, None) is None or id not in self:
            return
        self._front = []
        for each in self._all.values():
            self._place(each)

    def points(self) -> list[Point]:
        """The front, best score first."""
        return self._front[::-1]

    def __len__(self) -> int:
        return len(self._front)

    def __contains__(self, id: object) -> bool:
        return any(member.id == id for member in self._front)

    def _place(self, point: Point) -> bool:
        good = self._sign * point.score
        at = bisect.bisect_right(self._front, point.cost, key=lambda member: member.cost)
        if at and self._sign * self._front[at - 1].score >= good:
            return False  # a member that costs no more is at least as good
        start = at
        if at and self._front[at - 1].cost == point.cost:
            start -= 1
        end = at
        while end < len(self._front) and self._sign * self._front[end].score <= good:
            end += 1
        self._front[start:end] = [point]
        return True


RankKey = tuple[int, float, float, int]


def rank_key(candidate: Candidate, maximize: bool) -> RankKey | None:
    """What candidates are ranked by, smaller is better; None for one that does not rank.

    A higher rung stands above a lower one, whatever the scores: scores after different numbers of epochs do
    not compare, and who reached a higher rung was among the best of the one below. Within a rung the better
    score stands first, weighed by latency where the run asks for that, then the lower cost, then the older
    candidate.
    """
    if candidate.state is not CandidateState.EVALUATED or not candidate.feasible or candidate.score is None:
        return None
    worth = candidate.reward(candidate.score, maximize)
    score = -worth if maximize else worth
    return (-candidate.rung, score, math.inf if candidate.cost is None else candidate.cost, candidate.index)
