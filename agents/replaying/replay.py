"""Doing a recorded run again: its journal gives the order, its records the measurements and the answers.

All that was decided is decided anew, at the moment at which it was decided, with what was known then: what
arms propose, which draft is taken, what the cheap checks say, how candidates rank, what the analyst writes.
Training, latencies and the answers of models are not made again. So a replay takes seconds, needs no key, and
gives the same population for as long as prompts, spaces and code are the same; where they are not, it stops
at the first thing that differs and names it.
"""

from __future__ import annotations

import asyncio
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict

from cambrian.agents.analyst.analyst import Analyst
from cambrian.agents.asking import proposal_context
from cambrian.agents.errors import CambrianError, LimitReached, ModelUnavailable, ProposalError
from cambrian.agents.lifecycle import Lifecycle, LifeState, Services
from cambrian.agents.planner.arm import Arm
from cambrian.agents.planner.evolution import fingerprint
from cambrian.agents.population.journal import JournalEntry
from cambrian.agents.population.model import Candidate, CandidateState, Proposal
from cambrian.agents.population.store import PopulationStore
from cambrian.agents.replaying.answers import RecordedAnswers
from cambrian.agents.replaying.trials import RecordedTrials
from cambrian.sandbox import JobState

_T = TypeVar("_T")
UNCOMPARED: dict[str, Any] = {
    "created_s": True,
    "ended_s": True,
    "proposal": {"exchange"},
    "lesson": {"exchange"},
}
"""What two executions of one run may differ in: the clock, and the numbers of exchanges."""


class ReplayDiverged(CambrianError):
    """A replay decided otherwise than the run did."""

    exit_code = 2


