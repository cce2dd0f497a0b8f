"""`cambrian prompts report`: versions of templates compared over runs."""

from __future__ import annotations

from pathlib import Path

from rich.table import Table
from rich.text import Text

from cambrian.agents.cli.app import emit
from cambrian.agents.cli.prompts_shown import wide_console
from cambrian.agents.errors import CambrianError, UserError
from cambrian.agents.evaluator.noise import groups_of, noise_at, repeats_by_candidate, sampling_noise
from cambrian.agents.evaluator.prompt_questions import exchanges_of, questions_of
from cambrian.agents.evaluator.prompt_report import RunPrompts, prompts_report
from cambrian.agents.evaluator.prompt_rows import PromptsReport, RateName, VersionRow
from cambrian.agents.evaluator.shares import Rate
from cambrian.agents.planner.kept_prompts import kept_prompts
from cambrian.agents.population.model import Candidate
from cambrian.agents.population.store import PopulationStore
from cambrian.agents.workspace import Workspace
from cambrian.search_spaces import near_names

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
        _print(report, all_rows=template is not None)
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


def _print(report: PromptsReport, all_rows: bool) -> None:
    console = wide_console()
    groups: dict[tuple[str, str, str], dict[str, list[VersionRow]]] = {}
    for row in report.rows:
        groups.setdefault((row.space, row.task, row.model), {}).setdefault(row.template, []).append(row)
    for (space, task, model), templates in groups.items():
        console.print(Text(f"{space} / {task}, model {model}", style="bold"), soft_wrap=True)
        table = Table(box=None, pad_edge=False, header_style="bold")
        for column in ("template", "version", "from"):
            table.add_column(column, no_wrap=True)
        for column in ("runs", "asked", *_WORDS.values(), "gain over control", "tokens", "US$"):
            table.add_column(column, justify="right")
        for template, rows in templates.items():
            # of templates that never changed, the question's own stands for all
            if all_rows or len(rows) > 1 or template in ("propose.j2", "repair.j2", "analyse.j2"):
                for row in rows:
                    table.add_row(template, row.version, row.origin, *_cells(row))
        console.print(table)
        for each in report.comparisons:
            if (each.space, each.task, each.model) == (space, task, model):
                together = f"; changed as well: {', '.join(each.together_with)}" if each.together_with else ""
                style = {"better": "green", "worse": "red"}.get(each.verdict, "dim")
                low, high = 100 * each.low, 100 * each.high
                said = f"{each.template} {each.newer} against {each.older}, {_WORDS[each.rate]}: "
                said += (
                    f"{each.verdict} ({100 * each.difference:+.0f} points, 95 % {low:+.0f} to {high:+.0f})"
                )
                console.print(Text(said + together, style=style), soft_wrap=True)
    print(
        "below each rate its 95 % Wilson interval; gain at the lowest rung, in per cent of the run's own "
        "control arm; tokens and US$ for each evaluated proposal, repair turns included"
    )


def _cells(row: VersionRow) -> list[str]:
    gain = row.gain
    told = "" if gain.mean is None else f"{gain.mean:+.1f} %\n{gain.low:+.1f} to {gain.high:+.1f}"
    money = "" if row.money_per_evaluated is None else f"{row.money_per_evaluated:.4f}"
    tokens = "" if row.tokens_per_evaluated is None else f"{row.tokens_per_evaluated:,.0f}"
    rates = [_rate(getattr(row, name)) for name in _WORDS]
    return [str(len(row.runs)), str(row.questions), *rates, told, tokens, money]


def _rate(rate: Rate) -> str:
    if rate.share is None or rate.low is None or rate.high is None:
        return ""
    return f"{100 * rate.share:.0f} % ({rate.k}/{rate.n})\n{100 * rate.low:.0f} to {100 * rate.high:.0f}"
