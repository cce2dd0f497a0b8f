"""The recorder: a thread that brings the population's changes to MLflow.

MLflow is a view. The population store is the truth and holds the outbox: what has not been delivered. Each
delivery can be repeated without harm, and a run is never made twice: its id is noted in the store, and where
a process may have died before the note, MLflow is searched for the candidate's tag first. A tracking server
that is down, or that was replaced by an empty one, loses nothing.
"""

from __future__ import annotations

import logging
import threading
import time
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from cambrian.agents.population.model import CandidateState
from cambrian.agents.population.store import OutboxItem, PopulationStore
from cambrian.agents.recorder.delivery import Delivery, get_run
from cambrian.agents.recorder.entries import PENDING, TAG_CANDIDATE, TAG_REVIEW, TAG_RUN
from cambrian.agents.recorder.notes import experiment_tags
from cambrian.agents.recorder.parent import Parent
from cambrian.agents.recorder.prompts import PromptRegistry
from cambrian.agents.recorder.trace_tracking import TraceTracking
from cambrian.agents.recorder.traces import Traces, exchange_numbers
from cambrian.agents.recorder.tracking import Tracking, check_tracking_uri, is_hopeless, is_missing
from cambrian.agents.wording import one_line
from cambrian.search_spaces import Space, Task

logger = logging.getLogger(__name__)

_REBUILD_KEY = "recorder.rebuild"
"""Index of the next candidate that a replaced server lacks; empty when it lacks none."""
_POLL_S = 0.5
_FIRST_DELAY_S, _LONGEST_DELAY_S = 1.0, 60.0
_BATCH = 64


