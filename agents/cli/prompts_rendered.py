"""`cambrian prompts render`: a question as it would be sent, or as it was."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text

from cambrian.agents.cli.app import emit
from cambrian.agents.cli.prompts_context import context_of, lesson_question_of, open_run
from cambrian.agents.cli.prompts_shown import Subject, is_run_file, print_whole, subject, wide_console
from cambrian.agents.errors import UnknownNameError, UserError
from cambrian.agents.evaluator.prompt_questions import exchanges_of
from cambrian.agents.planner.arm import ProposalContext
from cambrian.agents.planner.client import ModelRequest, estimated_tokens
from cambrian.agents.planner.exchange import Exchange, Message
from cambrian.agents.planner.prompt_sections import sections
from cambrian.agents.planner.prompt_worlds import lesson_moments
from cambrian.agents.planner.questions import Questions
from cambrian.agents.planner.templates import Templates
from cambrian.agents.population.model import Candidate
from cambrian.agents.population.store import PopulationStore
from cambrian.agents.sections import LLMSection, Role
from cambrian.agents.workspace import Workspace
from cambrian.search_spaces import SPACES, near_names

SAID, PROBLEM = '{"hypothesis": "an invented answer"}', "genotype: an invented problem"
_MESSAGES: dict[Role, tuple[str, ...]] = {
    "propose": ("system.j2", "propose.j2"),
    "repair": ("system.j2", "propose.j2", "", "repair.j2"),
    "analyse": ("analyse.j2",),
}
"""Which template each message of a question is from; an echo of the model's own words is from none."""


@dataclass(frozen=True)
class Shown:
    """A question, and what is known of it.

    Attributes:
        about: what it is, in a line.
        versions: of the templates behind it.
        cut: what the token budget left out, in words.
        note: what stands at the end of the last message where a server takes no schema.
        exchange: the record it was read from.
    """

    about: str
    role: Role
    messages: tuple[Message, ...]
    versions: dict[str, str]
    cut: str = ""
    schema: dict[str, Any] | None = None
    note: str = ""
    exchange: Exchange | None = None
    remarks: list[str] = field(default_factory=list)

    def parts(self) -> list[tuple[str, Message]]:
        """Each message with the template that it is from."""
        names = _MESSAGES[self.role]
        return [(names[i] if i < len(names) else "", m) for i, m in enumerate(self.messages)]


def render_command(
    name: str,
    *,
    candidate: str | None,
    again: bool,
    role: Role | None,
    template: str | None,
    n: int,
    schema: bool,
    as_json: bool,
    runs: Path | None,
) -> None:
    """Find the question that is asked for and print it."""
    shown = _find(name, candidate, again=again, role=role, n=n, runs=runs)
    parts = shown.parts()
    if template is not None:
        known = [*dict.fromkeys(part for part, _ in parts if part), *(["schema.j2"] if shown.note else [])]
        if template not in known:
            raise UserError(
                f"no part of this question is from {template!r}", hint=near_names(template, known)
            )
        parts = [(part, message) for part, message in parts if part == template]
        if template == "schema.j2":
            parts = [(template, Message(role=shown.messages[-1].role, content=shown.note))]
    if as_json:
        emit(_data(shown, parts))
        return
    _print(shown, parts)
    if schema and shown.schema is not None:
        emit(shown.schema)
    elif schema:
        print("(the record of a question that was sent names its schema only: --again shows today's)")


def _find(
    name: str, candidate: str | None, *, again: bool, role: Role | None, n: int, runs: Path | None
) -> Shown:
    if is_run_file(name) or name in SPACES.names():
        found: Subject | None = subject(name)
    else:
        found = None
    if found is None:
        workspace = Workspace(runs)
        if candidate is None and (split := workspace.split_candidate(name)) is not None:
            name, candidate = split
        try:
            store = workspace.open(name)
        except UnknownNameError as error:
            if not Path(name).exists():
                runs_known = workspace.run_ids()
                if any(run.startswith(name) for run in runs_known):
                    raise
                hint = near_names(name, [*SPACES.names(), *runs_known])
                raise UnknownNameError(f"no run, space or file {name!r}", hint=hint) from error
            found = subject(name)  # the path of a space
        else:
            try:
                return _of_run(store, workspace, candidate, again=again, role=role, n=n)
            finally:
                store.close()
    if candidate is not None:
        raise UserError(f"{name} is no run, so it has no candidate", hint="name a run: cambrian runs")
    world = found.world
    templates = Templates.of(found.space)
    if role == "analyse":
        llm = found.config.llm if found.config is not None else LLMSection()
        variables = lesson_moments(found.space, found.task)[0]
        return _lesson(templates, variables, llm, f"about a made-up candidate of {found.space.name}")
    llm = found.config.llm if found.config is not None else LLMSection()
    about = f"about a made-up population of {found.space.name}, task {found.task.name}"
    return _question(templates, world.context(), n, llm, role or "propose", about)


