"""Who works on what: the slots of a run, what waits for a free one, and waiting until something changes."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import dataclass

from cambrian.agents.budget import Account
from cambrian.agents.population.store import PopulationStore
from cambrian.agents.population.view import Population
from cambrian.agents.repeats import Repeat
from cambrian.agents.review import Decision


@dataclass(frozen=True)
class Work:
    """One thing for a slot to do.

    Attributes:
        decision: of a reviewer, with which a parked candidate goes on.
        confirms: reproduce the score that the candidate has; no evaluation.
        repeat: train it once more with a fresh seed.
    """

    candidate_id: str
    rung: int
    decision: Decision | None = None
    confirms: bool = False
    repeat: Repeat | None = None

    @classmethod
    def again(cls, repeat: Repeat) -> Work:
        """The work of a repeat."""
        return cls(repeat.candidate, repeat.rung, repeat=repeat)


class Schedule:
    """The slots of a run; nobody works on a candidate that is `busy`.

    Args:
        n: slots.
        store: of the run.
        population: of the run.
        account: its clock stands while only a person is awaited.
        say: prints one line for people.

    Attributes:
        doing: what each slot does now.
        busy: ids of candidates that a slot works on.
        queue: what goes before anything new.
    """

    def __init__(
        self,
        n: int,
        store: PopulationStore,
        population: Population,
        account: Account,
        say: Callable[[str], None],
    ) -> None:
        self.doing = ["idle"] * n
        self.busy: set[str] = set()
        self.queue: list[Work] = []
        self._store, self._population, self._account, self._say = store, population, account, say
        self._slot_of: dict[str, int] = {}
        self._changed = asyncio.Condition()
        self._waiting_for: list[str] = []

    def begin(self, slot: int, work: Work) -> None:
        """Note that a slot works."""
        self._slot_of[work.candidate_id] = slot

    def end(self, slot: int, work: Work) -> None:
        """Note that it does not any more."""
        self.busy.discard(work.candidate_id)
        self._slot_of.pop(work.candidate_id, None)
        self.doing[slot] = "idle"

    def take(self, work: Work) -> Work:
        """Make its candidate busy."""
        self.busy.add(work.candidate_id)
        return work

    def note_activity(self, candidate_id: str, doing: str) -> None:
        """Note what the slot that works on a candidate does now."""
        slot = self._slot_of.get(candidate_id)
        if slot is not None:
            arm = self._population.get(candidate_id).proposal.arm
            self.doing[slot] = f"{candidate_id} {arm}: {doing}"

    def accept(self, decision: Decision) -> None:
        """Queue a reviewer's decision, once."""
        queued = {work.candidate_id for work in self.queue} | self.busy
        if decision.candidate_id not in queued:
            self.queue.append(Work(decision.candidate_id, 0, decision))

    async def notify(self) -> None:
        """Wake all that wait."""
        async with self._changed:
            self._changed.notify_all()

    async def wait(self, slot: int, what: str = "") -> None:
        """Until something has changed, or a second; the clock stands while only a person is awaited.

        Args:
            slot: that waits.
            what: it waits for, where that is no person.
        """
        parked = self._population.parked()
        self.doing[slot] = what or ("waiting for review" if parked else "waiting")
        if parked and not self.busy and parked != self._waiting_for:
            self._waiting_for = parked
            self._say(
                f"{len(parked)} proposals wait for review ({parked[0]} ...): set the tag `review` to "
                f"`approve` or `reject` in MLflow, or run `cambrian review {self._store.folder.name}`"
            )
        before = self._account.elapsed_s
        async with self._changed:
            # no task of its own: one that is cancelled twice would leave the lock to nobody
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(1.0):
                    await self._changed.wait()
        if slot == 0 and self._population.parked() and not what and not self.busy and not self.queue:
            self._account.excuse(self._account.elapsed_s - before)
