"""What a space's folder knows about its networks: `knowledge/*.md`, shown to the planner within bounds."""

from __future__ import annotations

import re

from pydantic import BaseModel, ConfigDict

from cambrian.agents.errors import UserError
from cambrian.search_spaces import Space
from cambrian.search_spaces.finding import folder_of

LIMIT = 6000
"""Characters of all notes together: about 1,500 tokens of every prompt."""
_LEAST = 200
"""A shorter beginning of a note says too little to be shown."""


class Note(BaseModel):
    """One note, as the planner sees it.

    Attributes:
        title: its first heading, else the name of its file.
        text: without that heading; empty when no room was left for it.
        cut: whether its end was left out.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    title: str
    text: str
    cut: bool = False


def knowledge_of(space: Space, limit: int = LIMIT) -> list[Note]:
    """The notes of `space` in the order of their files' names, `limit` characters at most in all.

    A note that does not fit ends at a paragraph; of those after it the title alone is kept.

    Raises:
        UserError: a note cannot be read.
    """
    folder = folder_of(space)
    if folder is None:
        return []
    notes, left = [], limit
    for path in sorted((folder / "knowledge").glob("*.md")):
        try:
            # comments are for people: a scaffold's say what the file is for
            whole = re.sub(r"<!--.*?-->", "", path.read_text(encoding="utf-8"), flags=re.DOTALL).strip()
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"note {path} cannot be read: {error}") from error
        if not whole:
            continue
        title, body = _titled(whole, path.stem)
        text = _beginning(body, left)
        left = left - len(text) if len(text) == len(body) else 0
        notes.append(Note(title=title, text=_closed(text), cut=text != body))
    return notes


def _titled(whole: str, otherwise: str) -> tuple[str, str]:
    first, _, rest = whole.partition("\n")
    if first.startswith("#"):
        return first.lstrip("#").strip() or otherwise, rest.strip()
    return otherwise, whole


def _beginning(text: str, limit: int) -> str:
    """As many whole paragraphs as fit; whole lines, or whole words, where that would waste half the room."""
    if len(text) <= limit:
        return text
    if limit < _LEAST:
        return ""
    head = text[: limit + 1]
    ends = (head.rfind(between) for between in ("\n\n", "\n", " "))
    return head[: next((end for end in ends if end >= limit // 2), limit)].rstrip()


def _closed(text: str) -> str:
    """With a fence that the cut left open closed again: what follows it must not become part of a block."""
    return text + "\n```" if text.count("```") % 2 else text
