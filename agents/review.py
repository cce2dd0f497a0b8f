"""Review desks: where people decide on proposals that wait for them.

A desk is asked about the parked candidates and says what was decided. What a reviewer writes is data: its
length is bounded and control characters are taken out before it reaches a prompt, a terminal or the store.
"""

from __future__ import annotations

import difflib
import json
import logging
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol, runtime_checkable

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from cambrian.agents.errors import UserError
from cambrian.agents.wording import clean, one_line

if TYPE_CHECKING:
    from cambrian.agents.population.store import PopulationStore
    from cambrian.agents.recorder.mlflow_recorder import MLflowRecorder

logger = logging.getLogger(__name__)

_MAX_FILE_BYTES = 64 * 1024
_VERDICTS: dict[str, Literal["approve", "reject"]] = {
    "approve": "approve",
    "approved": "approve",
    "reject": "reject",
    "rejected": "reject",
}


class Decision(BaseModel):
    """What a reviewer decided.

    Attributes:
        reason: why; the planner reads it in its next prompt. At most 2,000 characters.
        by: who; empty when nobody said.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    candidate_id: str = Field(pattern=r"^c-\d{1,9}$")
    verdict: Literal["approve", "reject"]
    reason: str = ""
    by: str = ""

    @field_validator("reason", mode="after")
    @classmethod
    def _clean_reason(cls, value: str) -> str:
        return clean(value, 2000)

    @field_validator("by", mode="after")
    @classmethod
    def _clean_by(cls, value: str) -> str:
        return one_line(value, 80)


@runtime_checkable
class ReviewDesk(Protocol):
    """A place where reviewers leave decisions.

    Life: any number of `poll`, from one thread at a time, then `close`. A desk that cannot be reached has no
    decisions; it never raises. A decision is repeated for as long as its candidate is asked about.
    """

    def poll(self, parked: Sequence[str]) -> list[Decision]:
        """The decisions that exist on the candidates `parked`, at most one each, in the order of `parked`."""
        ...

    def close(self) -> None:
        """Release what it holds. Safe to call twice."""
        ...


class FolderDesk:
    """Decisions as files `<candidate id>.json` in a folder, usually `<run folder>/review`.

    Another process decides; a file appears whole or not at all. A file that is no decision is reported once,
    left where it is and ignored.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._reported: set[tuple[str, int]] = set()

    def decide(
        self, candidate_id: str, verdict: Literal["approve", "reject"], reason: str = "", *, by: str = ""
    ) -> Decision:
        """Leave a decision, in place of an earlier one on the same candidate.

        Raises:
            UserError: the folder cannot be written.
        """
        decision = Decision(candidate_id=candidate_id, verdict=verdict, reason=reason, by=by)
        target = self.folder / f"{decision.candidate_id}.json"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            handle, name = tempfile.mkstemp(dir=self.folder, prefix=f".{decision.candidate_id}-")
            temporary = Path(name)
            try:
                with os.fdopen(handle, "w", encoding="utf-8") as file:
                    file.write(decision.model_dump_json(indent=2))
                    file.flush()
                    os.fsync(file.fileno())
                temporary.replace(target)
            finally:
                temporary.unlink(missing_ok=True)
        except OSError as error:
            raise UserError(
                f"cannot write the decision {target}: {error.strerror}",
                hint="the run's folder must be writable for whoever reviews",
            ) from error
        return decision

    def poll(self, parked: Sequence[str]) -> list[Decision]:
        """The decisions whose files exist."""
        found = (self._read(candidate_id) for candidate_id in parked)
        return [decision for decision in found if decision is not None]

    def close(self) -> None:
        """Nothing to release."""

    def _read(self, candidate_id: str) -> Decision | None:
        path = self.folder / f"{candidate_id}.json"
        try:
            with path.open("rb") as file:
                written = os.fstat(file.fileno()).st_mtime_ns
                raw = file.read(_MAX_FILE_BYTES + 1)
        except FileNotFoundError:
            return None
        except OSError as error:
            self._report(path, 0, error.strerror or "cannot be read")
            return None
        try:
            if len(raw) > _MAX_FILE_BYTES:
                raise ValueError(f"larger than {_MAX_FILE_BYTES} bytes")
            decision = Decision.model_validate(json.loads(raw.decode("utf-8")))
            if decision.candidate_id != candidate_id:
                raise ValueError(f"decides on {decision.candidate_id}, not on {candidate_id}")
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(str(part) for part in first["loc"]) or "content"
            self._report(path, written, f"{place}: {first['msg']}")
            return None
        except (ValueError, RecursionError) as error:  # JSON and UTF-8 errors are ValueErrors
            self._report(path, written, str(error))
            return None
        return decision

    def _report(self, path: Path, written: int, problem: str) -> None:
        if (path.name, written) not in self._reported:
            self._reported.add((path.name, written))
            logger.warning("review file %s is ignored: %s", path, one_line(problem))


