"""A client for OpenAI's API and for every server that speaks it (vLLM, llama.cpp, Ollama, ...).

The client library's own retries are off: it would obey a `Retry-After` of two minutes in silence. Waiting
here is short and logged; a server that wants a long pause gets it from the model's breaker, which lets the
other arms go on meanwhile.
"""

from __future__ import annotations

import asyncio
import json
import logging
import math
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING

from cambrian.agents.errors import ModelUnavailable
from cambrian.agents.planner import wire
from cambrian.agents.planner.client import ModelRequest, RecordingClient, Reply, Tries, estimated_tokens
from cambrian.agents.planner.endpoint import Endpoint, resolve_endpoint
from cambrian.agents.planner.exchange import NO_USAGE, ExchangeLog, Usage
from cambrian.agents.planner.limits import Limits
from cambrian.agents.planner.metering import Sent
from cambrian.agents.planner.prices import price_of
from cambrian.agents.planner.tempo import time_is_up
from cambrian.agents.runfile import RunConfig
from cambrian.agents.sections import ModelSection

if TYPE_CHECKING:
    import httpx2
    import openai

log = logging.getLogger(__name__)

FIRST_WAIT_S = 0.5
LONGEST_WAIT_S = 8.0
LONGEST_RETRY_AFTER_S = 10.0
"""A server that asks for a longer pause than this is given up for now."""
MAX_BODY_BYTES = 4 * 1024 * 1024
"""A longer body is not read to its end."""
_TRANSIENT = {408, 409, 429}


@dataclass(frozen=True)
class _Trouble:
    """Why a request gave no answer, and whether another one may."""

    cause: str
    transient: bool = False
    retry_after_s: float | None = None
    permanent: bool = False
    refused_request: bool = False
    out_of_time: bool = False
    hint: str = ""
    usage: Usage = NO_USAGE


class _BodyTooLarge(Exception):
    pass


