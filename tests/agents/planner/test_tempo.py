"""What is not asked any more for want of time, and what a dear or a failing model leaves to the others."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cambrian.agents.errors import LimitReached, ModelUnavailable
from cambrian.agents.planner.client import ModelRequest
from cambrian.agents.planner.exchange import ExchangeLog, Message
from cambrian.agents.planner.llm import LLMArm
from cambrian.agents.planner.models import Models
from tests.agents.planner import server as speak
from tests.agents.planner.scripted import answer
from tests.agents.planner.server import ModelServer
from tests.agents.planner.world import config, context, convnet, evaluated

ASKED = context(convnet(), evaluated(convnet(), 3))


def request(text: str = "Propose.") -> ModelRequest:
    return ModelRequest(role="propose", messages=(Message(role="user", content=text),))


def took(log: ExchangeLog, model: str, *seconds: float) -> None:
    """Answers of an earlier process."""
    for each in seconds:
        begun = log.begin(
            key="k", role="propose", model=model, messages=(), schema_name=None, templates={}, place="d0"
        )
        log.write(begun.model_copy(update={"response": "{}", "seconds": each, "calls": 1}))


def two(
    server: ModelServer,
    log: ExchangeLog,
    budget: dict[str, Any],
    *,
    left: Callable[[], float] = lambda: math.inf,
    lines: list[str] | None = None,
    clock: Callable[[], float] = lambda: 0.0,
    **llm: Any,
) -> tuple[LLMArm, Models]:
    section = {
        "base_url": server.url,
        "retries": 0,
        "models": [
            {"model": "strong", "price": {"input": 100_000, "output": 100_000}},
            {"model": "weak", "price": {"input": 0.1, "output": 0.4}},
        ],
    }
    settings = config(llm=section | llm, budget={"evaluations": 9} | budget)
    say = (lambda _line: None) if lines is None else lines.append
    models = Models(settings, log, environ={}, time_left=left, say=say, clock=clock)
    return LLMArm(settings, models), models


def asked(server: ModelServer) -> list[str]:
    return [seen.body["model"] for seen in server.seen]


# -- money -----------------------------------------------------------------------------------------


async def test_a_model_that_is_too_dear_leaves_the_others_to_go_on(
    server: ModelServer, exchanges: ExchangeLog
) -> None:
    lines: list[str] = []
    server.says(speak.answer(answer(convnet())))
    arm, models = two(server, exchanges, {"money": 0.05}, lines=lines)
    for seed in range(6):
        (made,) = await arm.propose(context(convnet(), evaluated(convnet(), 3), seed=seed), 1)
        assert made.model == "weak", "a question that does not fit is put to the other one"
    assert asked(server) == ["weak"] * 6
    assert models.available("propose") == ("weak",) and models.spent("propose") is None
    (line,) = lines
    assert line.startswith("model strong is too dear for what is left (budget of $0.05 for models: $0.0")
    assert line.endswith("; weak goes on")
    assert arm.ready(ASKED.population) and arm.gone() is None


async def test_when_no_model_fits_the_arm_is_out(server: ModelServer, exchanges: ExchangeLog) -> None:
    arm, models = two(server, exchanges, {"money": 1e-6})
    with pytest.raises(LimitReached):
        await arm.propose(ASKED, 1)
    assert not server.seen and not arm.ready(ASKED.population) and models.available("propose") == ()
    gone = arm.gone()
    assert isinstance(gone, LimitReached) and gone.kind == "money" and gone.needed < 0.01, "of the cheapest"


async def test_who_is_too_dear_is_not_waited_for_when_the_other_is_gone(
    server: ModelServer, exchanges: ExchangeLog
) -> None:
    arm, models = two(server, exchanges, {"money": 0.05})
    server.says(speak.error(401, "wrong key"))
    with pytest.raises(LimitReached):
        await models.ask(request("x" * 400), model="strong")
    with pytest.raises(ModelUnavailable):
        await arm.propose(ASKED, 1)
    gone = arm.gone()
    assert isinstance(gone, ModelUnavailable) and "wrong key" in gone.message


async def test_tokens_are_the_same_for_all_models(server: ModelServer, exchanges: ExchangeLog) -> None:
    lines: list[str] = []
    arm, models = two(server, exchanges, {"tokens": 50}, lines=lines)
    with pytest.raises(LimitReached):
        await arm.propose(ASKED, 1)
    assert models.available("propose") == () and lines == []


# -- time ------------------------------------------------------------------------------------------


async def test_a_model_that_would_answer_too_late_is_not_asked(
    server: ModelServer, tmp_path: Path, exchanges: ExchangeLog
) -> None:
    took(exchanges, "strong", 60.0, 70.0, 500.0)
    took(exchanges, "weak", 5.0)
    left = [100.0]
    log = ExchangeLog(exchanges.folder.parent)  # a resumed run knows how long its answers took
    arm, models = two(server, log, {"wall_s": 240.0}, left=lambda: left[0])
    assert models.available("propose") == ("strong", "weak")
    left[0] = 69.0
    assert models.available("propose") == ("weak",) and models.spent("propose") is None
    left[0] = 4.0
    assert not models.ready("propose") and not models.ready("analyse")
    gone = arm.gone()
    assert isinstance(gone, LimitReached) and (gone.kind, gone.needed) == ("wall_s", 5.0)
    assert "budget of 240 wall_s: 4 left" in gone.message
    _, unlimited = two(server, log, {}, left=lambda: 4.0)
    assert unlimited.available("propose") == ("strong", "weak")
    _, new = two(server, ExchangeLog(tmp_path / "new"), {"wall_s": 240.0}, left=lambda: 4.0)
    assert new.available("propose") == ("strong", "weak"), "nobody knows how long they take"


async def test_an_answer_is_not_waited_for_beyond_the_end_of_the_run(
    server: ModelServer, exchanges: ExchangeLog
) -> None:
    server.says(speak.silent)
    _, models = two(server, exchanges, {"wall_s": 240.0}, left=lambda: 0.2, timeout_s=600, failures=1)
    with pytest.raises(LimitReached, match="wall_s"):
        await models.ask(request(), model="weak")
    assert models.status()["weak"] == "ready", "it says nothing of the model"
    (exchange,) = exchanges.all()
    assert exchange.calls == 1 and exchange.response is None and exchange.usage.estimated


async def test_nothing_is_sent_when_time_is_up(server: ModelServer, exchanges: ExchangeLog) -> None:
    _, models = two(server, exchanges, {"wall_s": 240.0}, left=lambda: 0.0)
    assert not models.ready("propose")
    with pytest.raises(LimitReached, match=r"budget of 240 wall_s is spent"):
        await models.ask(request(), model="weak")
    assert not server.seen and exchanges.calls == 0


# -- failures --------------------------------------------------------------------------------------


async def test_a_failing_model_is_named_with_who_goes_on_and_told_when_it_is_back(
    server: ModelServer, exchanges: ExchangeLog
) -> None:
    lines: list[str] = []
    now = [0.0]
    _, models = two(server, exchanges, {}, lines=lines, clock=lambda: now[0], probe_s=30)
    server.says(speak.error(401, "wrong key"))
    with pytest.raises(ModelUnavailable):
        await models.ask(request(), model="strong")
    assert lines[0].startswith("model strong at ") and lines[0].endswith("left alone for 30 s; weak goes on")
    with pytest.raises(ModelUnavailable):
        await models.ask(request(), model="weak")
    assert lines[1].endswith("left alone for 30 s"), "nobody goes on"
    now[0] = 31.0
    server.says(speak.answer("fine"))
    await models.ask(request("again"), model="strong")
    assert lines[2:] == ["model strong answers again"]
