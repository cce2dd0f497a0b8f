"""Verdicts of a run's candidates, kept with them and worked out anew when what they rest on has changed."""

from __future__ import annotations

import contextlib
from collections import defaultdict
from collections.abc import Callable
from itertools import islice
from typing import Any

from cambrian.agents.analyst.differences import Readings
from cambrian.agents.analyst.lessons import lesson_of_a_setback
from cambrian.agents.analyst.verdicts import SIBLINGS, Assessment, Effect, assess
from cambrian.agents.lifecycle import Services
from cambrian.agents.population.model import LLM_ARM, Candidate, Lesson


class Weigher:
    """Works out verdicts and keeps them with their candidates.

    Args:
        services: of the run.
        turned: told of a candidate whose verdict is another one now than a model has put into words.

    Attributes:
        readings: of the run's measurements.
        effects: of edits on the score against the first parent, by candidate.
    """

    def __init__(self, services: Services, turned: Callable[[str], None]) -> None:
        self._do, self._turned = services, turned
        self.readings = Readings(services)
        self.effects: dict[str, Effect] = {}
        self._children: defaultdict[str, dict[str, None]] = defaultdict(dict)

    def take_in(self) -> None:
        """What a resumed run finds: verdicts that are missing are worked out."""
        self.readings.learn(self._do.store.evaluations())
        known = sorted(self._do.population.known(), key=lambda c: c.index)
        ended = [candidate for candidate in known if candidate.state.ended]
        for candidate in ended:
            self._enter_family(candidate)
        for candidate in ended:
            if candidate.lesson is None:
                self._weigh(candidate.id, anew=True)
            else:
                self._note_effect(candidate, self.assess(candidate))

    def landed(self, candidate_id: str) -> None:
        """Work out the verdict of a candidate that has ended, and those that rest on it."""
        self.weigh(candidate_id)
        candidate, get = self._do.population.get(candidate_id), self._do.population.get
        for child_id in list(self._children.get(candidate_id, ())):
            # others are compared with it at a lower rung, as before
            if candidate.score is None or get(child_id).rung >= candidate.rung:
                self._weigh(child_id)

    def weigh(self, candidate_id: str) -> None:
        """Work out the verdict of one candidate, from what the store tells now."""
        self.readings.forget(candidate_id)
        self.readings.refresh()
        self._enter_family(self._do.population.get(candidate_id))
        self._weigh(candidate_id, anew=True)

    def _enter_family(self, candidate: Candidate) -> None:
        for parent_id in candidate.proposal.parents:
            self._children[parent_id][candidate.id] = None

    def _weigh(self, candidate_id: str, *, anew: bool = False) -> bool:
        """Work out a candidate's verdict; whether that changed anything.

        Args:
            candidate_id: of one that has ended; of others there is nothing to say.
            anew: whether new numbers alone are a change. Else they are one only with another verdict: noise
                is estimated a bit differently after each repeat.
        """
        candidate = self._do.population.get(candidate_id)
        assessment = self.assess(candidate)
        self._note_effect(candidate, assessment)
        lesson = _lesson(candidate, assessment)
        before = candidate.lesson
        if lesson is None or lesson == before:
            return False
        flipped = before is not None and before.verdict != lesson.verdict
        first = before is not None and before.compared_with[:1] != lesson.compared_with[:1]
        if not (anew or before is None or flipped or first):
            return False
        if flipped and lesson.exchange is not None:
            self._turned(candidate_id)
        self._do.teach(candidate_id, lesson, "verdict")
        return True

    def refresh(self) -> int:
        """Work out all verdicts anew; the number of those that have changed."""
        self.readings.refresh()
        ended = [c for c in self._do.population.known() if c.state.ended]
        return sum(self._weigh(candidate.id) for candidate in ended)

    def assess(self, candidate: Candidate) -> Assessment:
        """What the measurements of a candidate say now."""
        parents, siblings, nearest = self.family(candidate)
        against = candidate.proposal.against
        reference = None if against is None else self._do.population.get(against)
        return assess(candidate, parents, siblings, nearest, reference, self.readings, self._do.task)

    def family(self, candidate: Candidate) -> tuple[list[Candidate], list[Candidate], Candidate | None]:
        """Parents, the newest siblings first, and the earlier candidate that it is most like."""
        population = self._do.population
        parents = []
        for cid in candidate.proposal.parents:
            with contextlib.suppress(KeyError):
                parents.append(population.get(cid))
        besides = {candidate.id, *(parent.id for parent in parents)}
        found: dict[str, Candidate] = {}
        for parent in parents:
            newest = islice(reversed(self._children.get(parent.id, {})), SIBLINGS + len(besides))
            found |= {cid: population.get(cid) for cid in newest if cid not in besides}
        siblings = sorted(found.values(), key=lambda c: -c.index)[:SIBLINGS]
        nearest = population.get(candidate.nearest.id) if candidate.nearest is not None else None
        return parents, siblings, nearest

    def _note_effect(self, candidate: Candidate, assessment: Assessment) -> None:
        if assessment.effect is None:
            self.effects.pop(candidate.id, None)
        else:
            self.effects[candidate.id] = assessment.effect


def _lesson(candidate: Candidate, assessment: Assessment) -> Lesson | None:
    """What is kept with a candidate; a model's words stay for as long as its score is believed."""
    before = candidate.lesson
    facts: dict[str, Any] = {
        "verdict": assessment.verdict,
        "measured": assessment.measured,
        "compared_with": assessment.compared_with,
    }
    if candidate.score is not None:
        words: dict[str, Any] = {}
        if before is not None and before.exchange is not None:  # others are ours, of a time without a score
            words = {"text": before.text, "unused": before.unused, "exchange": before.exchange}
        return Lesson(**facts, **words)
    if candidate.state.ended and (candidate.proposal.arm == LLM_ARM or before is not None):
        return Lesson(**facts, text=lesson_of_a_setback(candidate))
    return None
