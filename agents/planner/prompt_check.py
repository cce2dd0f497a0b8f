"""Whether prompts are sound: rendered for made-up populations, measured, searched for what they leave out."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict

from cambrian.agents.errors import UserError
from cambrian.agents.planner.client import estimated_tokens
from cambrian.agents.planner.prompt_lint import ROLES, Finding, lint, never_taken
from cambrian.agents.planner.prompt_sections import Section, is_closed, outside_fences, sections
from cambrian.agents.planner.prompt_worlds import HOSTILE, World, few_worlds, lesson_moments, worlds
from cambrian.agents.planner.questions import Questions
from cambrian.agents.planner.templates import Templates
from cambrian.agents.runfile import RunConfig
from cambrian.agents.sections import LLMSection
from cambrian.search_spaces import Space, Task

_NEEDED = {"best": 4, "rejected": 3, "comments": 2, "examples": 1, "focus": 1}
"""How many entries of what should stay in any question."""
LESSON = "analyse.j2"
_LEAK = HOSTILE[4:26]
"""Words of a hostile text that no cleaning removes: outside a fence they would be taken for ours."""


class Measured(BaseModel):
    """How long the question of one made-up moment is.

    Attributes:
        tokens: of all messages, before anything is cut.
        sent: of messages and schema, when it is cut to fit.
        left_out: entries that are cut then, by variable.
        of: entries there were, of what could be cut.
        sections: of each template's text before anything is cut, by the template's name.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    world: str
    tokens: int
    sent: int
    left_out: dict[str, int]
    of: dict[str, int]
    sections: dict[str, list[Section]]


class PromptReport(BaseModel):
    """What was found of the prompts of one space; `limit` is the most tokens that a question may have."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    space: str
    task: str
    versions: dict[str, str]
    findings: tuple[Finding, ...]
    measured: tuple[Measured, ...]
    limit: int

    @property
    def errors(self) -> list[Finding]:
        """Those that make a run impossible, or an edit vain."""
        return [finding for finding in self.findings if finding.level == "error"]


def check_prompts(config: RunConfig, space: Space, task: Task) -> None:
    """Look for slips that would cost a run its prompts, within a fraction of a second.

    Raises:
        UserError: a template is missing, cannot be parsed, uses what is not defined, or overrides a block
            that is not there.
    """
    templates = Templates.of(space)
    moments = few_worlds(space, task, config)
    for finding in _found(templates, moments, thorough=False):
        if finding.level == "error":
            raise UserError(finding.message, hint=finding.hint)
    Questions(templates, moments[0].context(), limit=config.llm.prompt_tokens)  # fits, or says what it needs


def inspect_prompts(
    space: Space, task: Task, config: RunConfig | None = None, templates: Templates | None = None
) -> PromptReport:
    """Everything that can be found out of a space's prompts without a model.

    Args:
        space: whose prompts are looked at.
        task: what they are about.
        config: limits and constraints are taken from it.
        templates: None takes those that a run would.
    """
    templates = templates or Templates.of(space)
    moments = list(worlds(space, task, config))
    limit = (config.llm if config is not None else LLMSection()).prompt_tokens
    findings = list(dict.fromkeys(_found(templates, moments, thorough=True)))
    measured: list[Measured] = []
    if not any(finding.level == "error" for finding in findings):
        try:
            measured = [_measure(templates, moment, limit) for moment in moments]
        except UserError as error:
            findings.append(
                Finding(level="error", template="propose.j2", message=error.message, hint=error.hint)
            )
        findings += _too_long(measured, limit)
    versions = {}
    for name in _rendered(templates):
        try:
            versions[name] = templates.version(name)
        except UserError:
            continue  # among the findings
    return PromptReport(
        space=space.name,
        task=task.name,
        versions=versions,
        findings=tuple(findings),
        measured=tuple(measured),
        limit=limit,
    )


def variables_of(world: World, name: str) -> dict[str, Any]:
    """What the template `name` is given at that moment."""
    if name == LESSON:
        context = world.context()
        return lesson_moments(context.space, context.task)[0]
    if name == "repair.j2":
        return world.variables | {"problem": "an invented problem", "objected": False}
    if name == "schema.j2":
        return world.variables | {"schema": '{"type":"object"}'}
    return world.variables


def _moments(name: str, moments: list[World]) -> list[tuple[str, dict[str, Any]]]:
    """All that `name` is rendered with, each with what is special about it."""
    if name != LESSON:
        given = [(moment.name, variables_of(moment, name)) for moment in moments]
        if name == "repair.j2":
            given += [(f"{moment}, a known network", each | {"objected": True}) for moment, each in given]
        return given
    context = moments[0].context()
    return [("a candidate's lesson", each) for each in lesson_moments(context.space, context.task)]


def _rendered(templates: Templates) -> list[str]:
    """The templates that prompts are made from; the analyst's only where there is one."""
    return [name for name in ROLES if name != LESSON or templates.path(name) is not None]


def _found(templates: Templates, moments: list[World], *, thorough: bool) -> Iterator[Finding]:
    names = _rendered(templates)
    for name in names:
        given = _moments(name, moments)
        slips = list(lint(templates, name, given[-1][1]))
        yield from slips
        yield from _rendering(templates, name, given, {finding.message for finding in slips})
    if thorough:
        yield from never_taken(templates, names)
        yield from _left_out(templates, moments)


