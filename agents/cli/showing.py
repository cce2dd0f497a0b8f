"""What `cambrian show` prints of one candidate, and what each arm and model brought, as `run` does too."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from cambrian.agents.budget import clock_text
from cambrian.agents.cli.app import emit
from cambrian.agents.evaluator.arms import Brought
from cambrian.agents.evaluator.noise import repeats_by_candidate
from cambrian.agents.evaluator.prompt_questions import exchanges_of, questions_of
from cambrian.agents.evaluator.spending import cost_text
from cambrian.agents.planner.exchange import Exchange
from cambrian.agents.population.model import Candidate
from cambrian.agents.population.store import PopulationStore
from cambrian.agents.report import EndReport, count_text
from cambrian.agents.wording import (
    finding_facts,
    latency_facts,
    one_line,
    plural,
    show_nearest,
    show_reproduced,
)

MIN_WIDTH = 124
"""Columns of a table with a leaderboard's numbers and one architecture."""
REASON = 400
"""Characters of a reason, which a candidate may have a hand in, that people are shown."""


def show_candidate(store: PopulationStore, candidate: Candidate, as_json: bool) -> None:
    """Print all that is known of a candidate.

    Args:
        store: of its run.
        candidate: one of it.
        as_json: print it as data.
    """
    evaluations = store.evaluations(candidate.id)
    asking, analysing = _asked(store, candidate)
    if as_json:
        emit(
            {
                "run_id": store.run.run_id,
                "candidate": candidate.model_dump(mode="json"),
                "evaluations": [e.model_dump(mode="json") for e in evaluations],
                "exchanges": [_without_texts(each) for each in (*asking, *analysing)],
            }
        )
        return
    proposal = candidate.proposal
    facts: dict[str, Any] = {
        "architecture": candidate.summary,
        "state": candidate.state + (f" ({one_line(candidate.reason, REASON)})" if candidate.reason else ""),
        "arm": proposal.arm,
        "parents": ", ".join(proposal.parents),
        **_asked_facts(store, candidate, asking, analysing),
        "edit": proposal.edit,
        "hypothesis": proposal.hypothesis,
        "expected effect": proposal.expected_effect,
        "verdict": None if candidate.lesson is None else candidate.lesson.verdict.value,
        "measured": None if candidate.lesson is None else one_line(candidate.lesson.measured, REASON),
        "lesson": None if candidate.lesson is None else one_line(candidate.lesson.text, 600),
        "identity": candidate.identity,
        "duplicate of": candidate.duplicate_of,
        "nearest": show_nearest(candidate.nearest) if candidate.nearest is not None else None,
        store.run.metric: candidate.score,
        f"test {store.run.metric}": candidate.test_score,
        "reproduced": show_reproduced(candidate.reproduced),
        "predicted": candidate.prediction,
    }
    seed = store.run.config.get("seed", 0)
    repeats = repeats_by_candidate(evaluations, metric=store.run.metric, seed=seed)
    fresh = repeats.get((candidate.id, candidate.rung))
    if fresh is not None and fresh.mean is not None:
        spread = f", standard deviation {fresh.std:.4f}" if fresh.std is not None else ""
        facts[f"mean over {len(fresh.scores)} fresh seeds"] = (
            f"{fresh.mean:.4f} (test {fresh.test_mean:.4f}{spread})"
        )
    if candidate.static is not None:
        facts["parameters"] = candidate.static.parameters
        facts["FLOPs"] = count_text(candidate.static.flops)
        facts["training memory"] = f"{candidate.static.peak_memory_mb:.1f} MiB (estimated)"
    facts |= {
        title: one_line(text, REASON) for title, text in finding_facts(candidate.findings, candidate.proxies)
    }
    for evaluation in evaluations:
        shown = ", ".join(f"{k} {v:.4f}" for k, v in evaluation.metrics.items())
        shown = shown or one_line(evaluation.reason, REASON)
        again = "" if evaluation.seed == seed else f", fresh seed {evaluation.seed}"
        facts[f"rung {evaluation.rung}{again}"] = (
            f"{evaluation.state}: {shown}; {plural(evaluation.epochs, 'epoch')} "
            f"in {evaluation.train_s:.1f} s, isolation {evaluation.isolation.level}"
        )
        facts["not stopped"] = "; ".join(evaluation.isolation.not_enforced)
        if evaluation.latency is not None:
            facts |= dict(latency_facts(evaluation.latency, evaluation.device_name))
    table = Table.grid(padding=(0, 2))
    for key, value in facts.items():
        if value not in (None, ""):
            table.add_row(
                Text(key, style="bold"), Text(f"{value:.4f}" if isinstance(value, float) else str(value))
            )
    console().print(Text(f"{store.run.run_id}/{candidate.id}", style="bold"), table)


