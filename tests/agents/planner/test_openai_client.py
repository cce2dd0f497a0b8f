"""The client against a real server on loopback, by both APIs."""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest

from cambrian.agents.errors import LimitReached, ModelUnavailable
from cambrian.agents.planner.client import LLMClient, ModelRequest
from cambrian.agents.planner.exchange import ExchangeLog, Message
from cambrian.agents.planner.openai_client import LONGEST_RETRY_AFTER_S, OpenAIClient
from tests.agents.planner import server as speak
from tests.agents.planner.asking import KEY, REQUEST, SCHEMA, Waits, api, make, waits
from tests.agents.planner.server import ModelServer
from tests.agents.planner.world import config

__all__ = ["api", "waits"]


async def test_a_structured_answer(
    server: ModelServer, exchanges: ExchangeLog, waits: Waits, api: str
) -> None:
    server.says(speak.answer('{"n": 3}'))
    client = make(server, exchanges, waits, api=api, temperature=0.5, max_tokens=99)
    assert isinstance(client, LLMClient)
    exchange = await client.ask(REQUEST)
    await client.close()
    await client.close()
    assert exchange.response == '{"n": 3}' and exchange.error is None and exchange.finish == "stop"
    (seen,) = server.seen
    assert seen.path == ("/v1/chat/completions" if api == "chat" else "/v1/responses")
    assert seen.schema == SCHEMA
    assert seen.turns == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "A number."},
    ]
    assert seen.body["temperature"] == 0.5 and seen.body["model"] == "test-model"
    assert seen.body["max_tokens" if api == "chat" else "max_output_tokens"] == 99
    assert seen.headers["authorization"] == f"Bearer {KEY}"
    assert exchange.usage.tokens == server.tokens > 0 and not exchange.usage.estimated


async def test_lengths_are_asked_of_servers_of_ones_own_while_they_take_them(
    server: ModelServer, exchanges: ExchangeLog, waits: Waits, api: str
) -> None:
    schema = SCHEMA | {"properties": {"n": {"type": "integer"}, "why": {"type": "string"}}}
    request = replace(REQUEST, schema=schema, bounds={"why": {"maxLength": 80}})
    server.says(speak.answer("{}"), speak.error(400, "unknown keyword"), speak.answer("{}"))
    client = make(server, exchanges, waits, api=api)
    await client.ask(request)
    await client.ask(request)
    bounded = {"n": {"type": "integer"}, "why": {"type": "string", "maxLength": 80}}
    schemas = [seen.schema or {} for seen in server.seen]
    assert [s["properties"] for s in schemas] == [bounded, bounded, schema["properties"]]
    assert "maxLength" not in str(schema), "the schema of the request is left as it is"


async def test_structured_off_asks_in_words(
    server: ModelServer, exchanges: ExchangeLog, waits: Waits
) -> None:
    server.says(speak.answer("{}"))
    await make(server, exchanges, waits, structured=False).ask(REQUEST)
    assert server.seen[0].schema is None
    assert server.seen[0].turns[-1]["content"] == "A number.\n\nAnswer in a json block."
    assert exchanges.get("x-0001").messages[-1].content == "A number.", "the question as it was asked"


async def test_a_server_that_refuses_schemas_is_asked_in_words_from_then_on(
    server: ModelServer, exchanges: ExchangeLog, waits: Waits, api: str
) -> None:
    refused = speak.error(400, "response_format is not supported")
    server.says(refused, refused, speak.answer("{}"))
    client = make(server, exchanges, waits, api=api)
    assert (await client.ask(REQUEST)).response == "{}"
    await client.ask(ModelRequest(role="propose", messages=REQUEST.messages[1:], schema=SCHEMA))
    assert [s.schema is not None for s in server.seen] == [True, True, False, False]
    assert waits.seconds == [] and exchanges.calls == 4