class OpenAIClient(RecordingClient):
    """Asks by chat completions or responses, with structured output where the server can do it.

    Nothing is imported, checked or connected before the first question that has no recorded answer.

    Args:
        config: `llm` and `budget` are used.
        exchanges: the run's record.
        section: one of `llm.models`; None is `llm.model`.
        limits: of all clients of the run; None makes some for this one alone.
        environ: see `resolve_endpoint`.
        endpoint: where the model is; None resolves it from the run file and the environment.
        opening: gives the endpoint when a question is asked, for a server that is started only then.
        sleep: waits between retries.
        time_left: seconds until the run's time is up; no wait is begun that would end later, and no answer
            is waited for any longer.
    """

    def __init__(
        self,
        config: RunConfig,
        exchanges: ExchangeLog,
        *,
        section: ModelSection | None = None,
        limits: Limits | None = None,
        environ: Mapping[str, str] | None = None,
        endpoint: Endpoint | None = None,
        opening: Callable[[], Awaitable[Endpoint]] | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        time_left: Callable[[], float] = lambda: math.inf,
    ) -> None:
        llm = config.llm
        self._endpoint = endpoint or resolve_endpoint(llm, environ, section)
        own = section or ModelSection(model="-", price=llm.price)
        super().__init__(
            self._endpoint.model or "",
            exchanges,
            limits=limits or Limits(exchanges, config.budget, llm),
            price=price_of(self._endpoint, own.price),
        )
        self._llm, self._key_name = llm, own.key_env
        self._chat = (own.api or llm.api) == "chat"
        self._opening = opening
        self._sleep, self._time_left, self._wall_s = sleep, time_left, config.budget.wall_s
        self._is_simpler = False
        self._connection: openai.AsyncOpenAI | None = None
        self._dialect = wire.Dialect(
            structured=llm.structured if own.structured is None else own.structured,
            bounded=self._endpoint.own,
            length_key="max_tokens" if self._endpoint.own else "max_completion_tokens",
        )

    async def close(self) -> None:
        """See `LLMClient.close`."""
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.close()

    def _redact(self, text: str, most: int = 4000) -> str:
        return self._endpoint.redact(text, most)

    def _answer_tokens(self, request: ModelRequest) -> int:
        return self._manner(request).max_tokens

    def _manner(self, request: ModelRequest) -> wire.Manner:
        own = self._llm.role(request.role)
        most = self._llm.max_tokens
        if self._opening is not None and request.brief is not None:
            most = min(most, request.brief)
        return wire.Manner(
            max_tokens=own.max_tokens or most,
            temperature=self._llm.temperature if own.temperature is None else own.temperature,
        )

    async def _send(self, request: ModelRequest, tries: Tries) -> Reply:
        connection = await self._connect()
        dialect = self._dialect
        retries = 0
        while True:
            if (left := self._time_left()) <= 0:
                raise time_is_up(self._wall_s, left)
            tries()
            outcome = await self._try(connection, request, dialect, min(self._llm.timeout_s, left))
            if isinstance(outcome, Reply):
                self._dialect = dialect
                return outcome
            tries.cost(outcome.usage)
            if outcome.out_of_time:  # which says nothing of the model
                raise time_is_up(self._wall_s, 0.0)
            if outcome.refused_request and (simpler := dialect.adapted(outcome.cause)) is not None:
                # questions that are under way together meet the same refusals: people hear of it once
                log.log(
                    logging.INFO if self._is_simpler else logging.WARNING,
                    "the server of model %s refuses a request (%s), asking in a simpler way",
                    self.model, outcome.cause,
                )  # fmt: skip
                self._is_simpler, dialect = True, simpler
                continue
            if not outcome.transient or retries >= self._llm.retries:
                raise self._unavailable(outcome, retries)
            wait = outcome.retry_after_s
            if wait is None:
                # jitter keeps slots that failed together from coming back together
                wait = min(FIRST_WAIT_S * 2**retries, LONGEST_WAIT_S) * random.uniform(0.75, 1.0)
            if wait > min(LONGEST_RETRY_AFTER_S, self._time_left()):
                raise self._unavailable(outcome, retries)
            retries += 1
            log.warning(
                "no answer from the model: %s; try %d of %d in %.1f s",
                outcome.cause, retries, self._llm.retries, wait,
            )  # fmt: skip
            await self._sleep(wait)

    async def _connect(self) -> openai.AsyncOpenAI:
        if self._endpoint.problem:
            raise ModelUnavailable(
                f"no model endpoint: {self._endpoint.problem}", hint=self._endpoint.hint, permanent=True
            )
        if self._opening is not None:
            self._endpoint = await self._opening()
        if self._connection is None:
            import httpx2
            import openai

            _hush()
            timeout = httpx2.Timeout(self._llm.timeout_s, connect=min(10.0, self._llm.timeout_s))
            self._connection = openai.AsyncOpenAI(
                api_key=self._endpoint.key,
                base_url=self._endpoint.base_url,
                max_retries=0,
                timeout=timeout,
                http_client=openai.DefaultAsyncHttpxClient(
                    timeout=timeout, event_hooks={"response": [_cap_body]}
                ),
            )
        return self._connection

    async def _try(
        self,
        connection: openai.AsyncOpenAI,
        request: ModelRequest,
        dialect: wire.Dialect,
        most_s: float,
    ) -> Reply | _Trouble:
        import httpx2
        import openai

        path = "/chat/completions" if self._chat else "/responses"
        write = wire.chat_body if self._chat else wire.responses_body
        read = wire.read_chat if self._chat else wire.read_responses
        manner = self._manner(request)
        body = write(request, self.model, manner, dialect)
        sent = Sent(
            chars=sum(len(message.content) for message in request.messages),
            size=len(json.dumps(body, ensure_ascii=False).encode("utf-8", errors="replace")),
            answer_tokens=manner.max_tokens,
        )
        try:
            # the library's timeout starts anew with each piece of the body
            async with asyncio.timeout(most_s):
                response = await connection.post(path, cast_to=httpx2.Response, body=body)
            return read(response.content, sent)
        except (TimeoutError, openai.APITimeoutError) as error:
            cut = isinstance(error, TimeoutError) and most_s < self._llm.timeout_s
            return _Trouble(
                f"no answer within {self._llm.timeout_s:g} s",
                transient=True,
                out_of_time=cut,
                usage=_unheard(error, request),
            )
        except wire.MalformedAnswer as error:
            return _Trouble(
                f"what it answers is not of the protocol ({self._redact(str(error))})",
                transient=True,
                hint=f"does {self._endpoint.shown_url} speak the OpenAI API "
                f"({'chat' if self._chat else 'responses'})?",
                usage=error.usage,
            )
        except openai.APIStatusError as error:
            return self._status_trouble(error, wire.wasted(error.response.content, sent))
        except _BodyTooLarge:
            return _Trouble(f"its answer is longer than {MAX_BODY_BYTES // 2**20} MiB")
        except (openai.OpenAIError, httpx2.HTTPError) as error:
            cause = self._redact(str(error.__cause__ or error)) or "connection lost"
            return _Trouble(
                f"cannot talk to it ({cause})",
                transient=True,
                hint="is the server running and reachable?",
                usage=_unheard(error, request),
            )

    def _status_trouble(self, error: openai.APIStatusError, usage: Usage) -> _Trouble:
        status = error.status_code
        said = " ".join(self._redact(error.message).split())[:300]
        cause = f"HTTP {status}: {said}"
        if status in (401, 403):
            return _Trouble(cause, permanent=True, hint=f"check {self._key_name}", usage=usage)
        if status == 402 or error.code == "insufficient_quota":
            return _Trouble(cause, permanent=True, hint="the account has no credit left", usage=usage)
        if status == 404:
            return _Trouble(cause, permanent=True, hint="check llm.model and the base URL", usage=usage)
        if status in (400, 422):
            return _Trouble(cause, refused_request=True, hint="see llm in the run file", usage=usage)
        transient = status in _TRANSIENT or status >= 500
        return _Trouble(
            cause, transient=transient, retry_after_s=_retry_after(error.response.headers), usage=usage
        )

    def _unavailable(self, trouble: _Trouble, retries: int) -> ModelUnavailable:
        tries = f" after {retries + 1} tries" if retries else ""
        where = f"model {self.model} at {self._endpoint.shown_url}"
        return ModelUnavailable(
            f"{where} is unavailable{tries}: {trouble.cause}",
            hint=trouble.hint,
            retry_after_s=trouble.retry_after_s,
            permanent=trouble.permanent,
        )


