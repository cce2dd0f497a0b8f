"""The LLM arm with a model whose answers are written down."""

from __future__ import annotations

import json
from typing import Any

from cambrian.agents.planner.client import ScriptedClient
from cambrian.agents.planner.exchange import ExchangeLog
from cambrian.agents.planner.llm import LLMArm
from cambrian.agents.planner.models import Models
from cambrian.search_spaces import Space
from tests.agents.planner.world import config


def answer(space: Space, **more: Any) -> str:
    """A good answer: the first baseline of the space."""
    return json.dumps(
        {
            "hypothesis": "shortcuts train fast",
            "expectation": {"measure": "score", "change": "higher", "by_percent": 2},
            "parents": ["c-0001"],
            "edit": "one block more",
            "genotype": next(iter(space.baselines().values())),
        }
        | more
    )


def scripted(log: ExchangeLog, *answers: str, **llm: Any) -> tuple[LLMArm, ScriptedClient]:
    settings = config(llm=llm)
    client = ScriptedClient(answers, log, settings.budget)
    return LLMArm(settings, Models(settings, log, client)), client