async def test_sizes_of_arrays_are_left_out_where_they_are_refused(
    server: ModelServer, exchanges: ExchangeLog, waits: Waits, api: str
) -> None:
    items = {"type": "array", "items": {"type": "array", "maxItems": 2, "items": {"type": "integer"}}}
    names = {"type": "object", "properties": {"minItems": {"type": "integer"}}}  # a property of that name
    schema = SCHEMA | {"properties": {"n": items | {"minItems": 1}, "o": names}}
    server.says(speak.error(400, "'minItems' is not permitted"), speak.answer("{}"))
    await make(server, exchanges, waits, api=api).ask(replace(REQUEST, schema=schema))
    first, second = [seen.schema or {} for seen in server.seen]
    assert first["properties"]["n"]["minItems"] == 1
    bare = {"type": "array", "items": {"type": "array", "items": {"type": "integer"}}}
    assert second["properties"] == {"n": bare, "o": names} and schema["properties"]["n"]["minItems"] == 1


async def test_parameters_that_a_model_refuses_are_left_out(
    server: ModelServer, exchanges: ExchangeLog, waits: Waits
) -> None:
    server.says(
        speak.error(400, "Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead."),
        speak.error(400, "'temperature' does not support 0.5 with this model"),
        speak.answer("{}"),
    )
    await make(server, exchanges, waits, temperature=0.5).ask(REQUEST)
    last = server.seen[-1]
    assert last.body["max_completion_tokens"] == 2048 and "max_tokens" not in last.body
    assert "temperature" not in last.body and last.schema == SCHEMA


async def test_a_simpler_way_is_told_once_for_each_model(
    server: ModelServer, exchanges: ExchangeLog, waits: Waits, caplog: pytest.LogCaptureFixture
) -> None:
    def plain_only(handler: speak.Handler) -> None:
        refused = handler.seen.schema is not None
        (speak.error(400, "no schemas here") if refused else speak.answer("fine"))(handler)

    server.says(plain_only)
    with caplog.at_level(logging.WARNING):
        for name in ("strong", "weak"):
            client = make(server, exchanges, waits, model=name)
            questions = (
                replace(REQUEST, messages=(Message(role="user", content=f"{name} {i}"),)) for i in range(3)
            )
            await asyncio.gather(*(client.ask(question) for question in questions))
    told = [message for message in caplog.messages if "simpler" in message]
    assert len(told) == 2 and "model strong" in told[0] and "model weak" in told[1]


async def test_a_request_that_is_refused_in_every_form(
    server: ModelServer, exchanges: ExchangeLog, waits: Waits
) -> None:
    server.says(speak.error(400, "the context is too long"))
    client = make(server, exchanges, waits)
    with pytest.raises(ModelUnavailable, match=r"HTTP 400: .*the context is too long") as caught:
        await client.ask(REQUEST)
    assert not caught.value.permanent
    assert len(server.seen) == 3
    server.says(speak.answer("{}"))
    await client.ask(REQUEST)
    assert server.seen[-1].schema == SCHEMA, "the schema was not at fault, it is asked for again"


@pytest.mark.parametrize("status", [408, 409, 429, 500, 503])
async def test_transient_failures_are_tried_again(
    server: ModelServer,
    exchanges: ExchangeLog,
    waits: Waits,
    status: int,
    caplog: pytest.LogCaptureFixture,
) -> None:
    server.says(speak.error(status), speak.error(status), speak.answer("{}"))
    with caplog.at_level(logging.WARNING):
        exchange = await make(server, exchanges, waits, retries=2).ask(REQUEST)
    assert exchange.calls == len(server.seen) == exchanges.calls == 3
    assert [0.375 <= waits.seconds[0] <= 0.5, 0.75 <= waits.seconds[1] <= 1.0] == [True, True]
    assert f"HTTP {status}" in caplog.text and "try 2 of 2" in caplog.text


async def test_retries_end(server: ModelServer, exchanges: ExchangeLog, waits: Waits) -> None:
    server.says(speak.error(500, "out of order"))
    with pytest.raises(ModelUnavailable, match=r"after 3 tries: HTTP 500: .*out of order"):
        await make(server, exchanges, waits, retries=2).ask(REQUEST)
    assert len(server.seen) == 3
    failed = exchanges.get("x-0001")
    assert failed.calls == 3 and "out of order" in (failed.error or "")


