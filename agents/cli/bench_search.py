"""`cambrian bench search`."""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Literal, cast

from cambrian.agents.benching.asked import check_model
from cambrian.agents.benching.benchmark import Limit, Options, open_benchmark
from cambrian.agents.benching.plot import check_plot, plot_regret
from cambrian.agents.benching.searchers import ASKS_MODEL, parse_arms
from cambrian.agents.benching.study import Plan, run_study
from cambrian.agents.benching.summary import Line, Study, summarise
from cambrian.agents.cli.app import emit


def search_command(
    *,
    files: tuple[Path, ...],
    metric: str,
    report: str | None,
    arms: str | None,
    llm: str | None,
    space: str | None,
    genotype_columns: str | None,
    minimize: bool,
    cost: str | None,
    constraints: Sequence[str],
    features: str | None,
    seeds: int,
    evaluations: int,
    first_seed: int,
    warmup: int | None,
    predictor: bool,
    identity: str,
    jobs: int | None,
    plot: Path | None,
    as_json: bool,
) -> None:
    """Search, print the table, draw the picture.

    Raises:
        UserError: an option or a column is not what it should be.
        MissingDataError: a file is not there.
    """
    if plot is not None:
        check_plot(plot)
    models = _names(llm)
    searchers = tuple(parse_arms(arms, models))
    for model in models:
        check_model(model)
    options = Options(
        files=files,
        metric=metric,
        report=report,
        minimize=minimize,
        space=space,
        genotype_columns=_names(genotype_columns),
        cost=cost,
        constraints=tuple(Limit.parse(text) for text in constraints),
        features=_names(features),
        identity=cast(Literal["genotype", "functional"], identity),
    )
    benchmark = open_benchmark(options)
    plan = Plan(searchers, seeds, evaluations, first_seed, warmup, predictor)
    with _progress(len(plan.work())) as done:
        traces = run_study(benchmark, plan, jobs or _cores(), done)
    study = summarise(benchmark, plan, traces)
    if plot is not None:
        plot_regret(study, plot)
    if as_json:
        emit(study.model_dump(mode="json"))
    else:
        print_study(study)


def _names(text: str | None) -> tuple[str, ...]:
    return tuple(dict.fromkeys(part.strip() for part in (text or "").split(",") if part.strip()))


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def _progress(total: int) -> Iterator[Callable[[str, int], None]]:
    """A bar on standard error while a person looks on."""
    if not sys.stderr.isatty():
        yield lambda _name, _seed: None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("searching", total=total)
        yield lambda _name, _seed: bar.advance(task)


def print_study(study: Study) -> None:
    """The table for people."""
    from rich.console import Console
    from rich.table import Table

    better = "higher" if study.maximize else "lower"
    print(
        f"{study.table}: {study.members} members of space {study.space}; {study.metric}, {better} is better"
    )
    for note in study.notes:
        print(f"note: {note}")
    decimals = _decimals(study.best_report)
    print(
        f"best row: {study.metric} {study.best_metric:.{decimals}f}; best {study.report} of all: "
        f"{study.best_report:.{decimals}f}. {study.seeds} seeds, {study.evaluations} evaluations each"
    )
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("searcher", no_wrap=True)
    for column in ("found best", "evaluations to best"):
        table.add_column(column, justify="right", no_wrap=True)
    for at in (each.evaluations for each in study.lines[0].incumbents):
        table.add_column(f"after {at}", justify="right", no_wrap=True)
    table.add_column("regret", justify="right")
    table.add_column("ms", justify="right")
    for line in study.lines:
        cells = [_plus_minus(each.mean, each.std, decimals) for each in line.incumbents]
        regret = line.incumbents[-1].regret
        table.add_row(
            line.name,
            f"{line.found}/{study.seeds}",
            _quartiles(line, study.evaluations),
            *cells,
            "-" if regret is None else f"{regret:.2g}",
            f"{line.ms_per_evaluation:.2g}"
            if line.ms_per_evaluation < 100
            else f"{line.ms_per_evaluation:.0f}",
        )
    Console(width=1000).print(table)  # as wide as it gets: a table that is cut or folded cannot be read
    print(
        f"evaluations to best: median (quartiles) over all seeds, > {study.evaluations} where it was not "
        f"found. after N: mean ± deviation of {study.report} of the best row so far. regret: its mean "
        "distance from the table's best at the end. ms: processor time of the search for one evaluation."
    )
    for each in study.comparisons:
        sign = "worse" if each.worse else "better" if each.low > 0 and each.p < 0.05 else "no difference"
        print(
            f"{each.searcher} against {each.against}, {each.measure}: {each.difference:+.3g} "
            f"({each.low:+.3g} to {each.high:+.3g}, p = {each.p:.2g}): {sign}"
        )
    for line in study.lines:
        if said := _of_model(line):
            print(said)
    if study.verdict:
        print(study.verdict)


def _of_model(line: Line) -> str:
    """What the arm that asks a model did of a searcher's work; empty without one."""
    calls = sum(curve.calls for curve in line.curves)
    if not calls:
        return ""
    n, made = len(line.curves), sum(sum(curve.by_arm.values()) for curve in line.curves)
    own = sum(curve.by_arm.get(ASKS_MODEL, 0) for curve in line.curves)
    known = sum(curve.duplicates.get(ASKS_MODEL, 0) for curve in line.curves)
    tokens = sum(curve.tokens for curve in line.curves)
    barren = sum(curve.barren.get(ASKS_MODEL, 0) for curve in line.curves)
    return (
        f"{line.name}: arm {ASKS_MODEL} made {100 * own / max(1, made):.1f} % of the evaluations; a search "
        f"took {calls / n:.1f} calls and {tokens / n:.0f} tokens, got nothing usable {barren / n:.1f} times "
        f"and what was known {known / n:.1f} times"
    )


def _decimals(value: float) -> int:
    """Digits after the point so that there are four in all."""
    return max(0, 3 - math.floor(math.log10(abs(value)))) if value else 3


def _plus_minus(mean: float | None, std: float | None, decimals: int) -> str:
    return "-" if mean is None or std is None else f"{mean:.{decimals}f} ± {std:.{decimals}f}"


def _quartiles(line: Line, most: int) -> str:
    q1, median, q3 = (f"> {most}" if q is None else f"{q:g}" for q in (line.q1, line.median, line.q3))
    return f"{median} ({q1} - {q3})" if line.q1 is not None else median
