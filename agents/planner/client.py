"""Asking a model: the `LLMClient` protocol, the part all clients share, and a scripted client.

The shared part is what must not differ between clients: answers already paid for are reused, budgets are
checked before each request, every exchange is recorded with all that it cost, and no key gets into a record
or an error.
"""

from __future__ import annotations

import asyncio
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

from cambrian.agents.errors import CambrianError
from cambrian.agents.planner.endpoint import EndpointStatus, endpoint_status
from cambrian.agents.planner.exchange import (
    NO_USAGE,
    Exchange,
    ExchangeLog,
    Message,
    Usage,
    request_key,
)
from cambrian.agents.planner.limits import Limits, Load
from cambrian.agents.planner.metering import estimated_tokens
from cambrian.agents.planner.prices import FREE, cost
from cambrian.agents.sections import BudgetSection, PriceSection, Role

__all__ = [
    "EndpointStatus",
    "LLMClient",
    "ModelRequest",
    "RecordingClient",
    "Reply",
    "ScriptedClient",
    "Tries",
    "endpoint_status",
    "estimated_tokens",
]

MAX_ANSWER_CHARS = 200_000
"""Longer answers are cut: no genotype needs more, and they would be sent back in a repair turn."""


@dataclass(frozen=True)
class ModelRequest:
    """One question to a model.

    Attributes:
        role: what is asked for.
        place: see `Exchange`.
        schema_name: name of the schema, letters, digits, `-` and `_` only.
        schema: JSON schema of the answer, None for free text.
        bounds: further keywords (`maxLength`, ...) of the schema's own properties, for servers that can hold
            a model to them: without, a weak one may ramble in its first field until it is cut.
        schema_note: said at the end of the last message where the server cannot be given a schema.
        templates: version of each prompt template behind the messages, for the record.
        brief: most tokens of an answer where the model is served in this process, which answers one question
            at a time, and where the role has no limit of its own. Elsewhere a model may think before it
            answers, and what it thinks counts.
    """

    role: Role
    messages: tuple[Message, ...]
    place: str = ""
    schema_name: str = "answer"
    schema: dict[str, Any] | None = None
    bounds: dict[str, dict[str, Any]] = field(default_factory=dict)
    schema_note: str = ""
    templates: dict[str, str] = field(default_factory=dict)
    brief: int | None = None


@dataclass(frozen=True)
class Reply:
    """What came back, before it is recorded. The attributes are those of `Exchange`.

    `usage` is of the request that it answers; earlier tries are told to `Tries`.
    """

    text: str
    usage: Usage
    finish: str = ""
    refusal: str = ""


@runtime_checkable
class LLMClient(Protocol):
    """Something that answers questions. All calls come from one event loop."""

    model: str

    async def ask(self, request: ModelRequest) -> Exchange:
        """The recorded exchange; its `response` is never None, but empty when the model refused.

        Raises:
            ModelUnavailable: no endpoint, it is down, refuses the key or answers nothing usable.
            LimitReached: a budget of tokens, money or calls is spent; nothing more was sent.
            InfrastructureError: the record cannot be written.
        """
        ...

    async def close(self) -> None:
        """Release connections. Safe to call twice."""
        ...


class Tries:
    """The requests of one question. Called before each of them leaves.

    Attributes:
        calls: requests that have left.
        usage: tokens of those that gave no answer we could use, and yet cost some.
        waiting: whether one of them has left and not come back.
    """

    def __init__(self, leaving: Callable[[Tries], None]) -> None:
        self.calls = 0
        self.usage = Usage()
        self.waiting = False
        self._leaving = leaving

    def __call__(self) -> None:
        """A request is about to leave: check the budget, and write it down before it is sent.

        Raises:
            LimitReached: a budget is spent; it must not be sent.
        """
        self._leaving(self)
        self.waiting = True

    def cost(self, usage: Usage) -> None:
        """A request that came back without an answer cost `usage` all the same."""
        self.usage += usage
        self.waiting = False


