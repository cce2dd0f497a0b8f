"""How long models take to answer, and whether an answer would still come within the run's time."""

from __future__ import annotations

from collections.abc import Callable
from statistics import median

from cambrian.agents.errors import LimitReached
from cambrian.agents.planner.exchange import Exchange, ExchangeLog


def time_is_up(wall_s: float | None, left_s: float, needed_s: float = 0.0) -> LimitReached:
    """The error that says so.

    Args:
        wall_s: the run's limit.
        left_s: of it.
        needed_s: what the next answer is expected to take.
    """
    limit = wall_s or 0.0
    return LimitReached("wall_s", limit, limit - max(left_s, 0.0), needed_s)


class Tempo:
    """The durations of a run's answers, by model, those of earlier processes included.

    Args:
        exchanges: read when a time limit first makes them matter.
        wall_s: the run's limit.
        left: seconds of it.
    """

    def __init__(self, exchanges: ExchangeLog, wall_s: float | None, left: Callable[[], float]) -> None:
        self._exchanges, self._wall_s, self._left = exchanges, wall_s, left
        self._took: dict[str, dict[str, float]] | None = None

    def note(self, exchange: Exchange) -> None:
        """Take in an answer; one that is used again counts once."""
        if self._took is not None:
            self._took.setdefault(exchange.model, {})[exchange.id] = exchange.seconds

    def late(self, model: str) -> LimitReached | None:
        """Why `model` is not asked: its answers take longer, by their median, than the run has left."""
        if self._wall_s is None:
            return None
        left = self._left()
        took = self._durations().get(model)
        needed = median(took.values()) if took else 0.0
        return time_is_up(self._wall_s, left, needed) if left <= 0 or needed > left else None

    def _durations(self) -> dict[str, dict[str, float]]:
        if self._took is None:
            self._took = {}
            for exchange in self._exchanges.all():
                if exchange.response is not None:
                    self.note(exchange)
        return self._took
