"""The account of a run: every budget is a limit of one kind, checked before spending, with one error."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

from cambrian.agents.errors import LimitReached
from cambrian.agents.sections import BudgetSection


class Account:
    """What a run may spend and what it has spent.

    Evaluations are reserved before a candidate starts and settled when it lands, so that several slots
    cannot overshoot together.

    Args:
        budget: the limits.
        evaluations: already made, of a resumed run.
        elapsed_s: active seconds already spent, of a resumed run.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        budget: BudgetSection,
        *,
        evaluations: int = 0,
        elapsed_s: float = 0.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.budget = budget
        self.evaluations = evaluations
        self.reserved = 0
        self._before_s = elapsed_s
        self._clock = clock
        self._start = clock()

    @property
    def elapsed_s(self) -> float:
        """Seconds that the run was active, over all resumes; waiting for a reviewer is no activity."""
        return self._before_s + self._clock() - self._start

    def excuse(self, seconds: float) -> None:
        """Do not count `seconds` that have just passed."""
        self._start += seconds

    def reserve(self, *, force: bool = False, keep: int = 0) -> bool:
        """Set one evaluation aside; False when those in flight may use up what is left.

        Args:
            force: reserve whatever the limits say, for what was started within them.
            keep: evaluations to leave for later.

        Raises:
            LimitReached: time or evaluations are spent: nothing new may start.
        """
        limits = self.budget
        if force:
            self.reserved += 1
            return True
        if limits.wall_s is not None and self.elapsed_s >= limits.wall_s:
            raise LimitReached("wall_s", limits.wall_s, self.elapsed_s)
        if limits.evaluations is not None:
            if self.evaluations + keep >= limits.evaluations:
                raise LimitReached("evaluations", limits.evaluations, self.evaluations)
            if self.evaluations + self.reserved + keep >= limits.evaluations:
                return False
        self.reserved += 1
        return True

    def settle(self, made: int) -> None:
        """Turn one reservation into the evaluations that were really made (none for a duplicate)."""
        self.reserved -= 1
        self.evaluations += made

    def left(self) -> float:
        """Share of the budget that is left, 0 to 1: of the kind that is nearest to its end."""
        shares = [1.0]
        if self.budget.evaluations is not None:
            shares.append(1 - self.evaluations / self.budget.evaluations)
        if self.budget.wall_s is not None:
            shares.append(1 - self.elapsed_s / self.budget.wall_s)
        return max(0.0, min(shares))

    def seconds_left(self) -> float:
        """Seconds of the time budget that are left; infinite without one."""
        wall_s = self.budget.wall_s
        return math.inf if wall_s is None else max(0.0, wall_s - self.elapsed_s)

    def describe(self) -> str:
        """What is spent of what, for a progress line: `37/60 evaluations, 2:10/5:00`."""
        parts = []
        most = self.budget.evaluations
        parts.append(f"{self.evaluations}{f'/{most}' if most is not None else ''} evaluations")
        wall = self.budget.wall_s
        parts.append(clock_text(self.elapsed_s) + (f"/{clock_text(wall)}" if wall is not None else ""))
        return ", ".join(parts)


def clock_text(seconds: float) -> str:
    """`m:ss` or `h:mm:ss`."""
    whole = int(seconds)
    hours, rest = divmod(whole, 3600)
    minutes, secs = divmod(rest, 60)
    return f"{hours}:{minutes:02d}:{secs:02d}" if hours else f"{minutes}:{secs:02d}"
