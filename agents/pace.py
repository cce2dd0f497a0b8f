"""How long a run's evaluations take, and how many of them its budget allows."""

from __future__ import annotations

import math
from collections.abc import Iterable

from cambrian.agents.population.model import Evaluation
from cambrian.agents.sections import BudgetSection


class Pace:
    """Mean durations by rung: of this process, or, before it has any, those that the store tells.

    Args:
        evaluations: of a resumed run.
    """

    def __init__(self, evaluations: Iterable[Evaluation] = ()) -> None:
        self._before: dict[int, tuple[int, float]] = {}
        self._now: dict[int, tuple[int, float]] = {}
        for evaluation in evaluations:
            _add(self._before, evaluation.rung, evaluation.wall_s)

    def note(self, rung: int, took_s: float) -> None:
        """Take in how long an evaluation at `rung` took, with all that belongs to it."""
        _add(self._now, rung, took_s)

    def mean_s(self, rung: int) -> float:
        """Mean seconds of an evaluation at `rung`; 0 while there was none."""
        count, total = self._now.get(rung) or self._before.get(rung, (0, 0.0))
        return total / count if count else 0.0

    def expected(self, budget: BudgetSection, slots: int) -> float:
        """Evaluations that `budget` allows; of one that limits time alone 0 until one at rung 0 was timed."""
        most = math.inf if budget.evaluations is None else float(budget.evaluations)
        if budget.wall_s is None:
            return most
        mean = self.mean_s(0)
        if not mean:
            return most if most < math.inf else 0.0
        return min(most, slots * budget.wall_s / mean)


def _add(durations: dict[int, tuple[int, float]], rung: int, took_s: float) -> None:
    count, total = durations.get(rung, (0, 0.0))
    durations[rung] = (count + 1, total + took_s)
