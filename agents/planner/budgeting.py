"""Fitting a question into a budget of tokens: what is cut first, and what never.

A prompt is cut by leaving out ends of the lists that it is made from and rendering it again, so that it fits
whatever a user's template does with them. `PRIORITIES` says in which order: of each list as many entries stay
as there is room for, but at least the number that stands there, before the next list is touched.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from cambrian.agents.errors import UserError
from cambrian.agents.planner.client import estimated_tokens
from cambrian.agents.planner.exchange import Exchange, ExchangeLog

log = logging.getLogger(__name__)

PRIORITIES: tuple[tuple[str, int], ...] = (
    ("knowledge", 3),
    ("setbacks", 4),
    ("effects", 4),
    ("diverse", 1),
    ("avoid", 6),
    ("paid", 6),
    ("predictor_view", 3),
    ("notes", 5),
    ("best", 5),
    ("knowledge", 0),
    ("diverse", 0),
    ("setbacks", 1),
    ("effects", 1),
    ("paid", 0),
    ("predictor_view", 0),
    ("avoid", 0),
    ("notes", 0),
    ("comments", 2),
    ("best", 1),
    ("changes", 2),
    ("effects", 0),
    ("setbacks", 0),
    ("examples", 1),
    ("rejected", 3),
    ("comments", 0),
    ("rejected", 0),
    ("best", 0),
)
"""What is cut, the first first, and how many entries stay at that step. Of `best` the parents that a proposal
is to change are never cut; what is not named here (task, space, limits, noise, focus) never is either."""
DENSEST, LOOSEST, DEFAULT = 2.0, 4.0, 4.0
"""Characters a token: what is believed of a tokenizer at most, and what is taken before anything is known."""
WITH_SCHEMA, SCHEMA_LOOSEST = 2.5, 3.0
"""Who seems to count fewer characters a token counted the schema as well; then no more than so many."""


@dataclass(frozen=True)
class Cuts:
    """What was left out of a question.

    Attributes:
        tokens: of what is left, as we count them.
        limit: that it was to fit, None for none.
        left_out: entries left out, by variable; `focus` is 1 where the parents were too long to show and the
            question asks for something new instead.
        of: entries there were, by variable.
    """

    tokens: int
    limit: int | None = None
    left_out: Mapping[str, int] = field(default_factory=dict)
    of: Mapping[str, int] = field(default_factory=dict)

    def in_words(self) -> str:
        """Such as `cut to 8000 tokens: 3 of 6 knowledge, 2 of 8 effects`; empty when nothing was."""
        if not self.left_out:
            return ""
        parts = [f"{n} of {self.of[name]} {name}" for name, n in self.left_out.items()]
        return f"cut to {self.limit} tokens: {', '.join(parts)}"


class TokenCounter:
    """Counts a question's tokens: four characters each, until the run's own servers have counted better.

    The measure is the first question of the run that a server counted, and stays: what is cut must not change
    from one start of a run to the next, or answers that are paid for would not be found again.

    Args:
        exchanges: of the run; None never learns.
    """

    def __init__(self, exchanges: ExchangeLog | None = None) -> None:
        self._exchanges = exchanges
        self._next = 1
        self._measured: Exchange | None = None

    def __call__(self, text: str, schema: str = "") -> int:
        """Tokens of a question's messages, together with its schema where the server counts that."""
        measured = self._look()
        if measured is None:
            return estimated_tokens(text)
        asked = sum(len(message.content) for message in measured.messages)
        tokens = measured.usage.prompt_tokens
        if schema and measured.schema_name is not None and asked / tokens < WITH_SCHEMA:
            density = min((asked + len(schema)) / tokens, SCHEMA_LOOSEST)
            return _tokens(len(text) + len(schema), max(density, DENSEST))
        return _tokens(len(text), min(max(asked / tokens, DENSEST), LOOSEST))

    def _look(self) -> Exchange | None:
        """The first question that was counted, if there is one by now."""
        log_ = self._exchanges
        while self._measured is None and log_ is not None and self._next <= len(log_):
            try:
                found = log_.get(f"x-{self._next:04d}")
            except KeyError:
                break
            if found.response is None and found.error is None:
                break  # still under way, and it goes before those after it
            self._next += 1
            counted = found.response is not None and not found.usage.estimated
            if counted and found.role == "propose" and found.usage.prompt_tokens > 0:
                self._measured = found
        return self._measured


