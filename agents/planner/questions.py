"""The questions about one proposal or several, from templates and the context to what is sent."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from cambrian.agents.errors import UserError
from cambrian.agents.planner.answers import answer_bounds, answer_schema
from cambrian.agents.planner.arm import ProposalContext
from cambrian.agents.planner.budgeting import Cuts, TokenCounter, fit
from cambrian.agents.planner.changes import Start
from cambrian.agents.planner.client import ModelRequest
from cambrian.agents.planner.context import offers_of, prompt_variables
from cambrian.agents.planner.evidence import offered
from cambrian.agents.planner.exchange import Message
from cambrian.agents.planner.quoting import quoted, without_turns
from cambrian.agents.planner.templates import Rendered, Templates
from cambrian.agents.wording import clean

log = logging.getLogger(__name__)

ECHO_LIMITS = (4000, 1000, 300)
"""Characters of an unusable answer that are sent back with the complaint about it: the first that fits."""
PROBLEM_LIMIT = 1500


class Questions:
    """The questions about one proposal or several of one context.

    Args:
        templates: of the run.
        context: of the proposals.
        n: proposals that one answer is to hold.
        by_changes: ask for changes of a parent, where there is one and it is to be one proposal.
        limit: tokens that a question may have, None for any number.
        counter: counts them.

    Attributes:
        variables: what the templates are rendered with; what did not fit is cut.
        cuts: what that was.

    Raises:
        UserError: a template cannot be rendered, or no question fits into `limit`.
    """

    def __init__(
        self,
        templates: Templates,
        context: ProposalContext,
        n: int = 1,
        *,
        by_changes: bool = False,
        limit: int | None = None,
        counter: TokenCounter | None = None,
    ) -> None:
        self._templates, self._limit = templates, limit
        self._counter = counter or TokenCounter()
        self._context, self._n = context, n
        self.variables: Mapping[str, Any] = prompt_variables(context, n, by_changes)
        self.cuts: Cuts
        self._take_form()
        self.variables, self.cuts = self._fitted("")
        if self.cuts.left_out:  # changes may be among it; a parent that is too long to show is not changed
            self._take_form()
        if words := self.cuts.in_words():
            log.info("question %d is %s", context.index + 1, words)
        if limit is not None and self.cuts.tokens > limit:
            log.warning(
                "question %d has %d tokens, more than llm.prompt_tokens", context.index + 1, self.cuts.tokens
            )

    def _take_form(self) -> None:
        """The schema of what `variables` ask for."""
        space, focus = self._context.space, self.variables["focus"]
        start = None
        if self.variables["answer"] == "changes":
            shown = offers_of(self._context, focus)[: len(self.variables["changes"])]
            start = Start(tuple(focus["ids"]), offered(shown), self.variables["most_changes"])
        self._schema = answer_schema(space, self._n, start)
        self._bounds = answer_bounds(space, self._n, start)
        self._schema_text = json.dumps(self._schema, separators=(",", ":"))

    @property
    def ideas(self) -> tuple[str, ...]:
        """What each proposal is asked to attempt: `refine`, `combine` or `explore`."""
        return tuple(focus["kind"] for focus in self.variables["focuses"])

    def question(self) -> ModelRequest:
        """The first question."""
        system, propose = self._rendered(self.variables)
        note = self._templates.render("schema.j2", {**self.variables, "schema": self._schema_text})
        return ModelRequest(
            role="propose",
            messages=(
                Message(role="system", content=system.text),
                Message(role="user", content=propose.text),
            ),
            schema_name="proposal" if self.variables["batch"] == 1 else "proposals",
            schema=self._schema,
            bounds=self._bounds,
            schema_note=note.text,
            templates={prompt.name: prompt.version for prompt in (system, propose, note)},
        )

    def repair(
        self, request: ModelRequest, said: str, problem: str, *, objected: bool = False
    ) -> ModelRequest:
        """The question after an answer `said` that cannot be used because of `problem`.

        Args:
            request: the question that was answered.
            said: the answer.
            problem: what is wrong with it.
            objected: whether that is its network, which would not be trained, rather than its form.

        Raises:
            UserError: see `Templates.render`.
        """
        variables = {**self.variables, "problem": quoted(problem, PROBLEM_LIMIT), "objected": objected}
        prompt = self._templates.render("repair.j2", variables)
        for length in ECHO_LIMITS:
            # its own words, but none that a server could take for the end of its turn
            echo = without_turns(clean(said, length)) or "(empty)"
            system, propose = self._rendered(self.variables)
            try:
                fitted, _ = self._fitted(echo + prompt.text)
            except UserError:  # it leaves no room for what is asked
                continue
            if fitted["answer"] == self.variables["answer"]:  # nor may it change what is asked for
                system, propose = self._rendered(fitted)
                break
        return replace(
            request,
            role="repair",
            # the first question and the last answer only: a conversation must not grow with each repair
            messages=(
                Message(role="system", content=system.text),
                Message(role="user", content=propose.text),
                Message(role="assistant", content=echo),
                Message(role="user", content=prompt.text),
            ),
            templates=request.templates | {prompt.name: prompt.version},
        )

    def _rendered(self, variables: Mapping[str, Any]) -> tuple[Rendered, Rendered]:
        return self._templates.render("system.j2", variables), self._templates.render("propose.j2", variables)

    def _fitted(self, more: str) -> tuple[dict[str, Any], Cuts]:
        """The variables with as much as fits beside `more`."""

        def render(variables: Mapping[str, Any]) -> str:
            return "".join(prompt.text for prompt in self._rendered(variables)) + more

        return fit(render, self.variables, self._limit, lambda text: self._counter(text, self._schema_text))
