"""`cambrian sandbox ...`: the sub-commands. What they do is imported when they are run."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
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
        help="What to build from: anything with Python 3.11 or newer. By default a local cambrian-base, as "
        "sandbox/image/debian-base.sh makes it, else a slim Python image.",
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


@contextmanager
def _without_a_run(base: str | None, runtime: str | None = None) -> Iterator[None]:
    """Hints are written for runs and their files: have them speak of trying again, and of options given."""
    from cambrian.agents.errors import CambrianError

    words = {"resume the run": "try again", "then resume": "then try again"}
    if base is not None:
        words["'sandbox.base_image'"] = "--base"
    if runtime is not None:
        words["'sandbox.runtime' in the run file"] = "--runtime"
    try:
        yield
    except CambrianError as error:
        for said, meant in words.items():
            error.hint = error.hint.replace(said, meant)
        raise


@sandboxes.command()
def build(base: Base = None, run: RunFile = None, engine: Engine = None, as_json: Json = False) -> None:
    """Build the image that containers start from, if it is missing, and say what is in it."""
    from cambrian.agents.cli.sandboxes_image import build_command

    with _without_a_run(base):
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
        bool,
        typer.Option(
            "--full",
            help="All hostile candidates, which takes minutes; some, which takes about one, otherwise.",
        ),
    ] = False,
    as_json: Json = False,
) -> None:
    """Let honest and hostile candidates run here, and say what became of them.

    Exit code 2 when a hostile one was not contained though the sandbox claims it,
    or an honest one did not get its due.
    """
    from cambrian.agents.cli.sandboxes_tried import check_command

    with _without_a_run(base, runtime):
        check_command(kind, engine=engine, runtime=runtime, base=base, full=full, as_json=as_json)


@sandboxes.command()
def clean(base: Base = None, engine: Engine = None, as_json: Json = False) -> None:
    """Remove images of older versions, and what dead runs left behind. Live runs keep theirs."""
    from cambrian.agents.cli.sandboxes_image import clean_command

    with _without_a_run(base):
        clean_command(base, engine, as_json)
