"""Models of searches on tables: which one an arm asks, with a record that is gone when the search ends."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from cambrian.agents.benching.rubbish import NAME as RUBBISH
from cambrian.agents.benching.rubbish import Rubbish
from cambrian.agents.errors import UserError
from cambrian.agents.planner.client import ScriptedClient
from cambrian.agents.planner.endpoint import resolve_endpoint
from cambrian.agents.planner.exchange import ExchangeLog
from cambrian.agents.planner.local_model import local_model
from cambrian.agents.planner.models import Models
from cambrian.agents.runfile import RunConfig
from cambrian.agents.sections import LLMSection
from cambrian.search_spaces import Space

LOCAL = "local"


def llm_section(model: str) -> dict[str, Any]:
    """What `llm` says in the run file of a search whose arm asks `model`."""
    if model == RUBBISH:
        return {}
    return {"local": "default"} if model == LOCAL else {"model": model}


def check_model(model: str) -> None:
    """Whether `model` can be asked, as far as that is known without asking.

    Raises:
        UserError: there is no endpoint for it, or no local model.
    """
    llm = LLMSection.model_validate(llm_section(model))
    if model == RUBBISH or local_model(llm) is not None:
        return
    if problem := resolve_endpoint(llm).problem:
        raise UserError(
            f"--llm: {model!r} cannot be asked: {problem}",
            hint=f"set OPENAI_API_KEY or OPENAI_BASE_URL, or give {LOCAL!r} or {RUBBISH!r}",
        )


@asynccontextmanager
async def models_of(
    model: str, config: RunConfig, space: Space, clock: Callable[[], float]
) -> AsyncIterator[tuple[RunConfig, Models, ExchangeLog]]:
    """The models of one search, and its configuration with what they need.

    Args:
        model: `rubbish`, `local`, or a name that the endpoint of the environment knows.
        config: of the search.
        space: that is searched.
        clock: seconds by which a model that fails is left alone.
    """
    with tempfile.TemporaryDirectory(prefix="cambrian-bench-") as folder:
        exchanges = ExchangeLog(Path(folder))
        client = None
        local = None if model == RUBBISH else local_model(config.llm)
        if model == RUBBISH:
            client = ScriptedClient(Rubbish(space, config.seed), exchanges, model=RUBBISH)
        if local is not None:
            config = config.model_copy(update={"llm": local.fitted(config.llm)})
        models = Models(config, exchanges, client, local=local, clock=clock)
        try:
            yield config, models, exchanges
        finally:
            await models.close()
