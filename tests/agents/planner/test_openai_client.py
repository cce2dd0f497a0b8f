"""The client against a real server on loopback, by both APIs."""

from __future__ import annotations

import asyncio
import base64
import html
import json
import logging
import time
import traceback
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any
from urllib.parse import quote, unquote

import pytest

from cambrian.agents.errors import LimitReached, ModelUnavailable
from cambrian.agents.planner.client import LLMClient, ModelRequest
from cambrian.agents.planner.exchange import ExchangeLog, Message
from cambrian.agents.planner.models import Models
from cambrian.agents.planner.openai_client import LONGEST_RETRY_AFTER_S, OpenAIClient
from tests.agents.planner import server as speak
from tests.agents.planner.server import ModelServer
from tests.agents.planner.world import config

KEY = "sk-secret-0123456789abcdef"
SCHEMA = {
    "type": "object",
    "properties": {"n": {"type": "integer"}},
    "required": ["n"],
    "additionalProperties": False,
}
REQUEST = ModelRequest(
    role="propose",
    messages=(Message(role="system", content="Be brief."), Message(role="user", content="A number.")),
    schema_name="number",
    schema=SCHEMA,
    schema_note="Answer in a json block.",
)


class Waits:
    """Stands in for sleeping between retries, and says how long it would have been."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    async def __call__(self, seconds: float) -> None:
        self.seconds.append(seconds)


@pytest.fixture
def waits() -> Waits:
    return Waits()


@pytest.fixture(params=["chat", "responses"])
def api(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def make(
    server: ModelServer,
    exchanges: ExchangeLog,
    waits: Waits,
    *,
    budget: dict[str, Any] | None = None,
    **llm: Any,
) -> OpenAIClient:
    section = {"model": "test-model", "base_url": server.url, "timeout_s": 5.0} | llm
    settings = config(llm=section, budget={"evaluations": 9} | (budget or {}))
    return OpenAIClient(settings, exchanges, environ={"OPENAI_API_KEY": KEY}, sleep=waits)


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


async def test_a_server_that_is_not_there(exchanges: ExchangeLog, waits: Waits) -> None:
    nobody = ModelServer(port=1)
    with pytest.raises(ModelUnavailable, match="cannot talk to it"):
        await make(nobody, exchanges, waits, retries=1).ask(REQUEST)
    assert exchanges.calls == 2


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


def _choiceless(body: dict[str, Any]) -> None:
    body.update(choices=[], output=[])


def _shapeless(body: dict[str, Any]) -> None:
    body.update(choices="none", output={"a": 1})


@pytest.mark.parametrize("status", [200, 500])
@pytest.mark.parametrize("spoilt", [_choiceless, _shapeless])
async def test_what_cannot_be_used_is_paid_for(
    server: ModelServer,
    exchanges: ExchangeLog,
    waits: Waits,
    api: str,
    spoilt: Callable[[dict[str, Any]], None],
    status: int,
) -> None:
    server.says(
        speak.answer("one two", spoilt=spoilt, status=status),
        speak.error(503),
        speak.answer("three four five", spoilt=spoilt, status=status),
        speak.answer('{"n": 1}', cached=2),
    )
    exchange = await make(server, exchanges, waits, api=api, retries=3).ask(REQUEST)
    assert exchange.calls == 4 and exchange.response == '{"n": 1}'
    assert exchange.usage.tokens == server.tokens == exchanges.tokens
    assert exchange.usage.cached_tokens == 2 and not exchange.usage.estimated
    server.says(speak.answer("one two", spoilt=spoilt, status=status))
    with pytest.raises(ModelUnavailable):
        await make(server, exchanges, waits, api=api, retries=1).ask(REQUEST)
    assert exchanges.tokens == server.tokens, "also where no answer came of it"
    assert exchanges.get("x-0002").usage.tokens > 0


async def test_a_retry_is_let_through_only_while_the_first_try_left_something(
    server: ModelServer, exchanges: ExchangeLog, waits: Waits
) -> None:
    server.says(speak.answer("word " * 50, spoilt=_choiceless))
    with pytest.raises(LimitReached):
        await make(server, exchanges, waits, retries=9, budget={"tokens": 100}).ask(REQUEST)
    assert len(server.seen) == 2 and exchanges.tokens == server.tokens == 2 * 55


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: text.replace(b"~", b"\xff\xfe"),
        lambda text: text.replace(b"~", b"\\ud800"),
        lambda text: text.replace(b"~", b"\xed\xa0\x80"),
        lambda text: b"\xef\xbb\xbf" + text,
        lambda text: text.replace(b"~", b"\\u0000"),
    ],
    ids=["bytes", "half a pair", "half a pair in bytes", "mark", "null"],
)
async def test_damaged_characters_leave_the_rest_whole(
    server: ModelServer,
    exchanges: ExchangeLog,
    waits: Waits,
    api: str,
    damage: Callable[[bytes], bytes],
) -> None:
    server.says(speak.answer('{"n": "~", "ok": 1}', spoilt=lambda body: damage(json.dumps(body).encode())))
    exchange = await make(server, exchanges, waits, api=api).ask(REQUEST)
    assert (exchange.response or "").endswith('"ok": 1}') and exchange.calls == 1
    assert exchanges.tokens == server.tokens
    assert ExchangeLog(exchanges.folder.parent).get("x-0001") == exchange


async def test_a_body_that_is_broken_may_still_say_what_it_cost(
    server: ModelServer, exchanges: ExchangeLog, waits: Waits, api: str
) -> None:
    def broken(body: dict[str, Any]) -> bytes:
        return b'{"a": oops, ' + json.dumps(body).encode()[1:]

    def cut_within(body: dict[str, Any]) -> bytes:
        return json.dumps(body).encode()[:-9]

    lure = 'so "usage": {"prompt_tokens": 7, "completion_tokens": 7}'
    server.says(speak.answer(lure, spoilt=broken), speak.answer("{}"))
    assert (await make(server, exchanges, waits, api=api).ask(REQUEST)).calls == 2
    assert exchanges.tokens == server.tokens
    server.says(speak.answer("x", spoilt=cut_within))
    with pytest.raises(ModelUnavailable):
        await make(server, exchanges, waits, api=api, retries=0).ask(REQUEST)
    assert exchanges.get("x-0002").usage.tokens == 0, "half a number is none"


async def test_a_body_of_nothing_but_brackets_is_no_answer(
    server: ModelServer, exchanges: ExchangeLog, waits: Waits, api: str
) -> None:
    server.says(speak.raw(b"[" * 1_000_000), speak.raw(b'{"a":' * 400_000), speak.answer('{"n": 1}'))
    assert (await make(server, exchanges, waits, api=api).ask(REQUEST)).calls == 3


async def test_numbers_that_nobody_believes_are_estimated(
    server: ModelServer, exchanges: ExchangeLog, waits: Waits, api: str
) -> None:
    def lie(body: dict[str, Any]) -> None:
        body["usage"] = {name: -5 for name in body["usage"]}

    server.says(speak.answer("x" * 40, spoilt=lie))
    exchange = await make(server, exchanges, waits, api=api).ask(REQUEST)
    assert exchange.usage.estimated and exchange.usage.tokens == 5 + 10


async def test_no_retry_is_waited_for_beyond_the_end_of_the_run(
    server: ModelServer, exchanges: ExchangeLog, waits: Waits
) -> None:
    server.says(speak.error(503, headers={"Retry-After": "4"}))
    settings = config(llm={"model": "m", "base_url": server.url, "retries": 9})
    left = iter([5.0, 1.0])
    client = OpenAIClient(settings, exchanges, environ={}, sleep=waits, time_left=lambda: next(left))
    with pytest.raises(ModelUnavailable):
        await client.ask(REQUEST)
    assert waits.seconds == [4.0] and len(server.seen) == 2


HARD_KEY = 'sk/se+cret=0123"456789\\<abc>&def'
"""A key that looks different in every encoding."""


def _told_everywhere(key: str) -> list[str]:
    return [
        key,
        quote(key, safe=""),
        base64.b64encode(key.encode()).decode(),
        base64.b64encode(f"Bearer {key}".encode()).decode(),
        json.dumps(key),
        json.dumps(json.dumps(key)),
        html.escape(key),
        key.encode().hex(),
    ]


def _reads_like_the_key(text: str, key: str) -> bool:
    """Whether `text` holds the key in any form; of encodings a half of it is enough."""
    encoded = [base64.b64encode(f"{before}{key}".encode()).decode() for before in ("", "Bearer ")]
    parts = [form[len(form) // 4 : -len(form) // 4] for form in [*encoded, key.encode().hex()]]
    plain = unquote(html.unescape(text)).replace("\\", "")
    return key.replace("\\", "") in plain or any(part in text for part in parts)


@pytest.mark.parametrize(
    "tell",
    [
        lambda said: speak.answer(said),
        lambda said: speak.answer(None, refusal=said),
        lambda said: speak.answer("{}", finish=said),
        lambda said: speak.error(400, said),
        lambda said: speak.error(401, said, code=said),
        lambda said: speak.error(500, said),
        lambda said: speak.raw(said.encode(), status=500),
        lambda said: speak.raw(said.encode(), kind="text/html", status=403),
        lambda said: speak.raw(json.dumps({"choices": said, "output": said, said: 1}).encode()),
        lambda said: speak.raw(json.dumps({"choices": [{said: 1}], "output": [{said: 1}]}).encode()),
        lambda said: speak.answer("{}", spoilt=lambda body: body.update(status=said, output=[], choices=[])),
        lambda said: (
            lambda handler: handler.send(
                429, {"error": {"message": said}}, {"Retry-After": "1", "X-Key": said.replace("\n", " ")}
            )
        ),
    ],
)
async def test_a_key_in_any_form_gets_nowhere(
    server: ModelServer,
    exchanges: ExchangeLog,
    waits: Waits,
    api: str,
    tell: Callable[[str], Callable[[speak.Handler], None]],
    caplog: pytest.LogCaptureFixture,
) -> None:
    server.says(tell(" and ".join(_told_everywhere(HARD_KEY))))
    url = server.url.replace("http://", "http://ann:pa55word@")
    settings = config(
        llm={"model": "m", "base_url": url, "retries": 1, "failures": 1, "api": api},
        budget={"evaluations": 9},
    )
    lines: list[str] = []
    client = OpenAIClient(settings, exchanges, environ={"OPENAI_API_KEY": HARD_KEY}, sleep=waits)
    models = Models(settings, exchanges, client, say=lines.append, environ={"OPENAI_API_KEY": HARD_KEY})
    with caplog.at_level(logging.DEBUG):
        try:
            shown = (await models.ask(REQUEST)).model_dump_json()
        except ModelUnavailable as error:
            shown = "".join(traceback.format_exception(error)) + error.hint + str(models.status())
    files = [path.read_text("utf-8") for path in exchanges.folder.iterdir()]
    assert files and server.seen
    ours = [f"{r.getMessage()} {r.exc_text or ''}" for r in caplog.records]
    for text in (shown, *lines, *files, *ours):
        assert not _reads_like_the_key(text, HARD_KEY) and "pa55word" not in text, text[:2000]


@pytest.mark.parametrize("status", [200, 400, 401, 500])
async def test_the_key_gets_into_no_record_log_or_error(
    server: ModelServer,
    exchanges: ExchangeLog,
    waits: Waits,
    status: int,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def tell(handler: speak.Handler) -> None:
        said = f"your header was {handler.headers['Authorization']}, your key is {KEY}"
        (speak.answer(said) if status == 200 else speak.error(status, said))(handler)

    server.says(tell)
    shown = ""
    with caplog.at_level(logging.DEBUG):
        try:
            shown = (await make(server, exchanges, waits).ask(REQUEST)).model_dump_json()
        except ModelUnavailable as error:
            shown = f"{error} {error!r} {error.__cause__!r}"
    assert "[key]" in shown
    for text in (shown, caplog.text, *(p.read_text("utf-8") for p in exchanges.folder.iterdir())):
        assert KEY not in text and "0123456789" not in text