def show_brought(report: EndReport) -> None:
    """Print what each arm brought and cost, and each model where there are several."""
    _print_brought("arm", {row.arm: row for row in report.arms}, report.metric)
    if len(report.models) > 1:
        _print_brought("model", {row.model: row for row in report.models}, report.metric)


def _print_brought(what: str, rows: Mapping[str, Brought], metric: str) -> None:
    if not rows:
        return
    counts = ("proposals", "duplicates", "failed", "evaluated")
    table = table_of(what, *counts, f"best {metric}", "gain over random (95 %)", "sandbox")
    table.columns[6].no_wrap = table.collapse_padding = True  # it is wide enough
    if asks := any(row.asked is not None for row in rows.values()):
        for column in ("calls", "tokens", "money"):
            table.add_column(column)
    for numbers in table.columns[1:]:
        numbers.justify = "right"
    for name, row in rows.items():
        best = "" if row.best is None else f"{row.best:.4f}"
        cells = [
            *(str(getattr(row, column)) for column in counts),
            best,
            row.gain_text,
            clock_text(row.cost_s),
        ]
        if asks:
            cells += ["", "", ""] if row.asked is None else row.asked.cells
        table.add_row(*(Text(one_line(cell)) for cell in (name, *cells)))  # no markup: a name is anybody's
    console().print(table)


def table_of(*columns: str) -> Table:
    """A table without lines, whose cells are folded rather than cropped."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


def _asked(store: PopulationStore, candidate: Candidate) -> tuple[list[Exchange], list[Exchange]]:
    """The questions that the candidate came of, repair turns included, and those about it."""
    lesson, proposed = candidate.lesson, candidate.proposal.exchange
    if proposed is None and (lesson is None or lesson.exchange is None):
        return [], []
    exchanges = exchanges_of(store.folder)
    asking: list[Exchange] = []
    for question in questions_of(exchanges, (), 0):
        ids = [turn.id for turn in question.turns]
        if proposed in ids:
            asking = question.turns[: ids.index(proposed) + 1]
    told = None if lesson is None else lesson.exchange
    analysing = [
        each
        for each in exchanges
        if each.id == told or (each.role == "analyse" and each.place.split(".")[0] == candidate.id)
    ]
    return asking, analysing


def _asked_facts(
    store: PopulationStore, candidate: Candidate, asking: Sequence[Exchange], analysing: Sequence[Exchange]
) -> dict[str, Any]:
    proposal = candidate.proposal
    facts: dict[str, Any] = {
        "model": one_line(proposal.model or (asking[-1].model if asking else "")),
        "idea": one_line(proposal.idea),
    }
    if asking:
        last = asking[-1].id
        facts["asked in"] = ", ".join(f"{each.id} ({each.role})" for each in asking)
        facts["prompts"] = ", ".join(f"{name} {v}" for name, v in sorted(asking[-1].templates.items()))
        shared = sum(each.proposal.exchange == last for each in store.candidates())
        facts["tokens"] = cost_text(asking, shared)
    elif proposal.exchange is not None:
        facts["asked in"] = f"{proposal.exchange} (its record is gone)"
    if analysing:
        facts["analysed in"] = ", ".join(each.id for each in analysing)
        facts["tokens of it"] = cost_text(analysing)
    if asking:
        command = f"cambrian prompts render {store.run.run_id} --candidate {candidate.id}"
        facts["the whole question"] = command
    return facts


def _without_texts(exchange: Exchange) -> dict[str, Any]:
    return exchange.model_dump(mode="json", exclude={"key", "messages", "response"})


def console() -> Console:
    """Wide enough for a table: a narrower terminal wraps its lines, which beats cropped cells."""
    console = Console()
    return console if console.width >= MIN_WIDTH else Console(width=MIN_WIDTH)
