from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from cambrian.agents.errors import LimitReached, ModelUnavailable
from cambrian.agents.planner.client import (
    MAX_ANSWER_CHARS,
    LLMClient,
    ModelRequest,
    RecordingClient,
    Reply,
    ScriptedClient,
    Tries,
)
from cambrian.agents.planner.exchange import DIED, Exchange, ExchangeLog, Message, Usage
from cambrian.agents.sections import BudgetSection, PriceSection


def request(text: str = "Propose.") -> ModelRequest:
    return ModelRequest(role="propose", messages=(Message(role="user", content=text),), templates={"p": "1"})


async def test_a_scripted_client_answers_in_turn_and_records(exchanges: ExchangeLog) -> None:
    client = ScriptedClient(["one", "two"], exchanges)
    assert isinstance(client, LLMClient)
    answers = [await client.ask(request(str(i))) for i in range(3)]
    assert [a.response for a in answers] == ["one", "two", "two"]
    assert [a.id for a in answers] == ["x-0001", "x-0002", "x-0003"]
    assert exchanges.get("x-0002") == answers[1]
    assert answers[0].templates == {"p": "1"} and answers[0].usage.estimated
    assert [r.messages[0].content for r in client.requests] == ["0", "1", "2"]


async def test_a_scripted_client_can_compute_and_fail(exchanges: ExchangeLog) -> None:
    def speak(asked: ModelRequest) -> str | ModelUnavailable:
        return ModelUnavailable("it is down") if "fail" in asked.messages[0].content else "fine"

    client = ScriptedClient(speak, exchanges)
    assert (await client.ask(request())).response == "fine"
    with pytest.raises(ModelUnavailable):
        await client.ask(request("fail"))
    failed = exchanges.get("x-0002")
    assert failed.error == "it is down" and failed.response is None and failed.calls == 1


async def test_a_resumed_run_does_not_pay_twice(tmp_path: Path) -> None:
    await ScriptedClient(["paid"], ExchangeLog(tmp_path)).ask(request())
    resumed_log = ExchangeLog(tmp_path)
    resumed = ScriptedClient(["again"], resumed_log)
    assert (await resumed.ask(request())).response == "paid"
    assert resumed.requests == [] and resumed_log.calls == 1
    assert (await resumed.ask(request("something else"))).response == "again"


async def test_recorded_answers_come_even_when_the_budget_is_spent(tmp_path: Path) -> None:
    await ScriptedClient(["paid"], ExchangeLog(tmp_path)).ask(request())
    client = ScriptedClient(["again"], ExchangeLog(tmp_path), BudgetSection(calls=1))
    assert (await client.ask(request())).response == "paid"
    with pytest.raises(LimitReached):
        await client.ask(request("more"))


async def test_calls_are_limited_over_resumes(tmp_path: Path) -> None:
    budget = BudgetSection(calls=3)
    first = ScriptedClient(["a"], ExchangeLog(tmp_path), budget)
    await first.ask(request("1"))
    await first.ask(request("2"))
    second = ScriptedClient(["a"], ExchangeLog(tmp_path), budget)
    await second.ask(request("3"))
    with pytest.raises(LimitReached) as caught:
        await second.ask(request("4"))
    assert (caught.value.kind, caught.value.limit, caught.value.used) == ("calls", 3, 3)
    assert len(list((tmp_path / "exchanges").iterdir())) == 3, "what was not sent leaves no record"


async def test_tokens_are_checked_before_they_are_spent(exchanges: ExchangeLog) -> None:
    client = ScriptedClient(["x" * 40], exchanges, BudgetSection(tokens=100))
    await client.ask(request("y" * 200))  # 50 + 10 tokens
    with pytest.raises(LimitReached) as caught:
        await client.ask(request("y" * 201))  # the question alone would pass the limit
    assert (caught.value.kind, caught.value.used) == ("tokens", 60)
    await client.ask(request("y" * 160))
    with pytest.raises(LimitReached):
        await client.ask(request("y"))
    assert exchanges.tokens == 110


