"""New candidates: the known networks first, then what the arms propose.

Which arm proposes, and with which random numbers, is a function of the population and of the number of draws
alone, so that a resumed run with one slot goes on exactly as an unbroken one would have. That ends where arms
are asked ahead, see `agents.ahead`: then it also hangs on how soon a model answers. `llm.ahead: 0` asks one
question at a time, when its answer is needed.
"""

from __future__ import annotations

import logging
import math
import random
from collections import Counter
from collections.abc import Callable, Mapping

from cambrian.agents.ahead import Ahead, AsksModels, Ready, Stocked
from cambrian.agents.asking import proposal_context
from cambrian.agents.budget import Account
from cambrian.agents.errors import LimitReached, ModelUnavailable, ProposalError
from cambrian.agents.lifecycle import Services
from cambrian.agents.planner import Arm
from cambrian.agents.planner.credit import merits
from cambrian.agents.planner.portfolio import Portfolio
from cambrian.agents.population.model import (
    BASELINE_ARM,
    LLM_ARM,
    Candidate,
    Proposal,
)
from cambrian.agents.schedule import Schedule, Work
from cambrian.search_spaces import TabularTask

log = logging.getLogger(__name__)

WAITING = "waiting for a model"


class Proposer:
    """Asks the arms, and takes what they propose into the population.

    Args:
        services: of the run.
        arms: by name.
        account: tells how much of the budget is left.
        schedule: shows what the slots do.
        say: prints one line for people.

    Attributes:
        ahead: proposals that are ready or asked for.
        places_left: about how many places the run has yet to give.
    """

    def __init__(
        self,
        services: Services,
        arms: Mapping[str, Arm],
        account: Account,
        schedule: Schedule,
        say: Callable[[str], None],
    ) -> None:
        self.places_left: Callable[[], float] = lambda: math.inf
        self._do, self._account, self._schedule, self._say = services, account, schedule, say
        store, population = services.store, services.population
        self.ahead = Ahead(
            store,
            population,
            services.space,
            self._ask_in_background,
            schedule.notify,
            services.admission.foresee,
        )
        self._arms = dict(arms)
        stocked = {n: arm if arm.cheap else Stocked(arm, self.ahead.ready) for n, arm in arms.items()}
        self.portfolio = Portfolio(services.config, stocked)
        self._draws = max(int(store.get_meta("draws") or 0), self.ahead.draws)
        self._asked: Counter[str] = Counter()
        self._told: set[str] = set()
        self._waiting: set[int] = set()
        self._recover()

    @property
    def is_ahead(self) -> bool:
        """Whether slow arms are asked before their answers are needed.

        A table has its measurements in no time: there the model is what a run waits for, and a search that
        did not wait for it would be over before the first answer.
        """
        setting = self._do.config.llm.ahead
        return setting != 0 and not (setting == "auto" and isinstance(self._do.task, TabularTask))

    async def propose(self, slot: int) -> Work | None:
        """A new candidate at rung 0; None when no arm has one, or none just now.

        Raises:
            ModelUnavailable: no model can be asked any more, and the run is not to go on without.
            LimitReached: the same, as a budget for models is spent.
        """
        self._waiting.discard(slot)
        proposal = self._next_baseline()
        if proposal is not None:
            return self.enter(proposal, slot)
        if self._must_wait():
            self._waiting.add(slot)
            return None
        draw = self._next_draw()
        found = await self._ask_arms(draw, slot)
        was_asked = isinstance(found, Proposal) or (found is not None and found.draw == draw)
        if not was_asked and self._draws == draw + 1:
            self._draws = draw  # nobody was asked by this number
        if found is not None and self._account.seconds_left() <= 0:  # who proposes may take long
            if isinstance(found, Ready):
                self.ahead.put(found.draw, found.known, [found.proposal])
                self.ahead.save(self._draws)
            return None
        if found is None:
            self.ask_ahead()
            return None
        if isinstance(found, Proposal):
            work = self.enter(found, slot, draw=f"d{draw}")
        else:
            work = self.enter(found.proposal, slot, draw=f"d{found.draw}")
            self.ahead.save(self._draws)
        self.ask_ahead()
        return work

    def enter(self, proposal: Proposal, slot: int, rung: int = 0, draw: str = "") -> Work:
        """Take a proposal into the population, on its way to `rung`; `draw` is where it is from."""
        candidate = Candidate.newcomer(len(self._do.population), proposal)
        self._do.store.add(candidate, draws=self._draws, rung=rung, draw=draw)
        self._do.population.update(candidate)
        self._schedule.doing[slot] = f"{candidate.id} {proposal.arm}"
        return Work(candidate.id, rung)

    def ask_ahead(self) -> None:
        """Ask slow arms for what will soon be needed, in the background."""
        self._notice_limit()
        if not self.is_ahead:
            return
        for name, arm in self._arms.items():
            if arm.cheap or not self.portfolio.weights[name] or not self._is_active(name):
                continue
            wanted = self._wanted(name)
            self._order(arm, wanted - self.ahead.ready(name) - self.ahead.under_way(name), wanted)

    def waits_for(self, slot: int) -> str:
        """What an idle slot waits for, empty where that is not for a proposal."""
        return WAITING if slot in self._waiting else ""

    # -- the arms -----------------------------------------------------------------------------------

    def _next_baseline(self) -> Proposal | None:
        names, space = self._do.config.baselines, self._do.space
        done = self._do.population.proposed(BASELINE_ARM)
        if done >= len(names):
            return None
        return Proposal(arm=BASELINE_ARM, genotype=space.baselines()[names[done]], edit=names[done])

    async def _ask_arms(self, draw: int, slot: int) -> Proposal | Ready | None:
        """Ask the arm whose turn it is; when it cannot, the next one, until all have been asked."""
        do = self._do
        excluded: set[str] = set()
        awaited: Arm | None = None
        while True:
            rng = random.Random(f"{do.config.seed}/{draw}")
            turn = self.portfolio.choose(self._spent(), do.population, rng, exclude=excluded)
            if turn is not None and self._do.config.wants_model and self._oversteps(turn.name):
                awaited, turn = self._arms.get(LLM_ARM), None
                if (ready := self.ahead.take(LLM_ARM)) is not None:
                    return ready
            if awaited is not None and (turn is None or not self.portfolio.weights[turn.name]):
                # who has no share does not get another's place because it is quicker
                self._waiting.add(slot)
                if self.is_ahead and awaited.ready(do.population):
                    self._order(awaited, len(self._waiting) - self.ahead.under_way(awaited.name), 1)
                return None
            if turn is None:
                return None
            arm = self._arms[turn.name]
            if not arm.cheap:
                if (ready := self.ahead.take(arm.name)) is not None:
                    return ready
                if self.is_ahead or not arm.ready(do.population):
                    awaited = awaited or arm
                    excluded.add(arm.name)
                    continue
            self._schedule.doing[slot] = f"{arm.name} is proposing"
            self._asked[arm.name] += 1  # else every free slot would ask one slow model at once
            try:
                drafts = await self._ask(arm, draw, self._drafts(arm))
            finally:
                self._asked[arm.name] -= 1
            if not drafts:
                excluded.add(arm.name)
            elif arm.cheap:
                return do.admission.choose(drafts)
            else:
                self.ahead.put(draw, len(do.population), drafts[1:])
                return Ready(draw=draw, known=len(do.population), proposal=drafts[0])

    async def _ask(self, arm: Arm, draw: int, n: int) -> list[Proposal]:
        """What an arm proposes; nothing when it cannot, which is taken note of."""
        left = self._account.left()
        context = proposal_context(self._do, draw, arm.name, left)
        self._do.store.note("ask", f"d{draw}", draw=draw, arm=arm.name, n=n, left=left)
        try:
            drafts = await arm.propose(context, n)
        except ProposalError as error:
            self.portfolio.failed(arm.name, error.message)
            if not arm.cheap:
                self._tell(arm.name, f"gave nothing usable: {error.message}")
        except LimitReached as limit:
            if arm.ready(self._do.population):  # else it knows itself that it cannot be asked
                self.portfolio.retire(arm.name, limit.message)
            self._tell(arm.name, f"is out: {limit.message}")
        except ModelUnavailable as error:
            if arm.ready(self._do.population):  # else it knows itself when it is to be asked again
                log.info("arm %s goes on after: %s", arm.name, error.message)
                self.portfolio.failed(arm.name, error.message)
            else:
                self._tell(arm.name, f"pauses: {error.message}")
        else:
            self.portfolio.succeeded(arm.name)
            return drafts
        return []

    async def _ask_in_background(self, arm: Arm, draw: int, n: int) -> list[Proposal]:
        return await self._ask(arm, draw, n)

    def _drafts(self, arm: Arm) -> int:
        config = self._do.config
        if arm.cheap:
            guided = not arm.control and self._do.admission.screen.trusted
            return config.predictor.pool if guided else 1
        return 1 if config.llm.batch == "auto" else config.llm.batch

    def _tell(self, arm: str, what: str) -> None:
        """Say once what is wrong with an arm: slots that hear the same need not repeat it."""
        kind = f"{arm} {what.split(':')[0]}"
        if kind not in self._told:
            self._told.add(kind)
            self._say(f"arm {arm} {what}" + ("" if self._do.config.wants_model else "; the other arms go on"))

    # -- asking ahead -------------------------------------------------------------------------------

    def _wanted(self, name: str) -> int:
        """Proposals of an arm that should be ready or asked for, so that none is paid for in vain."""
        config, population = self._do.config, self._do.population
        if population.proposed(BASELINE_ARM) < len(config.baselines):
            return 0
        spent = self._spent()
        if sum(spent.get(arm, 0) for arm in self._arms) + 1 <= self.portfolio.warmup:
            return 0  # the next place is the control's: later more is known
        share = self._share(name, spent)
        setting = config.llm.ahead
        most = math.ceil(share * config.slots) if setting == "auto" else setting
        return int(max(0, min(most, math.ceil(share * self.places_left()))))

    def _share(self, name: str, spent: Mapping[str, float]) -> float:
        """About the share of the places to come that an arm will get."""
        active = [n for n, arm in self._arms.items() if arm.control or self._is_active(n)]
        return self.portfolio.shares(active, merits(spent, self._do.population.credits())).get(name, 0.0)

    def _order(self, arm: Arm, missing: int, wanted: int) -> None:
        """Ask for `missing` proposals, in as many calls as are cheapest."""
        while missing > 0:
            n = arm.batch(missing, wanted) if isinstance(arm, AsksModels) else 1
            if n < 1:
                return
            if self.places_left() < n:
                n = max(1, missing)
            self.ahead.start(arm, self._next_draw(), n)
            missing -= n

    def _recover(self) -> None:
        """Keep what an earlier process was still told but had no time to keep."""
        for asked in self.ahead.unanswered:
            arm = self._arms.get(asked.arm)
            if isinstance(arm, AsksModels):
                context = proposal_context(self._do, asked.draw, asked.arm, self._account.left())
                self.ahead.put(asked.draw, asked.known, arm.recover(context, asked.n))
        if self.ahead.unanswered:
            self.ahead.save(self._draws)

    def _oversteps(self, name: str) -> bool:
        """Whether another place would give the control more than its share of a run of models."""
        if not self._arms[name].control:
            return False
        spent = self._spent()
        total = sum(spent.get(arm, 0) for arm in self._arms) + 1
        share = self.portfolio.weights[name]
        return spent.get(name, 0) + 1 > max(self.portfolio.warmup, 1, math.ceil(share * total))

    # -- runs that want their model -----------------------------------------------------------------

    def _must_wait(self) -> bool:
        """Whether the run is to wait until its model can be tried again.

        Raises:
            ModelUnavailable: it is of no use to wait.
            LimitReached: the same, as a budget for models is spent.
        """
        arm = self._arms.get(LLM_ARM)
        if arm is None or not isinstance(arm, AsksModels) or self.ahead.ready(LLM_ARM):
            return False
        if not self._do.config.wants_model:
            return False
        gone = arm.gone()
        if gone is not None and not self.ahead.under_way(LLM_ARM):
            if isinstance(gone, LimitReached):
                raise gone
            raise ModelUnavailable(
                f"the run wants its model, and none can be asked: {gone.message}",
                hint=gone.hint
                or "mend it, then `cambrian resume`: nothing is lost; or set llm.required: false",
                permanent=True,
            )
        return not arm.ready(self._do.population)

    def _notice_limit(self) -> None:
        """Tell that nothing more may be asked: an arm that is not ready is passed over in silence."""
        arm = self._arms.get(LLM_ARM)
        if isinstance(arm, AsksModels) and isinstance(limit := arm.gone(), LimitReached):
            self._tell(LLM_ARM, f"is out: {limit.message}")

    # -- inside -------------------------------------------------------------------------------------

    def _next_draw(self) -> int:
        draw, self._draws = self._draws, self._draws + 1
        return draw

    def _spent(self) -> Counter[str]:
        found: Counter[str] = Counter(self._do.population.spent())
        return self._asked + found

    def _is_active(self, name: str) -> bool:
        ready = self._arms[name].ready(self._do.population)
        return ready and self.portfolio.status()[name] == "active"
