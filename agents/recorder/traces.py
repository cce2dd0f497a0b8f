"""Bringing a run's exchanges with models to MLflow, each as one trace.

The files in the run's folder are the truth. What has been delivered is noted in the store, together with
MLflow's run of the discovery run, so that a server that was replaced gets all of them again. A process that
dies before the note does no harm: the trace of an exchange has the same id whoever writes it.
"""

from __future__ import annotations

import logging
import time
from collections import defaultdict
from collections.abc import Callable, Iterable
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from cambrian.agents.planner.exchange import Exchange
from cambrian.agents.population.model import Candidate
from cambrian.agents.population.store import PopulationStore
from cambrian.agents.recorder.entries import TAG_CANDIDATE
from cambrian.agents.recorder.prompts import PromptRegistry
from cambrian.agents.recorder.trace_entries import PromptRef, is_settled, root_of, trace_entry, trace_ids
from cambrian.agents.recorder.trace_tracking import TraceTracking
from cambrian.agents.sections import LLMSection
from cambrian.agents.wording import one_line

logger = logging.getLogger(__name__)

_CURSOR_KEY = "recorder.traces"
_BATCH = 32
_SETTLING_NS = 1_000_000_000
"""A folder that changed less than this ago may change again without its time of change showing it."""


class _Cursor(BaseModel):
    """What is delivered: inclusive ranges of exchange numbers, and to which run of MLflow's."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    parent: str
    done: tuple[tuple[int, int], ...] = ()


def exchange_numbers(run_folder: Path) -> frozenset[int]:
    """Numbers of the exchanges that are on disk."""
    stems = (path.stem.removeprefix("x-") for path in (run_folder / "exchanges").glob("x-*.json"))
    return frozenset(int(stem) for stem in stems if stem.isdigit())


class Traces:
    """The exchanges of one run on their way to one tracking server.

    Args:
        store: of the run; its folder holds the exchanges.
        tracking: the server.
        prompts: to which traces are linked.
        parent_run_id: MLflow's run of the discovery run.
        earlier: numbers of the exchanges of earlier processes, of which none is answered any more.
    """

    def __init__(
        self,
        store: PopulationStore,
        tracking: TraceTracking,
        prompts: PromptRegistry,
        parent_run_id: str,
        earlier: frozenset[int],
    ) -> None:
        self._store = store
        self._tracking = tracking
        self._prompts = prompts
        self._parent = parent_run_id
        self._llm = _llm_of(store)
        self._earlier = earlier
        self._folder = store.folder / "exchanges"
        self._seen_ns = -1
        self._waiting = False  # for the answer to something that was asked
        self._known: dict[str, Exchange] = {}  # without their texts
        self._by_root: defaultdict[str, list[str]] = defaultdict(list)
        self._askers: defaultdict[str, dict[str, None]] = defaultdict(dict)
        self._linked: set[tuple[str, str]] = set()
        self._done = self._read_cursor()
        for number in sorted(self._done):
            exchange = self._read(number, quiet=True)
            if exchange is not None:
                self._index(exchange)
        for candidate in store.candidates():
            self._note_askers(candidate)

    # -- what is known of them ----------------------------------------------------------------------

    def of(self, candidate: Candidate) -> list[Exchange]:
        """The exchanges behind a proposal, all turns of them, and behind its lesson; without their texts.

        Only delivered ones are known.
        """
        ids: dict[str, None] = {}
        proposed = self._known.get(candidate.proposal.exchange or "")
        if proposed is not None:
            turns = self._by_root[root_of(proposed.place)] if proposed.place else [proposed.id]
            # a draw's questions that came after the answer that this candidate is from are not about it
            ids |= dict.fromkeys(each for each in turns if _number(self._known[each]) <= _number(proposed))
        ids |= dict.fromkeys(self._by_root.get(candidate.id, ()))
        if candidate.lesson is not None and candidate.lesson.exchange in self._known:
            ids[candidate.lesson.exchange] = None
        return sorted((self._known[each] for each in ids), key=_number)

    def shared_by(self, exchange_id: str) -> int:
        """How many candidates came of an exchange."""
        return len(self._askers.get(exchange_id, ()))

    def trace_id(self, exchange_id: str) -> str:
        """MLflow's id of an exchange's trace."""
        return f"tr-{trace_ids(self._parent, exchange_id)[0]}"

    def waiting(self) -> bool:
        """Whether there is something to deliver; may be asked from any thread."""
        return any(
            exchange is not None and self._is_due(exchange, last=False)
            for exchange in (
                self._read(number, quiet=True) for number in exchange_numbers(self._store.folder) - self._done
            )
        )

    def prompts_of(self, exchange: Exchange) -> list[PromptRef]:
        """The registered versions of the templates that an exchange was asked with."""
        return self._prompts.of(exchange.templates)

    # -- delivery -----------------------------------------------------------------------------------

    def deliver(self, late: Callable[[], bool] = lambda: False, *, last: bool = False) -> None:
        """Bring what is settled to MLflow; with `last` also what nobody waits for an answer to any more.

        Raises:
            Exception: whatever MLflow raises; to be repeated.
        """
        due = self._due(last)
        if due:
            self._prompts.register()
        for start in range(0, len(due), _BATCH):
            if late():
                self._seen_ns = -1
                return
            try:
                self._bring(due[start : start + _BATCH])
            except Exception:
                self._seen_ns = -1
                raise

    def link(self, candidate: Candidate, mlflow_run_id: str) -> None:
        """Show the exchanges behind a candidate on its page, and the candidate on theirs.

        Raises:
            Exception: whatever MLflow raises; to be repeated.
        """
        if candidate.proposal.exchange is None and candidate.lesson is None:
            return
        self.deliver()
        self._note_askers(candidate)
        fresh = [x.id for x in self.of(candidate) if (x.id, mlflow_run_id) not in self._linked]
        if not fresh:
            return
        self._tracking.link([trace_ids(self._parent, each)[0] for each in fresh], mlflow_run_id)
        for each in fresh:
            if self._known[each].place.startswith("c-"):
                continue  # tagged when it was made
            self._askers[each][candidate.id] = None
            self._tracking.tag(
                trace_ids(self._parent, each)[0], TAG_CANDIDATE, ", ".join(sorted(self._askers[each]))
            )
        self._linked |= {(each, mlflow_run_id) for each in fresh}

    def _bring(self, exchanges: list[Exchange]) -> None:
        entries = [
            trace_entry(each, self._store.run.run_id, self._parent, self._prompts.refs, self._llm)
            for each in exchanges
        ]
        self._tracking.write(entries, self._parent)
        for each in exchanges:
            self._index(each)
            self._done.add(_number(each))
            run = self._store.tracked(root_of(each.place)) if each.place.startswith("c-") else None
            if run is not None:  # an analysis that brought no lesson: its candidate is not delivered again
                self._tracking.link([trace_ids(self._parent, each.id)[0]], run)
                self._linked.add((each.id, run))
        cursor = _Cursor(parent=self._parent, done=_ranges(self._done))
        self._store.set_meta(_CURSOR_KEY, cursor.model_dump_json())

    def _due(self, last: bool) -> list[Exchange]:
        try:
            changed = self._folder.stat().st_mtime_ns
        except FileNotFoundError:
            return []
        if changed == self._seen_ns and not (last and self._waiting):
            return []
        self._waiting = False
        due = []
        for number in sorted(exchange_numbers(self._store.folder) - self._done):
            exchange = self._read(number)
            if exchange is None:
                self._done.add(number)
            elif self._is_due(exchange, last):
                due.append(exchange)
            else:
                self._waiting = True
        settled = changed < time.time_ns() - _SETTLING_NS
        self._seen_ns = changed if settled else -1
        return due

    def _is_due(self, exchange: Exchange, last: bool) -> bool:
        return last or is_settled(exchange) or _number(exchange) in self._earlier

    def _read(self, number: int, *, quiet: bool = False) -> Exchange | None:
        path = self._folder / f"x-{number:04d}.json"
        try:
            return Exchange.model_validate_json(path.read_bytes())
        except (OSError, ValidationError) as error:
            if not quiet:
                logger.warning("exchange %s is not shown in MLflow: %s", path.stem, one_line(str(error), 200))
            return None

    def _index(self, exchange: Exchange) -> None:
        if exchange.id in self._known:
            return
        response = None if exchange.response is None else ""
        self._known[exchange.id] = exchange.model_copy(update={"messages": (), "response": response})
        if exchange.place:
            self._by_root[root_of(exchange.place)].append(exchange.id)

    def _note_askers(self, candidate: Candidate) -> None:
        if candidate.proposal.exchange is not None:
            self._askers[candidate.proposal.exchange][candidate.id] = None
        for each in self.of(candidate):
            if not each.place.startswith("c-"):
                self._askers[each.id][candidate.id] = None

    def _read_cursor(self) -> set[int]:
        kept = self._store.get_meta(_CURSOR_KEY)
        if not kept:
            return set()
        try:
            cursor = _Cursor.model_validate_json(kept)
        except ValidationError:
            return set()  # delivering once more does no harm
        if cursor.parent != self._parent:
            return set()
        return {number for first, end in cursor.done for number in range(first, end + 1)}


def _llm_of(store: PopulationStore) -> LLMSection:
    try:
        return LLMSection.model_validate(store.run.config.get("llm") or {})
    except ValidationError:
        return LLMSection()  # of another version: its prices are not worth the traces


def _number(exchange: Exchange) -> int:
    return int(exchange.id.removeprefix("x-"))


def _ranges(numbers: Iterable[int]) -> tuple[tuple[int, int], ...]:
    found: list[tuple[int, int]] = []
    for number in sorted(numbers):
        if found and found[-1][1] == number - 1:
            found[-1] = (found[-1][0], number)
        else:
            found.append((number, number))
    return tuple(found)