def _question(
    templates: Templates, context: ProposalContext, n: int, llm: LLMSection, role: Role, about: str
) -> Shown:
    """What the planner would send in this context."""
    questions = Questions(templates, context, n, by_changes=llm.by_changes, limit=llm.prompt_tokens)
    request: ModelRequest = questions.question()
    if role == "repair":
        request = questions.repair(request, SAID, PROBLEM)
        about += ", after an answer that cannot be used"
    return Shown(
        about=about,
        role=role,
        messages=request.messages,
        versions=request.templates,
        cut=questions.cuts.in_words(),
        schema=request.schema,
        note=request.schema_note,
    )


def _lesson(templates: Templates, variables: dict[str, Any], llm: LLMSection, about: str) -> Shown:
    from cambrian.agents.analyst.lessons import lesson_question

    return _asked(lesson_question(templates, variables, llm.prompt_tokens, ""), about)


def _asked(request: ModelRequest, about: str) -> Shown:
    return Shown(
        about=about,
        role="analyse",
        messages=request.messages,
        versions=request.templates,
        schema=request.schema,
        note=request.schema_note,
    )


def _coming_lesson(store: PopulationStore, workspace: Workspace, candidate: Candidate) -> Shown:
    """What the analyst would ask now about a candidate, whether or not the run lets it ask."""
    run = store.run.run_id
    if candidate.score is None:
        raise UserError(
            f"{candidate.id} has no score ({candidate.state.value}), so the analyst asks nothing about it",
            hint="name a candidate that was evaluated: cambrian show RUN lists them",
        )
    found = open_run(store)
    assert found.config is not None
    request = lesson_question_of(store, found, workspace, candidate)
    shown = _asked(request, f"what the analyst would ask about {run}/{candidate.id}")
    lessons = found.config.analyst.lessons
    if lessons == "off" or (lessons != "all" and candidate.proposal.arm != "llm"):
        shown.remarks.append(
            f"it is not asked: 'analyst: {{lessons: {lessons}}}' leaves out arm {candidate.proposal.arm}"
        )
    return shown


def _of_run(
    store: PopulationStore,
    workspace: Workspace,
    candidate_id: str | None,
    *,
    again: bool,
    role: Role | None,
    n: int,
) -> Shown:
    run = store.run.run_id
    if candidate_id is None:
        found = open_run(store)
        if role == "analyse":
            raise UserError("the analyst asks about one candidate", hint="name it with --candidate")
        context = context_of(store, found, workspace)
        assert found.config is not None
        about = f"what run {run} would ask next (draw {context.index})"
        return _question(Templates.of(found.space), context, n, found.config.llm, role or "propose", about)
    known = [c.id for c in store.candidates()]
    if candidate_id not in known:
        raise UserError(f"run {run} has no candidate {candidate_id!r}", hint=near_names(candidate_id, known))
    candidate = store.candidate(candidate_id)
    if role == "analyse" and (again or candidate.lesson is None or candidate.lesson.exchange is None):
        return _coming_lesson(store, workspace, candidate)
    sent = _sent(store, candidate, role)
    if not again:
        return _recorded(sent, f"sent to {sent.model} for {run}/{candidate.id}")
    found = open_run(store)
    assert found.config is not None
    draw = _draw(sent.place)
    earlier = [c for c in store.candidates() if c.ended_s is not None and c.ended_s <= candidate.created_s]
    context = context_of(store, found, workspace, candidates=earlier, draw=draw)
    shared = sum(c.proposal.exchange == candidate.proposal.exchange for c in store.candidates())
    shown = _question(
        Templates.of(found.space),
        context,
        max(n, shared),
        found.config.llm,
        "repair" if sent.role == "repair" else "propose",
        f"what today's templates would send for {run}/{candidate.id}",
    )
    shown.remarks.append(
        "the population is that of those who had ended by then, with what is known of them today: scores, "
        "notes and lessons that came later show"
    )
    return shown


