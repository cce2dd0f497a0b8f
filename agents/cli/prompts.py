"""`cambrian prompts ...`: the sub-commands. What they do is imported when they are run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

Json = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]
Runs = Annotated[
    Path | None, typer.Option("--runs", help="Folder that runs are kept in.", envvar="CAMBRIAN_RUNS")
]
Space = Annotated[
    str | None,
    typer.Argument(
        metavar="[SPACE|RUNFILE]",
        help="A name of `cambrian spaces`, a folder with a space.yaml, or a run file.",
        show_default=False,
    ),
]
Template = Annotated[
    str | None, typer.Option("--template", metavar="NAME", help="Only this one, such as propose.j2.")
]
Role = Literal["propose", "repair", "analyse"]

prompts = typer.Typer(
    help="Show, check and compare what models are told. Copy a template into a folder `prompts` here, or the "
    "one that CAMBRIAN_PROMPTS names, and edit it: it takes the place of ours.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@prompts.command("list")
def list_prompts(space: Space = None, as_json: Json = False) -> None:
    """List the templates of a space, convnet by default: where each lies, what it overrides, its length."""
    from cambrian.agents.cli.prompts_shown import list_command

    list_command(space or "convnet", as_json)


@prompts.command()
def render(
    name: Annotated[
        str,
        typer.Argument(
            metavar="SPACE|RUNFILE|RUN",
            help="A run shows its next question; a space or run file one about a made-up population.",
        ),
    ] = "last",
    candidate: Annotated[
        str | None,
        typer.Option(metavar="ID", help="Of a run: what was sent for this candidate, such as c-0007."),
    ] = None,
    again: Annotated[
        bool,
        typer.Option("--again", help="With --candidate: what today's templates would send in its place."),
    ] = False,
    role: Annotated[
        Role | None,
        typer.Option(help="Of which question; the proposal's own by default.", show_default=False),
    ] = None,
    template: Template = None,
    n: Annotated[int, typer.Option("-n", help="Proposals that are asked for at once.", min=1, max=16)] = 1,
    schema: Annotated[
        bool, typer.Option("--schema", help="Also print the JSON schema of the answer.")
    ] = False,
    as_json: Json = False,
    runs: Runs = None,
) -> None:
    """Print exactly what a model would be sent, or was sent, and how long each part of it is."""
    from cambrian.agents.cli.prompts_rendered import render_command

    render_command(
        name,
        candidate=candidate,
        again=again,
        role=role,
        template=template,
        n=n,
        schema=schema,
        as_json=as_json,
        runs=runs,
    )


@prompts.command()
def check(space: Space = None, as_json: Json = False) -> None:
    """Look for slips in the templates of a space; of all spaces by default.

    Renders them for made-up populations, names variables and blocks that do not exist, says what a question
    leaves out and how long its sections are. Exit code 2 when a run could not use them.
    """
    from cambrian.agents.cli.prompts_checked import check_command

    check_command(space, as_json)


@prompts.command()
def diff(
    first: Annotated[
        str,
        typer.Argument(metavar="A", help="A space, a run file, or a run; shipped:SPACE leaves out yours."),
    ],
    second: Annotated[
        str | None,
        typer.Argument(
            metavar="[B]",
            help="The same. Alone, a space's shipped templates are compared with yours, and a run's with "
            "today's.",
            show_default=False,
        ),
    ] = None,
    template: Template = None,
    as_json: Json = False,
    runs: Runs = None,
) -> None:
    """Show how two versions of templates differ, in their text and in what they make of one population."""
    from cambrian.agents.cli.prompts_checked import diff_command

    diff_command(first, second, template, as_json, runs)


@prompts.command()
def report(
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="[RUN]...", help="All runs by default.", show_default=False),
    ] = None,
    template: Template = None,
    as_json: Json = False,
    runs: Runs = None,
) -> None:
    """Compare what versions of templates brought over runs: valid answers, duplicates, improvements, cost."""
    from cambrian.agents.cli.prompts_reported import report_command

    report_command(names or [], template, as_json, runs)