class ReplayReport(BaseModel):
    """What came of a replay that went through.

    Attributes:
        run_id: of the replay, which is kept like a run.
        source: of the recorded one.
        candidates: all of them, equal one by one.
        questions: answered from the record.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    run_id: str
    source: str
    candidates: int
    questions: int

    def lines(self) -> list[str]:
        """For people."""
        asked = f"{self.questions} answers of models" if self.questions else "no model"
        return [
            f"{self.run_id}: the same {self.candidates} candidates as {self.source}, from its record "
            f"({asked}, no training)"
        ]


class Replayer:
    """Carries out a journal, line by line.

    Args:
        source: the recorded run.
        services: of the replay; their trials are `RecordedTrials`.
        lifecycle: over `services`, not opened: its steps are taken one by one.
        arms: by name.
        answers: what the arms' models say.
        analyst: over `services`; nothing works beside it here.
    """

    def __init__(
        self,
        source: PopulationStore,
        services: Services,
        lifecycle: Lifecycle,
        arms: dict[str, Arm],
        answers: RecordedAnswers,
        analyst: Analyst,
    ) -> None:
        assert isinstance(services.trials, RecordedTrials)
        self._recorded = {candidate.id: candidate for candidate in source.candidates()}
        self._journal = source.journal()
        self._do, self._lifecycle, self._arms, self._answers = services, lifecycle, arms, answers
        self._trials = services.trials
        self._analyst = analyst
        self._asked: dict[str, asyncio.Task[list[Proposal]]] = {}
        self._analysed: dict[str, asyncio.Task[None]] = {}
        self._evaluated: dict[str, LifeState] = {}

    async def run(self) -> None:
        """Do it all.

        Raises:
            ReplayDiverged: something came out otherwise; the message names it.
            ReplayMiss: a model would be asked something else.
        """
        steps = {
            "ask": self._ask,
            "answered": self._answered,
            "add": self._add,
            "save": self._save,
            "evaluation": self._evaluation,
            "discredit": self._discredit,
            "analyse": self._analyse,
            "resume": self._resume,
        }
        try:
            for entry in self._journal:
                self._trials.current.append(entry)
                await steps[entry.kind](entry)
                self._trials.current.pop()
        finally:
            under_way = [*self._asked.values(), *self._analysed.values()]
            for task in under_way:
                task.cancel()
            await asyncio.gather(*under_way, return_exceptions=True)
        for candidate in self._recorded.values():
            self._compare(candidate)

    # -- the lines ----------------------------------------------------------------------------------

    async def _ask(self, entry: JournalEntry) -> None:
        arm = self._arms.get(entry.data["arm"])
        if arm is None:
            raise ReplayDiverged(f"draw {entry.subject}: arm {entry.data['arm']!r} is not there any more")
        await self._abandon(self._asked, entry.subject)
        context = proposal_context(self._do, entry.data["draw"], arm.name, entry.data["left"])
        task = asyncio.create_task(arm.propose(context, entry.data["n"]))
        self._asked[entry.subject] = task
        if arm.cheap:
            await asyncio.wait({task})
        else:
            await self._answers.reaches(entry.subject, task)
        self._raise_miss(task)

    async def _answered(self, entry: JournalEntry) -> None:
        draw, _, turn = entry.subject.partition(".")
        self._answers.release(entry.subject)
        task = self._asked.get(draw)
        if task is not None:
            await self._answers.reaches(f"{draw}.{int(turn or 1) + 1}", task)
            self._raise_miss(task)

    async def _add(self, entry: JournalEntry) -> None:
        recorded = self._recorded[entry.subject]
        draw = entry.data["draw"]
        proposal = self._proposed(draw, recorded) if draw else recorded.proposal
        do = self._do
        candidate = Candidate.newcomer(len(do.population), proposal)
        do.store.add(candidate, rung=entry.data["rung"], draw=draw)
        do.population.update(candidate)

    async def _save(self, entry: JournalEntry) -> None:
        cid, step = entry.subject, entry.data["step"]
        candidate = self._do.population.get(cid)
        state: LifeState = {"candidate": cid}
        if step in ("admit", "examine"):
            await self._lifecycle.step(step, state)
        elif step == "judge":
            # kept: who died before the step was checkpointed takes it again
            await self._lifecycle.step(step, self._evaluated[cid])
        elif step == "confirm":
            await self._lifecycle.confirm(cid)
        elif step == "verdict":
            self._analyst.weigh(cid)
        elif step == "lesson":
            self._answers.release(cid)
            await self._analysed.pop(cid)
        elif step in ("park", "train", "decide", "close"):
            rejected = step == "decide" and self._recorded[cid].state is CandidateState.REJECTED
            to = CandidateState.PARKED if step == "park" else CandidateState.TRAINING
            changes: dict[str, Any] = {
                "state": CandidateState.REJECTED if rejected else to,
                "reason": self._recorded[cid].reason if rejected else "",
            }
            if step == "close":
                changes |= {"ended_s": None, "ended_order": 0}
            self._do.save(candidate.model_copy(update=changes), step)
        else:
            raise ReplayDiverged(f"{cid}: step {step!r} is of another version of Cambrian")

    async def _evaluation(self, entry: JournalEntry) -> None:
        cid, rung, seed = entry.subject, entry.data["rung"], entry.data["seed"]
        if seed != self._do.config.seed:  # a repeat: it changes nothing about the candidate
            made = self._trials.evaluations[cid, rung, seed]
            self._do.store.add_evaluation(made, self._do.population.get(cid))
            return
        state: LifeState = {"candidate": cid, "rung": rung}
        self._evaluated[cid] = {**state, **(await self._lifecycle.step("evaluate", state))}

    async def _discredit(self, entry: JournalEntry) -> None:
        ended = JobState(entry.data["state"])
        reason = self._recorded[entry.subject].reason.removeprefix(f"{ended}: ")
        self._evaluated.pop(entry.subject, None)
        self._do.discredit(self._do.population.get(entry.subject), ended, reason)

    async def _analyse(self, entry: JournalEntry) -> None:
        await self._abandon(self._analysed, entry.subject)
        task = asyncio.create_task(self._analyst.analyse(entry.subject))
        self._analysed[entry.subject] = task
        await self._answers.reaches(entry.subject, task)
        error = task.exception() if task.done() else None
        if error is not None and not isinstance(error, ModelUnavailable | LimitReached):
            raise error

    async def _resume(self, _entry: JournalEntry) -> None:
        """Forget what only the process that ended knew: in what order it came to know its scores."""
        self._do.admission.relearn()

    # -- inside -------------------------------------------------------------------------------------

    async def _abandon(self, under_way: dict[str, asyncio.Task[_T]], place: str) -> None:
        """Forget a question whose answer the run did not live to use: resumed, it asks in its place anew."""
        task = under_way.pop(place, None)
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        self._answers.forget(place)

    def _proposed(self, draw: str, recorded: Candidate) -> Proposal:
        """What the draw's arm proposes now, where that is what it proposed then."""
        where = f"{recorded.id} (draw {draw}, arm {recorded.proposal.arm})"
        task = self._asked.get(draw)
        if task is None or not task.done():
            raise ReplayDiverged(f"{where}: its arm has no answer yet")
        try:
            drafts = task.result()
        except (ProposalError, ModelUnavailable, LimitReached) as error:
            raise ReplayDiverged(f"{where}: the arm proposes nothing now: {error.message}") from error
        if self._arms[recorded.proposal.arm].cheap:
            drafts = [self._do.admission.choose(drafts)]
        wanted = fingerprint(recorded.proposal.genotype)
        found = next((draft for draft in drafts if fingerprint(draft.genotype) == wanted), None)
        if found is None:
            raise ReplayDiverged(
                f"{where}: the arm proposes something else now: {drafts[0].edit or drafts[0].genotype}",
                hint="its space, its code, or what it draws upon has changed",
            )
        if not recorded.proposal.idea:  # a resumed run has found the answer, and not what was asked for
            found = found.model_copy(update={"idea": "", "against": recorded.proposal.against})
        return found

    def _raise_miss(self, task: asyncio.Task[list[Proposal]]) -> None:
        error = task.exception() if task.done() else None
        if error is not None and not isinstance(error, ProposalError | ModelUnavailable | LimitReached):
            raise error

    def _compare(self, recorded: Candidate) -> None:
        now = self._do.population.get(recorded.id).model_dump(mode="json", exclude=UNCOMPARED)
        then = recorded.model_dump(mode="json", exclude=UNCOMPARED)
        for name, value in then.items():
            if now[name] != value:
                raise ReplayDiverged(f"{recorded.id}: {name} is {now[name]!r} now and was {value!r}")