class RecorderStatus(BaseModel):
    """How the recorder stands.

    Attributes:
        delivered: changes brought to MLflow since the start.
        pending: candidates with a change that MLflow does not show yet.
        error: why nothing can be delivered just now, in one line; empty when all is well.
        busy_s: seconds spent on deliveries; connecting and pictures not counted.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    delivered: int = 0
    pending: int = 0
    error: str = ""
    busy_s: float = 0.0


class MLflowRecorder:
    """Brings one run's population to MLflow, in a thread of its own that never fails the run.

    Life: `start` once, then any number of `flush`, then `close` while the store is still open.

    Args:
        store: the run's population.
        space: draws and prints the architectures.
        task: what they are judged on.
        tracking_uri: `sqlite:///...`, another database, or `http://...`.
        artifact_root: folder of artifacts when `tracking_uri` is a database; None leaves it to MLflow.

    Raises:
        UserError: `tracking_uri` is nothing that MLflow can record to.
    """

    def __init__(
        self,
        store: PopulationStore,
        space: Space,
        task: Task,
        tracking_uri: str,
        artifact_root: Path | None = None,
    ) -> None:
        self._uri = check_tracking_uri(tracking_uri)
        self._store = store
        self._space = space
        self._task = task
        self._root = artifact_root
        self._tracking: Tracking | None = None
        self._parent: Parent | None = None
        self._delivery: Delivery | None = None
        self._traces: Traces | None = None
        self._earlier = exchange_numbers(store.folder)  # before anything is asked in this process
        self._refused: dict[str, int] = {}
        self._delivered = 0
        self._busy_s = 0.0
        self._error = ""
        self._deadline = float("inf")
        self._stop = threading.Event()
        self._wake = threading.Event()
        self._turned = threading.Condition()
        self._thread: threading.Thread | None = None

    # -- what others call ---------------------------------------------------------------------------

    def start(self) -> None:
        """Begin to deliver."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="mlflow-recorder", daemon=True)
            self._thread.start()

    def flush(self, timeout_s: float = 30.0) -> bool:
        """Wait until all changes so far are delivered; False when they were not within `timeout_s`."""
        deadline = time.monotonic() + timeout_s
        with self._turned:
            while self._lacks():
                left = deadline - time.monotonic()
                if left <= 0 or self._thread is None or not self._thread.is_alive():
                    return False
                self._wake.set()
                self._turned.wait(min(left, 0.1))
        return True

    def _lacks(self) -> bool:
        if self._store.outbox_size() or self._store.get_meta(_REBUILD_KEY):
            return True
        return exchange_numbers(self._store.folder) != frozenset() and (
            self._traces is None or self._traces.waiting()
        )

    def close(self, timeout_s: float = 60.0) -> None:
        """Deliver the rest, draw the last pictures, end the parent run. Safe to call twice.

        What cannot be delivered within `timeout_s` stays in the outbox for the next process.
        """
        self._deadline = time.monotonic() + timeout_s
        self._stop.set()
        self._wake.set()
        if self._thread is not None:
            self._thread.join(timeout_s + 2.0)

    @property
    def status(self) -> RecorderStatus:
        """How it stands now."""
        return RecorderStatus(
            delivered=self._delivered,
            pending=self._store.outbox_size(),
            error=self._error,
            busy_s=round(self._busy_s, 4),
        )

    @property
    def client(self) -> Any:
        """MLflow's own client, None while there is no connection."""
        return None if self._tracking is None else self._tracking.client

    @property
    def experiment_id(self) -> str | None:
        """The experiment, None while there is no connection."""
        return None if self._tracking is None else self._tracking.experiment_id

    def reviewed(self) -> dict[str, dict[str, str]]:
        """Tags of the parked candidates on which a reviewer has set the tag `review`, by candidate id.

        Raises:
            Exception: whatever MLflow raises when it cannot be asked.
        """
        tracking = self._tracking
        if tracking is None:
            return {}
        runs = tracking.search(
            f"tags.`{TAG_RUN}` = '{self._store.run.run_id}' and tags.state = '{CandidateState.PARKED}' "
            f"and tags.{TAG_REVIEW} != '{PENDING}'"
        )
        return {run.tags[TAG_CANDIDATE]: run.tags for run in runs if TAG_CANDIDATE in run.tags}

    # -- the thread ---------------------------------------------------------------------------------

    def _work(self) -> None:
        delay = 0.0
        while True:
            stopping = self._stop.is_set()
            try:
                self._turn(last=stopping)
                self._error = ""
                delay = 0.0
            except Exception as error:  # the run must go on whatever MLflow does
                self._note_trouble(error)
                delay = min(max(_FIRST_DELAY_S, 2 * delay), _LONGEST_DELAY_S)
            with self._turned:
                self._turned.notify_all()
            if stopping and (not self._error or time.monotonic() + min(delay, 2.0) >= self._deadline):
                return
            self._wake.wait(min(delay, 2.0) if self._stop.is_set() else delay or _POLL_S)
            self._wake.clear()

    def _turn(self, *, last: bool) -> None:
        if self._tracking is None:
            run = self._store.run
            tracking = Tracking(self._uri, f"{run.space}/{run.task}", self._root)
            tracking.add_experiment_tags(experiment_tags(run, tracking.experiment_id))
            self._tracking = tracking
        if self._parent is None or self._delivery is None or self._traces is None:
            self._parent = Parent(self._store, self._space, self._task, self._tracking)
            if self._parent.moved:
                self._store.set_meta(_REBUILD_KEY, "0")
            doubtful = set() if self._parent.fresh else self._untracked()
            self._traces = self._open_traces(self._tracking, self._parent)
            self._delivery = Delivery(
                self._store,
                self._space,
                self._task,
                self._tracking,
                self._parent.info,
                doubtful,
                self._traces,
            )
        try:
            self._traces.deliver(self._late, last=last)
        except Exception as error:
            self._still_there(error)
            raise
        self._drain(self._delivery)
        self._rebuild(self._delivery)
        if not self._late():
            self._parent.illustrate(last=last)
        if last:
            self._parent.end()

    def _open_traces(self, tracking: Tracking, parent: Parent) -> Traces:
        traced, run = TraceTracking(tracking), self._store.run
        asks = (run.config.get("arms", {}).get("llm") or {}).get("weight", 0) > 0
        prompts = PromptRegistry(traced, self._space, self._store.folder, asks)
        prompts.register()
        parent.link_prompts(list(prompts.refs.values()))
        return Traces(self._store, traced, prompts, parent.info.run_id, self._earlier)

    def _untracked(self) -> set[str]:
        return {c.id for c in self._store.candidates() if self._store.tracked(c.id) is None}

    def _note_trouble(self, error: Exception) -> None:
        text = one_line(f"{type(error).__name__}: {error}", 300)
        if text != self._error:
            logger.warning("MLflow cannot be written; the run goes on and delivers later: %s", text)
            logger.debug("details", exc_info=error)
        self._error = text

    def _late(self) -> bool:
        return self._stop.is_set() and time.monotonic() > self._deadline

    def _drain(self, delivery: Delivery) -> None:
        while items := self._next_items():
            for item in items:
                if self._late():
                    return
                self._try(delivery, item)

    def _next_items(self) -> list[OutboxItem]:
        items = self._store.outbox(_BATCH + len(self._refused))
        return [item for item in items if self._refused.get(item.candidate_id) != item.seq]

    def _try(self, delivery: Delivery, item: OutboxItem) -> None:
        started = time.perf_counter()
        try:
            delivery.deliver(item.candidate_id)
        except Exception as error:
            self._still_there(error)
            if not is_hopeless(error):
                raise
            # One candidate that MLflow will not take must not hold up the others. It stays in the outbox:
            # its next change, or the next process, tries again.
            self._refused[item.candidate_id] = item.seq
            logger.warning("MLflow refuses %s: %s", item.candidate_id, one_line(str(error), 300))
            logger.debug("details", exc_info=error)
            return
        finally:
            self._busy_s += time.perf_counter() - started
        self._refused.pop(item.candidate_id, None)
        self._store.delivered([item])
        self._delivered += 1

    def _still_there(self, error: Exception) -> None:
        """When something is missing, see whether the server was replaced under us; then connect anew."""
        if not is_missing(error) or self._tracking is None or self._parent is None:
            return
        if get_run(self._tracking, self._parent.info.run_id) is None:
            self._tracking = self._parent = self._delivery = self._traces = None
            raise ConnectionError("the tracking server has lost the run; it is recorded again") from error

    def _rebuild(self, delivery: Delivery) -> None:
        """Deliver every candidate to a replaced server, from where the last attempt came to."""
        begin = self._store.get_meta(_REBUILD_KEY)
        if not begin:
            return
        for candidate in self._store.candidates()[int(begin) :]:
            if self._late():
                return
            delivery.deliver(candidate.id)
            self._store.set_meta(_REBUILD_KEY, str(candidate.index + 1))
        self._store.set_meta(_REBUILD_KEY, "")