def fit(
    render: Callable[[Mapping[str, Any]], str],
    variables: Mapping[str, Any],
    limit: int | None,
    count: Callable[[str], int] = estimated_tokens,
) -> tuple[dict[str, Any], Cuts]:
    """The variables with as much of them left out as it takes.

    Args:
        render: the whole question from variables.
        variables: of `prompt_variables`; they stay as they are.
        limit: tokens that the question may have; None leaves all in.
        count: tokens of a rendered question.

    Raises:
        UserError: it does not fit with everything left out that may be, at four characters a token; the
            message tells what it needs. That a server counts more than that ends no run: then it is sent.
    """
    now = dict(variables)
    tokens = count(render(now))
    if limit is None or tokens <= limit:
        return now, Cuts(tokens, limit)
    of = {name: len(now[name]) for name, _ in PRIORITIES if name in now}
    for name, floor in PRIORITIES:
        tokens = _cut(render, now, name, floor, limit, count, tokens)
        if tokens <= limit:
            return now, _cuts(tokens, limit, of, now)
    if any(focus["ids"] for focus in now["focuses"]):
        # parents that are too long to show cannot be changed; a run does not end for that
        focuses = [{"kind": "explore", "ids": []} for _ in now["focuses"]]
        now |= {"best": [], "focuses": focuses, "focus": focuses[0], "answer": "genotype", "changes": []}
        tokens = count(render(now))
    least = estimated_tokens(render(now))
    if least > limit:
        raise UserError(
            f"llm.prompt_tokens is {limit}, but a question needs {least} tokens without any history",
            hint=f"set llm.prompt_tokens to {least} or more; twice that leaves room for history",
        )
    return now, _cuts(tokens, limit, of | {"focus": 1}, now | {"focus": []})


def _cut(
    render: Callable[[Mapping[str, Any]], str],
    now: dict[str, Any],
    name: str,
    floor: int,
    limit: int,
    count: Callable[[str], int],
    tokens: int,
) -> int:
    """Cut the list `name` in `now` to as many entries as fit, to `floor` at least; the tokens after that."""
    entries = list(now.get(name, ()))
    kept = _protected(name, now)
    loose = [i for i, entry in enumerate(entries) if not (kept and entry["id"] in kept)]
    most = max(len(entries) - max(floor, len(entries) - len(loose)), 0)

    def without(n: int) -> int:
        gone = set(loose[len(loose) - n :])
        now[name] = [entry for i, entry in enumerate(entries) if i not in gone]
        return count(render(now))

    if not most:
        return tokens
    least_tokens = without(most)
    if least_tokens >= tokens:  # the templates do not show it: leaving it out brings nothing
        now[name] = entries
        return tokens
    if least_tokens > limit:
        return least_tokens
    low, high = 1, most
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if without(middle) <= limit else (middle + 1, high)
    return without(high)


def _protected(name: str, now: Mapping[str, Any]) -> set[str]:
    return {cid for focus in now["focuses"] for cid in focus["ids"]} if name == "best" else set()


def _cuts(tokens: int, limit: int, of: Mapping[str, int], now: Mapping[str, Any]) -> Cuts:
    left_out = {name: n - len(now[name]) for name, n in of.items() if n > len(now[name])}
    return Cuts(tokens, limit, left_out, of)


def _tokens(characters: int, density: float) -> int:
    return -int(-characters // density)
