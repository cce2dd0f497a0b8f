"""What comes after the search: the parts of the gain, then the champions; the search leaves room for both."""

from __future__ import annotations

import math

from cambrian.agents.budget import Account
from cambrian.agents.champions import Champions
from cambrian.agents.errors import LimitReached
from cambrian.agents.factorial import Factorial
from cambrian.agents.lifecycle import Services
from cambrian.agents.pace import Pace
from cambrian.agents.population.model import CandidateState
from cambrian.agents.proposer import Proposer
from cambrian.agents.schedule import Schedule, Work

SLACK = 1.3
"""How much more time is left for these steps than they take on average: half of all trainings take longer."""


class Closing:
    """Hands out the work of a run whose search is over.

    Args:
        services: of the run.
        schedule: its slots.
        account: its budget.
        pace: how long its evaluations take.
        proposer: takes the factorial's pairs into the population.

    Attributes:
        search_ended: why it had, in a run that was stopped after its search; else empty.
        stop_reason: the limit that ended these steps; else empty.
    """

    def __init__(
        self, services: Services, schedule: Schedule, account: Account, pace: Pace, proposer: Proposer
    ) -> None:
        self._do, self._schedule, self._account = services, schedule, account
        self._pace, self._proposer = pace, proposer
        self._factorial = Factorial.of(services)
        self._champions = Champions(services)
        plans = [self._champions.plan, self._factorial.plan if self._factorial is not None else None]
        self.search_ended = next((plan.search_ended for plan in plans if plan is not None), "")
        self.stop_reason = ""

    def kept(self) -> int:
        """Evaluations that the search has to leave."""
        pairs = 0 if self._factorial is None else self._factorial.kept()
        return pairs + self._champions.kept(self._expected())

    def missing(self) -> int:
        """Evaluations that these steps need if the search ends now, while nothing is under way."""
        pairs = 0 if self._factorial is None else self._factorial.missing()
        return pairs + self._champions.missing(self._expected())

    def purposes(self) -> str:
        """What the kept evaluations are for."""
        pairs = self._factorial is not None and self._factorial.kept() > 0
        again = self._champions.kept(self._expected()) > 0
        named = ((pairs, Factorial.purpose), (again, Champions.purpose))
        return " and ".join(purpose for wanted, purpose in named if wanted)

    def fits(self, rung: int, *, keep: bool = True) -> bool:
        """Whether an evaluation at `rung` would end in time, by the mean of those before it.

        Args:
            rung: of the evaluation.
            keep: whether to leave time for these steps, whose trainings are at the highest rung so far.
        """
        limit = self._account.budget.wall_s
        if limit is None:
            return True
        needed = self._pace.mean_s(rung)
        if keep and (kept := self.kept()):
            best = self._do.population.elite(1)
            top = max(rung, best[0].rung if best else 0)
            turns = math.ceil(kept / len(self._schedule.doing))
            needed += SLACK * turns * self._pace.mean_s(top)
        return not needed or self._account.elapsed_s + needed <= limit

    async def next_pair(self, slot: int, search_ended: str) -> Work | None:
        """The next evaluation for the parts of the gain; None when there is none."""
        factorial = self._factorial
        if factorial is None:
            return None
        while True:
            if factorial.plan is None:
                if self._account.reserved:  # somebody still works for the search
                    await self._schedule.wait(slot)
                    continue
                factorial.begin(search_ended)
            reserved = self._reserve()
            if reserved is None:
                return None
            if reserved:
                work = self._decided(factorial) or self._measure(factorial, slot)
                if work is not None:
                    return self._schedule.take(work)
                self._account.settle(0)
            if not factorial.waits_for():
                return None
            await self._schedule.wait(slot)

    async def next_champion(self, slot: int, search_ended: str) -> Work | None:
        """The next repeat of one of the best; None when there is none."""
        champions = self._champions
        while True:
            if champions.plan is None:
                if not champions.kept(self._expected()):
                    return None
                if self._account.reserved:
                    await self._schedule.wait(slot)
                    continue
                champions.begin(search_ended, self._expected())
            repeat = champions.step(self._schedule.busy)
            if repeat is not None and not self.fits(repeat.rung, keep=False):
                return None
            if repeat is not None:
                reserved = self._reserve()
                if reserved is None:
                    return None
                if reserved:
                    return self._schedule.take(Work.again(repeat))
            if not champions.is_open() or not self._account.reserved:
                return None
            await self._schedule.wait(slot)

    def _expected(self) -> float:
        return self._pace.expected(self._account.budget, len(self._schedule.doing))

    def _reserve(self) -> bool | None:
        """Reserve an evaluation; None when a limit is reached."""
        try:
            return self._account.reserve()
        except LimitReached as limit:
            self.stop_reason = limit.message
            return None

    def _decided(self, factorial: Factorial) -> Work | None:
        """A reviewer's decision about a candidate of the factorial."""
        queue = self._schedule.queue
        members = factorial.waits_for() if queue else set()
        found = next((work for work in queue if work.candidate_id in members), None)
        if found is not None:
            queue.remove(found)
        return found

    def _measure(self, factorial: Factorial, slot: int) -> Work | None:
        step = factorial.step()
        if step is None or not self.fits(step.rung, keep=False):
            return None
        if step.proposal is not None:
            return self._proposer.enter(step.proposal, slot, step.rung)
        candidate = step.candidate
        assert candidate is not None
        if candidate.state is CandidateState.SCREENED:  # the predictor has no say in this
            changes = {"state": CandidateState.TRAINING, "reason": "", "ended_s": None, "ended_order": 0}
            self._do.save(candidate.model_copy(update=changes), "close")
        self._do.store.launch(candidate.id, step.rung)
        return Work(candidate.id, step.rung)
