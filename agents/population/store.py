"""The population store: SQLite in write-ahead mode, one writer, the one truth of a run.

Everything that a resumed run needs is here: candidates with their states, evaluations, what was in flight,
and the outbox of changes that the recorder has not delivered to MLflow yet. A change and its outbox entry
are one transaction, so that neither can be lost without the other.

`synchronous=NORMAL` in write-ahead mode survives the death of the process at any moment; a power cut can lose
the last transactions but never corrupts the file.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Literal, NamedTuple
from urllib.parse import quote

from pydantic import BaseModel, ConfigDict

from cambrian.agents.errors import InfrastructureError, RunBusyError, UnknownNameError, UserError
from cambrian.agents.population import journal
from cambrian.agents.population.journal import JournalEntry
from cambrian.agents.population.model import Candidate, CandidateState, Evaluation

SCHEMA_VERSION = 1

_SCHEMA = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE candidates (
    idx INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    state TEXT NOT NULL,
    identity TEXT,
    duplicate_of TEXT,
    body TEXT NOT NULL
);
-- Nothing is paid twice: the database itself refuses a second owner of one identity.
CREATE UNIQUE INDEX identity_owner ON candidates (identity)
    WHERE identity IS NOT NULL AND duplicate_of IS NULL;
CREATE TABLE evaluations (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    candidate_id TEXT NOT NULL,
    rung INTEGER NOT NULL,
    seed INTEGER NOT NULL,
    body TEXT NOT NULL,
    UNIQUE (candidate_id, rung, seed)
);
CREATE TABLE inflight (candidate_id TEXT PRIMARY KEY, rung INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE outbox (candidate_id TEXT PRIMARY KEY, seq INTEGER NOT NULL) WITHOUT ROWID;
CREATE INDEX outbox_by_seq ON outbox (seq);
CREATE TABLE tracked (key TEXT PRIMARY KEY, mlflow_run_id TEXT NOT NULL) WITHOUT ROWID;
"""