def _sent(store: PopulationStore, candidate: Candidate, role: Role | None) -> Exchange:
    """The record of a question that was sent for a candidate.

    Raises:
        UserError: there is none of this role.
    """
    exchanges = {each.id: each for each in exchanges_of(store.folder)}
    lesson = candidate.lesson.exchange if candidate.lesson is not None else None
    wanted = lesson if role == "analyse" else candidate.proposal.exchange
    if wanted is None or wanted not in exchanges:
        what = "lesson" if role == "analyse" else "proposal"
        raise UserError(
            f"no model was asked for the {what} of {candidate.id} (arm {candidate.proposal.arm})",
            hint="`cambrian show RUN` lists the arms",
        )
    found = exchanges[wanted]
    if role is None or found.role == role:
        return found
    turns = [each for each in exchanges.values() if each.place.split(".")[0] == found.place.split(".")[0]]
    same = [each for each in turns if each.role == role and found.place]
    if not same:
        raise UserError(f"no question of role {role!r} was sent for {candidate.id}", hint="leave out --role")
    return same[-1]


def _recorded(exchange: Exchange, about: str) -> Shown:
    return Shown(
        about=f"{about} as {exchange.id} (place {exchange.place or 'not recorded'})",
        role=next((role for role in _MESSAGES if role == exchange.role), "propose"),
        messages=exchange.messages,
        versions=exchange.templates,
        exchange=exchange,
    )


def _draw(place: str) -> int | None:
    number = place.split(".")[0].removeprefix("d")
    return int(number) if place.startswith("d") and number.isdigit() else None


def _data(shown: Shown, parts: list[tuple[str, Message]]) -> dict[str, Any]:
    exchange = shown.exchange
    return {
        "about": shown.about,
        "role": shown.role,
        "messages": [
            {
                "role": message.role,
                "template": name,
                "version": shown.versions.get(name, ""),
                "tokens": estimated_tokens(message.content),
                "sections": [part.model_dump() for part in sections(message.content)],
                "content": message.content,
            }
            for name, message in parts
        ],
        "tokens": sum(estimated_tokens(message.content) for _, message in parts),
        "cut": shown.cut,
        "remarks": shown.remarks,
        "templates": shown.versions,
        "schema": shown.schema,
        "schema_note": shown.note,
        "exchange": None if exchange is None else exchange.model_dump(mode="json", exclude={"messages"}),
    }


def _print(shown: Shown, parts: list[tuple[str, Message]]) -> None:
    console = wide_console()
    console.print(Text(shown.about, style="bold"), soft_wrap=True)
    for name, message in parts:
        version = shown.versions.get(name, "")
        source = f", {name}{f'@{version}' if version else ''}" if name else ""
        tokens = f"{estimated_tokens(message.content):,} tokens"
        console.print(Text(f"--- {message.role}{source}, {tokens}", style="cyan"), soft_wrap=True)
        print(message.content.rstrip())
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("message", "section", "tokens"):
        table.add_column(column, justify="right" if column == "tokens" else "left", overflow="fold")
    for name, message in parts:
        for part in sections(message.content):
            table.add_row(name or message.role, Text(part.title), f"{part.tokens:,}")
    total = sum(estimated_tokens(message.content) for _, message in parts)
    table.add_row("all", "", f"{total:,}", style="bold")
    console.print()
    print_whole(table)
    exchange = shown.exchange
    if exchange is not None:
        counted = "estimated" if exchange.usage.estimated else "counted by the server"
        print(f"{exchange.usage.prompt_tokens:,} tokens with the schema, {counted}")
    for line in [shown.cut, *shown.remarks]:
        if line:
            console.print(Text(line, style="yellow"), soft_wrap=True)
