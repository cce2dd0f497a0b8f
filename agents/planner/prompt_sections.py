"""A prompt in parts: what its sections are, how long each is, and what stands inside fences as data."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

from pydantic import BaseModel, ConfigDict

from cambrian.agents.planner.client import estimated_tokens

Count = Callable[[str], int]
FENCE = "```"
_HEADING = re.compile(r"^#{1,6} +(.+)$")


class Section(BaseModel):
    """A heading and what stands under it, up to the next one.

    Attributes:
        title: the heading; empty for what stands before the first.
        tokens: of heading and text.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    title: str
    tokens: int


def sections(text: str, count: Count = estimated_tokens) -> list[Section]:
    """The sections of a prompt, in order; a `#` inside a fence is no heading."""
    parts: list[tuple[str, list[str]]] = [("", [])]
    for line, fenced in _lines(text):
        heading = None if fenced else _HEADING.match(line)
        if heading is not None:
            parts.append((heading[1].strip(), []))
        parts[-1][1].append(line)
    bodies = [(title, "\n".join(lines)) for title, lines in parts]
    return [Section(title=title, tokens=count(body)) for title, body in bodies if body.strip()]


def outside_fences(text: str) -> str:
    """What stands outside of fenced blocks: what a model takes for our own words."""
    return "\n".join(line for line, fenced in _lines(text) if not fenced)


def is_closed(text: str) -> bool:
    """Whether every fence that is opened is closed again."""
    return sum(line.lstrip().startswith(FENCE) for line in text.splitlines()) % 2 == 0


def _lines(text: str) -> Iterator[tuple[str, bool]]:
    """Each line, and whether it lies inside a fence or is one."""
    fenced = False
    for line in text.splitlines():
        mark = line.lstrip().startswith(FENCE)
        yield line, fenced or mark
        fenced ^= mark
