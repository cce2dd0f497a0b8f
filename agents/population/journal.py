"""The journal of a run: what happened to its population, in order, so that it can be replayed.

A replay takes measurements and answers of models from the records of the run, and makes every decision anew.
What was decided hung on what was known at that moment; which moment that was, with several slots and a model
that answers when it likes, only the run itself can tell. So each change of the population leaves one line, in
the same transaction.
"""

from __future__ import annotations

import json
import sqlite3
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

SCHEMA = """
CREATE TABLE IF NOT EXISTS journal (
    seq INTEGER PRIMARY KEY AUTOINCREMENT, kind TEXT NOT NULL, subject TEXT NOT NULL, data TEXT NOT NULL
);
"""

Kind = Literal["ask", "answered", "add", "save", "evaluation", "discredit", "analyse", "resume"]


class JournalEntry(BaseModel):
    """One line.

    Attributes:
        seq: grows from line to line.
        kind: `ask`: an arm was asked, with what was known then. `answered`: a model's answer had come.
            `add`: a proposal entered the population. `save`: the step `data["step"]` changed a candidate.
            `evaluation`: one was recorded. `discredit`: a candidate lost its scores, which `data` keeps.
            `analyse`: the analyst asks what a candidate taught, with what was known then. `resume`: another
            process went on, and its estimators learned anew from what was recorded.
        subject: id of the candidate; of the draw for `ask`; the place of the question for `answered`; empty
            for `resume`.
        data: what else is needed to do it again.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    seq: int
    kind: Kind
    subject: str
    data: dict[str, Any] = Field(default_factory=dict)


def write(db: sqlite3.Connection, kind: Kind, subject: str, data: dict[str, Any]) -> None:
    """Append a line within the transaction that is under way."""
    db.execute(
        "INSERT INTO journal (kind, subject, data) VALUES (?, ?, ?)", (kind, subject, json.dumps(data))
    )


def read(db: sqlite3.Connection) -> list[JournalEntry]:
    """All lines in order; none of a run that is older than journals."""
    if db.execute("SELECT 1 FROM sqlite_master WHERE name = 'journal'").fetchone() is None:
        return []
    rows = db.execute("SELECT seq, kind, subject, data FROM journal ORDER BY seq").fetchall()
    return [
        JournalEntry(seq=seq, kind=kind, subject=subject, data=json.loads(data))
        for seq, kind, subject, data in rows
    ]
