"""New candidates: the known networks first, then what the arms propose.

Which arm proposes, and with which random numbers, is a function of the population and of the number of draws
alone, so that a resumed run with one slot goes on exactly as an unbroken one would have.
"""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable, Mapping

from cambrian.agents.asking import proposal_context
from cambrian.agents.budget import Account
from cambrian.agents.errors import LimitReached, ModelUnavailable, ProposalError
from cambrian.agents.lifecycle import Services
from cambrian.agents.planner import Arm
from cambrian.agents.planner.portfolio import Portfolio
from cambrian.agents.population.model import BASELINE_ARM, Candidate, CandidateState, Proposal, candidate_id
from cambrian.agents.schedule import Schedule, Work

MODEL_PAUSE_S = 60.0
"""How long the LLM arm rests when its endpoint is down and does not say for how long."""


class Proposer:
    """Asks the arms, and takes what they propose into the population.

    Args:
        services: of the run.
        arms: by name.
        account: tells how much of the budget is left.
        schedule: shows what the slots do.
        say: prints one line for people.
    """

    def __init__(
        self,
        services: Services,
        arms: Mapping[str, Arm],
        account: Account,
        schedule: Schedule,
        say: Callable[[str], None],
    ) -> None:
        self.portfolio = Portfolio(services.config, arms)
        self._do, self._account, self._schedule, self._say = services, account, schedule, say
        self._draws = int(services.store.get_meta("draws") or 0)
        self._asked: Counter[str] = Counter()
        self._told: set[str] = set()

    async def propose(self, slot: int) -> Work | None:
        """A new candidate at rung 0; None when no arm has one."""
        proposal = self._next_baseline()
        if proposal is None:
            draw, self._draws = self._draws, self._draws + 1
            proposal = await self._ask_arms(draw, slot)
            if proposal is None:
                return None
            return self.enter(proposal, slot, draw=f"d{draw}")
        return self.enter(proposal, slot)

    def enter(self, proposal: Proposal, slot: int, rung: int = 0, draw: str = "") -> Work:
        """Take a proposal into the population, on its way to `rung`; `draw` is where it is from."""
        index = len(self._do.population)
        candidate = Candidate(
            id=candidate_id(index),
            index=index,
            proposal=proposal,
            genotype=proposal.genotype,
            state=CandidateState.PROPOSED,
            created_s=time.time(),
        )
        self._do.store.add(candidate, draws=self._draws, rung=rung, draw=draw)
        self._do.population.update(candidate)
        self._schedule.doing[slot] = f"{candidate.id} {proposal.arm}"
        return Work(candidate.id, rung)

    def _next_baseline(self) -> Proposal | None:
        names, space = self._do.config.baselines, self._do.space
        done = self._do.population.proposed(BASELINE_ARM)
        if done >= len(names):
            return None
        return Proposal(arm=BASELINE_ARM, genotype=space.baselines()[names[done]], edit=names[done])

    async def _ask_arms(self, draw: int, slot: int) -> Proposal | None:
        """Ask the arm whose turn it is; when it cannot, the next one, until all have been asked."""
        do = self._do
        excluded: set[str] = set()
        while True:
            rng = random.Random(f"{do.config.seed}/{draw}")
            spent = self._asked + Counter(do.population.spent())
            arm = self.portfolio.choose(spent, do.population, rng, exclude=excluded)
            if arm is None:
                return None
            self._schedule.doing[slot] = f"{arm.name} is proposing"
            left = self._account.left()
            context = proposal_context(do, draw, arm.name, left)
            n = (
                do.config.predictor.pool
                if arm.cheap and not arm.control and do.admission.screen.trusted
                else 1
            )
            do.store.note("ask", f"d{draw}", draw=draw, arm=arm.name, n=n, left=left)
            self._asked[arm.name] += 1  # else every free slot would ask one slow model at once
            try:
                drafts = await arm.propose(context, n)
            except ProposalError as error:
                self.portfolio.failed(arm.name, error.message)
                excluded.add(arm.name)
                if not arm.cheap and arm.name not in self._told:
                    self._told.add(arm.name)
                    self._say(f"arm {arm.name} gave nothing usable: {error.message}; the other arms go on")
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
            self._say(f"arm {arm} {rests}: {why}; the other arms go on")
