"""`cambrian sandbox ...`: the sub-commands. What they do is imported when they are run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

Json = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]
Engine = Annotated[
    str | None,
    typer.Option(
        metavar="ADDRESS",
        help="unix://..., tcp://..., ssh://... or context:NAME; as the docker command decides by default.",
    ),
]
Base = Annotated[
    str | None,
    typer.Option(
        metavar="IMAGE",
        help="What to build from: anything with Python 3.11 or newer. By default a local cambrian-base, else "
        "a slim Python image.",
    ),
]
RunFile = Annotated[
    Path | None, typer.Option("--run", metavar="FILE", help="Take base image, engine and plugins from it.")
]

sandboxes = typer.Typer(
    help="Build, try out and clean up where candidates run.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@sandboxes.command()
def build(base: Base = None, run: RunFile = None, engine: Engine = None, as_json: Json = False) -> None:
    """Build the image that containers start from, if it is missing, and say what is in it."""
    from cambrian.agents.cli.sandboxes_image import build_command

    build_command(base, run, engine, as_json)


@sandboxes.command()
def check(
    kind: Annotated[
        Literal["auto", "docker", "process"],
        typer.Option(help="What to try out; auto takes Docker where an engine answers."),
    ] = "auto",
    engine: Engine = None,
    runtime: Annotated[
        str | None, typer.Option(metavar="NAME", help="The engine's runtime, such as runsc.")
    ] = None,
    base: Base = None,
    full: Annotated[
        bool, typer.Option("--full", help="All hostile candidates, which takes minutes, not only some.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Let honest and hostile candidates run here, and say what became of them.

    Exit code 2 when one was not contained although the sandbox does not say that it cannot be, or when an
    honest one did not get what it must.
    """
    from cambrian.agents.cli.sandboxes_tried import check_command

    check_command(kind, engine=engine, runtime=runtime, base=base, full=full, as_json=as_json)


@sandboxes.command()
def clean(base: Base = None, engine: Engine = None, as_json: Json = False) -> None:
    """Remove images of older versions, and what dead runs left behind. Live runs keep theirs."""
    from cambrian.agents.cli.sandboxes_image import clean_command

    clean_command(base, engine, as_json)
