"""What the client counts of answers that it cannot use, and that its key gets nowhere, by both APIs."""

from __future__ import annotations

import base64
import html
import json
import logging
import traceback
from collections.abc import Callable
from typing import Any
from urllib.parse import quote, unquote

import pytest

from cambrian.agents.errors import LimitReached, ModelUnavailable
from cambrian.agents.planner.exchange import ExchangeLog
from cambrian.agents.planner.models import Models
from cambrian.agents.planner.openai_client import OpenAIClient
from tests.agents.planner import server as speak
from tests.agents.planner.asking import KEY, REQUEST, Waits, api, make, waits
from tests.agents.planner.server import ModelServer
from tests.agents.planner.world import config

__all__ = ["api", "waits"]


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
    client = OpenAIClient(
        settings, exchanges, environ={}, sleep=waits, time_left=lambda: 5.0 - sum(waits.seconds)
    )
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
