"""`cambrian prompts report`: versions of templates compared over runs."""

from __future__ import annotations

from pathlib import Path

from rich.table import Table
from rich.text import Text

from cambrian.agents.cli.app import emit
from cambrian.agents.cli.prompts_shown import print_whole, wide_console
from cambrian.agents.errors import CambrianError, UserError
from cambrian.agents.evaluator.noise import groups_of, noise_at, repeats_by_candidate, sampling_noise
from cambrian.agents.evaluator.prompt_questions import exchanges_of, questions_of
from cambrian.agents.evaluator.prompt_report import RunPrompts, prompts_report
from cambrian.agents.evaluator.prompt_rows import Comparison, PromptsReport, RateName, VersionRow
from cambrian.agents.evaluator.shares import Rate
from cambrian.agents.planner.kept_prompts import kept_prompts
from cambrian.agents.population.model import Candidate
from cambrian.agents.population.store import PopulationStore
from cambrian.agents.workspace import Workspace
from cambrian.search_spaces import near_names

SIDE_BY_SIDE = 2
"""Versions that stand side by side: more would not fit into 80 columns."""
_WORDS: dict[RateName, str] = {
    "valid_first": "valid at first",
    "valid": "valid after repair",
    "duplicates": "duplicates",
    "improved": "improved on the parent",
    "borne_out": "hypotheses borne out",
}


def report_command(names: list[str], template: str | None, as_json: bool, runs: Path | None) -> None:
    """Gather the runs, compare, and print."""
    workspace = Workspace(runs)
    gathered, skipped = [], {}
    for name in names or workspace.run_ids():
        try:
            store = workspace.open(name)
        except CambrianError as error:
            if names:
                raise
            skipped[name] = error.message
            continue
        try:
            if store.run.replay_of and not names:
                skipped[name] = f"it does {store.run.replay_of} again"
            else:
                gathered.append(run_prompts(store))
        except CambrianError as error:
            skipped[name] = error.message
        finally:
            store.close()
    report = prompts_report(gathered)
    if template is not None:
        known = sorted({row.template for row in report.rows})
        if template not in known:
            raise UserError(f"no run asked with a template {template!r}", hint=near_names(template, known))
        report = PromptsReport(
            rows=tuple(row for row in report.rows if row.template == template),
            comparisons=tuple(each for each in report.comparisons if each.template == template),
        )
    if as_json:
        emit(report.model_dump(mode="json") | {"skipped": skipped})
        return
    if not report.rows:
        print(f"no run in {workspace.root} has asked a model anything")
    else:
        _print(report)
    for name, problem in skipped.items():
        print(f"left out {name}: {problem}")


def run_prompts(store: PopulationStore) -> RunPrompts:
    """What a run's folder tells of its prompts."""
    run, candidates = store.run, store.candidates()
    exchanges = exchanges_of(store.folder)
    repairs = int((run.config.get("llm") or {}).get("repairs", 1))
    index = kept_prompts(store.folder)
    origins = {(each.name, each.version): each.parts[0].origin for each in (index.templates if index else ())}
    compared, improved = _against_parents(store, candidates) if exchanges else (set(), set())
    return RunPrompts(
        run=run.run_id,
        space=run.space,
        task=run.task,
        maximize=run.maximize,
        cost=run.cost,
        questions=questions_of(exchanges, candidates, repairs),
        candidates=candidates,
        exchanges=exchanges,
        improved=frozenset(improved),
        compared=frozenset(compared),
        origins={key: str(origin) for key, origin in origins.items()},
    )


