"""Bringing one candidate to MLflow: its run is made once, and made to agree with the store ever after."""

from __future__ import annotations

import hashlib
import logging
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from cambrian.agents.champions import CHAMPIONS_KEY, read_champions
from cambrian.agents.population.model import Candidate, CandidateState, Evaluation
from cambrian.agents.population.store import PopulationStore
from cambrian.agents.recorder.artifacts import write_candidate_files
from cambrian.agents.recorder.asked import Asked, asked_of
from cambrian.agents.recorder.entries import (
    NOTE,
    PENDING,
    TAG_CANDIDATE,
    TAG_NOTE_HASH,
    TAG_REVIEW,
    Entry,
    candidate_entry,
)
from cambrian.agents.recorder.notes import artifact_link, candidate_note, run_link
from cambrian.agents.recorder.traces import Traces
from cambrian.agents.recorder.tracking import RunInfo, Tracking, is_hopeless, is_missing
from cambrian.agents.review import shown_note_key
from cambrian.agents.wording import one_line
from cambrian.search_spaces import Space, Task

logger = logging.getLogger(__name__)

_UNFINISHED = frozenset({CandidateState.PROPOSED, CandidateState.TRAINING})


class Delivery:
    """Candidates of one run on their way to one tracking server.

    Args:
        store: knows the candidates, and the MLflow run of each.
        space: draws and prints architectures.
        task: what they are judged on.
        tracking: the server.
        parent: MLflow's run of the discovery run.
        doubtful: candidates for which a dead process may have made a run without noting it.
        traces: of the exchanges with models behind the candidates.
    """

    def __init__(
        self,
        store: PopulationStore,
        space: Space,
        task: Task,
        tracking: Tracking,
        parent: RunInfo,
        doubtful: set[str],
        traces: Traces,
    ) -> None:
        self._store = store
        self._space = space
        self._task = task
        self._tracking = tracking
        self._parent = parent
        self._doubtful = doubtful
        self._traces = traces

    def deliver(self, candidate_id: str) -> None:
        """Make MLflow's run of a candidate what the store says; any number of times without harm.

        Raises:
            Exception: whatever MLflow raises; the delivery is to be repeated.
        """
        candidate = self._store.candidate(candidate_id)
        evaluations = self._store.evaluations(candidate_id)
        run = self._store.run
        plan = read_champions(self._store.get_meta(CHAMPIONS_KEY), run.config.get("budget", {}))
        champion = plan is not None and candidate_id in plan.ids()
        entry = candidate_entry(candidate, evaluations, run, champion)
        child = self._known_child(candidate_id)
        if child is not None and child.deleted:
            return  # a person deleted it
        is_new = child is None
        if child is None:
            child = self._create_child(candidate_id, entry)
        self._traces.link(candidate, child.run_id)
        if is_new and candidate.state in _UNFINISHED:
            return  # more is known in a moment, and is written then in one go
        pictured = self._upload_files(child, candidate)
        asked = asked_of(candidate, self._traces, self._tracking.experiment_id, child.run_id)
        tags = entry.tags | _review_tags(candidate, child.tags) | (asked.tags if asked is not None else {})
        if child.name != entry.name:
            tags["mlflow.runName"] = entry.name
        if not edited(child.tags):
            note = self._note(child, candidate, evaluations, pictured, asked)
            tags |= note_tags(note)
            if candidate.state is CandidateState.PARKED:
                self._store.set_meta(shown_note_key(candidate_id), note)
        tags = {key: value for key, value in tags.items() if child.tags.get(key) != value}
        self._tracking.log(child.run_id, entry.metrics, entry.params, tags)
        if entry.end is not None or child.status != entry.status:
            self._tracking.set_status(child.run_id, entry.status, entry.end)

    def _known_child(self, candidate_id: str) -> RunInfo | None:
        known = self._store.tracked(candidate_id)
        if known is not None and (child := get_run(self._tracking, known)) is not None:
            return child
        if known is None and candidate_id not in self._doubtful:
            return None
        marks = {TAG_CANDIDATE: candidate_id, "mlflow.parentRunId": self._parent.run_id}
        found = self._tracking.find(marks)
        if found is None:
            return None
        self._track(candidate_id, found)
        return self._tracking.get(found)

    def _create_child(self, candidate_id: str, entry: Entry) -> RunInfo:
        # If the answer to this request is lost, or we die before the note, the next try must search first.
        self._doubtful.add(candidate_id)
        tags = {**entry.tags, "mlflow.parentRunId": self._parent.run_id}
        child = self._tracking.create(entry.name, tags, entry.start)
        self._track(candidate_id, child.run_id)
        return child

    def _track(self, candidate_id: str, run_id: str) -> None:
        self._store.track(candidate_id, run_id)
        self._doubtful.discard(candidate_id)

    def _note(
        self,
        child: RunInfo,
        candidate: Candidate,
        evaluations: Sequence[Evaluation],
        pictured: bool,
        asked: Asked | None,
    ) -> str:
        parents = []
        for parent_id in candidate.proposal.parents:
            try:
                parents.append(self._store.candidate(parent_id))
            except KeyError:
                continue
        like = candidate.nearest.id if candidate.nearest is not None else ""
        named = [*(parent.id for parent in parents), candidate.duplicate_of or "", like]
        return candidate_note(
            candidate,
            evaluations,
            self._store.run,
            parents,
            links_of(self._store, self._tracking, named),
            artifact_link(child.run_id, "architecture.svg") if pictured else None,
            asked,
        )

    def _upload_files(self, child: RunInfo, candidate: Candidate) -> bool:
        """Upload what belongs to the candidate; whether its drawing is among it."""
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            drawn = write_candidate_files(
                candidate, self._space, self._task.signature, self._store.folder, folder
            )
            return upload(self._tracking, child, folder) and drawn


