"""The question of what a candidate taught, and its answer as data.

The model is shown what was expected and what was measured, with the verdict, which is not its to give. What
it says is quoted as data later on, so that it is cleaned and bounded here, whatever it holds. Words that say
nothing are refused: fewer than a sentence has, or the question's own given back. What it says of notes stands
by itself: an item of no use is left out, and the lesson stays.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, get_args

from pydantic import BaseModel, ConfigDict, ValidationError

from cambrian.agents.analyst.notes import (
    CLAIM,
    MOST_AGAINST,
    MOST_FOR,
    MOST_NEW,
    SCOPE,
    Changes,
    Claim,
    Note,
    Way,
)
from cambrian.agents.analyst.verdicts import Assessment
from cambrian.agents.errors import ProposalError, UserError
from cambrian.agents.evaluator.difference import difference
from cambrian.agents.planner.answers import find_cut_json, find_json
from cambrian.agents.planner.client import ModelRequest, estimated_tokens
from cambrian.agents.planner.exchange import Message
from cambrian.agents.planner.quoting import quoted
from cambrian.agents.planner.templates import Templates
from cambrian.agents.population.model import Candidate, CandidateState, Evaluation
from cambrian.search_spaces import Space, Task

TEMPLATE = "analyse.j2"
LESSON = 600
"""Most characters of a lesson."""
BRIEF = 400
"""Tokens that the longest answer within the bounds takes, about: see `ModelRequest.brief`."""
LEAST_WORDS = 5
"""Fewer teach nothing."""
ECHO = 0.6
"""Share of a lesson's rows of three words that the question has from which on it is the question's."""
SIBLINGS = 4
"""How many siblings the model is shown."""
MOST_UNUSED = 4
"""How much of what could not be used of an answer is written down."""
_GENOTYPE = 1500
_CURVE = 12
_CUTS = (("siblings", 2), ("notes", 6), ("genotype", 0), ("siblings", 0), ("notes", 0), ("curve", 0))
"""What is cut, the first first, where a question is too long, and how much of it stays."""


class _Data(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class _Answer(_Data):
    lesson: str
    notes: Any = None


@dataclass(frozen=True)
class Subject:
    """What a question is about.

    Attributes:
        candidate: that has a score.
        parents: those that exist.
        siblings: other children of theirs, newest first.
        assessment: of its measurements.
        evaluation: behind its score, None where that is not known.
        notes: of the run, best supported first.
    """

    candidate: Candidate
    parents: Sequence[Candidate]
    siblings: Sequence[Candidate]
    assessment: Assessment
    evaluation: Evaluation | None
    notes: Sequence[Note] = ()


def lesson_variables(subject: Subject, space: Space, task: Task) -> dict[str, Any]:
    """Everything that the template `analyse` may use, as plain data."""
    candidate, proposal = subject.candidate, subject.candidate.proposal
    first = subject.parents[0] if subject.parents else None
    curve = subject.evaluation.val_curve if subject.evaluation is not None else ()
    genotype = json.dumps(candidate.genotype, separators=(",", ":"), ensure_ascii=False)
    expected = (
        proposal.expectation.in_words(task.metric) if proposal.expectation else proposal.expected_effect
    )
    return {
        "task": {"name": task.name, "metric": task.metric, "maximize": task.maximize},
        "space": {"name": space.name, "kind": space.kind},
        "candidate": _shown(candidate, task)
        | {
            "arm": proposal.arm,
            "hypothesis": quoted(proposal.hypothesis, 400),
            "expected": quoted(expected, 200),
            "changes": quoted(difference(first.genotype, candidate.genotype, 400), 400) if first else "",
            "feasible": candidate.feasible,
            "reason": quoted(candidate.reason, 300),
            "comment": quoted(candidate.comment, 300),
        },
        "verdict": subject.assessment.verdict.value,
        "measured": quoted(subject.assessment.measured, 500),
        "parents": [_shown(parent, task) for parent in subject.parents[:2]],
        "siblings": [_shown(each, task) for each in subject.siblings[:SIBLINGS]],
        "curve": [float(f"{value:.4g}") for value in _thinned(curve)],
        "genotype": quoted(genotype, _GENOTYPE),
        "notes": [{"id": note.id, "line": quoted(note.line(), 500)} for note in subject.notes],
    }


def lesson_question(
    templates: Templates, variables: Mapping[str, Any], limit: int, place: str
) -> ModelRequest:
    """The question, with as much left out as it takes to be no longer than `limit` tokens.

    Raises:
        UserError: the template cannot be rendered, or nothing more can be left out.
    """
    now = dict(variables)
    prompt = templates.render(TEMPLATE, now)
    cuts = iter(_CUTS)
    while estimated_tokens(prompt.text) > limit:
        cut = next(cuts, None)
        if cut is None:
            raise UserError(
                f"llm.prompt_tokens is {limit}, but the analyst's question needs "
                f"{estimated_tokens(prompt.text)} tokens",
                hint="raise llm.prompt_tokens, or set 'analyst: {lessons: off}'",
            )
        now[cut[0]] = now[cut[0]][: cut[1]]
        prompt = templates.render(TEMPLATE, now)
    ids = [note["id"] for note in now["notes"]]
    schema = lesson_schema(ids)
    text = json.dumps(schema, separators=(",", ":"))
    note = templates.render("schema.j2", now | {"schema": text})
    return ModelRequest(
        role="analyse",
        place=place,
        messages=(Message(role="user", content=prompt.text),),
        schema_name="lesson",
        schema=schema,
        bounds=lesson_bounds(ids),
        schema_note=note.text,
        brief=BRIEF,
        templates={each.name: each.version for each in (prompt, note)},
    )


def lesson_schema(note_ids: Sequence[str] = ()) -> dict[str, Any]:
    """JSON schema of the answer, fit for strict structured output.

    Args:
        note_ids: of the notes that the question shows.
    """
    known = {"enum": list(note_ids)} if note_ids else {}
    ids = {"type": "array", "items": {"type": "string"} | known}
    claim = _object(
        {
            "claim": {"type": "string", "description": "one sentence that later measurements can bear out"},
            "scope": {"type": "string", "description": "where it holds, in a few words; may be empty"},
            "effect": {
                "type": "string",
                "enum": list(get_args(Way)),
                "description": "what comes of it: a better or a worse score, a faster or a slower network",
            },
        }
    )
    notes = _object(
        {
            "supports": ids | {"description": f"ids of at most {MOST_FOR} notes that this result bears out"},
            "contradicts": ids | {"description": f"ids of at most {MOST_AGAINST} notes it speaks against"},
            "new": {
                "type": "array",
                "items": claim,
                "description": f"at most {MOST_NEW} claims that no note makes yet; mostly none",
            },
        }
    )
    lesson = {"type": "string", "description": "what this result teaches, in two or three sentences"}
    return _object({"lesson": lesson, "notes": notes})


def lesson_bounds(note_ids: Sequence[str]) -> dict[str, dict[str, Any]]:
    """What a server is asked to hold the model to, where it can: see `ModelRequest.bounds`.

    Args:
        note_ids: of the notes that the question shows. Without any there is none to speak for or against:
            a weak model would invent ids until it is cut.
    """
    notes = lesson_schema(note_ids)["properties"]["notes"]
    within = notes["properties"]
    claim = within["new"]["items"]
    lengths = {"claim": CLAIM, "scope": SCOPE}
    short = claim["properties"] | {
        name: claim["properties"][name] | {"maxLength": most} for name, most in lengths.items()
    }
    sizes = {"supports": min(MOST_FOR, len(note_ids)), "contradicts": min(MOST_AGAINST, len(note_ids))}
    lists = {name: within[name] | {"maxItems": most} for name, most in sizes.items()}
    new = within["new"] | {"maxItems": MOST_NEW, "items": claim | {"properties": short}}
    return {"lesson": {"maxLength": LESSON}, "notes": {"properties": lists | {"new": new}}}


@dataclass(frozen=True)
class Answered:
    """An answer as data.

    Attributes:
        text: the lesson, cleaned.
        changes: what it says of the notes, within bounds.
        unused: what could not be used of that, and why.
    """

    text: str
    changes: Changes = field(default_factory=Changes)
    unused: tuple[str, ...] = ()


def parse_lesson(text: str, notes: Sequence[Note], asked: str = "") -> Answered:
    """The lesson, cleaned, and what it says of the notes, within bounds.

    Of an answer that was cut the lesson is taken where it is whole, and nothing else.

    Args:
        text: the model's answer.
        notes: those that it was shown; others it cannot know.
        asked: the question, whose own words are no lesson.

    Raises:
        ProposalError: no JSON, other fields than asked for, or no lesson in it.
    """
    try:
        answer = _Answer.model_validate(_found(text))
    except ValidationError as error:
        raise ProposalError(_first(error)) from None
    lesson = quoted(answer.lesson, LESSON)
    if not lesson:
        raise ProposalError("lesson: it is empty")
    if len(_words(lesson)) < LEAST_WORDS:
        raise ProposalError(f"lesson: fewer than {LEAST_WORDS} words teach nothing")
    if _echoes(lesson, asked):
        raise ProposalError("lesson: it says the question again")
    changes, unused = _said_of_notes(answer.notes, {note.id for note in notes})
    return Answered(lesson, changes, tuple(quoted(each, 200) for each in unused))


def _said_of_notes(said: Any, shown: set[str]) -> tuple[Changes, list[str]]:
    """What can be used of what an answer says of notes, and what not."""
    if said is None:
        return Changes(), []
    if not isinstance(said, Mapping):
        return Changes(), ["notes: they are no object"]
    names = ("supports", "contradicts", "new")
    unused = [f"notes.{name}: unknown field" for name in said if name not in names]
    lists: dict[str, list[Any]] = {}
    for name in names:
        found = said.get(name)
        lists[name] = found if isinstance(found, list) else []
        if found is not None and not isinstance(found, list):
            unused.append(f"notes.{name}: it is no list")
    supports, contradicts = (
        [note_id for note_id in dict.fromkeys(filter(_is_text, lists[name])) if note_id in shown]
        for name in ("supports", "contradicts")
    )
    new = []
    for place, each in enumerate(lists["new"]):
        try:
            made = Claim.model_validate(each)
        except ValidationError as error:
            unused.append(f"notes.new.{place}.{_first(error)}")
            continue
        if (claim := Claim.of(made.claim, made.scope, made.effect)) is not None:
            new.append(claim)
    changes = Changes(
        supports=tuple(supports[:MOST_FOR]),
        contradicts=tuple(contradicts[:MOST_AGAINST]),
        new=tuple(new[:MOST_NEW]),
    )
    return changes, unused[:MOST_UNUSED]


def _first(error: ValidationError) -> str:
    first = error.errors(include_url=False, include_input=False)[0]
    return f"{'.'.join(map(str, first['loc'])) or 'answer'}: {first['msg']}"


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _words(text: str) -> list[str]:
    return re.findall(r"[^\W_]+", text.casefold())


def _echoes(lesson: str, asked: str) -> bool:
    """Whether most of a lesson stands in the question outside of its blocks of data."""
    told = _words(" ".join(asked.split("```")[::2]))
    known = set(zip(told, told[1:], told[2:], strict=False))
    words = _words(lesson)
    rows = list(zip(words, words[1:], words[2:], strict=False))
    return bool(rows) and sum(row in known for row in rows) >= ECHO * len(rows)


def _found(text: str) -> dict[str, Any]:
    try:
        return find_json(text)
    except ProposalError:
        try:
            lesson = find_cut_json(text)["lesson"]
        except (ProposalError, KeyError):
            lesson = None
        if lesson is None:
            raise
    return {"lesson": lesson}


def lesson_of_a_setback(candidate: Candidate) -> str:
    """What one that ended without a score taught, in words of ours: its state and its reason."""
    if candidate.state is CandidateState.DUPLICATE and candidate.duplicate_of:
        return f"Nothing was trained: it computes the same as {candidate.duplicate_of}."
    return quoted(f"No score: {candidate.state.value}. {candidate.reason}".strip(), LESSON)


def _shown(candidate: Candidate, task: Task) -> dict[str, Any]:
    rung = candidate.rung
    score = candidate.score
    return {
        "id": candidate.id,
        "edit": quoted(candidate.proposal.edit, 150),
        "summary": quoted(candidate.summary, 150),
        "score": None if score is None else float(f"{score:.4g}"),
        "epochs": task.rungs[rung].epochs if 0 <= rung < len(task.rungs) else None,
        "latency_ms": None if candidate.latency_ms is None else float(f"{candidate.latency_ms:.4g}"),
        "params": candidate.static.parameters if candidate.static else None,
    }


def _thinned(curve: Sequence[float]) -> list[float]:
    if len(curve) <= _CURVE:
        return list(curve)
    return [curve[round(i * (len(curve) - 1) / (_CURVE - 1))] for i in range(_CURVE)]


def _object(properties: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "additionalProperties": False,
        "required": list(properties),
        "properties": properties,
    }
