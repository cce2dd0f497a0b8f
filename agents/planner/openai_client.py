"""A client for OpenAI's API and for every server that speaks it (vLLM, llama.cpp, Ollama, ...).

The client library's own retries are off: it would obey a `Retry-After` of two minutes in silence. Waiting
here is short and logged; a server that wants a long pause gets it from the portfolio, which lets the other
arms go on meanwhile.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING

from cambrian.agents.errors import ModelUnavailable
from cambrian.agents.planner import wire
from cambrian.agents.planner.client import ModelRequest, RecordingClient, Reply
from cambrian.agents.planner.endpoint import resolve_endpoint
from cambrian.agents.planner.exchange import ExchangeLog
from cambrian.agents.runfile import RunConfig

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
    hint: str = ""


class _BodyTooLarge(Exception):
    pass


class OpenAIClient(RecordingClient):
    """Asks by chat completions or responses, with structured output where the server can do it.

    Nothing is imported, checked or connected before the first question that has no recorded answer.

    Args:
        config: `llm` and `budget` are used.
        exchanges: the run's record.
        environ: see `resolve_endpoint`.
        sleep: waits between retries.
    """

    def __init__(
        self,
        config: RunConfig,
        exchanges: ExchangeLog,
        *,
        environ: Mapping[str, str] | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._endpoint = resolve_endpoint(config.llm, environ)
        super().__init__(self._endpoint.model or "", exchanges, config.budget)
        self._llm = config.llm
        self._sleep = sleep
        self._connection: openai.AsyncOpenAI | None = None
        self._dialect = wire.Dialect(
            structured=config.llm.structured,
            bounded=self._endpoint.own,
            length_key="max_tokens" if self._endpoint.own else "max_completion_tokens",
        )

    async def close(self) -> None:
        """See `LLMClient.close`."""
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.close()

    def _redact(self, text: str) -> str:
        return self._endpoint.redact(text)

    async def _send(self, request: ModelRequest, count_call: Callable[[], None]) -> Reply:
        connection = self._connect()
        dialect = self._dialect
        retries = 0
        while True:
            count_call()
            outcome = await self._try(connection, request, dialect)
            if isinstance(outcome, Reply):
                self._dialect = dialect
                return outcome
            if outcome.refused_request and (simpler := dialect.adapted(outcome.cause)) is not None:
                log.warning("the model server refuses a request (%s), asking in a simpler way", outcome.cause)
                dialect = simpler
                continue
            if not outcome.transient or retries >= self._llm.retries:
                raise self._unavailable(outcome, retries)
            wait = outcome.retry_after_s
            if wait is None:
                # jitter keeps slots that failed together from coming back together
                wait = min(FIRST_WAIT_S * 2**retries, LONGEST_WAIT_S) * random.uniform(0.75, 1.0)
            elif wait > LONGEST_RETRY_AFTER_S:
                raise self._unavailable(outcome, retries)
            retries += 1
            log.warning(
                "no answer from the model: %s; try %d of %d in %.1f s",
                outcome.cause, retries, self._llm.retries, wait,
            )  # fmt: skip
            await self._sleep(wait)

    def _connect(self) -> openai.AsyncOpenAI:
        if self._endpoint.problem:
            raise ModelUnavailable(
                f"no model endpoint: {self._endpoint.problem}", hint=self._endpoint.hint, permanent=True
            )
        if self._connection is None:
            import httpx2
            import openai

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
        self, connection: openai.AsyncOpenAI, request: ModelRequest, dialect: wire.Dialect
    ) -> Reply | _Trouble:
        import httpx2
        import openai

        chat = self._llm.api == "chat"
        path = "/chat/completions" if chat else "/responses"
        write = wire.chat_body if chat else wire.responses_body
        read = wire.read_chat if chat else wire.read_responses
        try:
            # the library's timeout starts anew with each piece of the body
            async with asyncio.timeout(self._llm.timeout_s):
                response = await connection.post(
                    path, cast_to=httpx2.Response, body=write(request, self.model, self._llm, dialect)
                )
            return read(response.content, request.messages)
        except (TimeoutError, openai.APITimeoutError):
            return _Trouble(f"no answer within {self._llm.timeout_s:g} s", transient=True)
        except wire.MalformedAnswer as error:
            return _Trouble(
                f"what it answers is not of the protocol ({self._redact(str(error))})",
                transient=True,
                hint=f"does {self._endpoint.shown_url} speak the OpenAI API ({self._llm.api})?",
            )
        except openai.APIStatusError as error:
            return self._status_trouble(error)
        except _BodyTooLarge:
            return _Trouble(f"its answer is longer than {MAX_BODY_BYTES // 2**20} MiB")
        except (openai.OpenAIError, httpx2.HTTPError) as error:
            cause = self._redact(str(error.__cause__ or error)) or "connection lost"
            return _Trouble(
                f"cannot talk to it ({cause})", transient=True, hint="is the server running and reachable?"
            )

    def _status_trouble(self, error: openai.APIStatusError) -> _Trouble:
        status = error.status_code
        said = " ".join(self._redact(error.message).split())[:300]
        cause = f"HTTP {status}: {said}"
        if status in (401, 403):
            return _Trouble(cause, permanent=True, hint="check OPENAI_API_KEY")
        if status == 402 or error.code == "insufficient_quota":
            return _Trouble(cause, permanent=True, hint="the account has no credit left")
        if status == 404:
            return _Trouble(cause, permanent=True, hint="check llm.model and the base URL")
        if status in (400, 422):
            return _Trouble(cause, refused_request=True, hint="see llm in the run file")
        transient = status in _TRANSIENT or status >= 500
        return _Trouble(cause, transient=transient, retry_after_s=_retry_after(error.response.headers))

    def _unavailable(self, trouble: _Trouble, retries: int) -> ModelUnavailable:
        tries = f" after {retries + 1} tries" if retries else ""
        where = f"model {self.model} at {self._endpoint.shown_url}"
        return ModelUnavailable(
            f"{where} is unavailable{tries}: {trouble.cause}",
            hint=trouble.hint,
            retry_after_s=trouble.retry_after_s,
            permanent=trouble.permanent,
        )


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
