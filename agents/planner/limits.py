"""The limits of what models may cost: tokens, money, calls and time, of the run and of single roles.

They are checked before a question is sent. What is under way counts in full, with an answer of the greatest
length and a prompt of more tokens than is likely, so that slots cannot overshoot together: a question that
would only fit if those under way stayed small waits for them. Of the question itself only the prompt is
counted beforehand; so a limit is overshot by the answer of one call at most. How long an answer takes is not
known beforehand: a role's time is overshot by what is under way when it is up.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass

from cambrian.agents.errors import LimitReached
from cambrian.agents.planner.exchange import ExchangeLog, Spent, Usage
from cambrian.agents.planner.prices import cost
from cambrian.agents.sections import BudgetSection, LLMSection, PriceSection, Role

LIKELY_CHARS, LEAST_CHARS = 4, 2
"""Characters a token: of most prompts, and of those with the most tokens that are likely (dense JSON)."""

EVERYBODY = ""
"""Stands for all models where one is named."""


@dataclass(frozen=True, eq=False)
class Load:
    """What one question may cost.

    Attributes:
        prompt_chars: of all messages.
        answer_tokens: the most that is asked for.
        price: None when unknown, which counts as nothing.
        model: that is asked.
    """

    role: Role
    prompt_chars: int
    answer_tokens: int = 0
    price: PriceSection | None = None
    model: str = ""

    @property
    def prompt(self) -> Usage:
        """What the prompt alone is likely to cost."""
        return Usage(prompt_tokens=-(-self.prompt_chars // LIKELY_CHARS))

    @property
    def whole(self) -> Usage:
        """What all of it costs at the most, as far as one can tell."""
        tokens = -(-self.prompt_chars // LEAST_CHARS)
        return Usage(prompt_tokens=tokens, completion_tokens=self.answer_tokens)

    def money(self, usage: Usage) -> float:
        """US dollars for `usage`."""
        return 0.0 if self.price is None else cost(usage, self.price)


class Limits:
    """Lets questions through while they fit; shared by all clients of a run.

    Args:
        exchanges: what is spent.
        budget: `tokens`, `calls` and `money` of the whole run.
        llm: its `roles` have limits of their own.
    """

    def __init__(
        self, exchanges: ExchangeLog, budget: BudgetSection | None = None, llm: LLMSection | None = None
    ) -> None:
        self._exchanges = exchanges
        self._budget = budget or BudgetSection()
        self._llm = llm or LLMSection()
        self._refused: dict[str, LimitReached] = {}
        self._under_way: list[Load] = []
        self._waiting: list[asyncio.Future[None]] = []

    async def enter(self, load: Load) -> None:
        """Note a question as under way, as soon as it fits; `leave` must follow when it is answered or not.

        Raises:
            LimitReached: it does not fit even when nothing else is under way.
        """
        while True:
            self.check(load.role)
            if reached := self._reached(load, []):
                if load.role == "propose":  # these are all of a length, and who waits for one must know
                    of_money = reached.kind.endswith("money")  # all else is the same whoever is asked
                    self._refused[load.model if of_money else EVERYBODY] = reached
                raise reached
            if not self._under_way or self._reached(load, self._under_way) is None:
                self._under_way.append(load)
                return
            landed = asyncio.get_running_loop().create_future()
            self._waiting.append(landed)
            await landed

    def leave(self, load: Load) -> None:
        """A question is no longer under way, and what it cost is written down."""
        self._under_way.remove(load)
        waiting, self._waiting = self._waiting, []
        for landed in waiting:
            if not landed.done():  # one that was cancelled while it waited
                landed.set_result(None)

    def check(self, role: Role) -> None:
        """What must hold before each request that leaves, retries included.

        Raises:
            LimitReached: something is spent.
        """
        own, log = self._llm.role(role), self._exchanges
        if self._budget.calls is not None and log.calls >= self._budget.calls:
            raise LimitReached("calls", self._budget.calls, log.calls)
        mine = self._spent(role)
        if own.calls is not None and mine.calls >= own.calls:
            raise LimitReached(f"{role}.calls", own.calls, mine.calls)
        if own.wall_s is not None and mine.seconds >= own.wall_s:
            raise LimitReached(f"{role}.wall_s", own.wall_s, mine.seconds)
        if reached := self._reached(Load(role, 0), []):
            raise reached

    def spent(self, role: Role, model: str = EVERYBODY) -> LimitReached | None:
        """Why `role` may ask nothing more, also as its last question did not fit; None while it may.

        Args:
            role: that asks.
            model: counts what did not fit as this one is too dear; else only what fits with nobody.
        """
        if role == "propose" and (refused := self._refused.get(EVERYBODY) or self._refused.get(model)):
            return refused
        try:
            self.check(role)
        except LimitReached as reached:
            return reached
        return None

    def _spent(self, role: Role) -> Spent:
        """What `role` cost; not looked for where it has no limit of its own."""
        own = self._llm.role(role)
        limited = any(each is not None for each in (own.calls, own.tokens, own.money, own.wall_s))
        return self._exchanges.by_role().get(role, Spent()) if limited else Spent()

    def _reached(self, load: Load, others: list[Load]) -> LimitReached | None:
        for kind, limit, used, reserved, coming in self._measures(load, others):
            if used >= limit or used + reserved + coming > limit:
                return LimitReached(kind, limit, used, coming)
        return None

    def _measures(self, load: Load, others: list[Load]) -> Iterator[tuple[str, float, float, float, float]]:
        """Kind, limit, used, under way, about to be used."""
        budget, own, log = self._budget, self._llm.role(load.role), self._exchanges
        coming, dear = load.prompt.tokens, load.money(load.prompt)
        spent = self._spent(load.role)
        same = [other for other in others if other.role == load.role]
        if budget.tokens is not None:
            yield "tokens", budget.tokens, log.tokens, _tokens(others), coming
        if own.tokens is not None:
            yield f"{load.role}.tokens", own.tokens, spent.tokens, _tokens(same), coming
        if budget.money is not None:
            yield "money", budget.money, log.known_money, _money(others), dear
        if own.money is not None:
            yield f"{load.role}.money", own.money, spent.known_money, _money(same), dear


def _tokens(under_way: list[Load]) -> int:
    return sum(load.whole.tokens for load in under_way)


def _money(under_way: list[Load]) -> float:
    return sum(load.money(load.whole) for load in under_way)
