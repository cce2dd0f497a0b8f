"""The analyst: what each candidate taught, worked out beside the slots.

The verdict is computed at once, in the slot's own time, which takes milliseconds. Words for it are a model's
affair: they wait in a short queue, from which one question at a time is asked, so that proposals never wait
behind them. Where a model cannot be asked, or says nothing of use, the verdict stays and the words are empty.
Nothing of this ever fails a slot or ends a run.

Each analysis is a LangGraph thread beside that of its candidate: a candidate may climb to the next rung
while a model thinks about the last one, and one thread cannot be in two places. It is idempotent: an answer
that was paid for is found again, evidence counts once, and a resumed run does what was not finished.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sqlite3
from collections import defaultdict, deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace

from cambrian.agents.analyst.evidence import empty_claim, measured_ways, names_known
from cambrian.agents.analyst.lessons import (
    Answered,
    Subject,
    lesson_question,
    lesson_variables,
    parse_lesson,
)
from cambrian.agents.analyst.notes import NOTES_KEY, Changes, Note, Notebook
from cambrian.agents.analyst.sameness import saying_the_same
from cambrian.agents.analyst.tallies import tally_lines
from cambrian.agents.analyst.weighing import Weigher
from cambrian.agents.errors import CambrianError, LimitReached, ModelUnavailable, ProposalError
from cambrian.agents.evaluator.noise import NoiseFloor
from cambrian.agents.lifecycle import Lifecycle, Services
from cambrian.agents.planner.client import ModelRequest
from cambrian.agents.planner.models import Models
from cambrian.agents.planner.quoting import quoted
from cambrian.agents.planner.templates import Templates
from cambrian.agents.population.model import LLM_ARM, Candidate, Evaluation
from cambrian.agents.runfile import RunConfig

log = logging.getLogger(__name__)

QUEUE = 16
"""Analyses that may wait: of older ones the verdict has to do."""
PATIENCE_S = 30.0
"""How long the end of a run waits for the lessons that are still to come."""
RETRY_S = 2.0
"""How often a model that is left alone for now is looked at again."""
TRIES = 2


class Analyst:
    """Looks at candidates that have ended.

    Args:
        config: of the run.
        services: of the run; get `notes`, `noise` and `analyse` from here.
        models: of the run.
        say: prints one line for people.
        templates: what it asks with; None takes those that there are at the first question.
    """

    def __init__(
        self,
        config: RunConfig,
        services: Services,
        models: Models,
        say: Callable[[str], None] = print,
        templates: Templates | None = None,
    ) -> None:
        self._section, self._limit = config.analyst, config.llm.prompt_tokens
        self._do, self._models, self._say = services, models, say
        self._weigher = Weigher(services, self._ask_again)
        self._templates = templates
        kept = services.store.get_meta(NOTES_KEY)
        self._book = Notebook() if kept is None else Notebook.model_validate_json(kept)
        self._queue: deque[str] = deque()
        self._again: set[str] = set()
        self._tries: defaultdict[str, int] = defaultdict(int)
        self._now: str | None = None
        self._news, self._idle = asyncio.Event(), asyncio.Event()
        self._idle.set()
        self._out = self._section.lessons == "off"
        self._worker: asyncio.Task[None] | None = None
        services.notes, services.noise, services.analyse = self.lines, self.noise, self.analyse

    # -- what the run sees --------------------------------------------------------------------------

    @asynccontextmanager
    async def beside(self, lifecycle: Lifecycle) -> AsyncIterator[Analyst]:
        """Work beside the slots, for as long as the context is open; what a dead process left comes first."""
        self._weigher.take_in()
        for candidate in sorted(self._do.population.known(), key=lambda c: c.index):
            if candidate.state.ended and self._is_wanted(candidate):
                self._enqueue(candidate.id)
        self._worker = asyncio.create_task(self._work(lifecycle))
        try:
            yield self
        finally:
            await self._stop()

    def look_at(self, candidate_id: str) -> None:
        """Work out the verdict of a candidate that has ended, and queue it for a lesson. Returns at once.

        The verdicts of its children rest on it: they are worked out again.
        """
        try:
            self._weigher.landed(candidate_id)
            if self._is_wanted(self._do.population.get(candidate_id)):
                self._enqueue(candidate_id)
        except (CambrianError, sqlite3.Error):  # whose disk is full will say so itself
            log.exception("the analyst could not look at %s", candidate_id)

    def weigh(self, candidate_id: str) -> None:
        """Work out the verdict of one candidate, from what the store tells now."""
        self._weigher.weigh(candidate_id)

    def refresh(self) -> int:
        """Work out all verdicts anew; the number of those that have changed."""
        return self._weigher.refresh()

    def notes(self) -> tuple[Note, ...]:
        """The notes that hold, best supported first, with the evidence that is still believed."""
        return self._book.current(self._is_believed)[: self._section.notes]

    def lines(self) -> tuple[str, ...]:
        """The notes for prompts: those that hold, counted ones, and those that were said once."""
        most = self._section.notes
        if not most:
            return ()
        counted = tally_lines(self._do.population.known(), self._weigher.effects, self._do.config.cost)
        notes = self.notes()
        counted = counted[: max(most - len(notes), most // 4)]
        worded = notes[: most - len(counted)]
        held = [note.line() for note in worded if note.confirmed]
        said = [note.line() for note in worded if not note.confirmed]
        return (*held, *counted, *said)

    def noise(self) -> NoiseFloor | None:
        """What two scores may differ by for no reason, after the longest training so far; None if unknown."""
        self._weigher.readings.refresh()
        best = self._do.population.elite(1)
        floor = self._weigher.readings.noise(best[0].rung if best else 0)
        return floor if floor.std is not None or floor.sampling else None

    async def finish(self, patience_s: float = PATIENCE_S) -> None:
        """The search is over: work out all verdicts anew, and wait a while for lessons under way.

        A signal cancels the wait like everything else of a run.
        """
        try:
            self.refresh()
        except (CambrianError, sqlite3.Error):
            log.exception("the analyst could not work out the verdicts anew")
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(max(patience_s, 0.0)):
                self._end_if_spent()
                while not self._idle.is_set() and self._is_asking():
                    with contextlib.suppress(TimeoutError):
                        await asyncio.wait_for(self._idle.wait(), RETRY_S)
        if self._queue and not self._out:
            log.info("%d lessons were not asked for any more", len(self._queue))
        await self._stop()

    # -- one analysis -------------------------------------------------------------------------------

    async def analyse(self, candidate_id: str) -> None:
        """Ask a model what a candidate taught, and note it: the step of the life cycle.

        Raises:
            ModelUnavailable: see `Models.ask`.
            LimitReached: see `Models.ask`.
            UserError: the prompt template cannot be rendered.
            InfrastructureError: the disk failed.
        """
        candidate = self._do.population.get(candidate_id)
        if not self._is_wanted(candidate):
            return
        subject, question = self.question(candidate)
        self._do.store.note("analyse", candidate_id)
        again = candidate_id in self._again
        self._again.discard(candidate_id)  # before the question: another verdict may come while we wait
        try:
            exchange = await self._models.ask(question)
        except BaseException:
            if again:
                self._again.add(candidate_id)
            raise
        answer = Answered("")
        try:
            if exchange.refusal:
                raise ProposalError(f"the model refused: {quoted(exchange.refusal)}")
            asked = "\n".join([*(message.content for message in question.messages), question.schema_note])
            answer = parse_lesson(exchange.response or "", subject.notes, asked)
        except ProposalError as error:
            log.info("exchange %s holds no lesson: %s", exchange.id, error.message)
            self._models.note_unusable(exchange.model, error.message)
        else:
            self._models.note_usable(exchange.model)
        if self._section.notes and subject.assessment.telling:
            answer = self._without_empty(answer, subject)
            await self._learn(candidate_id, answer.changes)
        candidate = self._do.population.get(candidate_id)
        if candidate.score is None or candidate.lesson is None:  # meanwhile nobody believes it any more
            return
        taught = candidate.lesson.model_copy(
            update={"text": answer.text, "unused": answer.unused, "exchange": exchange.id}
        )
        self._do.teach(candidate_id, taught, "lesson")
        if taught.verdict is not subject.assessment.verdict:
            self._ask_again(candidate_id)

    def question(self, candidate: Candidate) -> tuple[Subject, ModelRequest]:
        """What a model is asked about a candidate with a score.

        Raises:
            UserError: the prompt template cannot be rendered.
        """
        templates = self._templates = self._templates or Templates.of(self._do.space)
        self._weigher.readings.refresh()
        # without what it said itself, if it was asked before: the same question finds the answer that is paid
        notes = self._book.current(lambda cid: cid != candidate.id and self._is_believed(cid))
        subject = self._subject(candidate, notes[: self._section.notes])
        variables = lesson_variables(subject, self._do.space, self._do.task)
        return subject, lesson_question(templates, variables, self._limit, candidate.id)

    def _without_empty(self, answer: Answered, subject: Subject) -> Answered:
        """The answer without claims that say nothing of any network."""
        if not answer.changes.new:
            return answer
        known = names_known(self._do.space, self._do.task, (subject.candidate, *subject.parents))
        why = {claim: empty_claim(claim, known) for claim in answer.changes.new}
        new = tuple(claim for claim in answer.changes.new if not why[claim])
        dropped = tuple(quoted(f"notes.new: {claim}: {said}", 200) for claim, said in why.items() if said)
        changes = answer.changes.model_copy(update={"new": new})
        return replace(answer, changes=changes, unused=(*answer.unused, *dropped))

    async def _learn(self, candidate_id: str, changes: Changes) -> None:
        """Note what a candidate says for and against claims. It says it once, however often it is noted."""
        candidate = self._do.population.get(candidate_id)
        first = next(iter(self._weigher.assess(candidate).compared_with), None)
        other = None if first is None else self._do.population.get(first)
        book = await asyncio.to_thread(
            self._book.learned,
            candidate_id,
            changes,
            measured_ways(candidate, other, self._weigher.readings, self._do.task),
            most=self._section.notes,
            same=saying_the_same,
            is_believed=self._is_believed,
        )
        if book != self._book:
            self._book = book
            self._do.store.set_meta(NOTES_KEY, book.model_dump_json())

    def _subject(self, candidate: Candidate, notes: tuple[Note, ...]) -> Subject:
        parents, siblings, nearest = self._weigher.family(candidate)
        shown = [each for each in siblings if each.score is not None]
        known = {each.id for each in (*parents, *shown)}
        if nearest is not None and nearest.id not in known and nearest.score is not None:
            shown.insert(0, nearest)
        made: list[Evaluation] = [
            e
            for e in self._do.store.evaluations(candidate.id)
            if e.rung == candidate.rung and e.seed == self._do.config.seed
        ]
        return Subject(
            candidate=candidate,
            parents=parents,
            siblings=shown,
            assessment=self._weigher.assess(candidate),
            evaluation=made[0] if made else None,
            notes=notes,
        )

    # -- inside -------------------------------------------------------------------------------------

    def _is_believed(self, candidate_id: str) -> bool:
        try:
            return self._do.population.get(candidate_id).score is not None
        except KeyError:
            return False

    def _is_wanted(self, candidate: Candidate) -> bool:
        """Whether a model is still to be asked what it taught."""
        if self._section.lessons == "off" or candidate.score is None or candidate.lesson is None:
            return False
        chosen = self._section.lessons == "all" or candidate.proposal.arm == LLM_ARM
        return chosen and (candidate.lesson.exchange is None or candidate.id in self._again)

    def _ask_again(self, candidate_id: str) -> None:
        """A candidate has another verdict now than the one that its lesson is about."""
        self._again.add(candidate_id)
        self._enqueue(candidate_id)

    def _enqueue(self, candidate_id: str) -> None:
        under_way = candidate_id == self._now and candidate_id not in self._again
        if self._out or under_way or candidate_id in self._queue:
            return
        self._queue.append(candidate_id)
        while len(self._queue) > QUEUE:
            self._queue.popleft()
        self._idle.clear()
        self._news.set()

    def _is_asking(self) -> bool:
        """Whether anything can be expected of waiting."""
        return self._now is not None or (bool(self._queue) and self._models.ready("analyse"))

    async def _work(self, lifecycle: Lifecycle) -> None:
        while not self._out:
            if not self._queue:
                self._idle.set()
                self._news.clear()
                await self._news.wait()
            elif self._end_if_spent():
                break
            elif not self._models.ready("analyse"):
                await asyncio.sleep(RETRY_S)
            else:
                self._now = self._queue.popleft()
                try:
                    await self._one(lifecycle, self._now)
                finally:
                    self._now = None
        self._queue.clear()
        self._idle.set()

    def _end_if_spent(self) -> bool:
        """Whether nothing more may be asked, which is said once, when something would have been."""
        if self._out or not self._queue or (limit := self._models.spent("analyse")) is None:
            return self._out
        self._end(limit)
        return True

    def _end(self, limit: LimitReached) -> None:
        self._out = True
        self._say(f"the analyst asks no more: {limit.message}; verdicts go on without words")

    async def _one(self, lifecycle: Lifecycle, candidate_id: str) -> None:
        try:
            await lifecycle.analyse(candidate_id)
        except ModelUnavailable as error:
            self._tries[candidate_id] += 1
            if error.permanent:
                self._out = True  # who speaks for the models has said so
            elif self._tries[candidate_id] < TRIES:
                self._queue.appendleft(candidate_id)
        except LimitReached as limit:
            self._end(limit)
        except CambrianError as error:
            self._out = True
            self._say(f"the analyst asks no more: {error}")
        except Exception:
            log.exception("the analysis of %s failed", candidate_id)

    async def _stop(self) -> None:
        worker, self._worker = self._worker, None
        if worker is not None:
            worker.cancel()
            await asyncio.gather(worker, return_exceptions=True)
