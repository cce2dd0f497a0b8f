"""The LLM arm: a model proposes, its answer is checked as data, and it may mend it."""

from __future__ import annotations

import json
import logging
import random
from dataclasses import replace

from cambrian.agents.errors import ProposalError
from cambrian.agents.planner.answers import BOUNDS, ProposalAnswer, answer_schema, parse_answer
from cambrian.agents.planner.arm import PopulationView, ProposalContext
from cambrian.agents.planner.client import ModelRequest
from cambrian.agents.planner.context import prompt_variables, quoted
from cambrian.agents.planner.exchange import Exchange, Message
from cambrian.agents.planner.models import Models
from cambrian.agents.planner.templates import Templates
from cambrian.agents.population.model import Candidate, CandidateState, Proposal, candidate_id
from cambrian.agents.population.view import Population
from cambrian.agents.runfile import RunConfig
from cambrian.search_spaces import Space, Task

log = logging.getLogger(__name__)

_ECHO_LIMIT = 4000
"""Characters of an unusable answer that are sent back with the complaint about it."""


def check_prompts(config: RunConfig, space: Space, task: Task) -> None:
    """Render every prompt once with made-up measurements, so that a slip in one is told before a run begins.

    Raises:
        UserError: a template is missing, cannot be parsed or uses what is not defined.
    """
    genotype = space.sample(random.Random(0))
    ends = {
        CandidateState.EVALUATED: 0.5,
        CandidateState.REJECTED: None,
        CandidateState.INVALID: None,
    }
    candidates = [
        Candidate(
            id=candidate_id(index),
            index=index,
            proposal=Proposal(arm="llm", genotype=genotype, parents=(candidate_id(0),), edit="an edit"),
            genotype=genotype,
            state=state,
            reason="a reason",
            score=score,
            latency_ms=score,
            cost=score,
            ended_s=float(index),
        )
        for index, (state, score) in enumerate(ends.items())
    ]
    for population in (Population(task.maximize), Population(task.maximize, candidates)):
        context = ProposalContext(
            index=0,
            rng=random.Random(0),
            space=space,
            task=task,
            signature=task.signature,
            population=population,
            constraints=config.constraints,
            cost=config.cost,
            notes=("a note",),
        )
        prompts = _Prompts(Templates.of(space), context)
        prompts.repair(prompts.question(), "an answer", "a problem")


class _Prompts:
    """The questions about one proposal."""

    def __init__(self, templates: Templates, context: ProposalContext) -> None:
        self._templates = templates
        self._variables = prompt_variables(context)
        self._schema = answer_schema(context.space)

    def question(self) -> ModelRequest:
        system, propose = (
            self._templates.render(name, self._variables) for name in ("system.j2", "propose.j2")
        )
        schema = json.dumps(self._schema, separators=(",", ":"))
        note = self._templates.render("schema.j2", self._variables | {"schema": schema})
        return ModelRequest(
            role="propose",
            messages=(
                Message(role="system", content=system.text),
                Message(role="user", content=propose.text),
            ),
            schema_name="proposal",
            schema=self._schema,
            bounds=BOUNDS,
            schema_note=note.text,
            templates={prompt.name: prompt.version for prompt in (system, propose, note)},
        )

    def repair(self, request: ModelRequest, said: str, problem: str) -> ModelRequest:
        prompt = self._templates.render("repair.j2", self._variables | {"problem": quoted(problem, 1500)})
        return replace(
            request,
            role="repair",
            # the first question and the last answer only: a conversation must not grow with each repair
            messages=(
                *request.messages[:2],
                Message(role="assistant", content=said[:_ECHO_LIMIT] or "(empty)"),
                Message(role="user", content=prompt.text),
            ),
            templates=request.templates | {prompt.name: prompt.version},
        )


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
        prompts = _Prompts(self._templates, context)
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
