"""The discovery loop: an asyncio scheduler that keeps every slot busy, with no barrier between generations.

A free slot takes, in this order: what a dead process left half-way, what a reviewer has approved, a repeat
that measures the noise, a candidate that earned promotion, a new proposal. When the search is over the run
does what `agents.closing` hands out. No run ends before the first places of its leaderboard were reproduced,
see `agents.trial`. All of this is a function of the population and the store, so that a resumed run with one
slot goes on exactly as an unbroken one would have.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from cambrian.agents.ahead import last_answer_s
from cambrian.agents.analyst.analyst import Analyst
from cambrian.agents.budget import Account
from cambrian.agents.closing import Closing
from cambrian.agents.errors import LimitReached, ModelUnavailable
from cambrian.agents.evaluator.hypervolume import fix_reference
from cambrian.agents.lifecycle import Lifecycle, Services
from cambrian.agents.pace import Pace
from cambrian.agents.planner import Arm
from cambrian.agents.planner.portfolio import Portfolio
from cambrian.agents.population.model import Candidate, CandidateState
from cambrian.agents.proposer import Proposer
from cambrian.agents.repeats import NoiseRepeats, make
from cambrian.agents.review import ReviewDesk
from cambrian.agents.schedule import Schedule, Work
from cambrian.agents.trial import TOP

HEARTBEAT_S = 2.0
REVIEW_POLL_S = 2.0
FRUITLESS_LIMIT = 200
"""Proposals in a row that led to no evaluation, after which the space counts as exhausted."""
PARKED_PER_SLOT = 4
"""How many proposals may wait for a reviewer, for each slot, before the planner pauses."""


@dataclass
class Discovery:
    """One run of the loop.

    Attributes:
        services: what a candidate's steps work with.
        lifecycle: the graph that candidates go through.
        arms: by name.
        account: the run's budget.
        desks: where reviewers answer.
        say: prints one line for people.
        landed: told of every candidate that has reached an end.
        analyst: looks at them; None leaves them without verdicts.
    """

    services: Services
    lifecycle: Lifecycle
    arms: Mapping[str, Arm]
    account: Account
    desks: tuple[ReviewDesk, ...] = ()
    say: Callable[[str], None] = print
    landed: Callable[[Candidate], None] = lambda _candidate: None
    analyst: Analyst | None = None
    stop_reason: str = ""

    def __post_init__(self) -> None:
        do = self.services
        self._fruitless = 0
        self._pace = Pace(do.store.evaluations())
        self._schedule = Schedule(do.config.slots, do.store, do.population, self.account, self.say)
        self._proposer = Proposer(do, self.arms, self.account, self._schedule, self.say)
        self._noise = NoiseRepeats(do)
        self._closing = Closing(do, self._schedule, self.account, self._pace, self._proposer)
        self._proposer.places_left = self._places_left
        self._halted: ModelUnavailable | None = None
        do.activity = self._schedule.note_activity
        self.stop_reason = self._closing.search_ended
        self._search_over = bool(self.stop_reason)

    @property
    def slots(self) -> list[str]:
        """What each slot is doing now, for the terminal."""
        return self._schedule.doing

    @property
    def portfolio(self) -> Portfolio:
        """Shares the budget between the arms."""
        return self._proposer.portfolio

    async def run(self) -> str:
        """Search until the budget is spent; returns why it stopped.

        Raises:
            InfrastructureError: something the run depends on is down; everything in flight is kept.
        """
        store = self.services.store
        self._schedule.queue = [Work(cid, rung) for cid, rung in store.inflight()]
        try:
            async with asyncio.TaskGroup() as group:
                self._proposer.ahead.spawn = group.create_task
                helpers = [group.create_task(self._heartbeat())]
                if self.services.config.review == "gate":
                    helpers.append(group.create_task(self._poll_desks()))
                slots = [group.create_task(self._slot(i)) for i in range(len(self.slots))]
                await asyncio.wait(slots, return_when=asyncio.FIRST_EXCEPTION)
                for helper in helpers:
                    helper.cancel()
                left_s = self.account.seconds_left()
                patience_s = last_answer_s(self.services.config.llm, self._places_left(), left_s)
                await self._proposer.ahead.finish(patience_s)
        except* Exception as errors:
            raise _first(errors) from None
        finally:
            store.set_run(elapsed_s=self.account.elapsed_s)
        if self._halted is not None:
            raise self._halted
        return self._closing.stop_reason or self.stop_reason

    def predictor_line(self) -> str:
        """How far the predictor could be trusted, in one line; empty when it was never asked."""
        return self.services.admission.describe_predictor()

    # -- slots --------------------------------------------------------------------------------------

    async def _slot(self, slot: int) -> None:
        while (work := await self._next(slot)) is not None:
            self._schedule.begin(slot, work)
            before = self._evaluations(work.candidate_id)
            made, ending, began = 0, "ended", self.account.elapsed_s
            ended: Candidate | None = None
            try:
                ending = await self._carry_out(work)
                made = self._evaluations(work.candidate_id) - before
                if ending == "ended" and work.repeat is None:
                    self.services.store.land(work.candidate_id)
                    candidate = self.services.population.get(work.candidate_id)
                    ended = candidate if not work.confirms or candidate.score is None else None
                    fix_reference(self.services.store, self.services.population)
            finally:
                self.account.settle(made)
                self._schedule.end(slot, work)
                if made:
                    self._pace.note(work.rung, self.account.elapsed_s - began)
                if not work.confirms:
                    self._fruitless = 0 if made or ending == "parked" else self._fruitless + 1
                await self._schedule.notify()
            if ended is not None:
                if self.analyst is not None:
                    self.analyst.look_at(ended.id)
                self.landed(ended)

    async def _carry_out(self, work: Work) -> str:
        if work.repeat is not None:
            self.say(await make(self.services, work.repeat))
            return "ended"
        if work.confirms:
            await self.lifecycle.confirm(work.candidate_id)
            return "ended"
        if work.decision is not None:
            return await self.lifecycle.decide(work.decision)
        return await self.lifecycle.advance(work.candidate_id, work.rung)

    async def _next(self, slot: int) -> Work | None:
        """The next thing for a free slot, with one evaluation reserved for it; None at the end of the run."""
        work = await self._next_of_search(slot)
        if self._halted is not None:
            return None
        work = work or await self._next_to_confirm(slot)
        for closing in (self._closing.next_pair, self._closing.next_champion):
            if work is None:
                work = await closing(slot, self.stop_reason) or await self._next_to_confirm(slot)
        return work

    async def _next_to_confirm(self, slot: int) -> Work | None:
        """The search is over: one of the first places that was not reproduced yet, None when all are.

        Candidates are reproduced when they enter these places; but some move up when others fall.
        """
        while True:
            open_ = [c for c in self.services.population.elite(TOP) if not c.reproduced]
            if not open_:
                return None
            for candidate in open_:
                if candidate.id not in self._schedule.busy:
                    self.account.reserve(force=True)
                    return self._schedule.take(Work(candidate.id, candidate.rung, confirms=True))
            await self._schedule.wait(slot)  # when one of those falls another one moves up

    # -- the search ---------------------------------------------------------------------------------

    async def _next_of_search(self, slot: int) -> Work | None:
        while self._halted is None:
            queue = self._schedule.queue
            if self._search_over and all(work.decision is not None for work in queue):
                return None
            if not queue and not self._closing.fits(0):
                kept = self._closing.purposes()
                beside = f" beside those for {kept}" if kept else ""
                self._end_search(f"no further evaluation would end within the time budget{beside}")
                return None
            try:
                # What was under way when we died was paid for by the budget of then: it may always land.
                started = any(w.decision is None for w in queue)
                reserved = self._reserve(started)
            except LimitReached as limit:
                self._end_search(self._in_words(limit))
                return None
            if reserved:
                work = None
                try:
                    work = await self._find_work(slot)
                except LimitReached as limit:  # a budget for models, in a run that wants nothing else
                    self._end_search(limit.message)
                    return None
                except ModelUnavailable as error:  # what the other slots have begun comes to its end
                    self._halted = self._halted or error
                    return None
                finally:
                    if work is None:
                        self.account.settle(0)
                if work is not None:
                    return self._schedule.take(work)
            if self._fruitless >= FRUITLESS_LIMIT:
                self._end_search(
                    f"the last {self._fruitless} proposals led to no evaluation: space exhausted"
                )
                return None
            await self._schedule.wait(slot, self._proposer.waits_for(slot))
        return None

    def _end_search(self, why: str) -> None:
        self.stop_reason = self.stop_reason or why
        self._search_over = self._search_over or bool(self._closing.purposes())

    def _reserve(self, started: bool) -> bool:
        """Reserve an evaluation for the search, which leaves what the steps after it may need.

        When only that is left and nothing is under way, what they do need is known: the search has the rest,
        one after the other, as each may change it.

        Raises:
            LimitReached: as `Account.reserve`.
        """
        kept = self._closing.kept()
        try:
            return self.account.reserve(force=started, keep=kept)
        except LimitReached as limit:
            if limit.kind != "evaluations" or not kept:
                raise
            if self.account.reserved:
                return False
            return self.account.reserve(keep=self._closing.missing())

    def _in_words(self, limit: LimitReached) -> str:
        """Why the search ends: evaluations that it had to leave are not spent."""
        made, most = self.account.evaluations, self.account.budget.evaluations
        if limit.kind != "evaluations" or most is None or made >= most:
            return limit.message
        kept = self._closing.purposes()
        return f"the search made {made} of {most} evaluations and left {most - made} for {kept}"

    async def _find_work(self, slot: int) -> Work | None:
        queue = self._schedule.queue
        while queue:
            work = queue.pop(0)
            parked = self.services.population.get(work.candidate_id).state is CandidateState.PARKED
            if work.decision is None and parked:
                # Half-way into parking when we died: make sure that the graph waits at its interrupt.
                await self.lifecycle.advance(work.candidate_id, work.rung)
                continue
            return work
        if self._search_over:
            return None
        expected = self._pace.expected(self.account.budget, len(self.slots))
        repeat = self._noise.step(expected, self._schedule.busy)
        if repeat is not None:
            return Work.again(repeat)
        promoted = self._promote()
        if promoted is not None:
            return promoted
        parked_limit = PARKED_PER_SLOT * len(self.slots)
        if len(self.services.population.parked()) >= parked_limit or self._fruitless >= FRUITLESS_LIMIT:
            return None
        return await self._proposer.propose(slot)

    def _promote(self) -> Work | None:
        task, population = self.services.task, self.services.population
        for rung in reversed(range(len(task.rungs) - 1)):
            if not self._closing.fits(rung + 1):
                continue
            share, busy = task.rungs[rung].promote, self._schedule.busy
            cid = population.promotable(rung, share, excluding=busy)
            if cid is not None:
                self.services.store.launch(cid, rung + 1)
                return self._schedule.take(Work(cid, rung + 1))
        return None

    def _places_left(self) -> float:
        """How many new candidates the budget still has room for, about; all that wait may be approved."""
        account, budget = self.account, self.account.budget
        left = math.inf
        if budget.evaluations is not None:
            left = budget.evaluations - account.evaluations - account.reserved - self._closing.kept()
        if budget.wall_s is not None and (mean := self._pace.mean_s(0)):
            left = min(left, len(self.slots) * ((budget.wall_s - account.elapsed_s) / mean - 1))
        over = self._search_over or bool(self.stop_reason)
        return 0.0 if over else max(0.0, left - len(self.services.population.parked()))

    # -- beside the slots ---------------------------------------------------------------------------

    async def _heartbeat(self) -> None:
        while True:
            await asyncio.sleep(HEARTBEAT_S)
            self.services.store.set_run(elapsed_s=self.account.elapsed_s)
            if not self._search_over and self._halted is None:
                self._proposer.ask_ahead()

    async def _poll_desks(self) -> None:
        while True:
            parked = [cid for cid in self.services.population.parked() if cid not in self._schedule.busy]
            if parked:
                for desk in self.desks:
                    for decision in await asyncio.to_thread(desk.poll, parked):
                        self._schedule.accept(decision)
            await asyncio.sleep(REVIEW_POLL_S)

    def _evaluations(self, cid: str) -> int:
        return len(self.services.store.evaluations(cid))


def _first(group: BaseExceptionGroup[Exception]) -> BaseException:
    """The first error of a group: the others are its echoes in the slots beside it."""
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
