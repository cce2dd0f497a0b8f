"""The LLM arm: a model proposes, its answer is checked as data, and it may mend it."""

from __future__ import annotations

import json
import logging

from cambrian.agents.errors import ProposalError
from cambrian.agents.planner.answers import BOUNDS, ProposalAnswer, answer_schema, parse_answer
from cambrian.agents.planner.arm import PopulationView, ProposalContext
from cambrian.agents.planner.client import LLMClient, ModelRequest
from cambrian.agents.planner.context import prompt_variables, quoted
from cambrian.agents.planner.endpoint import resolve_endpoint
from cambrian.agents.planner.exchange import Exchange, ExchangeLog, Message
from cambrian.agents.planner.openai_client import OpenAIClient
from cambrian.agents.planner.templates import Rendered, Templates
from cambrian.agents.population.model import Proposal
from cambrian.agents.runfile import RunConfig

log = logging.getLogger(__name__)

_ECHO_LIMIT = 4000
"""Characters of an unusable answer that are sent back with the complaint about it."""


class LLMArm:
    """Asks a model for one proposal, with the run's history in the prompt.

    Args:
        config: `space`, `llm` and `budget` are used.
        exchanges: the run's record of what was asked and answered.
        client: None makes an `OpenAIClient` from the run file and the environment.

    Raises:
        UserError: `CAMBRIAN_PROMPTS` names no folder.
    """

    name = "llm"
    control = False
    cheap = False

    def __init__(self, config: RunConfig, exchanges: ExchangeLog, client: LLMClient | None = None) -> None:
        self._repairs = config.llm.repairs
        self._templates = Templates(config.space)
        self._configured = client is not None or not resolve_endpoint(config.llm).problem
        self._client: LLMClient = client or OpenAIClient(config, exchanges)

    def ready(self, population: PopulationView) -> bool:
        """Whether an endpoint is configured; whether it answers is known when it is asked."""
        return self._configured

    async def propose(self, context: ProposalContext, n: int) -> list[Proposal]:
        """One proposal: drafts of a model are dear, so `n` is not used up.

        Raises:
            ProposalError: the model refused, or its answer was no member of the space after all repairs.
            ModelUnavailable: see `LLMClient.ask`.
            LimitReached: see `LLMClient.ask`.
            UserError: a prompt template cannot be rendered.
        """
        variables = prompt_variables(context)
        schema = answer_schema(context.space)
        prompts = [self._templates.render(name, variables) for name in ("system.j2", "propose.j2")]
        note = self._templates.render(
            "schema.j2", variables | {"schema": json.dumps(schema, separators=(",", ":"))}
        )
        request = ModelRequest(
            role="propose",
            messages=(
                Message(role="system", content=prompts[0].text),
                Message(role="user", content=prompts[1].text),
            ),
            schema_name="proposal",
            schema=schema,
            bounds=BOUNDS,
            schema_note=note.text,
            templates=_versions(*prompts, note),
        )
        for repairs_left in reversed(range(self._repairs + 1)):
            exchange = await self._client.ask(request)
            if exchange.refusal:
                raise ProposalError(f"the model refused: {quoted(exchange.refusal)}")
            try:
                return [self._proposal(exchange, context)]
            except ProposalError as error:
                problem = _with_cut(error.message, exchange)
                log.info("exchange %s holds no proposal: %s", exchange.id, problem)
                if not repairs_left:
                    raise ProposalError(
                        f"the model gave no usable answer in {self._repairs + 1} turns: {problem}"
                    ) from error
            request = self._repair(request, exchange, problem, variables)
        raise AssertionError("the loop returns or raises")

    async def close(self) -> None:
        """Close the client."""
        await self._client.close()

    def _proposal(self, exchange: Exchange, context: ProposalContext) -> Proposal:
        answer, _ = parse_answer(exchange.response or "", context.space)
        return Proposal(
            arm=self.name,
            genotype=answer.genotype,
            parents=_known_parents(answer, context.population),
            edit=answer.edit,
            hypothesis=answer.hypothesis,
            expected_effect=answer.expected_effect,
            exchange=exchange.id,
        )

    def _repair(
        self, request: ModelRequest, exchange: Exchange, problem: str, variables: dict[str, object]
    ) -> ModelRequest:
        prompt = self._templates.render("repair.j2", variables | {"problem": quoted(problem, 1500)})
        said = (exchange.response or "")[:_ECHO_LIMIT] or "(empty)"
        return ModelRequest(
            role="repair",
            # the first question and the last answer only: a conversation must not grow with each repair
            messages=(
                *request.messages[:2],
                Message(role="assistant", content=said),
                Message(role="user", content=prompt.text),
            ),
            schema_name=request.schema_name,
            schema=request.schema,
            bounds=request.bounds,
            schema_note=request.schema_note,
            templates=request.templates | _versions(prompt),
        )


def _versions(*prompts: Rendered) -> dict[str, str]:
    return {prompt.name: prompt.version for prompt in prompts}


def _known_parents(answer: ProposalAnswer, population: PopulationView) -> tuple[str, ...]:
    """The parents that exist, each once: models invent ids."""
    known: dict[str, None] = {}
    for parent_id in answer.parents:
        try:
            known[population.get(parent_id).id] = None
        except KeyError:
            log.debug("the model names a parent that is not there")
    return tuple(known)


def _with_cut(problem: str, exchange: Exchange) -> str:
    if exchange.finish == "length":
        return f"{problem}; the answer was cut at the length limit, write shorter texts"
    return problem
