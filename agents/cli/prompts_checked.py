"""`cambrian prompts check` and `cambrian prompts diff`."""

from __future__ import annotations

import difflib
import re
import sys
from dataclasses import dataclass
from pathlib import Path

from rich.table import Table
from rich.text import Text

from cambrian.agents.cli.app import emit
from cambrian.agents.cli.prompts_shown import Subject, is_run_file, print_whole, subject, wide_console
from cambrian.agents.errors import CambrianError, UnknownNameError, UserError
from cambrian.agents.planner.kept_prompts import templates_of_run
from cambrian.agents.planner.prompt_check import PromptReport, inspect_prompts, variables_of
from cambrian.agents.planner.prompt_lint import ROLES
from cambrian.agents.planner.prompt_worlds import World
from cambrian.agents.planner.templates import Templates
from cambrian.agents.workspace import Workspace, space_of
from cambrian.search_spaces import SPACES, near_names

SHIPPED = "shipped:"
_NUMBER = re.compile(r"\d+( to \d+)?")
_STYLES = {"+": "green", "-": "red", "@": "cyan"}


def check_command(name: str | None, as_json: bool) -> None:
    """Check the prompts of one space, or of all; exit code 2 when one has an error."""
    reports, broken = [], {}
    for each in [name] if name is not None else SPACES.names():
        try:
            found = subject(each)
            reports.append(inspect_prompts(found.space, found.task, found.config))
        except CambrianError as error:
            if name is not None:
                raise
            broken[each] = error.message
    bad = bool(broken) or any(report.errors for report in reports)
    if as_json:
        emit({"reports": [report.model_dump(mode="json") for report in reports], "broken": broken})
    else:
        _print(reports, broken, alone=name is not None)
    if bad:
        sys.exit(2)


def _print(reports: list[PromptReport], broken: dict[str, str], alone: bool) -> None:
    console = wide_console()
    for report in reports:
        if alone:
            _print_sections(report)
        told = _totals(report)
        n = len(report.errors)
        state = f"{n} error{'' if n == 1 else 's'}" if n else "sound"
        style = "red" if report.errors else "green"
        console.print(
            Text.assemble((report.space, "bold"), ": ", (state, style), f"; {told}" if told else "")
        )
        for finding in report.findings:
            colour = "red" if finding.level == "error" else "yellow"
            console.print(Text.assemble(f"  {finding.level}: ", (finding.message, colour)), soft_wrap=True)
            if finding.hint:
                console.print(Text(f"    {finding.hint}", style="dim"), soft_wrap=True)
    for name, problem in broken.items():
        console.print(Text(f"{name}: the space cannot be opened: {problem}", style="red"), soft_wrap=True)


def _totals(report: PromptReport) -> str:
    if not report.measured:
        return ""
    least, most = (pick(m.tokens for m in report.measured) for pick in (min, max))
    sent = max(m.sent for m in report.measured)
    said = f"a question has {least:,} to {most:,} tokens"
    if any(m.left_out for m in report.measured):
        said += f", cut to {sent:,} (llm.prompt_tokens = {report.limit:,})"
    return said


def _print_sections(report: PromptReport) -> None:
    """Tokens by section, one column for each made-up moment."""
    if not report.measured:
        return
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0), header_style="bold")
    table.add_column("tokens of", no_wrap=True)
    rows: dict[str, dict[str, list[int]]] = {}
    for column, measured in enumerate(report.measured):
        table.add_column(str(column + 1), justify="right", no_wrap=True)
        for name, parts in measured.sections.items():
            for part in parts:
                title = _NUMBER.sub("N", part.title)
                counts = rows.setdefault(name, {}).setdefault(title, [0] * len(report.measured))
                counts[column] += part.tokens
    for name, by_title in rows.items():
        table.add_row(name, style="cyan")
        for title, tokens in by_title.items():
            cells = [str(each) if each else "" for each in tokens]
            table.add_row(Text(f" {title or '(before the first heading)'}"), *cells)
    table.add_row("all", *(str(measured.tokens) for measured in report.measured), style="bold")
    if any(measured.left_out for measured in report.measured):
        table.add_row("after cuts", *(str(measured.sent) for measured in report.measured))
    print_whole(table)
    for number, each in enumerate(report.measured, 1):
        print(f"{number}: {each.world}")


@dataclass(frozen=True)
class _Side:
    """One of two sets of templates that are compared."""

    label: str
    templates: Templates
    about: Subject | None = None