async def test_a_short_retry_after_is_obeyed(
    server: ModelServer, exchanges: ExchangeLog, waits: Waits
) -> None:
    soon = format_datetime(datetime.now(UTC) + timedelta(seconds=6), usegmt=True)
    server.says(
        speak.error(429, headers={"Retry-After": "3"}),
        speak.error(429, headers={"Retry-After-Ms": "250"}),
        speak.error(503, headers={"Retry-After": soon}),
        speak.error(503, headers={"Retry-After": "rubbish"}),
        speak.answer("{}"),
    )
    await make(server, exchanges, waits, retries=4).ask(REQUEST)
    assert waits.seconds[:2] == [3.0, 0.25]
    assert 3 < waits.seconds[2] <= 6
    assert 2 < waits.seconds[3] <= 4, "what cannot be read is as good as nothing"


async def test_a_long_retry_after_is_left_to_the_portfolio(
    server: ModelServer, exchanges: ExchangeLog, waits: Waits
) -> None:
    server.says(speak.error(429, "slow down", headers={"Retry-After": "90"}))
    with pytest.raises(ModelUnavailable) as caught:
        await make(server, exchanges, waits).ask(REQUEST)
    assert caught.value.retry_after_s == 90 > LONGEST_RETRY_AFTER_S
    assert waits.seconds == [] and len(server.seen) == 1


@pytest.mark.parametrize(
    ("status", "code", "hint"),
    [
        (401, "invalid_api_key", "OPENAI_API_KEY"),
        (403, None, "OPENAI_API_KEY"),
        (404, "model_not_found", "llm.model"),
        (429, "insufficient_quota", "credit"),
    ],
)
async def test_failures_that_stay_are_not_tried_again(
    server: ModelServer, exchanges: ExchangeLog, waits: Waits, status: int, code: str | None, hint: str
) -> None:
    server.says(speak.error(status, "no", code))
    with pytest.raises(ModelUnavailable) as caught:
        await make(server, exchanges, waits).ask(REQUEST)
    assert caught.value.permanent and hint in caught.value.hint
    assert len(server.seen) == 1


@pytest.mark.parametrize(
    "rubbish",
    [
        speak.raw(b"<html>gateway</html>", "text/html"),
        speak.raw(b"not json at all"),
        speak.raw(b'{"choices": [], "output": []}'),
        speak.raw(b'{"choices": "x", "output": 5}'),
        speak.raw(b"[1, 2]"),
        speak.raw(b"null"),
        speak.raw(b""),
        speak.raw(b'{"choices": [{"message": {"content": 7}}], "output": [{"content": []}]}'),
        speak.raw(b"\xff\xfe\x00"),
        speak.cut,
    ],
)
async def test_rubbish_is_tried_again_and_then_named(
    server: ModelServer, exchanges: ExchangeLog, waits: Waits, api: str, rubbish: Any
) -> None:
    server.says(rubbish, speak.answer('{"n": 1}'))
    client = make(server, exchanges, waits, api=api, retries=1)
    assert (await client.ask(REQUEST)).response == '{"n": 1}'
    server.says(rubbish)
    with pytest.raises(ModelUnavailable, match=r"test-model at http://127.0.0.1:\d+/v1 is unavailable"):
        await client.ask(REQUEST)


async def test_a_server_that_does_not_answer(
    server: ModelServer, exchanges: ExchangeLog, waits: Waits
) -> None:
    for stall in (speak.silent, speak.trickle):
        server.says(stall)
        started = time.monotonic()
        with pytest.raises(ModelUnavailable, match=r"no answer within 0\.4 s"):
            await make(server, exchanges, waits, timeout_s=0.4, retries=1).ask(REQUEST)
        assert 0.8 <= time.monotonic() - started < 4
    assert exchanges.tokens > 0, "who is not heard may bill all the same"
    assert all(each.usage.estimated_tokens == each.usage.tokens for each in exchanges.all())


async def test_a_server_that_is_not_there(exchanges: ExchangeLog, waits: Waits) -> None:
    nobody = ModelServer(port=1)
    with pytest.raises(ModelUnavailable, match="cannot talk to it"):
        await make(nobody, exchanges, waits, retries=1).ask(REQUEST)
    assert exchanges.calls == 2 and exchanges.tokens == 0