class SlowClient(RecordingClient):
    """Answers when it is let."""

    def __init__(self, exchanges: ExchangeLog, budget: BudgetSection | None = None, most: int = 0) -> None:
        super().__init__("slow", exchanges, budget, price=PriceSection(input=1, output=10))
        self.go = asyncio.Event()
        self.most = most

    def _answer_tokens(self, request: ModelRequest) -> int:
        return self.most

    async def _send(self, request: ModelRequest, tries: Tries) -> Reply:
        tries()
        await self.go.wait()
        return Reply("x" * (MAX_ANSWER_CHARS + 5), Usage(prompt_tokens=40, completion_tokens=1))


async def test_questions_under_way_count_against_the_budget(exchanges: ExchangeLog) -> None:
    client = SlowClient(exchanges, BudgetSection(tokens=100))
    asked = [asyncio.create_task(client.ask(request(f"{i}" + "y" * 159))) for i in range(3)]
    await asyncio.sleep(0)
    assert exchanges.calls == 1, "a prompt of 40 tokens, or of 80 at the most: the others wait for it"
    client.go.set()
    first, second, third = await asyncio.gather(*asked, return_exceptions=True)
    assert isinstance(first, Exchange) and isinstance(second, Exchange)
    assert len(first.response or "") == MAX_ANSWER_CHARS
    assert isinstance(third, LimitReached) and third.used == exchanges.tokens == 82


async def test_who_waits_for_others_can_be_cancelled(exchanges: ExchangeLog) -> None:
    client = SlowClient(exchanges, BudgetSection(tokens=100))
    asked = [asyncio.create_task(client.ask(request(f"{i}" + "y" * 159))) for i in range(3)]
    await asyncio.sleep(0)
    asked[1].cancel()
    client.go.set()
    with pytest.raises(asyncio.CancelledError):
        await asked[1]
    assert isinstance(await asked[0], Exchange) and isinstance(await asked[2], Exchange)
    assert exchanges.tokens == 82


async def test_a_request_is_on_disk_before_it_leaves(tmp_path: Path) -> None:
    alive = ExchangeLog(tmp_path)
    client = SlowClient(alive)
    task = asyncio.create_task(client.ask(request()))
    await asyncio.sleep(0)
    on_disk = json.loads((tmp_path / "exchanges" / "x-0001.json").read_text("utf-8"))
    assert (on_disk["calls"], on_disk["response"], on_disk["error"]) == (1, None, None)
    # as if killed here: the next process knows of the call, and asks again
    log = ExchangeLog(tmp_path)
    assert log.calls == 1 and log.recorded(on_disk["key"]) is None
    assert log.tokens == 2 and log.total().usage.estimated, "the server has read the prompt"
    assert alive.tokens == 0, "while it is under way the limits count it by themselves"
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    ended = json.loads((tmp_path / "exchanges" / "x-0001.json").read_text("utf-8"))
    assert ended["error"] == "cancelled while waiting for the answer"
    assert ended["usage"]["prompt_tokens"] == 2 and ended["usage"]["estimated"], "it was sent, and read"


@pytest.mark.parametrize("killed", [True, False])
async def test_an_answer_that_nobody_heard_counts_as_a_long_one(tmp_path: Path, killed: bool) -> None:
    """Whether the process was killed or told to stop: else a limit would be got round by either."""
    first = SlowClient(ExchangeLog(tmp_path), most=50)

    async def abandoned(client: SlowClient) -> Exchange:
        client.go.clear()
        task = asyncio.create_task(client.ask(request("y" * 400)))
        await asyncio.sleep(0)
        found = ExchangeLog(tmp_path)  # as if killed here
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        if not killed:
            found = ExchangeLog(tmp_path)
        found.settle()
        return ExchangeLog(tmp_path).all()[-1]

    unheard = await abandoned(first)
    assert unheard.error == (DIED if killed else "cancelled while waiting for the answer")
    assert (unheard.usage.prompt_tokens, unheard.usage.completion_tokens) == (100, 50), "nothing is known yet"
    assert unheard.usage.estimated and unheard.money == pytest.approx((100 + 50 * 10) / 1e6)
    first.go.set()
    await first.ask(request("z"))  # an answer of one token
    again = SlowClient(ExchangeLog(tmp_path), BudgetSection(tokens=400), most=50)
    assert (await abandoned(again)).usage.completion_tokens == 1, "as long as the longest that was heard"
    log = ExchangeLog(tmp_path)
    assert log.tokens == 150 + 41 + 101
    with pytest.raises(LimitReached):
        await SlowClient(log, BudgetSection(tokens=292)).ask(request("w"))
