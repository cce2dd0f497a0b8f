"""Candidates as a prompt shows them: plain data, short, with every foreign word quoted."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from typing import Any

from cambrian.agents.planner.arm import PopulationView, ProposalContext
from cambrian.agents.planner.evidence import Offer, Went
from cambrian.agents.planner.quoting import quoted, quoted_block
from cambrian.agents.population.model import Candidate, CandidateState, Verdict
from cambrian.agents.wording import show_nearest, show_number
from cambrian.search_spaces import Genotype, Space, Task

ALIKE = 0.6
"""From this similarity on it is worth telling which earlier candidate one is most like."""
_GENOTYPE_LIMIT = 8000
_SOURCE_LIMIT = 6000
SOURCE_BELOW = "(the source below)"
"""What stands in a shown genotype for source that is shown in a block of its own."""


def shown(candidate: Candidate, context: ProposalContext, on_front: bool) -> dict[str, Any]:
    """A candidate with its numbers and its whole genotype."""
    proposal = candidate.proposal
    genotype, source = genotype_and_source(candidate.genotype, context.space)
    return {
        "id": candidate.id,
        "score": number(candidate.score),
        "epochs": _epochs(candidate.rung, context.task),
        "latency_ms": number(candidate.latency_ms),
        "params": candidate.static.parameters if candidate.static else None,
        "cost": number(candidate.cost),
        "on_front": on_front,
        "arm": quoted(proposal.arm, 40),
        "parents": _parents(candidate),
        "edit": quoted(proposal.edit, 120),
        "summary": quoted(candidate.summary, 120),
        "nearest": _nearest(candidate),
        "lesson": lesson(candidate),
        "genotype": genotype,
        "source": source,
    }


def effect(candidate: Candidate, context: ProposalContext) -> dict[str, Any]:
    """What one edit brought, against its first parent; the changes are None when that has no score.

    Scores are compared after equal training, at the highest rung that both have a score of.
    """
    proposal = candidate.proposal
    parent = _first_parent(candidate, context.population)
    gained = slower = None
    tie = False
    rung = -1 if parent is None else min(candidate.rung, parent.rung)
    if parent is not None:
        own, theirs = _score_at(rung, candidate), _score_at(rung, parent)
        if own is not None and theirs is not None:
            gained = _change(own - theirs)
            tie = context.noise is not None and abs(own - theirs) <= context.noise.difference()
    if parent is not None and parent.latency_ms is not None and candidate.latency_ms is not None:
        slower = _change(candidate.latency_ms - parent.latency_ms)
    changes = {context.task.metric: gained, "latency_ms": slower}
    told = [name for name, change in changes.items() if change is not None]
    return {
        "id": candidate.id,
        "arm": quoted(proposal.arm, 40),
        "parents": _parents(candidate),
        "edit": quoted(proposal.edit, 120),
        "score": number(candidate.score),
        "epochs": _epochs(candidate.rung, context.task),
        "score_change": gained,
        "tie": tie,
        "change_epochs": _epochs(rung, context.task),
        "latency_ms": number(candidate.latency_ms),
        "latency_change": slower,
        "feasible": candidate.feasible,
        "nearest": _nearest(candidate),
        "hypothesis": quoted(proposal.hypothesis, 160),
        "expected_effect": _expected(candidate, context.task),
        "lesson": lesson(candidate, told),
    }


def is_change(effect: Mapping[str, Any]) -> bool:
    """Whether an `effect` tells of a change against a parent; those of samples and baselines do not."""
    return effect["score_change"] is not None or effect["latency_change"] is not None


def setback(candidate: Candidate) -> dict[str, Any]:
    """One that ended without a score, and why."""
    what = candidate.summary or candidate.proposal.edit
    return {
        "id": candidate.id,
        "arm": quoted(candidate.proposal.arm, 40),
        "state": candidate.state.value,
        "what": quoted(what, 120),
        "edit": quoted(candidate.proposal.edit, 120),
        "nearest": _nearest(candidate),
        "reason": quoted(candidate.reason, 400),
    }


def tried(candidate: Candidate, times: int, task: Task) -> dict[str, Any]:
    """A candidate as something not to be proposed again.

    Args:
        candidate: the first of its kind.
        times: how often it was proposed in all, as far as we look back.
        task: tells the metric.
    """
    proposal = candidate.proposal
    if candidate.score is not None:
        outcome = f"{task.metric} {number(candidate.score)}"
    else:
        outcome = "not measured yet" if not candidate.state.ended else candidate.state.value
    return {
        "id": candidate.id,
        "from": _parents(candidate),
        "what": quoted(candidate.summary, 120) or quoted(proposal.edit, 120) or quoted(proposal.arm, 40),
        "edit": quoted(proposal.edit, 100),
        "outcome": outcome,
        "times": times,
    }


def change(offer: Offer) -> dict[str, str]:
    """A change that is offered: of which gene, from what, and to what, each with what is known of it."""
    now = quoted(_value(offer.gene.now), 60)
    if offer.to is not None:
        to = _went(offer.to, quoted(_value(offer.to.value), 100))
    else:
        cases = offer.gene.others.get("anyOf", [offer.gene.others])
        to = quoted(" or ".join(map(_kind, cases)), 200)
    return {
        "gene": offer.gene.path,
        "now": _went(offer.now, now) if offer.now.networks else now,
        "to": to,
    }


def _went(went: Went, text: str) -> str:
    """A value with what is known of it."""
    if (other := went.tried) is not None:
        outcome = number(other.score) if other.score is not None else other.state.value
        return f"{text} (tried: {other.id} {outcome})"
    if not went.networks:
        return f"{text} (not tried)"
    known = "outside the limits" if went.median is None else number(went.median)
    return f"{text} ({known} in {went.networks})"


def _value(value: Any) -> str:
    """As it stands in an answer, but for the quotes of words."""
    return value if isinstance(value, str) else json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def _kind(case: Mapping[str, Any]) -> str:
    """What a gene may become where its values are not listed: a kind of object, or a range of numbers."""
    for each in case.get("properties", {}).values():
        if len(each.get("enum", ())) == 1:  # what is always the same names it
            return _value(each["enum"][0])
    if "minimum" in case and "maximum" in case:
        return f"{_value(case['minimum'])} to {_value(case['maximum'])}"
    return "another"


def comment(candidate: Candidate, task: Task) -> dict[str, Any]:
    """What a reviewer said of a candidate when it was let through."""
    return {
        "id": candidate.id,
        "what": quoted(candidate.summary or candidate.proposal.edit, 120),
        "comment": quoted(candidate.comment, 400),
        "outcome": tried(candidate, 1, task)["outcome"],
    }


def lesson(candidate: Candidate, told: Collection[str] = ()) -> dict[str, str] | None:
    """What a candidate taught; None while that is not known, or where there was nothing to learn.

    Args:
        candidate: that has ended.
        told: measures whose change is told beside it: `outcome` says of what was measured only the rest.
    """
    found = candidate.lesson
    if found is None or (found.verdict is Verdict.NO_EVIDENCE and not found.text):
        return None
    return {
        "verdict": found.verdict.value,
        "measured": _at_words(found.measured, 200),
        "outcome": _at_words(_outcome(found.measured, told), 160),
        "text": _at_words(found.text, 400),
    }


def _outcome(measured: str, told: Collection[str]) -> str:
    """Why a verdict is what it is, without the expectation, siblings, and comparisons of those `told`.

    Of the text that is kept, since runs of before have nothing else.
    """
    known = tuple(f"{name} " for name in told)
    parts = (part for part in measured.split("; ") if not part.startswith(("expected: ", "by score ")))
    return "; ".join(part for part in parts if not (part.startswith(known) and " against " in part))


def _at_words(text: str, limit: int) -> str:
    """Foreign text, quoted, and cut between words."""
    whole, short = quoted(text, len(text) + limit), quoted(text, limit)
    return short if short == whole else short[:-1].rsplit(" ", 1)[0].rstrip(" ,;:") + "…"


def genotype_and_source(genotype: Genotype, space: Space) -> tuple[str, str]:
    """A genotype as compact JSON on one line, and the source it holds in a code space, else no source.

    Of a genotype that is nothing but its source, the first is empty.
    """
    if space.kind != "code":
        return genotype_json(genotype), ""
    found: list[str] = []

    def without_source(value: Any) -> Any:
        if isinstance(value, Mapping):
            return {key: without_source(below) for key, below in value.items()}
        if isinstance(value, str) and "\n" in value.strip():
            found.append(value)
            return SOURCE_BELOW
        return value

    rest = without_source(genotype)
    bare = list(rest.values()) == [SOURCE_BELOW]
    return "" if bare else genotype_json(rest), quoted_block("\n\n".join(found), _SOURCE_LIMIT)


def genotype_json(genotype: Genotype) -> str:
    """A genotype as compact JSON on one line."""
    text = json.dumps(genotype, separators=(",", ":"), ensure_ascii=False)
    return quoted(text, _GENOTYPE_LIMIT)


def number(value: float | None) -> float | None:
    """Four digits of it."""
    return None if value is None else float(f"{value:.4g}")


def _parents(candidate: Candidate) -> list[str]:
    return [quoted(parent, 16) for parent in candidate.proposal.parents]


def _expected(candidate: Candidate, task: Task) -> str:
    proposal = candidate.proposal
    if proposal.expectation is not None:
        return proposal.expectation.in_words(task.metric)
    return quoted(proposal.expected_effect, 120)


def _score_at(rung: int, candidate: Candidate) -> float | None:
    """The candidate's score at `rung`; None where it has none."""
    if rung == candidate.rung:
        return candidate.score
    return candidate.rung_scores[rung] if 0 <= rung < len(candidate.rung_scores) else None


def _epochs(rung: int, task: Task) -> int | None:
    """How long a candidate was trained for its score; None without one."""
    return task.rungs[rung].epochs if 0 <= rung < len(task.rungs) else None


def _first_parent(candidate: Candidate, population: PopulationView) -> Candidate | None:
    for parent_id in candidate.proposal.parents:
        try:
            return population.get(parent_id)
        except KeyError:
            continue
    return None


def _nearest(candidate: Candidate) -> str:
    """The earlier candidate that it is most like, where that is news: no parent, nor what it duplicates."""
    nearest = candidate.nearest
    if nearest is None or nearest.similarity < ALIKE or candidate.duplicate_of is not None:
        return ""
    return "" if nearest.id in candidate.proposal.parents else quoted(show_nearest(nearest), 200)


def _change(value: float) -> str:
    return show_number(value, sign=True)


def is_duplicate(candidate: Candidate) -> bool:
    """Whether it ended as the same as an earlier one."""
    return candidate.state is CandidateState.DUPLICATE and candidate.duplicate_of is not None