def _hush() -> None:
    """Keep the HTTP library from logging addresses and headers, where keys are."""
    for name in ("httpx2", "httpcore2"):
        logger = logging.getLogger(name)
        if logger.level == logging.NOTSET:  # else somebody wants it
            logger.setLevel(logging.WARNING)


def _unheard(error: BaseException, request: ModelRequest) -> Usage:
    """What a request costs whose answer was not heard: its prompt at least, unless it never got there."""
    import httpx2

    if isinstance(error.__cause__ or error, httpx2.ConnectError | httpx2.ConnectTimeout):
        return NO_USAGE
    prompt = sum(estimated_tokens(message.content) for message in request.messages)
    return Usage(prompt_tokens=prompt, estimated=True)


def _retry_after(headers: httpx2.Headers) -> float | None:
    """Seconds to wait by the server's word: `retry-after-ms`, or `retry-after` as seconds or as a date."""
    try:
        if "retry-after-ms" in headers:
            return max(0.0, float(headers["retry-after-ms"]) / 1000)
        value = headers.get("retry-after", "")
        if value.replace(".", "", 1).isdigit():
            return float(value)
        if not value:
            return None
        # By the server's own clock where it tells the time: ours may be wrong, or jump.
        now = parsedate_to_datetime(headers["date"]) if "date" in headers else datetime.now(UTC)
        return max(0.0, (parsedate_to_datetime(value) - now).total_seconds())
    except (ValueError, TypeError):
        return None


async def _cap_body(response: httpx2.Response) -> None:
    import httpx2

    class Capped(httpx2.AsyncByteStream):
        def __init__(self, stream: httpx2.AsyncByteStream) -> None:
            self._stream = stream

        async def __aiter__(self) -> AsyncIterator[bytes]:
            size = 0
            async for chunk in self._stream:
                size += len(chunk)
                if size > MAX_BODY_BYTES:
                    raise _BodyTooLarge
                yield chunk

        async def aclose(self) -> None:
            await self._stream.aclose()

    if isinstance(response.stream, httpx2.AsyncByteStream):
        response.stream = Capped(response.stream)
