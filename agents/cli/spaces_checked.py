"""`cambrian spaces check`: its progress, its report for people and for programs."""

from __future__ import annotations

import asyncio
import json
import random
import sys
from collections.abc import Iterator
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from cambrian.agents.cli.app import emit
from cambrian.agents.cli.progress import progress
from cambrian.agents.cli.spaces_shown import draw_sheet, find
from cambrian.agents.report import count_text
from cambrian.agents.spaces.check import check_space, reference_of
from cambrian.agents.spaces.code import DRAWS as CODE_DRAWS
from cambrian.agents.spaces.code import check_code
from cambrian.agents.spaces.report import CheckReport
from cambrian.search_spaces import TASKS, Genotype, Space, UserError

SHEET_DESIGNS = 12
DRAWS = 1000
SHOWN_FAILURES = 5


def check_command(
    name: str,
    *,
    draws: int | None,
    seed: int,
    all_identities: bool,
    sheet: Path | None,
    task: str,
    sandbox: str,
    trust: bool,
    as_json: bool,
) -> None:
    """Check a space and print what was found; exit code 2 when it is not sound."""
    space = find(name)
    with progress(as_json) as told:
        if space.kind == "code":
            made = TASKS.create(task)
            report = asyncio.run(
                check_code(
                    space,
                    made,
                    draws=draws or CODE_DRAWS,
                    seed=seed,
                    sandbox_kind=sandbox,
                    trust_generated_code=trust,
                    progress=told,
                )
            )
            signature = made.signature
        else:
            report = check_space(
                space, draws=draws or DRAWS, seed=seed, all_identities=all_identities, progress=told
            )
            signature = reference_of(space)
    if report.valid:
        path = sheet or Path(f"{space.name}-designs.svg")
        try:
            draw_sheet(space, _drawn(space, seed, min(report.designs, SHEET_DESIGNS)), signature, path)
            report = report.model_copy(update={"sheet": path})
        except UserError:
            raise
        except Exception as error:  # the report is worth more than the pictures of a space that is not sound
            left_out = [*report.left_out, f"drawings: {type(error).__name__}: {error}"]
            report = report.model_copy(update={"left_out": left_out})
    if as_json:
        emit(report.model_dump(mode="json") | {"share_valid": report.share_valid, "sound": report.sound})
    else:
        _print(report)
    if not report.sound:
        sys.exit(2)


def _drawn(space: Space, seed: int, n: int) -> list[tuple[str, Genotype]]:
    """The first of the designs that were checked, by number."""
    rng = random.Random(seed)
    return [(str(i + 1), space.sample(rng)) for i in range(n)]


def _print(report: CheckReport) -> None:
    console = Console(width=max(100, Console().width))
    verdict = ("sound", "bold green") if report.sound else ("not sound", "bold red")
    console.print(
        Text.assemble(
            (f"{report.space} {report.version}", "bold"),
            " is ",
            verdict,
            f": {100 * report.share_valid:.4g} % of {report.designs:,} designs and {report.edits:,} edits "
            f"are valid, for {report.signature}, in {report.wall_s:.0f} s",
        )
    )
    for failure in report.failures[:SHOWN_FAILURES]:
        console.print(Text(f"  {failure.times}x {failure.stage}: {failure.reason}", style="red"))
        if failure.genotype is not None:
            console.print(Text(f"     {json.dumps(failure.genotype)}", style="dim"))
    if len(report.failures) > SHOWN_FAILURES:
        console.print(
            f"  and {len(report.failures) - SHOWN_FAILURES} other kinds of failure (--json has all)"
        )
    for table in (_sizes(report), _known(report), _tasks(report)):
        if table.row_count:
            console.print(table)
    for line in _lines(report):
        console.print(Text(line))


def _sizes(report: CheckReport) -> Table:
    table = _table("designs", "least", "5 %", "median", "95 %", "most")
    for name, found in report.quantiles.items():
        numbers = (found.least, found.p5, found.median, found.p95, found.most)
        table.add_row(name, *(count_text(round(number)) for number in numbers))
    return table


def _known(report: CheckReport) -> Table:
    table = _table("baseline", "parameters", "published", "architecture")
    for one in report.baselines:
        numbers = ("" if n is None else f"{n:,}" for n in (one.parameters, one.published))
        table.add_row(
            one.name, *numbers, Text(one.problem, style="red") if one.problem else Text(one.summary)
        )
    return table


def _tasks(report: CheckReport) -> Table:
    table = _table("task", "", "")
    for one in report.tasks:
        style = "red" if one.status == "does not fit" else ""
        detail = one.reason or f"{one.built} designs built"
        table.add_row(one.name, Text(one.status, style=style), Text(detail))
    return table


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for i, column in enumerate(columns):
        table.add_column(column, overflow="fold", justify="right" if 0 < i < len(columns) - 1 else "left")
    return table


def _lines(report: CheckReport) -> Iterator[str]:
    if report.acceptance is not None:
        yield f"acceptance: {report.acceptance}"
    if (size := report.size) is not None:
        yield f"size: {size}"
    if (twins := report.duplicates) is not None:
        yield (
            f"duplicates: {100 * twins.share:.3g} % of {twins.examined:,} designs compute what another one "
            f"does ({twins.examined - twins.distinct_genotypes:,} are the same genotype)"
        )
        if twins.example is not None:
            yield f"  for example {twins.example[0]}\n          and {twins.example[1]}"
    if report.milliseconds:
        steps = ", ".join(f"{name} {value:.3g}" for name, value in report.milliseconds.items())
        yield f"milliseconds, median of one design: {steps}"
    for line in report.never_drawn:
        yield f"never drawn: {line}"
    for line in report.unused:
        yield f"unused: {line}"
    for line in report.left_out:
        yield f"left out: {line}"
    if report.isolation:
        yield f"built in: {report.isolation}"
    if report.sheet is not None:
        yield f"drawings: {report.sheet}"
