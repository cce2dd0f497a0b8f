"""What a candidate's page says of the models that were asked about it: what that cost, where it is shown."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from cambrian.agents.evaluator.spending import cost_text
from cambrian.agents.planner.exchange import Exchange
from cambrian.agents.population.model import Candidate
from cambrian.agents.recorder.trace_entries import outcome, prompt_tags
from cambrian.agents.recorder.traces import Traces
from cambrian.agents.wording import escape_markdown, one_line


class Asked(NamedTuple):
    """The exchanges behind one candidate.

    Attributes:
        rows: facts for the table on its page, in Markdown.
        tags: of its run.
    """

    rows: tuple[tuple[str, str], ...]
    tags: dict[str, str]


def asked_of(candidate: Candidate, traces: Traces, experiment_id: str, run_id: str) -> Asked | None:
    """The exchanges behind `candidate`; None when no model was asked, or nothing is known of it."""
    exchanges = traces.of(candidate)
    if not exchanges:
        return None
    asking = [x for x in exchanges if x.role != "analyse"]
    analysing = [x for x in exchanges if x.role == "analyse"]
    rows = []
    if asking:
        last = asking[-1]
        rows.append(("model", _plain(last.model)))
        prompt = f"[prompt]({tab_link(experiment_id, run_id, 'artifactPath/prompt.md')})"
        rows.append(("questions", f"{_turns(asking, traces, experiment_id)}; the last {prompt} as a file"))
        rows.append(("tokens", cost_text(asking, traces.shared_by(last.id))))
        refs = traces.prompts_of(last)
        shown = [
            f"[{ref.name}/{ref.number}](#/prompts/{ref.name}?promptVersion={ref.number})" for ref in refs
        ]
        if shown:
            rows.append(("prompts", ", ".join(shown)))
    if analysing:
        rows.append(("analysis", _turns(analysing, traces, experiment_id)))
        rows.append(("tokens of the analysis", cost_text(analysing, 1)))
    tags = prompt_tags(traces.prompts_of(asking[-1])) if asking else {}
    return Asked(tuple(rows), tags)


def trace_link(experiment_id: str, trace_id: str) -> str:
    """Address of a trace's page, relative to MLflow's own."""
    return f"#/experiments/{experiment_id}/traces/{trace_id}"


def tab_link(experiment_id: str, run_id: str, tab: str) -> str:
    """Address of a tab of a run's page, with the menus for training runs."""
    return f"#/experiments/{experiment_id}/runs/{run_id}/{tab}?workflowType=machine_learning"


def _turns(exchanges: Sequence[Exchange], traces: Traces, experiment_id: str) -> str:
    shown = []
    for exchange in exchanges:
        became = outcome(exchange)
        ending = "" if became == "answered" else f", {became}"
        link = trace_link(experiment_id, traces.trace_id(exchange.id))
        shown.append(f"[{exchange.role} {exchange.id}]({link}) ({exchange.seconds:.1f} s{ending})")
    return ", ".join(shown)


def _plain(text: str) -> str:
    return escape_markdown(one_line(text, 200))
