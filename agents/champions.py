"""The last step of a run: its best are trained again with fresh seeds, and ranked by what comes of that.

The best of many noisy scores is partly the luckiest. So the first places of the leaderboard are decided by
scores that chose nobody: the mean over fresh seeds. Who is trained again follows from the ranking when the
search is over, where an earlier champion of a run that has got a larger budget counts with its mean. The
search leaves that many evaluations of the budget, and that much of its time.

Whose turn it is is decided once and kept in the store; all else follows from the store, as for the factorial.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict

from cambrian.agents.evaluator.noise import Repeats, repeats_by_candidate
from cambrian.agents.evaluator.ranking import rank_key
from cambrian.agents.population.model import Candidate
from cambrian.agents.repeats import NOISE_KEY, Order, Repeat, missing
from cambrian.search_spaces import TabularTask

if TYPE_CHECKING:
    from cambrian.agents.lifecycle import Services

CHAMPIONS_KEY = "champions"
"""Under this key the store keeps the plan."""


class ChampionsPlan(BaseModel):
    """Who is trained again.

    Attributes:
        budget: of the run when it was made; another budget means another plan.
        search_ended: why.
        orders: best first.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    budget: dict[str, Any]
    search_ended: str
    orders: tuple[Order, ...] = ()

    def ids(self) -> frozenset[str]:
        """Of those who are trained again."""
        return frozenset(order.candidate for order in self.orders)


class Champions:
    """What the discovery loop asks about the champions.

    Args:
        services: of the run.

    Attributes:
        plan: None while the search goes on.
    """

    purpose = "repeats of the best"

    def __init__(self, services: Services) -> None:
        self._do = services
        self._budget = services.config.budget.model_dump(mode="json")
        self.plan = read_champions(services.store.get_meta(CHAMPIONS_KEY), self._budget)

    def kept(self, expected: float) -> int:
        """Evaluations that the search has to leave, in a run of `expected` evaluations."""
        if self.plan is not None:
            return 0
        top, seeds = self._counts(expected)
        return top * seeds

    def missing(self, expected: float) -> int:
        """Evaluations that the repeats need if the search ends now."""
        if self.plan is not None:
            return 0
        return len(self._lacking(self._orders(expected)))

    def begin(self, search_ended: str, expected: float) -> ChampionsPlan:
        """Decide who is trained again; the search is over, and nothing is under way."""
        orders = self._orders(expected)
        plan = ChampionsPlan(budget=self._budget, search_ended=search_ended, orders=tuple(orders))
        self._do.store.set_meta(CHAMPIONS_KEY, plan.model_dump_json())
        self.plan = plan
        return plan

    def step(self, busy: Collection[str]) -> Repeat | None:
        """The next repeat to start; None when all are made or their candidates are `busy`."""
        return next((repeat for repeat in self._open() if repeat.candidate not in busy), None)

    def is_open(self) -> bool:
        """Whether a repeat is still to be made."""
        return bool(self._open())

    def _open(self) -> list[Repeat]:
        orders = self.plan.orders if self.plan is not None else ()
        return self._lacking([o for o in orders if self._do.population.get(o.candidate).score is not None])

    def _lacking(self, orders: Sequence[Order]) -> list[Repeat]:
        if not orders:
            return []
        return missing(orders, self._do.store.evaluations(), self._do.config.seed, believed=True)

    def _counts(self, expected: float) -> tuple[int, int]:
        section, task = self._do.config.champions, self._do.task
        if section.top is None and section.seeds is None and isinstance(task, TabularTask):
            return 0, 0  # what is looked up again is the same again
        return section.counts(expected)

    def _orders(self, expected: float) -> list[Order]:
        top, seeds = self._counts(expected)
        if not top:
            return []
        store, config, task = self._do.store, self._do.config, self._do.task
        repeats = repeats_by_candidate(store.evaluations(), metric=task.metric, seed=config.seed)
        best = sorted(
            (
                (key, c)
                for c in self._do.population.elite(len(self._do.population))
                if (key := rank_key(told(c, repeats), task.maximize)) is not None
            ),
            key=lambda entry: entry[0],
        )
        return [Order(candidate=c.id, rung=c.rung, seeds=seeds) for _, c in best[:top]]


def told(candidate: Candidate, repeats: Mapping[tuple[str, int], Repeats]) -> Candidate:
    """The candidate with its mean over fresh seeds for its score, if it was repeated at its rung."""
    made = repeats.get((candidate.id, candidate.rung))
    return (
        candidate if made is None or made.mean is None else candidate.model_copy(update={"score": made.mean})
    )


def read_champions(text: str | None, budget: Mapping[str, Any]) -> ChampionsPlan | None:
    """The plan that the store keeps; None when there is none, or when it was made for another budget."""
    plan = None if text is None else ChampionsPlan.model_validate_json(text)
    return plan if plan is not None and plan.budget == budget else None


__all__ = ["CHAMPIONS_KEY", "NOISE_KEY", "Champions", "ChampionsPlan", "read_champions", "told"]
