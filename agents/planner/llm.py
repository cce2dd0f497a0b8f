"""The LLM arm: a model proposes, its answer is checked as data, and it may mend it."""

from __future__ import annotations

import logging

from cambrian.agents.errors import ProposalError
from cambrian.agents.planner.answers import ProposalAnswer, parse_answer
from cambrian.agents.planner.arm import PopulationView, ProposalContext
from cambrian.agents.planner.context import quoted
from cambrian.agents.planner.exchange import Exchange
from cambrian.agents.planner.models import Models
from cambrian.agents.planner.questions import Questions
from cambrian.agents.planner.templates import Templates
from cambrian.agents.population.model import Proposal
from cambrian.agents.runfile import RunConfig

log = logging.getLogger(__name__)


class LLMArm:
    """Asks a model for one proposal, with the run's history in the prompt.

    Args:
        config: `llm` is used.
        models: of the run.
    """

    name = "llm"
    control = False
    cheap = False

    def __init__(self, config: RunConfig, models: Models) -> None:
        self._repairs = config.llm.repairs
        self._templates: Templates | None = None
        self._models = models

    def ready(self, population: PopulationView) -> bool:
        """Whether an endpoint is configured; whether it answers is known when it is asked."""
        return self._models.ready("propose")

    async def propose(self, context: ProposalContext, n: int) -> list[Proposal]:
        """One proposal: drafts of a model are dear, so `n` is not used up.

        Raises:
            ProposalError: the model refused, or its answer was no member of the space after all repairs.
            ModelUnavailable: see `LLMClient.ask`.
            LimitReached: see `LLMClient.ask`.
            UserError: a prompt template cannot be rendered, or `CAMBRIAN_PROMPTS` names no folder.
        """
        # one set for the whole run: what is asked must not change with a file that is edited meanwhile
        self._templates = self._templates or Templates.of(context.space)
        prompts = Questions(self._templates, context)
        request = prompts.question()
        for repairs_left in reversed(range(self._repairs + 1)):
            exchange = await self._models.ask(request)
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
            request = prompts.repair(request, exchange.response or "", problem)
        raise AssertionError("the loop returns or raises")

    async def close(self) -> None:
        """The models are the run's: nothing to release."""
        return

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
            model=exchange.model,
        )


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
