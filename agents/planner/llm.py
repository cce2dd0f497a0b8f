"""The LLM arm: a model proposes, its answer is checked as data, and it may mend it."""

from __future__ import annotations

import logging
from functools import partial

from cambrian.agents.errors import CambrianError, LimitReached, ModelUnavailable, ProposalError
from cambrian.agents.planner.answers import MOST, ProposalAnswer, parse_answers
from cambrian.agents.planner.arm import PopulationView, ProposalContext
from cambrian.agents.planner.batching import Batching
from cambrian.agents.planner.budgeting import TokenCounter
from cambrian.agents.planner.client import ModelRequest
from cambrian.agents.planner.context import quoted
from cambrian.agents.planner.conversation import Conversation
from cambrian.agents.planner.credit import choose_model
from cambrian.agents.planner.exchange import Exchange
from cambrian.agents.planner.models import Models
from cambrian.agents.planner.questions import Questions
from cambrian.agents.planner.templates import Templates
from cambrian.agents.population.model import Proposal
from cambrian.agents.runfile import RunConfig
from cambrian.search_spaces import Genotype

log = logging.getLogger(__name__)

HOPELESS = 2
"""Outages in a row, the first included, after which a model counts as gone: its first probe has failed."""


class LLMArm:
    """Asks a model for proposals, with the run's history in the prompt.

    Args:
        config: `llm` and `budget` are used.
        models: of the run.

    Attributes:
        templates: what it asks with; None takes those that there are at the first question.
    """

    name = "llm"
    control = False
    cheap = False

    def __init__(self, config: RunConfig, models: Models) -> None:
        self._llm, self._budget = config.llm, config.budget
        self._by_changes = config.llm.by_changes
        self.templates: Templates | None = None
        self._models = models
        self._batching = Batching(config.llm)
        self._counter = TokenCounter(models.exchanges)
        self._outages: dict[str, int] = {}
        self._last_outage: ModelUnavailable | None = None

    def ready(self, population: PopulationView) -> bool:
        """Whether a model may be asked now; whether it answers is known when it is asked."""
        return self._models.ready("propose")

    def gone(self) -> CambrianError | None:
        """Why no model can be asked any more; None while one can, or may soon be tried again.

        A model that is left alone for a while is gone once the first try after that has failed as well, or
        when it was left for a reason that trying again does not mend. The error is a `LimitReached` when a
        budget is spent, else a `ModelUnavailable`.
        """
        if self._models.ready("propose"):
            return None
        if (spent := self._models.spent("propose")) is not None:
            return spent
        names = self._models.playing("propose")
        if not names:
            status = next(iter(self._models.status().values()), "no model is configured")
            return ModelUnavailable(status, permanent=True)
        if all(self._outages.get(name, 0) >= HOPELESS for name in names):
            return self._last_outage
        return None

    def batch(self, missing: int, wanted: int) -> int:
        """How many proposals to ask for in one call now; 0 to wait until more are missing.

        Args:
            missing: proposals that are neither ready nor asked for.
            wanted: how many should be.
        """
        best = self._batching.best(min(wanted, MOST))
        if self._llm.batch != "auto":
            return self._llm.batch
        if best == 1 or self._by_changes:  # what is changed is one parent
            return 1
        return min(missing, best) if 2 * missing >= min(wanted, best) else 0

    async def propose(self, context: ProposalContext, n: int) -> list[Proposal]:
        """Up to `n` proposals from one answer, each asked for with a focus of its own.

        Raises:
            ProposalError: the model refused, or its answer held no member of the space after all repairs.
            ModelUnavailable: see `LLMClient.ask`.
            LimitReached: see `LLMClient.ask`.
            UserError: a prompt template cannot be rendered, or `CAMBRIAN_PROMPTS` names no folder.
        """
        # one set for the whole run: what is asked must not change with a file that is edited meanwhile
        self.templates = self.templates or Templates.of(context.space)
        n = min(n, MOST)
        self._by_changes = self._llm.by_changes and context.space.kind != "code"  # source is written whole
        questions = Questions(
            self.templates,
            context,
            n,
            by_changes=self._llm.by_changes,
            limit=self._llm.prompt_tokens,
            counter=self._counter,
        )
        chosen = self._choose(context)

        async def first(request: ModelRequest) -> Exchange:
            model = chosen
            while True:
                try:
                    return await self._ask(request, model)
                except LimitReached:  # of one that is too dear nothing was sent: another one may do
                    if model is None or model in self._models.playing("propose"):
                        raise
                    if not self._models.ready("propose"):
                        raise
                    model = self._choose(context)

        async def ask(request: ModelRequest) -> Exchange:
            if request.role != "repair" or talk.exchange is None:
                return await first(request)
            author, mender = talk.exchange.model, self._llm.role("repair").model
            if mender not in (None, author) and not talk.found:  # what another mends is no merit of its own
                self._models.note_unusable(author, "another model has to mend its answers")
            return await self._ask(request, author if mender is None else None)

        against = questions.variables["reference"] or None  # the best may be another once it is answered
        talk = Conversation(
            questions,
            place=f"d{context.index}",
            repairs=self._llm.repairs,
            ask=ask,
            read=lambda exchange: self._proposals(exchange, context, n, questions.ideas, against),
            objection=context.objection,
            may_repair=lambda: self._models.spent("repair") is None,
        )
        try:
            return await talk.proposals()
        except ProposalError as error:
            if talk.exchange is not None:
                self._gave_nothing(talk.exchange.model, error.message)
            raise

    def recover(self, context: ProposalContext, n: int) -> list[Proposal]:
        """What the question of `context.index`, asked by an earlier process, has brought; it may be nothing.

        That process died between the answer and taking note of it. What was asked of each proposal is not
        known any more: they have no `idea`, and those without parents nobody to be held `against`.
        """
        place = f"d{context.index}"
        for exchange in reversed(self._models.exchanges.all()):
            if exchange.place.partition(".")[0] == place and exchange.response:
                try:
                    return self._proposals(exchange, context, n, ("",))
                except ProposalError:
                    return []
        return []

    async def close(self) -> None:
        """The models are the run's: nothing to release."""
        return

    def _choose(self, context: ProposalContext) -> str | None:
        """Who is asked: one of those that may be; None leaves it to `Models`."""
        names = self._models.available("propose")
        if len(names) > 1:
            return choose_model(context.population, names, context.rng, self._costs())
        return names[0] if names else None

    async def _ask(self, request: ModelRequest, model: str | None) -> Exchange:
        before = dict(self._outages)
        was_ready = self._models.available("propose")
        try:
            return await self._models.ask(request, model)
        except ModelUnavailable as error:
            self._last_outage = error
            # one that was asked before the outage began tells nothing new of it
            for name in was_ready:
                same = self._outages.get(name, 0) == before.get(name, 0)
                if name not in self._models.available("propose") and same:
                    self._note_outage(name, HOPELESS if error.permanent else 1)
            raise

    def _costs(self) -> dict[str, float]:
        """What each model has cost, answers of no use included, in evaluations.

        All of the limit of money, or of tokens, is worth as much as all of the evaluations.
        """
        found = {}
        for name, spent in self._models.exchanges.by_model().items():
            shares = [0.0]
            if self._budget.money is not None:
                shares.append((spent.money or 0.0) / self._budget.money)
            if self._budget.tokens is not None:
                shares.append(spent.usage.tokens / self._budget.tokens)
            found[name] = max(shares) * (self._budget.evaluations or 0)
        return found

    def _note_outage(self, model: str, times: int) -> None:
        self._outages[model] = self._outages.get(model, 0) + times

    def _gave_nothing(self, model: str, why: str) -> None:
        was_ready = model in self._models.available("propose")
        self._models.note_unusable(model, why)
        if was_ready and model not in self._models.available("propose"):
            self._last_outage = ModelUnavailable(f"model {model} gave nothing usable: {why}")
            self._note_outage(model, 1)

    def _proposals(
        self,
        exchange: Exchange,
        context: ProposalContext,
        n: int,
        ideas: tuple[str, ...],
        against: str | None = None,
    ) -> list[Proposal]:
        try:
            if exchange.refusal:
                raise ProposalError(f"the model refused: {quoted(exchange.refusal)}")
            found, problems = parse_answers(
                exchange.response or "", context.space, n, partial(_genotype, context.population)
            )
        except ProposalError as error:
            self._batching.note(exchange.usage, n, 0, self._models.price(exchange.model))
            raise ProposalError(_with_cut(error.message, exchange)) from None
        self._batching.note(exchange.usage, n, len(found), self._models.price(exchange.model))
        self._models.note_usable(exchange.model)
        self._outages.pop(exchange.model, None)
        for problem in problems:
            log.info("exchange %s: %s", exchange.id, problem)
        return [
            self._proposal(answer, genotype, exchange, context, ideas[min(number, len(ideas) - 1)], against)
            for number, (answer, genotype) in enumerate(found)
        ]

    def _proposal(
        self,
        answer: ProposalAnswer,
        genotype: Genotype,
        exchange: Exchange,
        context: ProposalContext,
        idea: str,
        against: str | None,
    ) -> Proposal:
        expected, parents = answer.expectation, _known_parents(answer, context.population)
        return Proposal(
            arm=self.name,
            genotype=genotype if answer.genotype is None else answer.genotype,
            parents=parents,
            edit=answer.edit,
            hypothesis=answer.hypothesis,
            expected_effect=answer.expected_effect
            if expected is None
            else expected.in_words(context.task.metric),
            expectation=expected,
            against=None if parents else against,
            exchange=exchange.id,
            model=exchange.model,
            idea=idea,
        )


def _genotype(population: PopulationView, candidate_id: str) -> Genotype | None:
    """The canonical genotype of a candidate; None where there is none: models invent ids."""
    try:
        return population.get(candidate_id).genotype
    except KeyError:
        return None


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