class RunRecord(BaseModel):
    """What a run is, and how it stands.

    Attributes:
        created: seconds since the epoch.
        config: the resolved `RunConfig` as JSON data.
        elapsed_s: seconds that the run was active, over all resumes.
        stop_reason: why it is not running; empty while it is.
        sandbox: isolation level of the last process that worked on it.
        validation_samples: how many samples a score is read from; 0 when not known.
        replay_of: id of the run that it does again: it is no evidence of its own. Empty for all others.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    run_id: str
    name: str
    space: str
    task: str
    metric: str
    maximize: bool
    cost: str
    created: float
    config: dict[str, Any]
    status: Literal["running", "finished", "stopped"] = "running"
    stop_reason: str = ""
    elapsed_s: float = 0.0
    sandbox: str = ""
    validation_samples: int = 0
    replay_of: str = ""


class OutboxItem(NamedTuple):
    """A change that MLflow does not show yet. `seq` grows with every change of the same candidate."""

    seq: int
    candidate_id: str


class PopulationStore:
    """The store of one run; thread-safe. Opened for writing it holds the run's lock until closed.

    Args:
        folder: the run's folder.
        create: the record of a new run; None opens an existing one.
        readonly: for commands that only look: takes no lock, refuses to write.

    Raises:
        RunBusyError: another process holds the run.
        UnknownNameError: no run in that folder.
        UserError: the file is damaged or of another version.
    """

    def __init__(self, folder: Path, *, create: RunRecord | None = None, readonly: bool = False) -> None:
        self.folder = folder
        self._lock = threading.RLock()
        self._guard: IO[str] | None = None
        self._seq: int | None = None
        path = folder / "population.sqlite"
        if create is None and not path.exists():
            raise UnknownNameError(f"no run in {folder}", hint="`cambrian runs` lists the runs there are")
        if not readonly:
            folder.mkdir(parents=True, exist_ok=True)
            self._guard = _hold(folder)
        try:
            if create is not None and not path.exists():
                _make(path, create)
            self._db = _reader(path) if readonly else _writer(path)
            self._check_version()
        except sqlite3.DatabaseError as error:
            self._release()
            raise UserError(
                f"{path} cannot be read as a population store: {error}",
                hint="restore it from a copy, or start a new run",
            ) from error
        except BaseException:
            self._release()
            raise

    # -- the run ------------------------------------------------------------------------------------

    @property
    def run(self) -> RunRecord:
        """The run's record."""
        return RunRecord.model_validate_json(self.get_meta("run") or "{}")

    def set_run(self, **changes: Any) -> RunRecord:
        """Change fields of the run's record."""
        with self._lock:
            record = RunRecord.model_validate({**self.run.model_dump(), **changes})
            self.set_meta("run", record.model_dump_json())
            return record

    def get_meta(self, key: str) -> str | None:
        """A value kept under `key`, None when there is none."""
        with self._lock:
            row = self._db.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
        return None if row is None else str(row[0])

    def set_meta(self, key: str, value: str) -> None:
        """Keep `value` under `key`."""
        with self._transaction():
            self._put(key, value)

    # -- candidates ---------------------------------------------------------------------------------

    def candidate(self, candidate_id: str) -> Candidate:
        """The candidate.

        Raises:
            KeyError: there is none.
        """
        with self._lock:
            row = self._db.execute("SELECT body FROM candidates WHERE id = ?", (candidate_id,)).fetchone()
        if row is None:
            raise KeyError(candidate_id)
        return Candidate.model_validate_json(row[0])

    def candidates(self) -> list[Candidate]:
        """All candidates by index."""
        with self._lock:
            rows = self._db.execute("SELECT body FROM candidates ORDER BY idx").fetchall()
        return [Candidate.model_validate_json(row[0]) for row in rows]

    def add(self, candidate: Candidate, *, draws: int = 0, rung: int = 0, draw: str = "") -> None:
        """Enter a new candidate, in flight at `rung`, and note how many draws the planner has made so far.

        Args:
            candidate: the new one.
            draws: all so far.
            rung: that it is on its way to.
            draw: that it is from; empty where no arm was asked.
        """
        with self._transaction():
            self._put("draws", str(draws))
            self._write(candidate, "INSERT")
            journal.write(self._db, "add", candidate.id, {"draw": draw, "rung": rung})
            self._db.execute("INSERT INTO inflight VALUES (?, ?)", (candidate.id, rung))

    def update(self, candidate: Candidate, step: str = "") -> None:
        """Write a candidate's new state, which `step` of its life has brought."""
        with self._transaction():
            self._write(candidate, "REPLACE")
            journal.write(self._db, "save", candidate.id, {"step": step})

    def note(self, kind: journal.Kind, subject: str, **data: Any) -> None:
        """Write a line of the journal that comes with no change of a candidate."""
        with self._transaction():
            journal.write(self._db, kind, subject, data)

    def journal(self) -> list[JournalEntry]:
        """What happened, in order; empty for a run of an older version."""
        with self._lock:
            return journal.read(self._db)

    def owner(self, identity: str) -> str | None:
        """Id of the candidate that owns `identity`, None when it is new."""
        with self._lock:
            row = self._db.execute(
                "SELECT id FROM candidates WHERE identity = ? AND duplicate_of IS NULL", (identity,)
            ).fetchone()
        return None if row is None else str(row[0])

    def claim(self, candidate: Candidate, identity: str) -> Candidate:
        """Give `candidate` the identity: it becomes its owner, or a duplicate of the earlier owner.

        One transaction, so that of two slots that reach the same identity at once only one may train.
        """
        with self._transaction():
            owner = self.owner(identity)
            changes: dict[str, Any] = {"identity": identity}
            if owner is not None and owner != candidate.id:
                changes |= {"duplicate_of": owner, "state": CandidateState.DUPLICATE}
            claimed = candidate.model_copy(update=changes)
            self._write(claimed, "REPLACE")
        return claimed

    # -- evaluations --------------------------------------------------------------------------------

    def add_evaluation(self, evaluation: Evaluation, candidate: Candidate) -> None:
        """Record an evaluation and what it made of the candidate; recording it again is no change."""
        with self._transaction():
            self._db.execute(
                "INSERT OR IGNORE INTO evaluations (candidate_id, rung, seed, body) VALUES (?, ?, ?, ?)",
                (evaluation.candidate_id, evaluation.rung, evaluation.seed, evaluation.model_dump_json()),
            )
            self._write(candidate, "REPLACE")
            told = {"rung": evaluation.rung, "seed": evaluation.seed, "reproduced": candidate.reproduced}
            journal.write(self._db, "evaluation", candidate.id, told)

    def discredit(self, candidate: Candidate, state: str, reason: str) -> None:
        """Record that no score of `candidate` is believed any more: its evaluations lose theirs as well."""
        with self._transaction():
            lost = []
            for evaluation in self.evaluations(candidate.id):
                if evaluation.metrics or evaluation.test_metrics:
                    lost.append(evaluation.model_dump(mode="json"))
                    struck = evaluation.struck(state, reason)
                    self._db.execute(
                        "UPDATE evaluations SET body = ? WHERE candidate_id = ? AND rung = ? AND seed = ?",
                        (struck.model_dump_json(), candidate.id, struck.rung, struck.seed),
                    )
            self._write(candidate, "REPLACE")
            journal.write(self._db, "discredit", candidate.id, {"state": state, "lost": lost})

    def evaluations(self, candidate_id: str | None = None) -> list[Evaluation]:
        """Evaluations of one candidate, or of all, in the order in which they were made."""
        where, values = ("", ()) if candidate_id is None else ("WHERE candidate_id = ?", (candidate_id,))
        with self._lock:
            rows = self._db.execute(
                f"SELECT body FROM evaluations {where} ORDER BY seq",
                values,
            ).fetchall()
        return [Evaluation.model_validate_json(row[0]) for row in rows]

    def repeated(self, seed: int) -> list[str]:
        """Ids of candidates that were trained with another seed than `seed`, by name; reads an index only."""
        with self._lock:
            rows = self._db.execute(
                "SELECT DISTINCT candidate_id FROM evaluations WHERE seed != ? ORDER BY candidate_id", (seed,)
            ).fetchall()
        return [str(row[0]) for row in rows]

    # -- what is in flight --------------------------------------------------------------------------

    def launch(self, candidate_id: str, rung: int) -> None:
        """Note that the candidate is on its way to `rung`, until `land`."""
        with self._transaction():
            self._db.execute("INSERT OR REPLACE INTO inflight VALUES (?, ?)", (candidate_id, rung))

    def land(self, candidate_id: str) -> None:
        """Note that nothing of the candidate is in flight any more."""
        with self._transaction():
            self._db.execute("DELETE FROM inflight WHERE candidate_id = ?", (candidate_id,))

    def inflight(self) -> list[tuple[str, int]]:
        """Candidates and the rung they are on their way to, by index."""
        with self._lock:
            rows = self._db.execute(
                "SELECT candidate_id, rung FROM inflight JOIN candidates ON id = candidate_id ORDER BY idx"
            ).fetchall()
        return [(str(cid), int(rung)) for cid, rung in rows]

    # -- the recorder's side ------------------------------------------------------------------------

    def outbox(self, limit: int) -> list[OutboxItem]:
        """Changes not delivered yet, oldest first; a candidate appears once, with its newest change."""
        with self._lock:
            rows = self._db.execute(
                "SELECT seq, candidate_id FROM outbox ORDER BY seq LIMIT ?", (limit,)
            ).fetchall()
        return [OutboxItem(int(seq), str(cid)) for seq, cid in rows]

    def outbox_size(self) -> int:
        """Candidates with an undelivered change."""
        with self._lock:
            return int(self._db.execute("SELECT COUNT(*) FROM outbox").fetchone()[0])

    def delivered(self, items: Sequence[OutboxItem]) -> None:
        """Strike out delivered changes; a candidate that has changed since stays."""
        with self._transaction():
            self._db.executemany(
                "DELETE FROM outbox WHERE candidate_id = ? AND seq = ?",
                [(item.candidate_id, item.seq) for item in items],
            )

    def tracked(self, key: str) -> str | None:
        """MLflow's run id of a candidate, or of the run itself under the key `run`."""
        with self._lock:
            row = self._db.execute("SELECT mlflow_run_id FROM tracked WHERE key = ?", (key,)).fetchone()
        return None if row is None else str(row[0])

    def track(self, key: str, mlflow_run_id: str) -> None:
        """Remember MLflow's run id of `key`."""
        with self._transaction():
            self._db.execute("INSERT OR REPLACE INTO tracked VALUES (?, ?)", (key, mlflow_run_id))

    def is_held(self) -> bool:
        """Whether a process is working on the run now."""
        if self._guard is not None:
            return True
        try:
            _hold(self.folder, leave_note=False).close()
        except RunBusyError:
            return True
        except UserError:  # not ours to lock, so nobody of ours holds it
            return False
        return False

    def close(self) -> None:
        """Close the file and let go of the run. Safe to call twice."""
        with self._lock:
            self._db.close()
        self._release()

    # -- inside -------------------------------------------------------------------------------------

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        with self._lock:
            if self._db.in_transaction:  # nested: the outer one commits
                yield
                return
            try:
                self._db.execute("BEGIN IMMEDIATE")
                yield
                self._db.execute("COMMIT")
            except sqlite3.OperationalError as error:
                self._rollback()
                raise InfrastructureError(
                    f"cannot write {self.folder / 'population.sqlite'}: {error}",
                    hint="free some disk space or mend the folder's permissions, then `cambrian resume`",
                ) from error
            except BaseException:
                self._rollback()
                raise

    def _rollback(self) -> None:
        if self._db.in_transaction:
            self._db.execute("ROLLBACK")

    def _write(self, candidate: Candidate, verb: Literal["INSERT", "REPLACE"]) -> None:
        if candidate.score is not None and not candidate.state.may_score:
            raise ValueError(f"{candidate.id} is {candidate.state} and has a score")
        self._db.execute(
            f"{verb} INTO candidates (idx, id, state, identity, duplicate_of, body) "
            "VALUES (?, ?, ?, ?, ?, ?)",
            (
                candidate.index,
                candidate.id,
                candidate.state,
                candidate.identity,
                candidate.duplicate_of,
                candidate.model_dump_json(),
            ),
        )
        if self._seq is None:
            self._seq = int(self.get_meta("seq") or 0)
        self._seq += 1
        self._db.execute("INSERT OR REPLACE INTO outbox VALUES (?, ?)", (candidate.id, self._seq))
        self._put("seq", str(self._seq))

    def _put(self, key: str, value: str) -> None:
        self._db.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (key, value))

    def _check_version(self) -> None:
        version = self.get_meta("version")
        if version != str(SCHEMA_VERSION):
            raise UserError(
                f"{self.folder} was written by another version of Cambrian (store version {version})",
                hint="open it with that version",
            )

    def _release(self) -> None:
        if self._guard is not None:
            self._guard.close()
            self._guard = None