async def test_an_endless_answer_is_not_read(
    server: ModelServer, exchanges: ExchangeLog, waits: Waits
) -> None:
    server.says(speak.flood)
    with pytest.raises(ModelUnavailable, match="longer than 4 MiB"):
        await make(server, exchanges, waits).ask(REQUEST)
    assert len(server.seen) == 1, "it would be as long again"


async def test_a_refusal_is_told_apart(
    server: ModelServer, exchanges: ExchangeLog, waits: Waits, api: str
) -> None:
    server.says(speak.answer(None, refusal="I cannot help with that."))
    exchange = await make(server, exchanges, waits, api=api).ask(REQUEST)
    assert exchange.refusal == "I cannot help with that." and exchange.response == ""


async def test_a_cut_answer_says_so(
    server: ModelServer, exchanges: ExchangeLog, waits: Waits, api: str
) -> None:
    server.says(speak.answer('{"n": ', finish="length"))
    exchange = await make(server, exchanges, waits, api=api).ask(REQUEST)
    assert exchange.finish == "length" and exchange.response == '{"n": '


async def test_tokens_are_estimated_where_the_server_does_not_count(
    server: ModelServer, exchanges: ExchangeLog, waits: Waits, api: str
) -> None:
    server.says(speak.answer("x" * 40, usage=False))
    exchange = await make(server, exchanges, waits, api=api).ask(REQUEST)
    assert exchange.usage.estimated and exchange.usage.completion_tokens == 10


async def test_the_ledger_equals_the_servers(
    server: ModelServer, exchanges: ExchangeLog, waits: Waits, api: str
) -> None:
    server.says(speak.answer("one two"), speak.error(500), speak.answer("three"), speak.answer("four five"))
    client = make(server, exchanges, waits, api=api)
    questions = [
        ModelRequest(role="propose", messages=(Message(role="user", content=f"number {i}"),))
        for i in range(6)
    ]
    await asyncio.gather(*(client.ask(question) for question in questions))
    again = ExchangeLog(exchanges.folder.parent)
    assert again.tokens == exchanges.tokens == server.tokens
    assert again.calls == exchanges.calls == len(server.seen) == 7


async def test_retries_count_as_calls_of_the_budget(
    server: ModelServer, exchanges: ExchangeLog, waits: Waits
) -> None:
    server.says(speak.error(500))
    client = make(server, exchanges, waits, retries=5, budget={"calls": 3})
    with pytest.raises(LimitReached, match="budget of 3 calls"):
        await client.ask(REQUEST)
    assert len(server.seen) == 3
    with pytest.raises(LimitReached):
        await client.ask(REQUEST)
    assert len(server.seen) == 3


async def test_a_resumed_client_sends_nothing_that_is_answered(
    server: ModelServer, exchanges: ExchangeLog, waits: Waits
) -> None:
    server.says(speak.answer('{"n": 1}'))
    await make(server, exchanges, waits).ask(REQUEST)
    # no key, and nobody at the address: the record is enough
    offline = config(llm={"model": "test-model", "base_url": "http://127.0.0.1:1/v1"})
    resumed = OpenAIClient(offline, ExchangeLog(exchanges.folder.parent), environ={})
    assert (await resumed.ask(REQUEST)).response == '{"n": 1}'
    assert len(server.seen) == 1


async def test_without_an_endpoint_the_hint_says_what_to_set(exchanges: ExchangeLog) -> None:
    client = OpenAIClient(config(), exchanges, environ={})
    with pytest.raises(ModelUnavailable) as caught:
        await client.ask(REQUEST)
    assert caught.value.message == "no model endpoint: OPENAI_API_KEY is not set"
    assert caught.value.hint == (
        "set OPENAI_API_KEY, or OPENAI_BASE_URL for a server of your own, and CAMBRIAN_MODEL"
    )
    assert caught.value.permanent
    assert not exchanges.folder.exists(), "nothing was sent, so nothing is recorded"


async def test_a_server_of_ones_own_needs_no_key(server: ModelServer, exchanges: ExchangeLog) -> None:
    server.says(speak.answer("{}"))
    settings = config(llm={"model": "m"})
    client = OpenAIClient(settings, exchanges, environ={"OPENAI_BASE_URL": server.url})
    assert (await client.ask(REQUEST)).response == "{}"
    assert "sk-" not in server.seen[0].headers["authorization"]
