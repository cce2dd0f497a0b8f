"""What a space's folder knows about its networks: notes in `knowledge/*.md`, retrieved passage by passage.

Of all passages those are shown that speak of what a question is about: its parents, limits and latest
setbacks. They are found by TF-IDF with cosine similarity (Salton and Buckley, "Term-weighting approaches
in automatic text retrieval", 1988), as scikit-learn computes it: no server, and the same for the same words.
"""

from __future__ import annotations

import functools
import re
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from cambrian.agents.errors import UserError
from cambrian.agents.planner.quoting import quoted, quoted_block
from cambrian.search_spaces import Space
from cambrian.search_spaces.finding import folder_of

PASSAGES = 4
"""Most passages of one question."""
LONGEST = 900
"""Characters of one passage at most; paragraphs that are longer are cut in several."""
_JOINED = 300
"""Shorter paragraphs are joined with the next one of their section: few words are hard to find."""
_WORDS = r"(?u)[A-Za-z][A-Za-z]+|\d+x\d+"
"""Words, and sizes such as 3x3; `nor_conv_3x3` is three of them."""


class Passage(BaseModel):
    """A few lines of a note.

    Attributes:
        source: name of its file.
        title: heading that it stands under, else the name of the file.
        text: its words, as Markdown, without anything that could end a fenced block.
        place: among all passages, from 0.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    source: str
    title: str
    text: str
    place: int = 0


def knowledge_of(space: Space) -> list[Passage]:
    """All passages of a space's notes, in the order of the files' names.

    The files are read each time: an edit counts from the next question on.

    Raises:
        UserError: a note cannot be read.
    """
    folder = folder_of(space)
    if folder is None:
        return []
    found = [passage for path in sorted((folder / "knowledge").glob("*.md")) for passage in _read(path)]
    return [passage.model_copy(update={"place": place}) for place, passage in enumerate(found)]


def retrieve(space: Space, query: str, k: int = PASSAGES) -> list[Passage]:
    """The `k` passages that are nearest to `query`, the nearest first; in the notes' order among equals.

    Raises:
        UserError: a note cannot be read.
    """
    passages = knowledge_of(space)
    if len(passages) < 2:
        return passages[:k]
    alike = _Index.of(tuple(f"{passage.title}\n{passage.text}" for passage in passages)).similarities(query)
    order = sorted(range(len(passages)), key=lambda i: (-round(alike[i], 9), i))
    return [passages[i] for i in order[:k]]


class _Index:
    """Passages as vectors; made once for the same texts."""

    def __init__(self, texts: tuple[str, ...]) -> None:
        from sklearn.feature_extraction.text import TfidfVectorizer

        self._words: Any = TfidfVectorizer(
            token_pattern=_WORDS, stop_words="english", sublinear_tf=True, strip_accents="unicode"
        )
        try:
            self._vectors = self._words.fit_transform(texts)
        except ValueError:  # no word but stop words
            self._vectors = None
        self._n = len(texts)

    @staticmethod
    @functools.lru_cache(maxsize=8)
    def of(texts: tuple[str, ...]) -> _Index:
        return _Index(texts)

    def similarities(self, query: str) -> list[float]:
        """Cosines between 0 and 1."""
        if self._vectors is None:
            return [0.0] * self._n
        return [float(value) for value in (self._vectors @ self._words.transform([query]).T).toarray()[:, 0]]


def _read(path: Path) -> list[Passage]:
    try:
        whole = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"note {path} cannot be read: {error}") from error
    # comments are for people: a scaffold's say what the file is for
    return _passages(path.name, path.stem, re.sub(r"<!--.*?-->", "", whole, flags=re.DOTALL))


@functools.lru_cache(maxsize=256)
def _passages_of_text(source: str, title: str, text: str) -> tuple[Passage, ...]:
    found: list[Passage] = []
    for heading, body in _sections(text, title):
        for piece in _pieces(body):
            # the bound is on what is cut here, so that nothing is lost to what is taken out of it
            shown = quoted_block(piece, 2 * LONGEST)
            if shown.strip():
                found.append(Passage(source=quoted(source, 80), title=quoted(heading, 100), text=shown))
    return tuple(found)


def _passages(source: str, title: str, text: str) -> list[Passage]:
    return list(_passages_of_text(source, title, text))


def _sections(text: str, title: str) -> list[tuple[str, str]]:
    """Headings and what stands under each; a `#` within a fenced block is none."""
    sections: list[tuple[str, list[str]]] = [(title, [])]
    fenced = False
    for line in text.splitlines():
        if line.lstrip().startswith(("```", "~~~")):
            fenced = not fenced
        heading = None if fenced else re.match(r"#{1,6}\s+(.+?)\s*#*\s*$", line)
        if heading:
            sections.append((heading[1], []))
        else:
            sections[-1][1].append(line)
    return [(heading, "\n".join(lines)) for heading, lines in sections]


def _pieces(body: str) -> list[str]:
    """Paragraphs and entries of lists, the short ones joined with what follows, the long ones cut."""
    pieces: list[str] = []
    for part in re.split(r"\n\s*\n|\n(?=[-*+] |\d+[.)] )", body.strip("\n")):
        if not part.strip():
            continue
        for piece in _cut(part.rstrip()):
            if pieces and len(pieces[-1]) < _JOINED and len(pieces[-1]) + len(piece) < LONGEST:
                pieces[-1] += "\n" + piece
            else:
                pieces.append(piece)
    return pieces


def _cut(text: str) -> list[str]:
    """`text` in pieces of at most `LONGEST` characters, cut between sentences, lines or words."""
    pieces = []
    while len(text) > LONGEST:
        head = text[: LONGEST + 1]
        ends = (max(head.rfind(between) for between in kinds) for kinds in ((". ", ".\n"), ("\n",), (" ",)))
        end = next((end + 1 for end in ends if end >= LONGEST // 2), LONGEST)
        pieces.append(text[:end].rstrip())
        text = text[end:].lstrip()
    return [*pieces, text] if text else pieces