def upload(tracking: Tracking, run: RunInfo, folder: Path) -> bool:
    """Upload a folder to a run's artifacts; False when this server takes none."""
    try:
        tracking.upload(run.artifact_uri, folder)
    except Exception as error:
        if not is_hopeless(error):
            raise
        logger.warning("MLflow takes no artifacts of %s: %s", run.name, one_line(str(error), 300))
        return False
    return True


def get_run(tracking: Tracking, run_id: str) -> RunInfo | None:
    """The run, None when this server does not know it."""
    try:
        return tracking.get(run_id)
    except Exception as error:
        if is_missing(error):
            return None
        raise


def links_of(store: PopulationStore, tracking: Tracking, candidate_ids: Sequence[str]) -> dict[str, str]:
    """Pages of those candidates that have a run."""
    runs = ((cid, store.tracked(cid)) for cid in candidate_ids)
    return {cid: run_link(tracking.experiment_id, run) for cid, run in runs if run is not None}


def note_tags(note: str) -> dict[str, str]:
    """A description, and the mark by which `edited` knows it for ours."""
    return {NOTE: note, TAG_NOTE_HASH: _hash(note)}


def edited(tags: Mapping[str, str]) -> bool:
    """Whether a person has changed the description since we wrote it; then it is theirs."""
    return TAG_NOTE_HASH in tags and _hash(tags.get(NOTE, "")) != tags[TAG_NOTE_HASH]


def _hash(note: str) -> str:
    return hashlib.sha256(note.encode()).hexdigest()[:16]


def _review_tags(candidate: Candidate, tags: Mapping[str, str]) -> dict[str, str]:
    """`pending` while parked; once decided elsewhere, the decision. A reviewer's word is never replaced."""
    if candidate.state is CandidateState.PARKED:
        return {} if TAG_REVIEW in tags else {TAG_REVIEW: PENDING}
    if tags.get(TAG_REVIEW) == PENDING:
        return {TAG_REVIEW: "reject" if candidate.state is CandidateState.REJECTED else "approve"}
    return {}