def _rendering(
    templates: Templates, name: str, given: list[tuple[str, dict[str, Any]]], told: Collection[str]
) -> Iterator[Finding]:
    """What goes wrong when `name` is rendered, but for what is `told` already.

    All that is undefined is told at once, of other things the first: the moment in which it goes wrong tells
    enough.
    """
    place = templates.place(name)
    for moment, variables in given:
        try:
            text = templates.render(name, variables).text
        except UserError as error:
            slips = [slip for _, each in given for slip in templates.slips(name, each)]
            errors = [slip.error for slip in slips if not slip.variable or not told] or [error]
            if told and errors == [error] and slips:
                return  # a variable that is missing, and has been told
            for each in {each.message: each for each in errors if each.message not in told}.values():
                yield Finding(level="error", template=name, message=each.message, hint=each.hint)
            return
        if not is_closed(text):
            yield Finding(
                level="error",
                template=name,
                message=f"prompt template {place}: a block of data is not closed ({moment})",
                hint="write ``` before and after what comes from candidates, models and reviewers",
            )
            return
        if _LEAK in outside_fences(text):
            line = next(line for line in outside_fences(text).splitlines() if _LEAK in line)
            yield Finding(
                level="warning",
                template=name,
                message=f"prompt template {place} shows words of candidates, models or reviewers outside a "
                f"fenced block: {line.strip()[:60]}",
                hint="write ``` on lines of their own before and after them",
            )
            return


def _first(key: str, field: str) -> Callable[[Mapping[str, Any]], list[str]]:
    return lambda variables: [str(item[field]) for item in variables[key][:1] if item.get(field)]


_PROBES: dict[str, tuple[str, Callable[[Mapping[str, Any]], list[str]]]] = {
    "limits": ("the hard limits", lambda v: list(v["limits"])),
    "changes": ("which changes can be made", _first("changes", "gene")),
    "focus.ids": ("which candidates to change", lambda v: list(v["focus"]["ids"])),
    "space.description": ("what the space allows", lambda v: v["space"]["description"].splitlines()[:1]),
    "task.metric": ("what is measured", lambda v: [v["task"]["metric"]]),
    "best": ("the best candidates", _first("best", "genotype")),
    "effects": ("what the latest edits brought", _first("effects", "id")),
    "rejected": ("why reviewers rejected candidates", _first("rejected", "reason")),
    "setbacks": ("why candidates failed", _first("setbacks", "reason")),
    "notes": ("the notes of the run", lambda v: list(v["notes"][:1])),
    "predictor_view": ("what the predictor holds for important", lambda v: list(v["predictor_view"][:1])),
}
"""What a question should show, by the variable that holds it: in words, and texts that must be in it."""


def _left_out(templates: Templates, moments: list[World]) -> Iterator[Finding]:
    """What no message of the question shows, though the run knows it."""
    asking = [m for m in moments if variables_of(m, "propose.j2")["focus"]["ids"]]
    by_changes = [m for m in asking if m.by_changes]
    told: set[str] = set()
    for moment in (*asking[:1], *by_changes[:1]) or moments[-1:]:
        for finding in _left_out_at(templates, moment):
            if finding.message not in told:
                told.add(finding.message)
                yield finding


def _left_out_at(templates: Templates, moment: World) -> Iterator[Finding]:
    variables = variables_of(moment, "propose.j2")
    try:
        text = "".join(templates.render(name, variables).text for name in ("system.j2", "propose.j2"))
        told = {
            name: [templates.render(name, each).text for _, each in _moments(name, [moment])]
            for name in ("repair.j2", "schema.j2")
        }
    except UserError:
        return  # said elsewhere
    for variable, (what, probe) in _PROBES.items():
        if any(part not in text for part in probe(variables)):
            yield Finding(
                level="warning",
                template="propose.j2",
                message=f"prompt template {templates.place('propose.j2')} leaves out {what}: {variable}",
                hint="extend the shipped template and override single blocks, or say it in your own words",
            )
    for name, key in (("repair.j2", "problem"), ("schema.j2", "schema")):
        if any(variables_of(moment, name)[key] not in each for each in told[name]):
            yield Finding(
                level="error",
                template=name,
                message=f"prompt template {templates.place(name)} leaves out {key!r}, which it is there for",
                hint=f"write {{{{ {key} }}}} in a fenced block",
            )


def _measure(templates: Templates, moment: World, limit: int) -> Measured:
    """Raises UserError when not even a question without any history fits into `limit`."""
    texts = {name: templates.render(name, moment.variables).text for name in ("system.j2", "propose.j2")}
    asked = Questions(templates, moment.context(), moment.n, by_changes=moment.by_changes, limit=limit)
    return Measured(
        world=moment.name,
        tokens=sum(map(estimated_tokens, texts.values())),
        sent=asked.cuts.tokens,
        left_out=dict(asked.cuts.left_out),
        of=dict(asked.cuts.of),
        sections={name: sections(text) for name, text in texts.items()},
    )


def _too_long(measured: list[Measured], limit: int) -> Iterator[Finding]:
    """Moments in which much has to be cut that a planner needs."""
    for each in measured:
        needed = [
            f"{n} of {each.of[name]} {name}"
            for name, n in each.left_out.items()
            if each.of[name] - n < min(each.of[name], _NEEDED.get(name, 0))
        ]
        if needed:
            longest = max((s for parts in each.sections.values() for s in parts), key=lambda s: s.tokens)
            yield Finding(
                level="warning",
                template="propose.j2",
                message=f"{each.world}: {each.tokens:,} tokens are cut to llm.prompt_tokens = {limit:,}, "
                f"which leaves out {', '.join(needed)}; longest is section {longest.title!r} with "
                f"{longest.tokens:,}",
                hint="raise llm.prompt_tokens, or shorten the template",
            )
            return