class MLflowDesk:
    """Decisions as tags of the candidates' runs in MLflow.

    A reviewer sets the tag `review` to `approve` or `reject`. The reason is the tag `review.reason`, else
    what the reviewer wrote into the run's description, else nothing. Each poll is one search.

    Args:
        recorder: whose runs are looked at; decisions exist once it is connected.
        store: the run's, where the recorder keeps the description that each reviewer was shown.
    """

    def __init__(self, recorder: MLflowRecorder, store: PopulationStore) -> None:
        self._recorder = recorder
        self._store = store
        self._reported: set[tuple[str, str]] = set()
        self._down = False

    def poll(self, parked: Sequence[str]) -> list[Decision]:
        """The decisions that tags hold."""
        if not parked:
            return []
        try:
            tags_by_candidate = self._recorder.reviewed()
        except Exception as error:  # whatever MLflow raises: reviewers are asked again at the next poll
            if not self._down:
                logger.warning("reviews cannot be read from MLflow: %s", one_line(str(error)))
            self._down = True
            return []
        self._down = False
        found = (self._decision(cid, tags_by_candidate[cid]) for cid in parked if cid in tags_by_candidate)
        return [decision for decision in found if decision is not None]

    def close(self) -> None:
        """Nothing to release: the connection is the recorder's."""

    def _decision(self, candidate_id: str, tags: dict[str, str]) -> Decision | None:
        word = tags.get("review", "").strip().lower()
        verdict = _VERDICTS.get(word)
        if verdict is None:
            if (candidate_id, word) not in self._reported:
                self._reported.add((candidate_id, word))
                logger.warning(
                    "%s: the tag review is %r and is ignored; write approve or reject",
                    candidate_id,
                    one_line(word, 40),
                )
            return None
        reason = tags.get("review.reason", "").strip()
        if not reason:
            shown = self._store.get_meta(shown_note_key(candidate_id))
            reason = "" if shown is None else added_text(shown, tags.get("mlflow.note.content", ""))
        return Decision(
            candidate_id=candidate_id,
            verdict=verdict,
            reason=reason,
            by=tags.get("review.by", "") or "MLflow",
        )


def shown_note_key(candidate_id: str) -> str:
    """Where the store keeps the description that the reviewer of a parked candidate was shown."""
    return f"note.{candidate_id}"


def added_text(ours: str, theirs: str) -> str:
    """The lines of `theirs` that are not in `ours`, without Markdown's quoting marks."""
    before = [line.strip() for line in ours.splitlines()]
    after = [line.strip() for line in theirs.splitlines()]
    changes = difflib.SequenceMatcher(None, before, after, autojunk=False).get_opcodes()
    lines = [
        line
        for kind, _, _, start, end in changes
        if kind in {"insert", "replace"}
        for line in after[start:end]
    ]
    return "\n".join(line.lstrip("> ").strip() for line in lines).strip()
