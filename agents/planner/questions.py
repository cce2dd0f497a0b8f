"""The questions about one proposal, from templates and the context to what is sent."""

from __future__ import annotations

import json
from dataclasses import replace

from cambrian.agents.planner.answers import BOUNDS, answer_schema
from cambrian.agents.planner.arm import ProposalContext
from cambrian.agents.planner.client import ModelRequest
from cambrian.agents.planner.context import prompt_variables, quoted
from cambrian.agents.planner.exchange import Message
from cambrian.agents.planner.templates import Templates

ECHO_LIMIT = 4000
"""Characters of an unusable answer that are sent back with the complaint about it."""


class Questions:
    """The questions about one proposal."""

    def __init__(self, templates: Templates, context: ProposalContext) -> None:
        self._templates = templates
        self._variables = prompt_variables(context)
        self._schema = answer_schema(context.space)

    def question(self) -> ModelRequest:
        """The first question.

        Raises:
            UserError: see `Templates.render`.
        """
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
        """The question after an answer `said` that cannot be used because of `problem`.

        Raises:
            UserError: see `Templates.render`.
        """
        prompt = self._templates.render("repair.j2", self._variables | {"problem": quoted(problem, 1500)})
        return replace(
            request,
            role="repair",
            # the first question and the last answer only: a conversation must not grow with each repair
            messages=(
                *request.messages[:2],
                Message(role="assistant", content=said[:ECHO_LIMIT] or "(empty)"),
                Message(role="user", content=prompt.text),
            ),
            templates=request.templates | {prompt.name: prompt.version},
        )
