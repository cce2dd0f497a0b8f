"""The conversation about one question, as a LangGraph: propose, check, and repair while the checks object.

    propose -> check -> repair -> check -> ... -> end

The graph needs no checkpoints of its own. Each answer is on disk before the next step is taken, and the same
question finds it there again; so whoever dies half-way goes on where he was.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypedDict

from cambrian.agents.errors import LimitReached, ProposalError
from cambrian.agents.planner.client import ModelRequest
from cambrian.agents.planner.exchange import Exchange
from cambrian.agents.planner.questions import Questions
from cambrian.agents.population.model import Proposal
from cambrian.search_spaces import Genotype

log = logging.getLogger(__name__)


class Turn(TypedDict, total=False):
    """What the graph carries from step to step.

    Attributes:
        number: of the turn, from 1.
        problem: what is wrong with its answer; empty when it can be used.
        objected: whether that is its network rather than its form.
        final: whether nothing more may be asked, whatever the problem.
    """

    number: int
    problem: str
    objected: bool
    final: bool


@dataclass
class Conversation:
    """One question and its repairs.

    Attributes:
        place: of the question in the run, see `Exchange.place`.
        repairs: most further turns.
        ask: asks a model.
        read: the proposals in an answer; a `ProposalError` says why there are none.
        objection: what the checks say against a genotype, see `ProposalContext.objection`.
        may_repair: whether the limits allow another question.
        found: proposals of the last answer that had any, those without objections if there are some.
        exchange: the last answer.
    """

    questions: Questions
    place: str
    repairs: int
    ask: Callable[[ModelRequest], Awaitable[Exchange]]
    read: Callable[[Exchange], list[Proposal]]
    objection: Callable[[Genotype], str]
    may_repair: Callable[[], bool]
    found: Sequence[Proposal] = ()
    exchange: Exchange | None = None
    _request: ModelRequest = field(init=False)

    async def proposals(self) -> list[Proposal]:
        """What came of it: at least one proposal, also where all are objected to after the last repair.

        Raises:
            ProposalError: no answer held any.
            ModelUnavailable: see `LLMClient.ask`.
            LimitReached: see `LLMClient.ask`; of the first question only.
        """
        ended: Turn = await self._graph().ainvoke({"number": 1}, {"recursion_limit": 2 * self.repairs + 8})
        if self.found:
            return list(self.found)
        assert self.exchange is not None
        turns = f"{ended['number']} turn{'s' if ended['number'] > 1 else ''}"
        said = "" if self.exchange.refusal else f"the model gave no usable answer in {turns}: "
        raise ProposalError(f"{said}{ended['problem']}")

    async def _propose(self, state: Turn) -> Turn:
        self._request = replace(self.questions.question(), place=self.place)
        self.exchange = await self.ask(self._request)
        return {}

    async def _check(self, state: Turn) -> Turn:
        assert self.exchange is not None
        try:
            proposals = self.read(self.exchange)
        except ProposalError as error:
            log.info("exchange %s holds no proposal: %s", self.exchange.id, error.message)
            return {"problem": error.message, "objected": False, "final": bool(self.exchange.refusal)}
        objections = await asyncio.to_thread(lambda: [self.objection(each.genotype) for each in proposals])
        fine = [each for each, objection in zip(proposals, objections, strict=True) if not objection]
        self.found = fine or proposals
        if fine:
            return {"problem": ""}
        several = len(proposals) > 1
        told = [f"proposal {i}: {o}" if several else o for i, o in enumerate(objections, start=1)]
        return {"problem": "; ".join(told), "objected": True}

    async def _repair(self, state: Turn) -> Turn:
        assert self.exchange is not None
        number = state["number"] + 1
        request = self.questions.repair(
            self._request, self.exchange.response or "", state["problem"], objected=state["objected"]
        )
        self._request = replace(request, place=f"{self.place}.{number}")
        try:
            self.exchange = await self.ask(self._request)
        except LimitReached:  # of its own, or of what is left for the run: the question cannot be mended
            return {"final": True}
        return {"number": number}

    def _goes_on(self, state: Turn) -> bool:
        left = state["number"] <= self.repairs
        return bool(state["problem"]) and not state.get("final") and left and self.may_repair()

    def _graph(self) -> Any:
        from langgraph.graph import END, START, StateGraph

        graph = StateGraph(Turn)
        graph.add_node("propose", self._propose)
        graph.add_node("check", self._check)
        graph.add_node("repair", self._repair)
        graph.add_edge(START, "propose")
        graph.add_edge("propose", "check")
        graph.add_conditional_edges("check", lambda state: "repair" if self._goes_on(state) else END)
        graph.add_conditional_edges("repair", lambda state: END if state.get("final") else "check")
        return graph.compile()