class RecordingClient(ABC):
    """What all clients share. A client of its own kind gives `_send`.

    Args:
        model: name sent to the endpoint and recorded.
        exchanges: the run's record, which also counts what is spent.
        budget: its `tokens`, `calls` and `money` are the limits.
        limits: of all clients of a run together; None makes some of `budget`.
        price: of the model; None is unknown.
    """

    def __init__(
        self,
        model: str,
        exchanges: ExchangeLog,
        budget: BudgetSection | None = None,
        *,
        limits: Limits | None = None,
        price: PriceSection | None = None,
    ) -> None:
        self.model = model
        self._exchanges = exchanges
        self._limits = limits or Limits(exchanges, budget)
        self._price = price

    async def ask(self, request: ModelRequest) -> Exchange:
        """See `LLMClient.ask`."""
        key = request_key(self.model, request.messages, request.schema)
        if (earlier := self._exchanges.recorded(key)) is not None:
            return earlier
        load = Load(
            role=request.role,
            prompt_chars=sum(len(message.content) for message in request.messages),
            answer_tokens=self._answer_tokens(request),
            price=self._price,
            model=self.model,
        )
        await self._limits.enter(load)
        try:
            return await self._ask(key, request)
        finally:
            self._limits.leave(load)

    async def close(self) -> None:
        """Nothing to release."""
        return

    @abstractmethod
    async def _send(self, request: ModelRequest, tries: Tries) -> Reply:
        """Get the answer; `tries` is called before each request that leaves, retries included."""

    def _answer_tokens(self, request: ModelRequest) -> int:
        """The greatest length of an answer that is asked for."""
        return 0

    def _unheard(self, request: ModelRequest) -> Usage:
        """What a request costs whose answer nobody hears: many servers write it to its end all the same.

        On the side of the limits: as long as the longest that was heard of its kind; before there is one, as
        long as was asked for.
        """
        most = self._answer_tokens(request)
        longest = self._exchanges.longest_answer(self.model, request.role)
        return Usage(
            prompt_tokens=sum(estimated_tokens(message.content) for message in request.messages),
            completion_tokens=most if longest is None else min(most, longest),
            estimated=True,
        )

    def _redact(self, text: str, most: int = 4000) -> str:
        """The first `most` characters of `text`, without secrets."""
        return text[:most]

    async def _ask(self, key: str, request: ModelRequest) -> Exchange:
        exchange = self._exchanges.begin(
            key=key,
            role=request.role,
            place=request.place,
            model=self.model,
            messages=request.messages,
            schema_name=request.schema_name if request.schema is not None else None,
            templates=request.templates,
        )
        started = time.monotonic()
        unheard = self._unheard(request)

        def state(tries: Tries, usage: Usage, **update: object) -> Exchange:
            usage = tries.usage + usage
            money = None if self._price is None else cost(usage, self._price)
            return exchange.model_copy(
                update={"calls": tries.calls, "usage": usage, "money": money, **update}
            )

        def record(tries: Tries, usage: Usage = NO_USAGE, **update: object) -> Exchange:
            now = state(tries, usage, **update)
            if tries.calls:
                self._exchanges.write(now)
            return now

        def leaving(tries: Tries) -> None:
            if tries.calls:
                record(tries)  # what the last one cost, before the next one is let through
            self._limits.check(request.role)
            tries.calls += 1
            # limits count what is under way by themselves; the file is for who finds it after a kill
            self._exchanges.write(state(tries, NO_USAGE), if_killed=state(tries, unheard))

        def finished(usage: Usage = NO_USAGE, **update: object) -> Exchange:
            return record(tries, usage, seconds=round(time.monotonic() - started, 3), **update)

        tries = Tries(leaving)
        try:
            reply = await self._send(request, tries)
        except CambrianError as error:
            finished(error=self._redact(str(error)))
            raise
        except asyncio.CancelledError:
            finished(unheard if tries.waiting else NO_USAGE, error="cancelled while waiting for the answer")
            raise
        return finished(
            reply.usage,
            response=self._redact(reply.text, MAX_ANSWER_CHARS),
            finish=self._redact(reply.finish, 100),
            refusal=self._redact(reply.refusal, 2000),
        )


class ScriptedClient(RecordingClient):
    """A client that answers from a script: for tests, demonstrations and replays. It sends nothing.

    Args:
        answers: texts or errors to raise, one for each question in turn, or a function from the question to
            either. When a list is used up, the last one is repeated.
        exchanges: see `RecordingClient`.
        budget: see `RecordingClient`.
        model: name that is recorded.
        price: what it is taken to cost.
    """

    def __init__(
        self,
        answers: Iterable[str | CambrianError] | Callable[[ModelRequest], str | CambrianError],
        exchanges: ExchangeLog,
        budget: BudgetSection | None = None,
        model: str = "scripted",
        price: PriceSection | None = FREE,
    ) -> None:
        super().__init__(model, exchanges, budget, price=price)
        self.requests: list[ModelRequest] = []
        self._answer = answers if callable(answers) else _from_list(iter(answers))

    async def _send(self, request: ModelRequest, tries: Tries) -> Reply:
        tries()
        self.requests.append(request)
        answer = self._answer(request)
        if isinstance(answer, CambrianError):
            raise answer
        usage = Usage(
            prompt_tokens=sum(estimated_tokens(message.content) for message in request.messages),
            completion_tokens=estimated_tokens(answer),
            estimated=True,
        )
        return Reply(answer, usage, finish="stop")


def _from_list(
    answers: Iterator[str | CambrianError],
) -> Callable[[ModelRequest], str | CambrianError]:
    last: str | CambrianError = ""

    def answer(request: ModelRequest) -> str | CambrianError:
        nonlocal last
        last = next(answers, last)
        return last

    return answer
