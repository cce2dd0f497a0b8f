"""Asking a model: the `LLMClient` protocol, the part all clients share, and a scripted client.

The shared part is what must not differ between clients: answers already paid for are reused, budgets are
checked before each request, every exchange is recorded, and no key gets into a record or an error.
"""

from __future__ import annotations

import asyncio
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

from cambrian.agents.errors import CambrianError, LimitReached
from cambrian.agents.planner.endpoint import EndpointStatus, endpoint_status
from cambrian.agents.planner.exchange import Exchange, ExchangeLog, Message, Usage, request_key
from cambrian.agents.sections import BudgetSection, Role

__all__ = [
    "EndpointStatus",
    "LLMClient",
    "ModelRequest",
    "RecordingClient",
    "Reply",
    "ScriptedClient",
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
    """

    role: Role
    messages: tuple[Message, ...]
    place: str = ""
    schema_name: str = "answer"
    schema: dict[str, Any] | None = None
    bounds: dict[str, dict[str, Any]] = field(default_factory=dict)
    schema_note: str = ""
    templates: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Reply:
    """What came back, before it is recorded. The attributes are those of `Exchange`."""

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
            LimitReached: the budget of tokens or calls is spent; nothing was sent.
            InfrastructureError: the record cannot be written.
        """
        ...

    async def close(self) -> None:
        """Release connections. Safe to call twice."""
        ...


class RecordingClient(ABC):
    """What all clients share. A client of its own kind gives `_send`.

    A budget may be passed by what is under way when it is reached: by one answer for each slot.

    Args:
        model: name sent to the endpoint and recorded.
        exchanges: the run's record, which also counts what is spent.
        budget: its `tokens` and `calls` are the limits.
    """

    def __init__(self, model: str, exchanges: ExchangeLog, budget: BudgetSection | None = None) -> None:
        self.model = model
        self._exchanges = exchanges
        self._budget = budget or BudgetSection()
        self._waiting: dict[str, int] = {}

    async def ask(self, request: ModelRequest) -> Exchange:
        """See `LLMClient.ask`."""
        key = request_key(self.model, request.messages, request.schema)
        if (earlier := self._exchanges.recorded(key)) is not None:
            return earlier
        prompt_tokens = sum(estimated_tokens(message.content) for message in request.messages)
        self._check_budget(prompt_tokens)
        exchange = self._exchanges.begin(
            key=key,
            role=request.role,
            place=request.place,
            model=self.model,
            messages=request.messages,
            schema_name=request.schema_name if request.schema is not None else None,
            templates=request.templates,
        )
        calls = 0
        started = time.monotonic()

        def count_call() -> None:
            nonlocal calls
            if calls:
                self._check_budget(0)
            calls += 1
            self._exchanges.write(exchange.model_copy(update={"calls": calls}))

        def finished(**update: object) -> Exchange:
            seconds = round(time.monotonic() - started, 3)
            ended = exchange.model_copy(update={"calls": calls, "seconds": seconds, **update})
            if calls:
                self._exchanges.write(ended)
            return ended

        self._waiting[exchange.id] = prompt_tokens
        try:
            reply = await self._send(request, count_call)
        except CambrianError as error:
            finished(error=self._redact(str(error)))
            raise
        except asyncio.CancelledError:
            finished(error="cancelled while waiting for the answer")
            raise
        finally:
            del self._waiting[exchange.id]
        return finished(
            response=self._redact(reply.text[:MAX_ANSWER_CHARS]),
            finish=reply.finish,
            refusal=self._redact(reply.refusal[:2000]),
            usage=reply.usage,
        )

    async def close(self) -> None:
        """Nothing to release."""
        return

    @abstractmethod
    async def _send(self, request: ModelRequest, count_call: Callable[[], None]) -> Reply:
        """Get the answer; `count_call` is called before each request that leaves, retries included."""

    def _redact(self, text: str) -> str:
        return text

    def _check_budget(self, prompt_tokens: int) -> None:
        calls, tokens = self._budget.calls, self._budget.tokens
        if calls is not None and self._exchanges.calls >= calls:
            raise LimitReached("calls", calls, self._exchanges.calls)
        coming = prompt_tokens + sum(self._waiting.values())
        if tokens is not None and (
            self._exchanges.tokens >= tokens or self._exchanges.tokens + coming > tokens
        ):
            raise LimitReached("tokens", tokens, self._exchanges.tokens)


def estimated_tokens(text: str) -> int:
    """Tokens of `text` at four characters each: rather too few than too many for JSON."""
    return (len(text) + 3) // 4


class ScriptedClient(RecordingClient):
    """A client that answers from a script: for tests, demonstrations and replays. It sends nothing.

    Args:
        answers: texts or errors to raise, one for each question in turn, or a function from the question to
            either. When a list is used up, the last one is repeated.
        exchanges: see `RecordingClient`.
        budget: see `RecordingClient`.
        model: name that is recorded.
    """

    def __init__(
        self,
        answers: Iterable[str | CambrianError] | Callable[[ModelRequest], str | CambrianError],
        exchanges: ExchangeLog,
        budget: BudgetSection | None = None,
        model: str = "scripted",
    ) -> None:
        super().__init__(model, exchanges, budget)
        self.requests: list[ModelRequest] = []
        self._answer = answers if callable(answers) else _from_list(iter(answers))

    async def _send(self, request: ModelRequest, count_call: Callable[[], None]) -> Reply:
        count_call()
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
