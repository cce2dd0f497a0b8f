"""The models of a run against a real server on loopback: roles, limits that hold for all, breakers."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cambrian.agents.errors import LimitReached, ModelUnavailable, RunFileError
from cambrian.agents.planner.client import ModelRequest, ScriptedClient
from cambrian.agents.planner.endpoint import NO_KEY, Endpoint
from cambrian.agents.planner.exchange import ExchangeLog, Message
from cambrian.agents.planner.models import Models, check_models, taken_for_free
from cambrian.agents.sections import Role
from tests.agents.planner import server as speak
from tests.agents.planner.server import ModelServer
from tests.agents.planner.world import config

PRICE = {"input": 1000.0, "cached_input": 100.0, "output": 2000.0}
"""A tenth of a cent a token, so that sums are easy to follow."""


def request(text: str = "Propose.", role: Role = "propose") -> ModelRequest:
    return ModelRequest(role=role, messages=(Message(role="user", content=text),))


def models(server: ModelServer, log: ExchangeLog, budget: dict[str, Any] | None = None, **llm: Any) -> Models:
    section = {"model": "first", "base_url": server.url, "timeout_s": 5.0, "retries": 0, **llm}
    return Models(config(llm=section, budget={"evaluations": 9, **(budget or {})}), log, environ={})


def asked(server: ModelServer) -> list[str]:
    return [seen.body["model"] for seen in server.seen]


async def test_each_role_has_its_model_and_manner(server: ModelServer, exchanges: ExchangeLog) -> None:
    server.says(speak.answer("fine"))
    all_of_them = models(
        server,
        exchanges,
        models=[{"model": "second", "api": "responses"}, {"model": "third", "structured": False}],
        roles={
            "repair": {"model": "third", "temperature": 0.0},
            "analyse": {"model": "second", "max_tokens": 77},
        },
        temperature=0.9,
        max_tokens=500,
    )
    assert all_of_them.names == ("first", "second", "third")
    for role in ("propose", "repair", "analyse"):
        await all_of_them.ask(request(role=role))
    await all_of_them.ask(request("again"), model="third")
    await all_of_them.close()
    assert asked(server) == ["first", "third", "second", "third"]
    bodies = [seen.body for seen in server.seen]
    assert [body["temperature"] for body in bodies] == [0.9, 0.0, 0.9, 0.9]
    lengths = [body.get("max_tokens") or body["max_output_tokens"] for body in bodies]
    assert lengths == [500, 500, 77, 500]
    assert server.seen[2].path == "/v1/responses"
    assert {name: spent.calls for name, spent in exchanges.by_model().items()} == {
        "first": 1,
        "second": 1,
        "third": 2,
    }
    assert {role: spent.calls for role, spent in exchanges.by_role().items()} == {
        "propose": 2,
        "repair": 1,
        "analyse": 1,
    }
    assert exchanges.total().tokens == exchanges.tokens == server.tokens


async def test_each_model_has_its_own_key_and_address(server: ModelServer, exchanges: ExchangeLog) -> None:
    server.says(speak.answer("fine"))
    settings = config(
        llm={
            "models": [
                {"model": "a", "base_url": server.url, "key_env": "KEY_OF_A"},
                {"model": "b", "base_url": server.url},
                {"model": "c", "key_env": "KEY_OF_C"},
            ]
        }
    )
    environ = {"KEY_OF_A": "the-key-of-a", "OPENAI_API_KEY": "the-key-of-all", "CAMBRIAN_MODEL": "b"}
    found = Models(settings, exchanges, environ=environ)
    assert found.names == ("b", "a"), "the environment names the first one"
    assert found.status() == {"b": "ready", "a": "ready", "c": "no model endpoint: KEY_OF_C is not set"}
    for name in found.names:
        await found.ask(request(), model=name)
    assert [seen.headers["authorization"] for seen in server.seen] == [
        "Bearer the-key-of-all",
        "Bearer the-key-of-a",
    ]
    with pytest.raises(ModelUnavailable, match="KEY_OF_C is not set"):
        await found.ask(request(), model="c")


def test_without_an_endpoint_nobody_is_ready(exchanges: ExchangeLog) -> None:
    nobody = Models(config(), exchanges, environ={})
    assert nobody.names == () and not nobody.ready("propose")
    assert nobody.status() == {"(no name)": "no model endpoint: OPENAI_API_KEY is not set"}


async def test_a_client_stands_for_all_models(exchanges: ExchangeLog) -> None:
    settings = config(llm={"model": "m", "roles": {"repair": {"model": "m", "calls": 1}}})
    scripted = Models(settings, exchanges, ScriptedClient(["fine"], exchanges), environ={})
    assert scripted.names == ("scripted",)
    assert (await scripted.ask(request(role="repair"))).model == "scripted"
    assert scripted.ready("repair"), "it has limits of its own"
    assert (await scripted.ask(request("again"), model="m")).model == "scripted"


# -- limits ----------------------------------------------------------------------------------------


async def test_limits_hold_for_all_models_together(server: ModelServer, exchanges: ExchangeLog) -> None:
    server.says(speak.answer("fine"))
    both = models(server, exchanges, {"calls": 3}, models=[{"model": "second"}])
    results = await asyncio.gather(
        *(both.ask(request(str(i)), model=both.names[i % 2]) for i in range(6)), return_exceptions=True
    )
    assert [isinstance(result, LimitReached) for result in results] == [False] * 3 + [True] * 3
    assert exchanges.calls == len(server.seen) == 3
    assert not both.ready("analyse") and both.spent("analyse") is not None


async def test_a_roles_limit_concerns_that_role(server: ModelServer, exchanges: ExchangeLog) -> None:
    server.says(speak.answer("fine"))
    some = models(server, exchanges, roles={"analyse": {"calls": 2}, "repair": {"tokens": 30}})
    for i in range(2):
        await some.ask(request(str(i), role="analyse"))
    with pytest.raises(LimitReached) as caught:
        await some.ask(request("2", role="analyse"))
    assert (caught.value.kind, caught.value.used) == ("analyse.calls", 2)
    with pytest.raises(LimitReached, match=r"budget of 30 repair\.tokens"):
        await some.ask(request("x" * 121, role="repair"))
    assert [some.ready(role) for role in ("propose", "repair", "analyse")] == [True, True, False]
    resumed = Models(
        config(llm={"model": "first", "base_url": server.url, "roles": {"analyse": {"calls": 2}}}),
        ExchangeLog(exchanges.folder.parent),
        environ={},
    )
    assert not resumed.ready("analyse") and resumed.ready("propose")


async def test_a_role_may_have_little_money_or_time(server: ModelServer, exchanges: ExchangeLog) -> None:
    server.says(speak.answer("fine"))
    price = {"input": 1_000_000, "output": 0}  # a dollar a question
    roles = {"analyse": {"money": 2.5}, "repair": {"wall_s": 0.001}}
    some = models(server, exchanges, price=price, roles=roles)
    await some.ask(request("1", role="analyse"))
    await some.ask(request("2", role="analyse"))
    with pytest.raises(LimitReached, match=r"budget of \$2\.5 for analyse: \$0\.5 left"):
        await some.ask(request("3", role="analyse"))
    await some.ask(request("4", role="repair"))
    with pytest.raises(LimitReached, match=r"budget of 0\.001 repair\.wall_s is spent"):
        await some.ask(request("5", role="repair"))
    assert [some.ready(role) for role in ("propose", "repair", "analyse")] == [True, False, True]


@pytest.mark.parametrize("kind", ["tokens", "money"])
async def test_many_at_once_overshoot_by_one_call_at_most(
    server: ModelServer, tmp_path: Path, kind: str
) -> None:
    server.says(speak.answer("word " * 99))  # 100 tokens and those of the prompt
    prompt = "some words " * 20  # 40 tokens by the server's count
    prices = {"input": 1e6, "output": 1e6}  # a dollar a token, so that both limits are the same number
    for limit in (150, 1000, 1139, 1141):
        log = ExchangeLog(tmp_path / f"{limit}")
        crowd = models(server, log, {kind: limit}, max_tokens=100, price=prices)
        results = await asyncio.gather(
            *(crowd.ask(request(f"{i} {prompt}")) for i in range(16)), return_exceptions=True
        )
        reached = [result for result in results if isinstance(result, BaseException)]
        assert reached and all(isinstance(r, LimitReached) and r.kind == kind for r in reached)
        used = log.tokens if kind == "tokens" else log.money
        assert used is not None and limit - 141 < used < limit + 141, "all of it is used, and one call more"
        await crowd.close()


async def test_money_is_counted_with_cached_tokens_and_all_tries(
    server: ModelServer, exchanges: ExchangeLog
) -> None:
    server.says(
        speak.answer("three words here", cached=2, status=500),  # an error that was paid for
        speak.answer("three words here", cached=2),
    )
    some = models(server, exchanges, price=PRICE, retries=1)
    exchange = await some.ask(request("five words are asked here"))
    assert exchange.calls == 2 and exchange.usage.tokens == server.tokens == 2 * (5 + 4)
    assert exchange.usage.cached_tokens == 4
    dollars = 2 * (3 * 1000 + 2 * 100 + 4 * 2000) / 1e6
    assert exchange.money == pytest.approx(dollars) == exchanges.money
    again = ExchangeLog(exchanges.folder.parent)
    assert again.money == pytest.approx(dollars) == again.by_model()["first"].money


async def test_an_unknown_price_is_unknown_money(tmp_path: Path, exchanges: ExchangeLog) -> None:
    scripted = ScriptedClient(["fine"], exchanges, price=None)
    await Models(config(), exchanges, scripted).ask(request())
    assert exchanges.money is None and exchanges.by_role()["propose"].money is None
    assert exchanges.known_money == 0.0
    free = ExchangeLog(tmp_path / "free")
    await Models(config(), free, ScriptedClient(["fine"], free)).ask(request())
    assert free.money == 0.0


# -- breakers --------------------------------------------------------------------------------------


async def test_a_model_that_is_down_is_left_alone_and_tried_again(
    server: ModelServer, exchanges: ExchangeLog
) -> None:
    now, lines = [0.0], list[str]()
    section = {"model": "m", "base_url": server.url, "retries": 0, "failures": 2, "probe_s": 30}
    some = Models(config(llm=section), exchanges, say=lines.append, environ={}, clock=lambda: now[0])
    server.says(speak.error(500, "out of order"))
    for i in range(2):
        assert some.ready("propose")
        with pytest.raises(ModelUnavailable, match="out of order"):
            await some.ask(request(str(i)))
    assert not some.ready("propose") and not some.ready("analyse")
    with pytest.raises(ModelUnavailable, match="left alone") as caught:
        await some.ask(request())
    assert caught.value.retry_after_s == 30 and len(server.seen) == 2, "nothing was sent"
    now[0] = 30.0
    first, *others = await asyncio.gather(
        *(some.ask(request(str(i))) for i in range(4)), return_exceptions=True
    )
    assert len(server.seen) == 3 and "out of order" in str(first)
    assert all("it is being tried" in str(other) for other in others), "one probe, and one only"
    now[0] = 89.0
    assert not some.ready("propose")
    server.says(speak.answer("fine"))
    now[0] = 90.0
    assert (await some.ask(request("at last"))).response == "fine" and some.ready("propose")
    assert len(lines) == 2 and lines[1] == "model m answers again"
    assert lines[0].startswith("model m at http://127.0.0.1") and lines[0].endswith("left alone for 30 s")


async def test_another_model_takes_over(server: ModelServer, exchanges: ExchangeLog) -> None:
    def by_name(handler: speak.Handler) -> None:
        good = handler.seen.body["model"] == "second"
        (speak.answer("fine") if good else speak.error(401, "no such key"))(handler)

    server.says(by_name)
    roles = {"analyse": {"model": "first"}}
    both = models(server, exchanges, models=[{"model": "second"}], roles=roles)
    with pytest.raises(ModelUnavailable):
        await both.ask(request())
    assert both.available("propose") == ("second",) and both.names == ("first", "second")
    assert (await both.ask(request("again"))).model == "second"
    assert both.ready("propose") and not both.ready("analyse"), "a role that wants one model has no other"
    assert "no such key" in both.status()["first"] and both.status()["second"] == "ready"


async def test_answers_of_no_use_count_too(server: ModelServer, exchanges: ExchangeLog) -> None:
    server.says(speak.answer("rubbish"))
    some = models(server, exchanges, failures=2)
    for i in range(2):
        exchange = await some.ask(request(str(i)))
        assert some.ready("propose")
        some.note_unusable(exchange.model, "no JSON")
    assert not some.ready("propose")
    some.note_unusable("unknown", "of a run with another model")


async def test_limits_and_cancelling_say_nothing_of_a_model(
    server: ModelServer, exchanges: ExchangeLog
) -> None:
    server.says(speak.silent)
    some = models(server, exchanges, {"calls": 1}, failures=1)
    task = asyncio.create_task(some.ask(request()))
    while not server.seen:
        await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    with pytest.raises(LimitReached):
        await some.ask(request())
    assert some.status() == {"first": "ready"}


# -- a server of one's own that is started when it is needed ---------------------------------------


class Opened:
    """A server that is there only after it was opened."""

    def __init__(self, server: ModelServer) -> None:
        self.endpoint = Endpoint("http://127.0.0.1", "local", NO_KEY, own=True)
        self._url = server.url
        self.opened = self.closed = 0

    async def open(self) -> Endpoint:
        self.opened += 1
        return Endpoint(self._url, "local", NO_KEY, own=True)

    async def close(self) -> None:
        self.closed += 1


async def test_a_local_model_is_opened_when_it_is_asked(server: ModelServer, exchanges: ExchangeLog) -> None:
    server.says(speak.answer("fine"))
    local = Opened(server)
    settings = config(llm={"local": "default", "models": [{"model": "b", "base_url": server.url}]})
    both = Models(settings, exchanges, local=local, environ={})
    assert both.names == ("local", "b") and local.opened == 0
    await both.ask(request(), model="b")
    assert local.opened == 0
    assert (await both.ask(request())).money == 0.0
    await both.close()
    assert local.opened == local.closed == 1 and asked(server) == ["b", "local"]


@pytest.mark.parametrize(("own", "first"), [({}, 40), ({"max_tokens": 70}, 70)], ids=["default", "role"])
async def test_a_brief_answer_is_asked_of_a_local_model_only(
    server: ModelServer, exchanges: ExchangeLog, own: dict[str, int], first: int
) -> None:
    server.says(speak.answer("fine"))
    settings = config(
        llm={
            "local": "default",
            "models": [{"model": "b", "base_url": server.url}],
            "roles": {"analyse": own},
            "max_tokens": 500,
        }
    )
    both = Models(settings, exchanges, local=Opened(server), environ={})
    brief = replace(request(role="analyse"), brief=40)
    for question, model in ((brief, None), (brief, "b"), (replace(brief, role="propose", brief=900), None)):
        await both.ask(replace(question, messages=(Message(role="user", content=str(model)),)), model=model)
    await both.close()
    lengths = [seen.body["max_tokens"] for seen in server.seen]
    assert lengths == [first, own.get("max_tokens", 500), 500]


# -- what is checked before a run ------------------------------------------------------------------


def test_a_role_names_one_of_the_models() -> None:
    def check(environ: dict[str, str] | None = None, **llm: Any) -> None:
        check_models(config(llm=llm), "run.yaml", environ or {})

    roles = {"analyse": {"model": "gpt-4o-mni"}}
    with pytest.raises(RunFileError) as caught:
        check(model="gpt-4o", models=[{"model": "gpt-4o-mini"}], roles=roles)
    assert caught.value.message == "run.yaml: llm.roles.analyse.model: unknown name 'gpt-4o-mni'"
    assert "gpt-4o-mini" in caught.value.hint
    with pytest.raises(RunFileError) as caught:
        check(roles=roles)
    assert "set llm.model" in caught.value.hint
    check({"CAMBRIAN_MODEL": "gpt-4o-mni"}, roles=roles)
    check(models=[{"model": "gpt-4o-mni"}], roles=roles)


def test_a_money_budget_needs_prices() -> None:
    def check(**llm: Any) -> None:
        settings = config(llm=llm, budget={"evaluations": 9, "money": 1.5})
        check_models(settings, "run.yaml", {"OPENAI_API_KEY": "sk-1234567890"})

    with pytest.raises(RunFileError) as caught:
        check(model="gpt-99")
    assert caught.value.message == (
        "run.yaml: llm.price: a limit of money needs the price of 'gpt-99' at https://api.openai.com/v1, "
        "which the table of 2025-12 does not hold"
    )
    assert "US dollars for a million tokens" in caught.value.hint
    with pytest.raises(RunFileError, match=r"llm\.models: other: price: "):
        check(model="gpt-4o-mini", models=[{"model": "other"}])
    check(model="gpt-4o-mini-2024-07-18")
    check(model="gpt-99", price={"input": 1, "output": 2})
    check(model="gpt-99", base_url="http://localhost:8080/v1")
    check()  # nobody to pay


def test_a_server_nearby_under_a_limit_of_money_is_named() -> None:
    """It may be a proxy before a model that is paid for."""
    llm = {"model": "m", "base_url": "http://127.0.0.1:9/v1"}
    limited = {"evaluations": 9, "money": 1.0}
    assert taken_for_free(config(llm=llm, budget=limited)) == ["m at http://127.0.0.1:9/v1"]
    assert taken_for_free(config(llm=llm)) == []
    priced = llm | {"price": {"input": 1, "output": 2}}
    assert taken_for_free(config(llm=priced, budget=limited)) == []