def _against_parents(store: PopulationStore, candidates: list[Candidate]) -> tuple[set[str], set[str]]:
    """Which candidates can be compared with their first parent, and which are better beyond the noise.

    Scores are compared at the highest rung that both have one of.
    """
    from cambrian.agents.champions import CHAMPIONS_KEY, ChampionsPlan

    run = store.run
    seed = int(run.config.get("seed", 0))
    repeats = repeats_by_candidate(store.evaluations(), metric=run.metric, seed=seed)
    plan = store.get_meta(CHAMPIONS_KEY)
    champions = ChampionsPlan.model_validate_json(plan).ids() if plan is not None else frozenset()
    groups = groups_of(candidates, repeats, champions)
    sampling = sampling_noise(candidates, run)
    by_id = {c.id: c for c in candidates}
    compared, improved = set(), set()
    for c in candidates:
        parent = next((by_id[cid] for cid in c.proposal.parents if cid in by_id), None)
        if parent is None or not c.rung_scores or not parent.rung_scores:
            continue
        rung = min(len(c.rung_scores), len(parent.rung_scores)) - 1
        change = c.rung_scores[rung] - parent.rung_scores[rung]
        compared.add(c.id)
        bound = noise_at(rung, groups, sampling=sampling).difference()
        if (change if run.maximize else -change) > bound:
            improved.add(c.id)
    return compared, improved


def _print(report: PromptsReport) -> None:
    console = wide_console()
    groups: dict[tuple[str, str, str], dict[str, list[VersionRow]]] = {}
    for row in report.rows:
        groups.setdefault((row.space, row.task, row.model), {}).setdefault(row.template, []).append(row)
    for (space, task, model), templates in groups.items():
        console.print(Text(f"{space} / {task}, model {model}", style="bold"), soft_wrap=True)
        for template, rows in templates.items():
            for start in range(0, len(rows), SIDE_BY_SIDE):
                print_whole(_versions(template, rows[start : start + SIDE_BY_SIDE]))
                print()
        of_these = [c for c in report.comparisons if (c.space, c.task, c.model) == (space, task, model)]
        _print_comparisons(of_these)
    print(
        "in brackets 95 % intervals, of rates by Wilson's method; gain at the lowest\n"
        "rung, against the run's own control arm; tokens and US$ for each evaluated\n"
        "proposal, repair turns included"
    )


def _versions(template: str, rows: list[VersionRow]) -> Table:
    """Versions of one template side by side, what was measured of them one under the other."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column(template, no_wrap=True)
    for row in rows:
        table.add_column(row.version, no_wrap=True)
    lines = [_lines(row) for row in rows]
    for name in lines[0]:
        if any(each[name] for each in lines):
            table.add_row(f"  {name}", *(each[name] for each in lines))
    return table


def _print_comparisons(comparisons: list[Comparison]) -> None:
    console, headed = wide_console(), ""
    for each in comparisons:
        heading = f"{each.template} {each.newer} against {each.older}"
        if heading != headed:
            console.print(Text(heading), soft_wrap=True)
            if each.together_with:
                console.print(Text(f"  changed as well: {', '.join(each.together_with)}"), soft_wrap=True)
            headed = heading
        low, high = 100 * each.low, 100 * each.high
        said = f"  {_WORDS[each.rate]}: {each.verdict}, {100 * each.difference:+.0f} points"
        style = {"better": "green", "worse": "red"}.get(each.verdict, "dim")
        console.print(Text(f"{said} ({low:+.0f} to {high:+.0f})", style=style), soft_wrap=True)


def _lines(row: VersionRow) -> dict[str, str]:
    """What is told of one version, each under its name; empty where there is nothing to tell."""
    gain = row.gain
    return {
        "from": row.origin,
        "asked": f"{row.questions} in {len(row.runs)} run{'' if len(row.runs) == 1 else 's'}",
        **{words: _rate(getattr(row, name)) for name, words in _WORDS.items()},
        "gain": "" if gain.mean is None else f"{gain.mean:+.1f} % ({gain.low:+.1f} to {gain.high:+.1f})",
        "tokens": "" if row.tokens_per_evaluated is None else f"{row.tokens_per_evaluated:,.0f}",
        "US$": "" if row.money_per_evaluated is None else f"{row.money_per_evaluated:.4f}",
    }


def _rate(rate: Rate) -> str:
    if rate.share is None or rate.low is None or rate.high is None:
        return ""
    return f"{100 * rate.share:.0f} % of {rate.n} ({100 * rate.low:.0f} to {100 * rate.high:.0f})"
