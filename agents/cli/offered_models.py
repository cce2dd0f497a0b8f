"""What `cambrian doctor` says of models: where they are, what they play, and what a call costs."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import get_args

from cambrian.agents.cli.finding import Finding
from cambrian.agents.errors import CambrianError
from cambrian.agents.planner.endpoint import Endpoint, endpoint_status
from cambrian.agents.planner.exchange import Usage
from cambrian.agents.planner.local_model import LocalModel
from cambrian.agents.planner.models import endpoints
from cambrian.agents.planner.prices import cost, price_of, price_table
from cambrian.agents.runfile import RunConfig
from cambrian.agents.sections import LLMSection, ModelSection, Role

ANSWER_TOKENS = 250
"""Of a proposal: what small and large models were seen to write, give or take a half."""
_PROBE_NETWORKS, _PROBE_ANSWER = 40, 24


@dataclass(frozen=True)
class Speed:
    """Measured tokens a second of a local model.

    Attributes:
        reads: of a question.
        writes: of an answer.
    """

    reads: float
    writes: float

    def seconds(self, question: int, answer: int = ANSWER_TOKENS) -> float:
        """What a call takes of which nothing is known from the one before."""
        return question / self.reads + answer / self.writes


def model_findings(config: RunConfig | None, *, measure: bool = False) -> Iterator[Finding]:
    """One line for each model that a run would ask, and one for the model of this machine.

    Args:
        config: the run; None goes by the environment alone.
        measure: start the local model for some seconds, to tell how fast it is.
    """
    llm = config.llm if config is not None else LLMSection()
    local, finding = _local(llm, measure)
    wanted = local if llm.local is not None else None
    if llm.local is None or local is not None:
        question = _question_tokens(config, wanted.fitted(llm) if wanted is not None else llm)
        for section, endpoint in endpoints(llm, local=wanted):
            if wanted is None or section is not None:
                yield _remote(config, llm, section, endpoint, question)
    yield finding


def _remote(
    config: RunConfig | None, llm: LLMSection, section: ModelSection | None, endpoint: Endpoint, question: int
) -> Finding:
    status = endpoint_status(llm, probe=True, section=section)
    what = "model endpoint" if section is None else f"model {section.model}"
    detail = status.detail
    if status.configured:
        detail += f"; {_roles(llm, endpoint.model or '')}; {_price(config, llm, section, endpoint, question)}"
    if status.configured and status.reachable is not False:
        return Finding(what=what, status="ok", detail=detail, means=status.hint)
    means = f"the other models are asked: {status.hint}"
    if section is None:
        means = f"the LLM arm is off; mutation, crossover and random search go on: {status.hint}"
    return Finding(what=what, status="absent", detail=detail, means=means)


def _price(
    config: RunConfig | None, llm: LLMSection, section: ModelSection | None, endpoint: Endpoint, question: int
) -> str:
    """What the model costs, in words."""
    given = llm.price if section is None else section.price
    price = price_of(endpoint, given)
    if price is None:
        where = "llm.price" if section is None else "its price under llm.models"
        return f"what it costs is not known: {where} says it, for a limit on money"
    if not price.input and not price.output:
        return "costs nothing by the token"
    call = cost(Usage(prompt_tokens=question, completion_tokens=ANSWER_TOKENS), price)
    source = "the run file" if given is not None else f"the list of {price_table().as_of}"
    words = (
        f"${price.input:g} in and ${price.output:g} out for a million tokens by {source}, about ${call:.2g} "
        f"for a call of {question:,} + {ANSWER_TOKENS} tokens"
    )
    money = config.budget.money if config is not None else None
    return words if money is None else f"{words}, some {money / call:,.0f} calls for a budget of ${money:g}"


def _local(llm: LLMSection, measure: bool) -> tuple[LocalModel | None, Finding]:
    """The model of this machine, None where it cannot be had, and what is said of it."""
    asked = llm.local is not None
    llm = llm if asked else LLMSection()
    try:
        model = LocalModel(llm)
    except CambrianError as error:
        return None, Finding(
            what="local model",
            status="broken" if asked else "absent",
            detail=error.message,
            means=error.hint if asked else f"`cambrian run --llm local` has no model: {error.hint}",
        )
    file, threads = model.file, llm.local_threads
    detail = (
        f"{file.name}: {file.bytes / 2**20:,.0f} MiB, {file.parameters / 1e6:,.0f}M weights, takes in "
        f"{file.context or 'any number of'} tokens; needs about {model.memory_bytes / 2**30:.1f} GiB of "
        f"memory and {threads} thread{'s' if threads > 1 else ''}; a question has at most "
        f"{model.prompt_tokens:,} tokens, an answer {model.max_tokens:,}"
    )
    if asked:
        detail += f"; {_roles(llm, model.name)}"
    if not file.chat:
        detail += "; it has no chat template, so that it may not follow instructions"
    if not measure:
        means = "costs nothing by the token, but time: `cambrian doctor --probe` measures how much"
        if not asked:
            means = f"`cambrian run --llm local` asks it; {means}"
        return model, Finding(what="local model", status="ok", detail=detail, means=means)
    try:
        speed = asyncio.run(_measured(model))
    except CambrianError as error:
        return model, Finding(what="local model", status="broken", detail=error.message, means=error.hint)
    longest = speed.seconds(model.prompt_tokens)
    means = (
        f"reads {speed.reads:.0f} and writes {speed.writes:.0f} tokens a second now: a proposal takes up to "
        f"{longest:.0f} s, less where the question begins as the last one did; its core is not free for "
        "training meanwhile"
    )
    return model, Finding(what="local model", status="ok", detail=detail, means=means)


async def _measured(model: LocalModel) -> Speed:
    """Ask one question whose beginning the server cannot have in its cache."""
    import httpx2

    scores = (f"network {i} has score {i * 37 % 101}" for i in range(_PROBE_NETWORKS))
    text = f"{time.time()}: {', '.join(scores)}"
    body = {
        "messages": [{"role": "user", "content": text}],
        "max_tokens": _PROBE_ANSWER,
        "temperature": 0,
        "ignore_eos": True,
    }
    try:
        endpoint = await model.open()
        async with httpx2.AsyncClient(trust_env=False, timeout=300) as http:
            answer = await http.post(f"{endpoint.base_url}/chat/completions", json=body)
        timings = answer.json()["timings"]
        return Speed(float(timings["prompt_per_second"]), float(timings["predicted_per_second"]))
    except (httpx2.HTTPError, KeyError, ValueError, TypeError) as error:
        raise CambrianError(
            f"model {model.name} is loaded but does not answer: {error}", hint="try another file"
        ) from error
    finally:
        await model.close()


def _roles(llm: LLMSection, name: str) -> str:
    """Which roles the model plays."""
    plays = [role for role in get_args(Role) if (llm.role(role).model or name) == name]
    if len(plays) == len(get_args(Role)):
        return "plays all roles" if not llm.models else "shares all roles"
    return f"plays {' and '.join(plays)}" if plays else "plays no role"


def _question_tokens(config: RunConfig | None, llm: LLMSection) -> int:
    """How long this run's questions are, by its prompts on a made-up population; at most without a run."""
    if config is None:
        return llm.prompt_tokens
    from cambrian.agents.checking import make_task
    from cambrian.agents.planner.prompt_worlds import few_worlds
    from cambrian.agents.planner.questions import Questions
    from cambrian.agents.planner.templates import Templates
    from cambrian.search_spaces import SPACES

    try:
        space, task = SPACES.open(config.space), make_task(config, "run file")
        asked = [
            Questions(
                Templates.of(space),
                world.context(),
                world.n,
                by_changes=llm.by_changes,
                limit=llm.prompt_tokens,
            ).cuts.tokens
            for world in few_worlds(space, task, config)
            if not world.by_changes
        ]
    except CambrianError:
        return llm.prompt_tokens  # what is wrong with them is said where they are checked
    return max(asked)