def _make(path: Path, run: RunRecord) -> None:
    """Write an empty store; whoever dies meanwhile leaves none rather than half of one."""
    part = path.with_name(path.name + ".part")
    part.unlink(missing_ok=True)
    with contextlib.closing(sqlite3.connect(part)) as db:
        db.executescript(_SCHEMA + journal.SCHEMA)
        values = [("version", str(SCHEMA_VERSION)), ("run", run.model_dump_json())]
        db.executemany("INSERT INTO meta VALUES (?, ?)", values)
        db.commit()
    part.replace(path)


def _writer(path: Path) -> sqlite3.Connection:
    db = sqlite3.connect(path, check_same_thread=False, isolation_level=None, timeout=30)
    db.execute("PRAGMA journal_mode=WAL")
    db.execute("PRAGMA synchronous=NORMAL")
    db.executescript(journal.SCHEMA)  # of a run that is older than journals
    return db


def _reader(path: Path) -> sqlite3.Connection:
    """A connection that looks only, also where this user may not write."""
    where = f"file:{quote(str(path.absolute()))}?mode=ro"
    for options in ("", "&immutable=1"):  # without write access the log's index cannot be shared
        db = sqlite3.connect(where + options, uri=True, check_same_thread=False, timeout=30)
        try:
            db.execute("SELECT 1 FROM meta LIMIT 1")
        except sqlite3.OperationalError:
            db.close()
            if options:
                raise
        else:
            return db
    raise AssertionError("unreachable")


def _hold(folder: Path, leave_note: bool = True) -> IO[str]:
    """Take the run's lock, which the kernel lets go of when this process dies however it dies."""
    try:
        guard = (folder / "lock").open("a+")
    except OSError as error:
        raise UserError(
            f"cannot take the lock of run {folder.name}: {error.strerror}",
            hint="mend the permissions of its folder, or look only: `cambrian show`",
        ) from error
    try:
        fcntl.flock(guard, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        guard.seek(0)
        holder = guard.read().strip()
        guard.close()
        raise RunBusyError(
            f"run {folder.name} is held by another process{f' ({holder})' if holder else ''}",
            hint="wait for it, or end it first",
        ) from error
    if leave_note:
        guard.seek(0)
        guard.truncate()
        guard.write(f"pid {os.getpid()}")
        guard.flush()
    return guard
