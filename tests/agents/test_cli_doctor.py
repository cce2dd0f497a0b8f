"""What `cambrian doctor` says of models."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cambrian.agents.cli.finding import Finding
from cambrian.agents.cli.offered_models import ANSWER_TOKENS, model_findings
from cambrian.agents.planner.local_model import LIBRARY
from cambrian.agents.runfile import RunConfig
from tests.agents.planner.server import ModelServer, model_server
from tests.agents.planner.test_gguf import gguf, write
from tests.agents.planner.world import config


@pytest.fixture
def server() -> Iterator[ModelServer]:
    with model_server() as server:
        yield server


def said(run: RunConfig | None, *, measure: bool = False) -> dict[str, Finding]:
    return {finding.what: finding for finding in model_findings(run, measure=measure)}


def test_prices_roles_and_the_cost_of_a_call(server: ModelServer) -> None:
    llm: dict[str, Any] = {
        "model": "strong",
        "base_url": server.url,
        "price": {"input": 2.0, "output": 8.0},
        "models": [{"model": "cheap", "price": {"input": 0.1, "output": 0.4}}, {"model": "unknown"}],
        "roles": {"analyse": {"model": "cheap"}},
    }
    found = said(config(space="cell", llm=llm, budget={"evaluations": 5, "money": 1.0}))
    strong = found["model endpoint"]
    assert strong.status == "ok" and "plays propose and repair;" in strong.detail
    assert "$2 in and $8 out for a million tokens by the run file" in strong.detail
    tokens = int(strong.detail.partition("for a call of ")[2].partition(" +")[0].replace(",", ""))
    assert 1000 < tokens < 8000, "as long as this run's questions are"
    call = (tokens * 2 + ANSWER_TOKENS * 8) / 1e6
    assert f"about ${call:.2g} for a call" in strong.detail
    assert f"some {1 / call:,.0f} calls for a budget of $1" in strong.detail
    assert "shares all roles" in found["model cheap"].detail and "$0.1 in" in found["model cheap"].detail
    assert "costs nothing by the token" in found["model unknown"].detail, "a server of one's own"


def test_a_price_that_nobody_knows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-test")
    found = said(config(space="cell", llm={"model": "new", "base_url": "http://models.example.org/v1"}))
    endpoint = found["model endpoint"]
    assert endpoint.status == "absent" and "does not answer" in endpoint.detail
    assert "what it costs is not known: llm.price says it" in endpoint.detail


def test_a_model_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    genuine = importlib.util.find_spec
    there: list[bool] = [True]
    monkeypatch.setattr(
        importlib.util,
        "find_spec",
        lambda name, *more: ("found" if there[0] else None) if name == LIBRARY else genuine(name, *more),
    )
    facts = {"general.architecture": "llama", "llama.context_length": 32_768}
    run = config(space="cell", llm={"local": str(write(tmp_path, gguf(facts)))})
    found = said(run)
    assert list(found) == ["local model"], "no endpoint is asked beside it"
    local = found["local model"]
    assert local.status == "ok" and local.detail.startswith("tiny.Q4_0: 0 MiB")
    for part in (
        "takes in 32768 tokens",
        "0.1 GiB of memory and 1 thread",
        "plays all roles",
        "no chat template",
    ):
        assert part in local.detail
    assert "--probe" in local.means
    (tmp_path / "tiny.Q4_0.gguf").unlink()
    assert said(run)["local model"].status == "broken"
    there[0] = False
    absent = said(None)
    assert absent["local model"].status == "absent" and "cambrian[local-llm]" in absent["local model"].means
    assert absent["model endpoint"].status == "absent"


@pytest.mark.model
def test_its_speed_is_measured_when_asked() -> None:
    local = said(None, measure=True)["local model"]
    words = local.means.split()
    assert words[0] == "reads" and float(words[1]) > float(words[4]) > 0, "reading is quicker than writing"
    assert "a proposal takes up to" in local.means
