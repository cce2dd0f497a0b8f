"""The notes of a run: claims about its networks, each with the candidates that speak for and against it.

A model words them, says of each what comes of it (`Way`), and says which of them a candidate bears on; what
they weigh is measured. A candidate speaks for a claim if it differs for real, from who it is compared with
first, in the way that the claim says; against it if it differs in the opposite way; else it says nothing, and
so does one that contradicts a claim which its measurements agree with. That holds for who makes a claim, too,
and for who makes it again. Shown as held is what two candidates speak for; what one speaks for is said to be
no more than that, and stands last. So does a claim without a way, of a run before there were any: nothing
measured stands behind it.

Evidence is a set of candidates, so that nobody counts twice; of candidates that have lost their score nothing
counts any more. A claim is retired while more speaks against it than for it, or nothing for it is left: it is
not shown, but kept for a while with its evidence, so that somebody who makes it again finds what spoke
against it.

How much one analysis may change is bounded (`Changes`): no text that gets through to a model can fill or
empty the book at once.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from cambrian.agents.planner.quoting import quoted

NOTES_KEY = "notes"
"""Under this key the store keeps a run's notebook."""
CLAIM, SCOPE = 200, 80
"""Most characters of a claim and of where it holds."""
MOST_NEW, MOST_FOR, MOST_AGAINST = 2, 3, 2
"""What one analysis may add, support and contradict."""
CONFIRMED = 2
"""Candidates that must speak for a claim before it is held."""
Way = Literal["better", "worse", "faster", "slower"]
"""What is said to come of something: of the score, or of the latency."""
_OPPOSITE: dict[Way, Way] = {"better": "worse", "worse": "better", "faster": "slower", "slower": "faster"}
_SHOWN = 5
_EVIDENCE = 200
"""Candidates kept on either side of a claim, the latest: more changes no decision."""