def diff_command(first: str, second: str | None, name: str | None, as_json: bool, runs: Path | None) -> None:
    """Compare two sets of templates.

    Raises:
        UserError: one of them is not there, or neither has a template `name`.
    """
    left, right = _sides(first, second, runs)
    names = sorted({*left.templates.names(), *right.templates.names()})
    if name is not None and name not in names:
        raise UserError(f"no template {name!r} on either side", hint=near_names(name, names))
    world = next(side.about.world for side in (right, left) if side.about is not None)
    rows = []
    for each in [name] if name is not None else names:
        versions = [
            side.templates.version(each) if each in side.templates.names() else None for side in (left, right)
        ]
        if versions[0] != versions[1]:
            sources, rendered = _differences(left, right, each, world)
            rows.append({"template": each, "versions": versions, "sources": sources, "rendered": rendered})
    if as_json:
        emit({"left": left.label, "right": right.label, "templates": rows})
        return
    if not rows:
        print(f"{left.label} and {right.label}: the same")
    for row in rows:
        print(f"{row['template']}: {row['versions'][0] or 'none'} -> {row['versions'][1] or 'none'}")
        _print_diff(str(row["sources"]))
        if row["rendered"]:
            print(f"what it makes of one made-up population ({world.name}):")
            _print_diff(str(row["rendered"]))


def _sides(first: str, second: str | None, runs: Path | None) -> tuple[_Side, _Side]:
    left = _side(first, runs)
    if second is not None:
        right = _side(second, runs)
    elif left.about is None:
        raise UserError(f"{first}: its space cannot be opened", hint="name two runs")
    elif left.label.startswith("run "):
        right = _Side("today's", Templates.of(left.about.space), left.about)
    else:
        right, about = left, left.about
        left = _Side("shipped", Templates.of(about.space, users=False), about)
    if left.about is None and right.about is None:
        raise UserError(
            "the spaces of both runs cannot be opened", hint="install the packages they come from"
        )
    return left, right


def _side(name: str, runs: Path | None) -> _Side:
    """A space, a run file, a run, or `shipped:SPACE`."""
    if name.startswith(SHIPPED):
        about = subject(name.removeprefix(SHIPPED))
        return _Side(name, Templates.of(about.space, users=False), about)
    if is_run_file(name) or name in SPACES.names():
        about = subject(name)
        return _Side(name, Templates.of(about.space), about)
    try:
        folder = Workspace(runs).folder(name)
    except UnknownNameError:
        about = subject(name)  # a path of a space, or an error that lists the spaces
        return _Side(name, Templates.of(about.space), about)
    return _Side(f"run {folder.name}", templates_of_run(folder), _about_run(folder, runs))


def _about_run(folder: Path, runs: Path | None) -> Subject | None:
    """What a run is about; None when its space has gone."""
    from cambrian.agents.cli.prompts_context import open_run

    store = Workspace(runs).open(str(folder))
    try:
        space_of(store)
        return open_run(store)
    except CambrianError:
        return None
    finally:
        store.close()


def _differences(left: _Side, right: _Side, name: str, world: World) -> tuple[str, str]:
    """Unified differences of all sources, part by part, and of what is rendered."""
    sources = [side.templates.sources(name) for side in (left, right)]
    # a source that both have is the same under any name: one's template may extend the other's
    both = set(sources[0].values()) & set(sources[1].values())
    sources = [{part: text for part, text in each.items() if text not in both} for each in sources]
    parts = list(dict.fromkeys([*sources[0], *sources[1]]))
    labels = [(f"{left.label} {part}", f"{right.label} {part}") for part in parts]
    text = "".join(
        _unified(sources[0].get(part, ""), sources[1].get(part, ""), *label)
        for part, label in zip(parts, labels, strict=True)
    )
    if name not in ROLES:
        return text, ""
    made = []
    for side in (left, right):
        try:
            made.append(side.templates.render(name, variables_of(world, name)).text)
        except UserError as error:
            made.append(f"(cannot be rendered: {error.message})\n")
    return text, _unified(made[0], made[1], left.label, right.label)


def _unified(before: str, after: str, old: str, new: str) -> str:
    lines = difflib.unified_diff(before.splitlines(), after.splitlines(), old, new, lineterm="")
    return "".join(f"{line}\n" for line in lines)


def _print_diff(text: str) -> None:
    console = wide_console()
    for line in text.splitlines():
        console.print(Text(line, style=_STYLES.get(line[:1], "")), soft_wrap=True)
