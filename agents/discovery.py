"""The discovery loop: an asyncio scheduler that keeps every slot busy, with no barrier between generations.

A free slot takes, in this order: what a dead process left half-way, what a reviewer has approved, a candidate
that earned promotion, a new proposal. A run with recipe genes ends with what `agents.factorial` asks for. No
run ends before the first places of its leaderboard were reproduced, see `agents.trial`.
Which arm proposes and with which random numbers is a function of the population alone, so a resumed run with
one slot goes on exactly as an unbroken one would have.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import random
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from cambrian.agents.budget import Account
from cambrian.agents.errors import LimitReached, ModelUnavailable, ProposalError
from cambrian.agents.factorial import Factorial
from cambrian.agents.lifecycle import Lifecycle, Services
from cambrian.agents.planner import Arm, ProposalContext
from cambrian.agents.planner.portfolio import Portfolio
from cambrian.agents.population.model import BASELINE_ARM, Candidate, CandidateState, Proposal, candidate_id
from cambrian.agents.review import Decision, ReviewDesk
from cambrian.agents.trial import TOP

HEARTBEAT_S = 2.0
REVIEW_POLL_S = 2.0
FRUITLESS_LIMIT = 200
"""Proposals in a row that led to no evaluation, after which the space counts as exhausted."""
MODEL_PAUSE_S = 60.0
"""How long the LLM arm rests when its endpoint is down and does not say for how long."""
PARKED_PER_SLOT = 4
"""How many proposals may wait for a reviewer, for each slot, before the planner pauses."""


@dataclass(frozen=True)
class Work:
    """One thing for a slot to do.

    Attributes:
        confirms: reproduce the score that the candidate has; no evaluation.
    """

    candidate_id: str
    rung: int
    decision: Decision | None = None
    confirms: bool = False


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
        slots: what each slot is doing now, for the terminal.
    """

    services: Services
    lifecycle: Lifecycle
    arms: Mapping[str, Arm]
    account: Account
    desks: tuple[ReviewDesk, ...] = ()
    say: Callable[[str], None] = print
    landed: Callable[[Candidate], None] = lambda _candidate: None
    slots: list[str] = field(default_factory=list)
    stop_reason: str = ""

    def __post_init__(self) -> None:
        config = self.services.config
        self.portfolio = Portfolio(config, self.arms)
        self.slots = ["idle"] * config.slots
        self._queue: list[Work] = []
        self._draws = int(self.services.store.get_meta("draws") or 0)
        self._fruitless = 0
        self._busy: set[str] = set()
        self._asked: Counter[str] = Counter()
        self._told: set[str] = set()
        self._durations: dict[int, tuple[int, float]] = {}
        self._changed = asyncio.Condition()
        self._slot_of: dict[str, int] = {}
        self._waiting_for: list[str] = []
        self.services.activity = self._note_activity
        self._factorial = Factorial.of(self.services)
        plan = None if self._factorial is None else self._factorial.plan
        self._search_over = plan is not None
        if plan is not None:
            self.stop_reason = plan.search_ended

    async def run(self) -> str:
        """Search until the budget is spent; returns why it stopped.

        Raises:
            InfrastructureError: something the run depends on is down; everything in flight is kept.
        """
        store = self.services.store
        self._queue = [Work(cid, rung) for cid, rung in store.inflight()]
        try:
            async with asyncio.TaskGroup() as group:
                helpers = [group.create_task(self._heartbeat())]
                if self.services.config.review == "gate":
                    helpers.append(group.create_task(self._poll_desks()))
                slots = [group.create_task(self._slot(i)) for i in range(len(self.slots))]
                await asyncio.wait(slots, return_when=asyncio.FIRST_EXCEPTION)
                for helper in helpers:
                    helper.cancel()
        except* Exception as errors:
            raise _first(errors) from None
        finally:
            store.set_run(elapsed_s=self.account.elapsed_s)
        return self.stop_reason

    def predictor_line(self) -> str:
        """How far the predictor could be trusted, in one line; empty when it was never asked."""
        return self.services.admission.describe_predictor()

    # -- slots --------------------------------------------------------------------------------------

    async def _slot(self, slot: int) -> None:
        while (work := await self._next(slot)) is not None:
            self._slot_of[work.candidate_id] = slot
            before = self._evaluations(work.candidate_id)
            made, ending, began = 0, "ended", self.account.elapsed_s
            ended: Candidate | None = None
            try:
                if work.confirms:
                    await self.lifecycle.confirm(work.candidate_id)
                elif work.decision is not None:
                    ending = await self.lifecycle.decide(work.decision)
                else:
                    ending = await self.lifecycle.advance(work.candidate_id, work.rung)
                made = self._evaluations(work.candidate_id) - before
                if ending == "ended":
                    self.services.store.land(work.candidate_id)
                    candidate = self.services.population.get(work.candidate_id)
                    ended = candidate if not work.confirms or candidate.score is None else None
            finally:
                self.account.settle(made)
                self._busy.discard(work.candidate_id)
                self._slot_of.pop(work.candidate_id, None)
                self.slots[slot] = "idle"
                if made:
                    count, total = self._durations.get(work.rung, (0, 0.0))
                    took = self.account.elapsed_s - began
                    self._durations[work.rung] = (count + 1, total + took)
                if not work.confirms:
                    self._fruitless = 0 if made or ending == "parked" else self._fruitless + 1
                async with self._changed:
                    self._changed.notify_all()
            if ended is not None:
                self.landed(ended)

    async def _next(self, slot: int) -> Work | None:
        """The next thing for a free slot, with one evaluation reserved for it; None at the end of the run."""
        work = await self._next_of_search(slot) or await self._next_to_confirm(slot)
        if work is None and self._factorial is not None:
            self._search_over = True
            work = await self._next_of_factorial(slot, self._factorial) or await self._next_to_confirm(slot)
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
                if candidate.id not in self._busy:
                    self.account.reserve(force=True)
                    self._busy.add(candidate.id)
                    return Work(candidate.id, candidate.rung, confirms=True)
            await self._wait(slot)  # when one of those falls another one moves up

    async def _next_of_search(self, slot: int) -> Work | None:
        while True:
            if self._search_over and all(work.decision is not None for work in self._queue):
                return None
            if not self._queue and not self._fits(0):
                beside = " beside those for the parts of the gain" if self._kept() else ""
                why = f"no further evaluation would end within the time budget{beside}"
                self.stop_reason = self.stop_reason or why
                return None
            try:
                # What was under way when we died was paid for by the budget of then: it may always land.
                started = any(w.decision is None for w in self._queue)
                reserved = self._reserve(started)
            except LimitReached as limit:
                self.stop_reason = self.stop_reason or self._in_words(limit)
                return None
            if reserved:
                work = None
                try:
                    work = await self._find_work(slot)
                finally:
                    if work is None:
                        self.account.settle(0)
                if work is not None:
                    self._busy.add(work.candidate_id)
                    return work
            if self._fruitless >= FRUITLESS_LIMIT:
                self.stop_reason = (
                    f"the last {self._fruitless} proposals led to no evaluation: space exhausted"
                )
                return None
            self._say_if_waiting()
            self.slots[slot] = "waiting for review" if self.services.population.parked() else "waiting"
            await self._wait(slot)

    def _reserve(self, started: bool) -> bool:
        """Reserve an evaluation for the search, which leaves what the parts of the gain may need.

        When only that is left and nothing is under way, what the parts do need is known: the search has the
        rest, one after the other, as each may change it.

        Raises:
            LimitReached: as `Account.reserve`.
        """
        try:
            return self.account.reserve(force=started, keep=self._kept())
        except LimitReached as limit:
            if limit.kind != "evaluations" or self._factorial is None or not self._kept():
                raise
            if self.account.reserved:
                return False
            return self.account.reserve(keep=self._factorial.missing())

    def _in_words(self, limit: LimitReached) -> str:
        """Why the search ends: evaluations that it had to leave are not spent."""
        made, most = self.account.evaluations, self.account.budget.evaluations
        if limit.kind != "evaluations" or most is None or made >= most:
            return limit.message
        return (
            f"the search made {made} of {most} evaluations and left {most - made} for the parts of the gain"
        )

    async def _next_of_factorial(self, slot: int, factorial: Factorial) -> Work | None:
        """The search is over: the next evaluation for the parts of the gain, None when there is none."""
        while True:
            if factorial.plan is None:
                if self.account.reserved:  # somebody still works for the search
                    await self._wait(slot)
                    continue
                factorial.begin(self.stop_reason)
            try:
                reserved = self.account.reserve()
            except LimitReached as limit:
                self.stop_reason = limit.message
                return None
            if reserved:
                work = self._decided(factorial) or self._measure(factorial, slot)
                if work is not None:
                    self._busy.add(work.candidate_id)
                    return work
                self.account.settle(0)
            if not factorial.waits_for():
                return None
            self._say_if_waiting()
            self.slots[slot] = "waiting for review" if self.services.population.parked() else "waiting"
            await self._wait(slot)

    def _decided(self, factorial: Factorial) -> Work | None:
        """A reviewer's decision about a candidate of the factorial."""
        members = factorial.waits_for() if self._queue else set()
        found = next((work for work in self._queue if work.candidate_id in members), None)
        if found is not None:
            self._queue.remove(found)
        return found

    def _measure(self, factorial: Factorial, slot: int) -> Work | None:
        step = factorial.step()
        if step is None or not self._fits(step.rung, keep=False):
            return None
        if step.proposal is not None:
            return self._enter(step.proposal, slot, step.rung)
        candidate = step.candidate
        assert candidate is not None
        if candidate.state is CandidateState.SCREENED:  # the predictor has no say in this
            changes = {"state": CandidateState.TRAINING, "reason": "", "ended_s": None, "ended_order": 0}
            self.services.save(candidate.model_copy(update=changes))
        self.services.store.launch(candidate.id, step.rung)
        return Work(candidate.id, step.rung)

    def _kept(self) -> int:
        """Evaluations that the search leaves for the factorial."""
        return 0 if self._factorial is None else self._factorial.kept()

    async def _wait(self, slot: int) -> None:
        """Until something has changed, or a second; the clock stands while only a person is awaited."""
        before = self.account.elapsed_s
        async with self._changed:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._changed.wait(), timeout=1.0)
        if slot == 0 and self.services.population.parked() and not self._busy and not self._queue:
            self.account.excuse(self.account.elapsed_s - before)

    async def _find_work(self, slot: int) -> Work | None:
        while self._queue:
            work = self._queue.pop(0)
            parked = self.services.population.get(work.candidate_id).state is CandidateState.PARKED
            if work.decision is None and parked:
                # Half-way into parking when we died: make sure that the graph waits at its interrupt.
                await self.lifecycle.advance(work.candidate_id, work.rung)
                continue
            return work
        if self._search_over:
            return None
        promoted = self._promote()
        if promoted is not None:
            return promoted
        parked_limit = PARKED_PER_SLOT * len(self.slots)
        if len(self.services.population.parked()) >= parked_limit or self._fruitless >= FRUITLESS_LIMIT:
            return None
        return await self._propose(slot)

    def _promote(self) -> Work | None:
        task, population = self.services.task, self.services.population
        for rung in reversed(range(len(task.rungs) - 1)):
            if not self._fits(rung + 1):
                continue
            cid = population.promotable(rung, task.rungs[rung].promote, excluding=self._busy)
            if cid is not None:
                self._busy.add(cid)
                self.services.store.launch(cid, rung + 1)
                return Work(cid, rung + 1)
        return None

    def _fits(self, rung: int, keep: bool = True) -> bool:
        """Whether an evaluation at `rung` would end in time, by the mean of those before it.

        Args:
            rung: of the evaluation.
            keep: whether to leave time for the factorial, which is trained at the highest rung so far.
        """
        limit = self.account.budget.wall_s
        if limit is None:
            return True
        needed = self._mean_s(rung)
        if keep and (kept := self._kept()):
            best = self.services.population.elite(1)
            top = max(rung, best[0].rung if best else 0)
            needed += math.ceil(kept / len(self.slots)) * self._mean_s(top)
        return not needed or self.account.elapsed_s + needed <= limit

    def _mean_s(self, rung: int) -> float:
        """Mean seconds of an evaluation at `rung`; 0 while there was none."""
        count, total = self._durations.get(rung, (0, 0.0))
        return total / count if count else 0.0

    # -- proposals ----------------------------------------------------------------------------------

    async def _propose(self, slot: int) -> Work | None:
        proposal = self._next_baseline()
        if proposal is None:
            draw, self._draws = self._draws, self._draws + 1
            proposal = await self._ask_arms(draw, slot)
            if proposal is None:
                return None
        return self._enter(proposal, slot)

    def _enter(self, proposal: Proposal, slot: int, rung: int = 0) -> Work:
        """Take a proposal into the population, on its way to `rung`."""
        index = len(self.services.population)
        candidate = Candidate(
            id=candidate_id(index),
            index=index,
            proposal=proposal,
            genotype=proposal.genotype,
            state=CandidateState.PROPOSED,
            created_s=time.time(),
        )
        self.services.store.add(candidate, draws=self._draws, rung=rung)
        self.services.population.update(candidate)
        self.slots[slot] = f"{candidate.id} {proposal.arm}"
        return Work(candidate.id, rung)

    async def _ask_arms(self, draw: int, slot: int) -> Proposal | None:
        """Ask the arm whose turn it is; when it cannot, the next one, until all have been asked."""
        do = self.services
        excluded: set[str] = set()
        while True:
            rng = random.Random(f"{do.config.seed}/{draw}")
            spent = self._asked + Counter(do.population.spent())
            arm = self.portfolio.choose(spent, do.population, rng, exclude=excluded)
            if arm is None:
                return None
            self.slots[slot] = f"{arm.name} is proposing"
            context = ProposalContext(
                index=draw,
                rng=random.Random(f"{do.config.seed}/{draw}/{arm.name}"),
                space=do.space,
                task=do.task,
                signature=do.task.signature,
                population=do.population,
                constraints=do.config.constraints,
                cost=do.config.cost,
                budget_left=self.account.left(),
            )
            n = (
                do.config.predictor.pool
                if arm.cheap and not arm.control and do.admission.screen.trusted
                else 1
            )
            self._asked[arm.name] += 1  # else every free slot would ask one slow model at once
            try:
                drafts = await arm.propose(context, n)
            except ProposalError as error:
                self.portfolio.failed(arm.name, error.message)
                excluded.add(arm.name)
                if not arm.cheap and arm.name not in self._told:
                    self._told.add(arm.name)
                    self.say(f"arm {arm.name} gave nothing usable: {error.message}; the other arms go on")
            except LimitReached as limit:
                self._rest(arm.name, limit.message, None)
            except ModelUnavailable as error:
                pause_s = None if error.permanent else error.retry_after_s or MODEL_PAUSE_S
                self._rest(arm.name, error.message, pause_s)
            else:
                self.portfolio.succeeded(arm.name)
                return do.admission.choose(drafts)
            finally:
                self._asked[arm.name] -= 1

    def _rest(self, arm: str, why: str, pause_s: float | None) -> None:
        """Pass over an arm for `pause_s`, or for good; of slots that hear the same, one says so."""
        news = self.portfolio.status()[arm] == "active"
        if pause_s is None:
            self.portfolio.retire(arm, why)
        else:
            self.portfolio.pause(arm, why, pause_s)
        if news:
            rests = "is out" if pause_s is None else "pauses"
            self.say(f"arm {arm} {rests}: {why}; the other arms go on")

    def _next_baseline(self) -> Proposal | None:
        names, space = self.services.config.baselines, self.services.space
        done = self.services.population.proposed(BASELINE_ARM)
        if done >= len(names):
            return None
        return Proposal(arm=BASELINE_ARM, genotype=space.baselines()[names[done]], edit=names[done])

    # -- beside the slots ---------------------------------------------------------------------------

    async def _heartbeat(self) -> None:
        while True:
            await asyncio.sleep(HEARTBEAT_S)
            self.services.store.set_run(elapsed_s=self.account.elapsed_s)

    async def _poll_desks(self) -> None:
        while True:
            parked = [cid for cid in self.services.population.parked() if cid not in self._busy]
            if parked:
                for desk in self.desks:
                    for decision in await asyncio.to_thread(desk.poll, parked):
                        self._accept(decision)
            await asyncio.sleep(REVIEW_POLL_S)

    def _accept(self, decision: Decision) -> None:
        queued = {work.candidate_id for work in self._queue} | self._busy
        if decision.candidate_id not in queued:
            self._queue.append(Work(decision.candidate_id, 0, decision))

    def _say_if_waiting(self) -> None:
        parked = self.services.population.parked()
        if parked and not self._busy and parked != self._waiting_for:
            self._waiting_for = parked
            self.say(
                f"{len(parked)} proposals wait for review ({parked[0]} ...): set the tag `review` to "
                f"`approve` or `reject` in MLflow, or run `cambrian review {self.services.store.folder.name}`"
            )

    def _note_activity(self, cid: str, doing: str) -> None:
        slot = self._slot_of.get(cid)
        if slot is not None:
            arm = self.services.population.get(cid).proposal.arm
            self.slots[slot] = f"{cid} {arm}: {doing}"

    def _evaluations(self, cid: str) -> int:
        return len(self.services.store.evaluations(cid))


def _first(group: BaseExceptionGroup[Exception]) -> BaseException:
    """The first error of a group: the others are its echoes in the slots beside it."""
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
