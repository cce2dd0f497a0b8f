"""`cambrian bench ...`: the sub-commands. What they do is imported when they are run."""

from __future__ import annotations

import os
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

Json = Annotated[bool, typer.Option("--json", help="Print JSON for programs, with every curve.")]

bench = typer.Typer(
    help="Measure searches on tables of results, without training anything.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)


class Identity(StrEnum):
    """What counts as one architecture."""

    GENOTYPE = "genotype"
    FUNCTIONAL = "functional"


@bench.callback()
def _bench() -> None:
    pass


@bench.command()
def search(
    table: Annotated[
        list[Path],
        typer.Option(
            metavar="FILE",
            help="Parquet file, one row an architecture. Given again, files are joined on shared columns.",
        ),
    ],
    metric: Annotated[str, typer.Option(metavar="COLUMN", help="What a search sees of a row.")],
    report: Annotated[
        str | None,
        typer.Option(metavar="COLUMN", help="What its best row is judged by.", show_default="the metric"),
    ] = None,
    arms: Annotated[
        str | None,
        typer.Option(
            metavar="A,B,...",
            help="Arms, each alone; portfolios such as mutation+crossover:0.3; 'default', a run's portfolio "
            "without a model; 'regularized-evolution' and 'local-search', published peers.",
            show_default="default, its arms, the peers",
        ),
    ] = None,
    llm: Annotated[
        str | None,
        typer.Option(
            metavar="MODEL,...",
            help="Models for the arm 'llm', as in --arms default+llm; each is compared with the same "
            "portfolio without it. 'local' is the installed one, 'rubbish' a useless one; the endpoint is "
            "asked for others.",
        ),
    ] = None,
    space: Annotated[
        str | None, typer.Option(metavar="SPACE", help="Whose members the rows are, such as cell.")
    ] = None,
    genotype_columns: Annotated[
        str | None,
        typer.Option(metavar="A,B,...", help="Instead: make a space of these columns' values."),
    ] = None,
    minimize: Annotated[bool, typer.Option("--minimize", help="Lower is better.")] = False,
    cost_column: Annotated[
        str | None, typer.Option(metavar="COLUMN", help="Second objective, minimised; arms see it.")
    ] = None,
    constraint: Annotated[
        list[str] | None, typer.Option(metavar="'COLUMN <= X'", help="Hard limit; also <, >=, >.")
    ] = None,
    feature_columns: Annotated[
        str | None,
        typer.Option(
            metavar="A,B,...", help="Known beforehand, such as published proxies: the predictor's features."
        ),
    ] = None,
    seeds: Annotated[int, typer.Option(help="Searches of each.", min=1)] = 20,
    evaluations: Annotated[int, typer.Option(help="Look-ups a search may make.", min=1)] = 200,
    first_seed: Annotated[int, typer.Option(help="The first seed.", min=0)] = 0,
    warmup: Annotated[
        int | None,
        typer.Option(help="Random proposals before other arms.", min=0, show_default="as in runs"),
    ] = None,
    predictor: Annotated[
        bool, typer.Option("--predictor/--no-predictor", help="Whether it chooses among proposals.")
    ] = True,
    identity: Annotated[
        Identity, typer.Option(help="What counts as one architecture: its genotype, or what it computes.")
    ] = Identity.GENOTYPE,
    jobs: Annotated[int | None, typer.Option(help="Processes.", min=1, show_default="all cores")] = None,
    plot: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Draw regret over evaluations (.png or .svg).")
    ] = None,
    as_json: Json = False,
) -> None:
    """Search a table of results many times, and say who finds how much how soon."""
    for library in ("OMP", "OPENBLAS", "MKL"):  # read when they are loaded; searches have a core each
        os.environ[f"{library}_NUM_THREADS"] = "1"
    from cambrian.agents.cli.bench_search import search_command

    search_command(
        files=tuple(table),
        metric=metric,
        report=report,
        arms=arms,
        llm=llm,
        space=space,
        genotype_columns=genotype_columns,
        minimize=minimize,
        cost=cost_column,
        constraints=constraint or [],
        features=feature_columns,
        seeds=seeds,
        evaluations=evaluations,
        first_seed=first_seed,
        warmup=warmup,
        predictor=predictor,
        identity=identity.value,
        jobs=jobs,
        plot=plot,
        as_json=as_json,
    )
