"""Label templates: `{width}x{depth} {"k%d" % kernel if kernel != 3 else ""}`, parsed once."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import NamedTuple

from cambrian.search_spaces.declarative.expression import Expression, ExpressionError


class Hole(NamedTuple):
    """`{expression:spec}`; `field` is the expression when it is only a name."""

    expression: Expression
    spec: str
    field: str


@lru_cache(maxsize=4096)
def words_of(text: str) -> tuple[tuple[str | Hole, ...], ...]:
    """The words of a template, each of literal pieces and holes.

    Raises:
        ExpressionError: a brace that is not closed, or what stands in braces is no expression.
    """
    words: list[list[str | Hole]] = [[]]
    for piece in re.split(r"(\s+)", _protect(text)):
        if piece.isspace():
            words.append([])
            continue
        for literal in re.split("(\0\\d+\0)", piece):
            found = re.fullmatch("\0(\\d+)\0", literal)
            if found:
                words[-1].append(_parsed_hole(_holes(text)[int(found[1])]))
            elif literal:
                words[-1].append(literal)
    return tuple(tuple(word) for word in words if word)


def _spans(text: str) -> list[tuple[int, int]]:
    """Where the holes are, braces included; quotes in them may hold braces."""
    found, start, quote = [], -1, ""
    for i, sign in enumerate(text):
        if quote:
            quote = "" if sign == quote else quote
        elif start >= 0 and sign in "'\"":
            quote = sign
        elif sign == "{" and start < 0:
            start = i
        elif sign == "}" and start >= 0:
            found.append((start, i + 1))
            start = -1
    if start >= 0:
        raise ExpressionError(f"label {text!r}: a brace is not closed", hint="write {field} or {expression}")
    return found


def _holes(text: str) -> list[str]:
    return [text[start + 1 : end - 1] for start, end in _spans(text)]


def _protect(text: str) -> str:
    """The template with each hole replaced by its number, so that blanks in it do not part words."""
    made, last = [], 0
    for number, (start, end) in enumerate(_spans(text)):
        made += [text[last:start], f"\0{number}\0"]
        last = end
    return "".join([*made, text[last:]])


def _parsed_hole(inside: str) -> Hole:
    depth, quote, colon = 0, "", -1
    for i, sign in enumerate(inside):
        if quote:
            quote = "" if sign == quote else quote
        elif sign in "'\"":
            quote = sign
        elif sign in "([":
            depth += 1
        elif sign in ")]":
            depth -= 1
        elif sign == ":" and not depth:
            colon = i
            break
    text, spec = (inside, "") if colon < 0 else (inside[:colon], inside[colon + 1 :])
    expression = Expression(text)
    return Hole(expression, spec, expression.text if expression.text.isidentifier() else "")