class _Data(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Claim(_Data):
    """What a model says has been learned.

    Attributes:
        claim: one sentence on one line.
        scope: where it holds; may be empty.
        effect: what comes of it; None where that was not said, and nothing can be measured of it.
    """

    claim: str
    scope: str = ""
    effect: Way | None = None

    @classmethod
    def of(cls, claim: str, scope: str, effect: Way | None = None) -> Claim | None:
        """The claim as data: without what could break out of a quotation; None when nothing is left."""
        text = quoted(claim, CLAIM)
        return cls(claim=text, scope=quoted(scope, SCOPE), effect=effect) if text else None

    def speaks(self, ways: Collection[Way]) -> bool | None:
        """Whether what differs in these ways speaks for the claim, or against it; None where for neither."""
        if self.effect is None:
            return None
        return True if self.effect in ways else False if _OPPOSITE[self.effect] in ways else None

    def __str__(self) -> str:
        return f"{self.claim} [{self.scope}]" if self.scope else self.claim


class Note(Claim):
    """A claim with its evidence.

    Attributes:
        id: `n-01`, by order of making.
        supports: ids of candidates that speak for it, in the order in which they did.
        contradicts: ids of those that speak against it.
    """

    id: str
    supports: tuple[str, ...] = ()
    contradicts: tuple[str, ...] = ()

    @property
    def support(self) -> float:
        """How far the evidence bears it out, 0 to 1: the mean of the Beta posterior from a flat prior."""
        return (len(self.supports) + 1) / (len(self.supports) + len(self.contradicts) + 2)

    @property
    def retired(self) -> bool:
        """Whether the evidence against outweighs, or none is left for it."""
        return not self.supports or len(self.contradicts) > len(self.supports)

    @property
    def confirmed(self) -> bool:
        """Whether the measurements of more than one candidate speak for it."""
        return self.effect is not None and len(self.supports) >= CONFIRMED

    def line(self) -> str:
        """For prompts: the claim and its evidence."""
        if not self.confirmed:
            return f"{self} (said by the analyst of {', '.join(self.supports[-_SHOWN:])}, not confirmed)"
        made = len(self.supports) + len(self.contradicts)
        said = f"{self} (held {len(self.supports)} of {made}: {', '.join(self.supports[-_SHOWN:])}"
        return said + (f"; not {', '.join(self.contradicts[-_SHOWN:])})" if self.contradicts else ")")

    def weighed(self, is_believed: Callable[[str], bool]) -> Note:
        """The note with the evidence of those candidates alone that are believed."""
        return self._with(filter(is_believed, self.supports), filter(is_believed, self.contradicts))

    def without(self, candidate_id: str) -> Note:
        """The note without what `candidate_id` says of it."""
        return self.weighed(lambda cid: cid != candidate_id)

    def _with(self, supports: Any, contradicts: Any) -> Note:
        changes = {"supports": tuple(supports)[-_EVIDENCE:], "contradicts": tuple(contradicts)[-_EVIDENCE:]}
        return self.model_copy(update=changes)

    def told(self, candidate_id: str, *, supports: bool) -> Note:
        """The note with the word of one candidate, instead of what that said before."""
        bare = self.without(candidate_id)
        if supports:
            return bare._with((*bare.supports, candidate_id), bare.contradicts)
        return bare._with(bare.supports, (*bare.contradicts, candidate_id))


class Changes(_Data):
    """What one analysis says of the notes, within bounds.

    Attributes:
        supports: ids of notes that the candidate bears out.
        contradicts: ids of those that it speaks against.
        new: claims that nobody has made yet.
    """

    supports: tuple[str, ...] = Field(default=(), max_length=MOST_FOR)
    contradicts: tuple[str, ...] = Field(default=(), max_length=MOST_AGAINST)
    new: tuple[Claim, ...] = Field(default=(), max_length=MOST_NEW)


Same = Callable[[str, Sequence[str]], int | None]
"""Finds which of some texts says the same as the first one."""


class Notebook(_Data):
    """All notes of a run.

    Attributes:
        notes: in the order of making, retired ones among them.
        made: how many there ever were.
    """

    notes: tuple[Note, ...] = ()
    made: int = 0

    def current(self, is_believed: Callable[[str], bool]) -> tuple[Note, ...]:
        """The notes that hold, best supported first, with the evidence that is believed."""
        held = [note for each in self.notes if not (note := each.weighed(is_believed)).retired]
        return tuple(sorted(held, key=_rank))

    def learned(
        self,
        candidate_id: str,
        changes: Changes,
        ways: Collection[Way],
        *,
        most: int,
        same: Same,
        is_believed: Callable[[str], bool],
    ) -> Notebook:
        """The notebook with what one candidate taught; saying it again changes nothing.

        Args:
            candidate_id: whose measurements speak; all that it has said before is taken back.
            changes: what is said of it.
            ways: in which it differs for real.
            most: notes to keep; of retired ones as many again, the latest.
            same: finds a note that says the same as a new claim, which then gets its evidence.
            is_believed: whether a candidate still has a score.
        """
        notes, made = [note.without(candidate_id) for note in self.notes], self.made
        words = dict.fromkeys(changes.supports, True)
        for note_id in changes.contradicts:
            words[note_id] = False
        unclear = set(changes.supports) & set(changes.contradicts)
        notes = [
            note.told(candidate_id, supports=speaks)
            if note.id in words
            and note.id not in unclear
            and (speaks := note.speaks(ways)) is not None
            and not (speaks and not words[note.id])
            else note
            for note in notes
        ]
        for claim in changes.new:
            alike = [i for i, note in enumerate(notes) if note.effect == claim.effect]
            found = same(str(claim), [str(notes[i]) for i in alike])
            speaks = claim.speaks(ways)
            if found is None:
                made += 1
                note = Note(id=f"n-{made:02d}", **claim.model_dump())
                notes.append(note)
                found, alike = 0, [len(notes) - 1]
            place = alike[found]
            if speaks is not None and candidate_id not in notes[place].contradicts:
                notes[place] = notes[place].told(candidate_id, supports=speaks)
        return Notebook(notes=_kept(notes, most, is_believed), made=made)


def _kept(notes: Sequence[Note], most: int, is_believed: Callable[[str], bool]) -> tuple[Note, ...]:
    """The best that hold and the latest that are retired, in the order of making."""
    weighed = {note.id: note.weighed(is_believed) for note in notes}
    holding = sorted((n for n in weighed.values() if not n.retired), key=_rank)[:most]
    retired = [n for n in weighed.values() if n.retired][-most:] if most else []
    ids = {note.id for note in (*holding, *retired)}
    return tuple(note for note in notes if note.id in ids)


def _rank(note: Note) -> tuple[bool, float, int, int]:
    """What is confirmed first; the best supported, then by the amount of evidence, then the newest."""
    evidence = len(note.supports) + len(note.contradicts)
    return (not note.confirmed, -note.support, -evidence, -int(note.id[2:]))
