"""A question, and a client to ask it with, for tests against the server on loopback."""

from __future__ import annotations

from typing import Any

import pytest

from cambrian.agents.planner.client import ModelRequest
from cambrian.agents.planner.exchange import ExchangeLog, Message
from cambrian.agents.planner.openai_client import OpenAIClient
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
