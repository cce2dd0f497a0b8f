"""A client that answers from the record of a run, and says which question is not in it."""

from __future__ import annotations

import asyncio
import re
from collections import defaultdict, deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from cambrian.agents.errors import ModelUnavailable, UserError
from cambrian.agents.planner.client import ModelRequest
from cambrian.agents.planner.exchange import DIED, Exchange, ExchangeLog, Message, request_key


class ReplayMiss(UserError):
    """A question differs from the one that the run had asked in its place."""


@dataclass
class _Gate:
    """Holds an answer back until its moment in the journal."""

    opened: asyncio.Event = field(default_factory=asyncio.Event)
    reached: asyncio.Event = field(default_factory=asyncio.Event)


class RecordedAnswers:
    """Implements `LLMClient` from the exchanges of an earlier run.

    Args:
        recorded: the earlier run's exchanges, by order of asking.
        exchanges: the record of the run that is made now.
    """

    def __init__(self, recorded: Sequence[Exchange], exchanges: ExchangeLog) -> None:
        self.model = next((exchange.model for exchange in recorded), "recorded")
        self._models = sorted({exchange.model for exchange in recorded})
        self._exchanges = exchanges
        self._by_key: defaultdict[str, deque[Exchange]] = defaultdict(deque)
        self._by_place: dict[tuple[str, str], Exchange] = {}
        self._gates: defaultdict[str, _Gate] = defaultdict(_Gate)
        for exchange in recorded:
            self._by_key[exchange.key].append(exchange)
            self._by_place[exchange.role, exchange.place] = exchange

    async def ask(self, request: ModelRequest) -> Exchange:
        """The recorded answer, once the journal has come to it.

        Raises:
            ReplayMiss: the run asked something else in this place; the message names what has changed.
            ModelUnavailable: the run got no answer either.
        """
        recorded = self._find(request)
        if recorded.response is not None:
            gate = self._gates[request.place]
            gate.reached.set()
            try:
                await gate.opened.wait()
            except asyncio.CancelledError:  # nobody used it, and who asks the same later gets it
                self._by_key[recorded.key].appendleft(recorded)
                raise
        begun = self._exchanges.begin(
            key=recorded.key,
            role=recorded.role,
            place=recorded.place,
            model=recorded.model,
            messages=recorded.messages,
            schema_name=recorded.schema_name,
            templates=request.templates,
        )
        changes = {"id": begun.id, "templates": begun.templates, "created": begun.created}
        exchange = recorded.model_copy(update=changes)
        self._exchanges.write(exchange)
        if recorded.response is None:
            raise ModelUnavailable(recorded.error or DIED)
        return exchange

    async def close(self) -> None:
        """Nothing to release."""
        return

    async def reaches(self, place: str, work: asyncio.Task[object]) -> None:
        """Wait until the question of `place` is asked, or `work`, which should ask it, has ended."""
        reached = asyncio.ensure_future(self._gates[place].reached.wait())
        await asyncio.wait({reached, work}, return_when=asyncio.FIRST_COMPLETED)
        reached.cancel()

    def release(self, place: str) -> None:
        """Let the answer to the question of `place` through."""
        self._gates[place].opened.set()

    def forget(self, place: str) -> None:
        """Close the gates of `place` and of its later turns: it is asked in anew."""
        for known in [each for each in self._gates if each == place or each.startswith(f"{place}.")]:
            del self._gates[known]

    def _find(self, request: ModelRequest) -> Exchange:
        for model in self._models:
            found = self._by_key.get(request_key(model, request.messages, request.schema))
            if found:
                return found.popleft()
        there = self._by_place.get((request.role, request.place))
        where = f"question {request.place} ({request.role})"
        if there is None:
            raise ModelUnavailable(f"{where} was not asked in the recorded run")
        raise ReplayMiss(
            f"{where} is not the one that was recorded as {there.id}: {_difference(request, there)}",
            hint="`cambrian prompts diff` shows what has changed; a run of its own asks the model anew",
        )


def _difference(request: ModelRequest, recorded: Exchange) -> str:
    """What has changed in a question: templates by name, else the first section that differs."""
    changed = [
        f"template {name} is {request.templates.get(name, 'gone')} now and was {version or 'not there'}"
        for name in sorted(request.templates.keys() | recorded.templates.keys())
        if (version := recorded.templates.get(name, "")) != request.templates.get(name, "")
    ]
    if changed:
        return "; ".join(changed)
    for now, then in zip(_sections(request.messages), _sections(recorded.messages), strict=False):
        if now != then:
            return f"the section {now[0]!r} shows something else"
    return "its schema differs" if len(request.messages) == len(recorded.messages) else "more or fewer turns"


def _sections(messages: Sequence[Message]) -> list[tuple[str, str]]:
    """Heading and text of each part."""
    found: list[tuple[str, str]] = []
    for message in messages:
        parts = re.split(r"^(# .*)$", message.content, flags=re.MULTILINE)
        found.append((message.role, parts[0]))
        found += [
            (heading.lstrip("# "), text) for heading, text in zip(parts[1::2], parts[2::2], strict=True)
        ]
    return found
