"""What was asked of models in a run, joined with what became of the answers."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import ValidationError

from cambrian.agents.planner.exchange import Exchange
from cambrian.agents.population.model import Candidate

PROPOSALS = ("propose", "repair")


@dataclass
class Question:
    """One question for proposals with its repair turns.

    Attributes:
        turns: in the order of asking; the first is the question itself.
        candidates: that came of it.
        repairs: turns that the run would have gone on for.
    """

    turns: list[Exchange]
    candidates: list[Candidate] = field(default_factory=list)
    repairs: int = 0

    @property
    def first(self) -> Exchange:
        """The question itself."""
        return self.turns[0]

    @property
    def answered(self) -> bool:
        """Whether a model answered at all."""
        return self.first.response is not None

    @property
    def usable_turn(self) -> int | None:
        """Number of the turn, from 1, whose answer held a proposal; None when none did.

        An answer that no candidate refers to was usable all the same where the run asked for no repair though
        it could have: the proposal was made ahead, and not needed any more.
        """
        ids = {candidate.proposal.exchange for candidate in self.candidates}
        for number, turn in enumerate(self.turns, 1):
            if turn.id in ids:
                return number
        last = self.turns[-1]
        left = len(self.turns) <= self.repairs
        if left and last.response is not None and not last.refusal and last.finish != "length":
            return len(self.turns)
        return None


def exchanges_of(run_folder: Path) -> list[Exchange]:
    """All records of a run's folder in the order of asking; damaged ones are left out."""
    found = []
    for path in sorted((run_folder / "exchanges").glob("x-*.json")):
        try:
            found.append(Exchange.model_validate_json(path.read_bytes()))
        except (OSError, ValidationError):
            continue
    return sorted(found, key=lambda each: (len(each.id), each.id))


def questions_of(
    exchanges: Sequence[Exchange], candidates: Iterable[Candidate], repairs: int
) -> list[Question]:
    """The questions for proposals, each with its repair turns and what came of it.

    Turns belong together by their place; in runs that recorded none, by the question that they repeat.

    Args:
        exchanges: of a run, in the order of asking.
        candidates: of the run.
        repairs: turns that it would have gone on for.
    """
    found: dict[str, Question] = {}
    for each in exchanges:
        if each.role not in PROPOSALS:
            continue
        key = each.place.split(".")[0] or "/".join(message.content for message in each.messages[:2])
        if each.role == "propose":
            # asked again after a restart: a question of its own, as it was paid for twice
            if key in found:
                found[f"{key}/{each.id}"] = found.pop(key)
            found[key] = Question([each], repairs=repairs)
        elif key in found:
            found[key].turns.append(each)
    by_exchange: defaultdict[str, list[Candidate]] = defaultdict(list)
    for candidate in candidates:
        if candidate.proposal.exchange is not None:
            by_exchange[candidate.proposal.exchange].append(candidate)
    for question in found.values():
        question.candidates = [c for turn in question.turns for c in by_exchange[turn.id]]
    return sorted(found.values(), key=lambda question: (len(question.first.id), question.first.id))
