"""`cambrian spaces ...`: the sub-commands. What they do is imported when they are run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

Json = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]
Name = Annotated[
    str, typer.Argument(metavar="SPACE", help="A name of `cambrian spaces`, or a folder with a space.yaml.")
]
Seed = Annotated[int, typer.Option(help="Of what is drawn.", min=0)]


class _Group(TyperGroup):
    """`spaces NAME` stands for `spaces show NAME`."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """The command for `args`; `--json` before it counts as if it came after."""
        if args and args[0] not in self.commands:
            args = ["show", *args]
        if ctx.params.get("as_json"):
            args = [*args, "--json"]
        return super().resolve_command(ctx, args)


spaces = typer.Typer(
    cls=_Group,
    help="List, show, check and make search spaces. `spaces NAME` is short for `spaces show NAME`.",
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@spaces.callback()
def _list_or_more(ctx: typer.Context, as_json: Json = False) -> None:
    if ctx.invoked_subcommand is None:
        list_spaces(as_json)


@spaces.command("list")
def list_spaces(as_json: Json = False) -> None:
    """List the search spaces, where each comes from, and the tasks."""
    from cambrian.agents.cli.spaces_shown import list_command

    list_command(as_json)


@spaces.command()
def show(
    name: Name,
    page: Annotated[bool, typer.Option("--page", help="Print its page, in Markdown.")] = False,
    schema: Annotated[bool, typer.Option("--schema", help="Print the JSON schema of a genotype.")] = False,
    drawing: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Draw its baselines to this SVG file.")
    ] = None,
    baseline: Annotated[
        str | None, typer.Option(metavar="NAME", help="Draw only this one, by itself.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Say what a space is: its choices in words, its baselines."""
    from cambrian.agents.cli.spaces_shown import show_command

    show_command(name, page=page, schema=schema, drawing=drawing, baseline=baseline, as_json=as_json)


@spaces.command()
def sample(
    name: Name,
    n: Annotated[int, typer.Option("-n", help="How many.", min=1)] = 5,
    seed: Seed = 0,
    draw: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Also draw each to an SVG file in this folder.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Draw random designs."""
    from cambrian.agents.cli.spaces_shown import sample_command

    sample_command(name, n=n, seed=seed, draw=draw, as_json=as_json)


@spaces.command()
def blocks(as_json: Json = False) -> None:
    """List the blocks that space files can be made of."""
    from cambrian.agents.cli.spaces_shown import blocks_command

    blocks_command(as_json)


@spaces.command()
def new(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Lower-case letters, digits and hyphens.")],
    source: Annotated[
        str | None, typer.Option("--from", metavar="SPACE", help="Copy this space instead of a small one.")
    ] = None,
    place: Annotated[
        Path | None, typer.Option("--in", metavar="FOLDER", help="Where to write; here by default.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Write the folder of a new space and a run file that searches it; both work as they are."""
    from cambrian.agents.cli.spaces_shown import new_command

    new_command(name, source, place, as_json)


@spaces.command()
def check(
    name: Name,
    draws: Annotated[
        int | None,
        typer.Option(help="Designs, and edits; 1,000, or 10 for spaces of code.", min=1, show_default=False),
    ] = None,
    seed: Seed = 0,
    all_identities: Annotated[
        bool, typer.Option("--all", help="Hash all designs by what they compute, not 300.")
    ] = False,
    sheet: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Drawings of some designs; SPACE-designs.svg here.")
    ] = None,
    task: Annotated[
        str, typer.Option(help="Whose inputs the networks of a space of code are built for.")
    ] = "digits",
    sandbox: Annotated[str, typer.Option(help="Where the networks of a space of code are built.")] = "auto",
    trust: Annotated[
        bool, typer.Option("--trust-generated-code", help="Let a space of code do without a container.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Prove a space sound: draw designs and edits, build them all, say what they are like.

    Exit code 2 when anything is wrong with it.
    """
    from cambrian.agents.cli.spaces_checked import check_command

    check_command(
        name,
        draws=draws,
        seed=seed,
        all_identities=all_identities,
        sheet=sheet,
        task=task,
        sandbox=sandbox,
        trust=trust,
        as_json=as_json,
    )
