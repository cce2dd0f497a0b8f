"""Asking ahead: proposals of slow arms, asked for before a slot needs them.

A model takes seconds to minutes to answer, and a slot that waits for it trains nothing. So calls run in the
background, beside the trainings, and what they bring is kept ready until the portfolio gives their arm a
place. It was thought of with what was known when it was asked for, a few candidates ago, as everything is in
a search without generations.

What is ready was paid for: it is kept in the store, outlives a kill, and is used before anything is asked
again. A ready proposal is dropped only when a candidate of the same genotype was entered after it had been
asked for: its author could not know. One that repeats what it was told of enters the population as the
duplicate that it is, for all to see.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Protocol, runtime_checkable

from pydantic import BaseModel, ConfigDict

from cambrian.agents.errors import CambrianError, ProposalError
from cambrian.agents.planner.arm import Arm, PopulationView, ProposalContext
from cambrian.agents.planner.evolution import fingerprint
from cambrian.agents.population.model import Proposal, candidate_id
from cambrian.agents.population.store import PopulationStore
from cambrian.agents.population.view import Population
from cambrian.agents.sections import LLMSection
from cambrian.search_spaces import Genotype, Space

log = logging.getLogger(__name__)

AHEAD_KEY = "ahead"
"""Under this key the store keeps what is ready and what is asked for."""
LAST_ANSWER_S = 30.0
"""How long the end of a run waits for answers that are under way: most of them are paid for in any case."""


@runtime_checkable
class AsksModels(Protocol):
    """What an arm with a model behind it can tell beside the `Arm` protocol."""

    def batch(self, missing: int, wanted: int) -> int:
        """Proposals to ask for in one call when `missing` of `wanted` are; 0 to wait until more are."""
        ...

    def gone(self) -> CambrianError | None:
        """Why no model can be asked any more; None while one can, or may soon be tried again."""
        ...

    def recover(self, context: ProposalContext, n: int) -> list[Proposal]:
        """What a question of an earlier process has brought; nothing where it was not answered."""
        ...


def last_answer_s(llm: LLMSection, places_left: float, seconds_left: float) -> float:
    """How long the end of a run waits for answers under way, in seconds.

    Not at all for a local model whose proposals find no place any more: they cost nothing, and it would be
    asked in vain.

    Args:
        llm: `local` and `models` are used.
        places_left: for proposals.
        seconds_left: of the run's time budget.
    """
    free = llm.local is not None and not llm.models
    return 0.0 if free and places_left <= 0 else min(LAST_ANSWER_S, max(seconds_left, 0.0))


class Stocked:
    """An arm that has its turn for as long as something of it is ready, whether or not it can be asked.

    Args:
        arm: the arm itself.
        ready: how many of its proposals wait for a place.
    """

    def __init__(self, arm: Arm, ready: Callable[[str], int]) -> None:
        self.name, self.control, self.cheap = arm.name, arm.control, arm.cheap
        self._arm, self._stock = arm, ready

    def ready(self, population: PopulationView) -> bool:
        """See `Arm.ready`."""
        return self._stock(self.name) > 0 or self._arm.ready(population)

    async def propose(self, context: ProposalContext, n: int) -> list[Proposal]:
        """See `Arm.propose`."""
        return await self._arm.propose(context, n)

    async def close(self) -> None:
        """See `Arm.close`."""
        await self._arm.close()


class _Data(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Ready(_Data):
    """A proposal that waits for its place.

    Attributes:
        draw: number of the question that it answers.
        known: candidates that there were when it was asked for.
    """

    draw: int
    known: int
    proposal: Proposal


class Asked(_Data):
    """A question under way.

    Attributes:
        draw: its number.
        n: proposals that it asks for.
        known: candidates that there were.
    """

    draw: int
    arm: str
    n: int
    known: int


class Stock(_Data):
    """What the store keeps.

    Attributes:
        draws: numbers that are used up.
    """

    draws: int = 0
    ready: tuple[Ready, ...] = ()
    asked: tuple[Asked, ...] = ()


class Ahead:
    """Questions under way, and the proposals that came of them.

    Args:
        store: of the run.
        population: of the run.
        space: tells which genotypes are equal.
        ask: asks an arm, given the question's number and how many proposals it is for; what the arm cannot do
            it tells whom it concerns, and returns nothing.
        changed: wakes who waits.
        prepare: does beforehand what can be done of a genotype that waits for its place; run in a thread.

    Attributes:
        spawn: starts a background task; an error in it must end the run.
        unanswered: questions of an earlier process that it could not wait for.
        draws: numbers that were used up by earlier processes.
    """

    def __init__(
        self,
        store: PopulationStore,
        population: Population,
        space: Space,
        ask: Callable[[Arm, int, int], Awaitable[list[Proposal]]],
        changed: Callable[[], Awaitable[None]],
        prepare: Callable[[Genotype], None] = lambda _genotype: None,
    ) -> None:
        self.spawn: Callable[[Coroutine[Any, Any, None]], asyncio.Task[None]] = asyncio.create_task
        self._store, self._population, self._space = store, population, space
        self._ask, self._changed, self._prepare = ask, changed, prepare
        self._under_way: dict[int, Asked] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        kept = store.get_meta(AHEAD_KEY)
        stock = Stock() if kept is None else Stock.model_validate_json(kept)
        # We may have died after one entered the population and before it was struck out here.
        entered = {_origin(c.proposal) for c in population.known() if c.proposal.exchange}
        self._ready = [ready for ready in stock.ready if _origin(ready.proposal) not in entered]
        self.unanswered, self.draws = stock.asked, stock.draws

    def ready(self, arm: str) -> int:
        """Proposals of `arm` that wait for a place."""
        return sum(ready.proposal.arm == arm for ready in self._ready)

    def under_way(self, arm: str) -> int:
        """Proposals of `arm` that are asked for."""
        return sum(asked.n for asked in self._under_way.values() if asked.arm == arm)

    def take(self, arm: str) -> Ready | None:
        """The oldest ready proposal of `arm` that is still news, None when there is none.

        It is struck out of the store by the next `save`: enter it into the population before.
        """
        for ready in [ready for ready in self._ready if ready.proposal.arm == arm]:
            self._ready.remove(ready)
            equal = self._equal(ready)
            if equal is None:
                return ready
            log.info("a proposal of draw %d is dropped: %s came meanwhile and is equal", ready.draw, equal)
        return None

    def put(self, draw: int, known: int, proposals: list[Proposal]) -> None:
        """Keep proposals until a place is free for them."""
        self._ready += [Ready(draw=draw, known=known, proposal=proposal) for proposal in proposals]

    def start(self, arm: Arm, draw: int, n: int) -> None:
        """Ask an arm in the background, and keep what comes."""
        asked = Asked(draw=draw, arm=arm.name, n=n, known=len(self._population))
        self._under_way[draw] = asked
        self.save(draw + 1)
        task = self.spawn(self._answered(arm, asked))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def save(self, draws: int) -> None:
        """Write down what is ready and what is asked for, if that has changed."""
        self.draws = max(self.draws, draws)
        stock = Stock(draws=self.draws, ready=tuple(self._ready), asked=tuple(self._under_way.values()))
        self._store.set_meta(AHEAD_KEY, stock.model_dump_json())

    async def finish(self, patience_s: float) -> None:
        """Wait for what is under way: it is being paid for. After `patience_s` it is cancelled."""
        if self._tasks:
            _, late = await asyncio.wait(set(self._tasks), timeout=patience_s)
            for task in late:
                task.cancel()

    async def _answered(self, arm: Arm, asked: Asked) -> None:
        proposals = await self._ask(arm, asked.draw, asked.n)
        del self._under_way[asked.draw]  # a question that was cancelled stays on the record of the store
        self.put(asked.draw, asked.known, proposals)
        self.save(self.draws)
        await self._changed()
        for proposal in proposals:
            await asyncio.to_thread(self._prepare, proposal.genotype)

    def _equal(self, ready: Ready) -> str | None:
        """The candidate of the same genotype that has entered since the proposal was asked for."""
        shape = self._shape(ready.proposal.genotype)
        for index in range(ready.known, len(self._population)):
            candidate = self._population.get(candidate_id(index))
            if self._shape(candidate.genotype) == shape:
                return candidate.id
        return None

    def _shape(self, genotype: Genotype) -> str:
        try:
            return fingerprint(self._space.validate(genotype))
        except ProposalError:
            return fingerprint(genotype)


def _origin(proposal: Proposal) -> tuple[str, str | None, str]:
    return proposal.arm, proposal.exchange, fingerprint(proposal.genotype)
