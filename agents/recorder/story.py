"""A proposal's story in Markdown: what was expected and why, what came of it, what it taught."""

from __future__ import annotations

from collections.abc import Sequence

from cambrian.agents.population.model import Candidate
from cambrian.agents.population.store import RunRecord
from cambrian.agents.wording import clean, escape_markdown, one_line, show_change, show_cost, show_score

GAP = "\n&nbsp;\n"
"""Goes behind a table where something follows: MLflow leaves no room there."""
_MEASURES = ("score", "latency_ms", "params", "flops", "memory_mb")


def proposal_story(candidate: Candidate, parents: Sequence[Candidate], run: RunRecord) -> str:
    """Hypothesis, edit, expectation, outcome against the first parent, verdict and lesson: what there is."""
    proposal = candidate.proposal
    expected = proposal.expected_effect
    if not expected.strip() and proposal.expectation is not None:
        expected = proposal.expectation.in_words(run.metric)
    parts = [
        f"**{title}**\n\n{quote(text)}\n"
        for title, text in (
            ("Hypothesis", proposal.hypothesis),
            ("Edit", proposal.edit),
            ("Expected", expected),
        )
        if text.strip()
    ]
    if parents and candidate.score is not None and (rows := outcome_rows(candidate, parents[0], run.metric)):
        head = ["**Outcome**\n", f"| | {parents[0].id} | {candidate.id} | change |", "|---|---:|---:|---:|"]
        parts.append("\n".join([*head, *(f"| {' | '.join(row)} |" for row in rows)]) + f"\n{GAP}")
    lesson = candidate.lesson
    if lesson is not None:
        measured = escape_markdown(one_line(lesson.measured, 500))
        parts.append(f"**Verdict: {lesson.verdict.value}**\n\n{measured}\n")
        if lesson.text.strip():
            parts.append(f"**Lesson**\n\n{quote(lesson.text)}\n")
    return "\n".join(parts)


def outcome_rows(candidate: Candidate, parent: Candidate, metric: str) -> list[tuple[str, str, str, str]]:
    """What was measured of both, and its relative change; scores of the highest rung that both reached."""
    ours, theirs = candidate.values(), parent.values()
    rung = min(len(candidate.rung_scores), len(parent.rung_scores)) - 1
    if rung >= 0:  # a parent that was trained for longer is no measure for a child that was not
        ours["score"], theirs["score"] = candidate.rung_scores[rung], parent.rung_scores[rung]
    rows = []
    for name in _MEASURES:
        mine, before = ours.get(name), theirs.get(name)
        if mine is None or before is None:
            continue
        change = show_change(100 * (mine - before) / abs(before)) if before else "-"
        title = name
        if name == "score":
            title = metric + (f" (rung {rung})" if rung >= 0 and rung != candidate.rung else "")
            shown = (show_score(metric, before), show_score(metric, mine))
        else:
            shown = (show_cost(name, before), show_cost(name, mine))
        rows.append((title, *shown, change))
    return rows


def table(rows: Sequence[tuple[str, str]]) -> str:
    """Facts in two columns."""
    return "\n".join(["| | |", "|---|---|", *(f"| {key} | {value} |" for key, value in rows)]) + "\n"


def quote(text: str) -> str:
    """Foreign text as a quotation, in which nothing is Markdown."""
    return "\n".join(f"> {line}" for line in escape_markdown(clean(text, 1500)).splitlines())
