"""What a run has learned, for its page: its notes with their evidence, and a table of all lessons."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from pydantic import ValidationError

from cambrian.agents.evaluator.spending import ModelUse
from cambrian.agents.population.model import Candidate, Verdict
from cambrian.agents.population.store import PopulationStore
from cambrian.agents.recorder.tracking import MetricPoint
from cambrian.agents.wording import escape_markdown, one_line

LESSONS = "lessons.json"
"""A table in the form that MLflow shows as one, once a tag of the run names it."""
LESSONS_TAG = {"mlflow.loggedArtifacts": json.dumps([{"path": LESSONS, "type": "table"}])}
_COLUMNS = ("candidate", "verdict", "lesson", "measured", "expected", "hypothesis", "edit", "arm", "model")
_EVIDENCE = 5


def learned_markdown(
    store: PopulationStore, candidates: Sequence[Candidate], links: Mapping[str, str], table: str
) -> str:
    """How often hypotheses about score and cost were borne out, and the notes that hold; may be empty.

    Args:
        store: keeps the notes.
        candidates: all of them.
        links: page of a candidate's run by its id.
        table: address of the table of lessons.
    """
    if not any(taught(c) for c in candidates):
        return ""
    verdicts = Counter(c.counted_verdict(store.run.cost) for c in candidates)
    told = ", ".join(f"{verdicts[verdict]} {verdict.value}" for verdict in Verdict if verdicts[verdict])
    lines = [f"Hypotheses about score and cost: {told or 'no evidence'} ([lessons]({table}))\n"]
    believed = {c.id for c in candidates if c.score is not None}
    # Imported here: the analyst brings LangGraph along, and a run without lessons does not need it.
    from cambrian.agents.analyst.notes import NOTES_KEY, Notebook

    try:
        kept = store.get_meta(NOTES_KEY)
        book = Notebook() if kept is None else Notebook.model_validate_json(kept)
    except ValidationError:
        return "\n".join(lines)
    notes = book.current(believed.__contains__)
    if notes:
        lines += ["| what was learned | holds for | speak for it | speak against it |", "|---|---|---|---|"]
        for note in notes:
            claim, scope = (escape_markdown(one_line(text)) for text in (note.claim, note.scope))
            sides = (_evidence(ids, links) for ids in (note.supports, note.contradicts))
            lines.append(f"| {claim} | {scope} | {' | '.join(sides)} |")
        lines.append("")
    return "\n".join(lines)


def write_lessons(candidates: Sequence[Candidate], metric: str, folder: Path) -> bool:
    """Write the table of all lessons into `folder`; whether there are any."""
    rows = []
    for candidate in candidates:
        lesson, proposal = candidate.lesson, candidate.proposal
        if lesson is None or not taught(candidate):
            continue
        expected = proposal.expected_effect
        if proposal.expectation is not None:
            expected = proposal.expectation.in_words(metric)
        texts = (lesson.text, lesson.measured, expected, proposal.hypothesis, proposal.edit)
        rows.append(
            [
                candidate.id,
                lesson.verdict.value,
                *(one_line(text, 700) for text in texts),
                proposal.arm,
                proposal.model,
            ]
        )
    if rows:
        table = json.dumps({"columns": list(_COLUMNS), "data": rows}, ensure_ascii=False)
        (folder / LESSONS).write_text(table, encoding="utf-8")
    return bool(rows)


def taught(candidate: Candidate) -> bool:
    """Whether there is more to tell of a candidate than that nobody expected anything of it."""
    lesson = candidate.lesson
    expected = candidate.proposal.expectation is not None or bool(candidate.proposal.hypothesis)
    return lesson is not None and (expected or bool(lesson.text) or lesson.verdict is not Verdict.NO_EVIDENCE)


def asked_metrics(asked: ModelUse, at: float, step: int) -> tuple[MetricPoint, ...]:
    """What was asked of models, as metrics of the run; none when nothing was."""
    if not asked.calls:
        return ()
    values = {"llm_requests": float(asked.calls), "llm_tokens": float(asked.tokens), "llm_usd": asked.money}
    return tuple(MetricPoint(k, v, at, step) for k, v in values.items() if v is not None)


def _evidence(ids: Sequence[str], links: Mapping[str, str]) -> str:
    shown = ", ".join(f"[{each}]({links[each]})" if each in links else each for each in ids[-_EVIDENCE:])
    return shown + (f" and {len(ids) - _EVIDENCE} more" if len(ids) > _EVIDENCE else "")
