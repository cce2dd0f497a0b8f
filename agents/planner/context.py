"""What a template may show the planner: the context of a proposal as plain data, short and harmless.

Texts that came from models, reviewers or candidates are cleaned here, once, whatever a template does with
them: on one line, of bounded length, and without backticks, so that none can close the fenced block which
bounds it as data.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from cambrian.agents.planner.arm import ProposalContext
from cambrian.agents.planner.evolution import Parents
from cambrian.agents.planner.knowledge import knowledge_of
from cambrian.agents.population.model import Candidate, CandidateState
from cambrian.agents.spaces.fit import inputs_in_words
from cambrian.agents.wording import one_line, show_nearest
from cambrian.search_spaces import Genotype, Task
from cambrian.search_spaces.recipes import task_in_words

ELITE = 5
FRONT = 5
EFFECTS = 8
REJECTED = 10
SETBACKS = 8
ALIKE = 0.6
"""From this similarity on it is worth telling which earlier candidate one is most like."""
LOOK_BACK = 64
"""How many of the newest setbacks are looked through for what is worth telling."""
_GENOTYPE_LIMIT = 8000
_SHARES = {"refine": 0.5, "combine": 0.2, "explore": 0.3}


def prompt_variables(context: ProposalContext) -> dict[str, Any]:
    """Everything that the templates `system`, `propose` and `repair` may use, as plain data.

    The result is a function of the context alone, and what changes from moment to moment (the budget that is
    left) is rounded: a resumed run that asks the same thing again finds the answer that is already paid for.
    """
    population, task, space = context.population, context.task, context.space
    front = list(population.front())
    focus = _focus(context)
    # what is to be changed must be seen, however many are better
    asked_for = [population.get(candidate_id) for candidate_id in focus["ids"]]
    best = {c.id: c for c in (*population.elite(ELITE), *_spread(front, FRONT), *asked_for)}
    on_front = {candidate.id for candidate in front}
    # as the run ranks them: scores after different numbers of epochs do not compare
    sign = -1 if task.maximize else 1
    ranked = sorted(best.values(), key=lambda c: (-c.rung, sign * c.reward(c.score or 0.0, task.maximize)))
    setbacks = population.setbacks(LOOK_BACK)
    rejected = [c for c in setbacks if c.state is CandidateState.REJECTED][:REJECTED]
    return {
        "number": context.index + 1,
        "task": {
            "name": task.name,
            "description": task_in_words(task, space),
            "metric": task.metric,
            "maximize": task.maximize,
            "input": inputs_in_words(context.signature),
            "input_shape": list(context.signature.input_shape),
            "n_outputs": context.signature.n_outputs,
        },
        "space": {"name": space.name, "kind": space.kind, "description": space.describe().strip()},
        "knowledge": [note.model_dump() for note in knowledge_of(space)],
        "cost": context.cost,
        "limits": [str(constraint) for constraint in context.constraints],
        "budget_left": round(context.budget_left * 10) * 10,
        "counts": {state: n for state, n in sorted(population.counts().items()) if n},
        "best": [_shown(c, c.id in on_front, task) for c in ranked],
        "examples": _examples(context) if len(best) < 2 else [],
        "effects": [_effect(c, context) for c in population.recent(EFFECTS)],
        "rejected": [_setback(c) for c in rejected],
        "setbacks": [_setback(c) for c in _telling(setbacks)],
        "predictor_view": [quoted(line, 160) for line in context.predictor_view()],
        "notes": [quoted(note, 500) for note in context.notes],
        "focus": focus,
    }


def quoted(text: str, limit: int = 300) -> str:
    """Foreign text on one line, bounded, without control characters and without backticks."""
    return one_line(text.replace("`", "'"), limit)


def genotype_json(genotype: Genotype) -> str:
    """A genotype as compact JSON on one line."""
    text = json.dumps(genotype, separators=(",", ":"), ensure_ascii=False)
    return quoted(text, _GENOTYPE_LIMIT)


def _shown(candidate: Candidate, on_front: bool, task: Task) -> dict[str, Any]:
    proposal = candidate.proposal
    return {
        "id": candidate.id,
        "score": _number(candidate.score),
        "epochs": _epochs(candidate.rung, task),
        "latency_ms": _number(candidate.latency_ms),
        "params": candidate.static.parameters if candidate.static else None,
        "cost": _number(candidate.cost),
        "on_front": on_front,
        "arm": proposal.arm,
        "parents": list(proposal.parents),
        "edit": quoted(proposal.edit, 120),
        "summary": quoted(candidate.summary, 120),
        "nearest": _nearest(candidate),
        "genotype": genotype_json(candidate.genotype),
    }


def _effect(candidate: Candidate, context: ProposalContext) -> dict[str, Any]:
    """What one edit brought, against its first parent; the changes are None when that has no score.

    Scores are compared after equal training, at the highest rung that both have a score of.
    """
    proposal = candidate.proposal
    parent = _parent(candidate, context)
    gained = slower = None
    rung = -1 if parent is None else min(candidate.rung, parent.rung)
    if parent is not None:
        own, theirs = _score_at(rung, candidate), _score_at(rung, parent)
        if own is not None and theirs is not None:
            gained = _change(own - theirs)
    if parent is not None and parent.latency_ms is not None and candidate.latency_ms is not None:
        slower = _change(candidate.latency_ms - parent.latency_ms)
    return {
        "id": candidate.id,
        "arm": proposal.arm,
        "parents": list(proposal.parents),
        "edit": quoted(proposal.edit, 120),
        "score": _number(candidate.score),
        "epochs": _epochs(candidate.rung, context.task),
        "score_change": gained,
        "change_epochs": _epochs(rung, context.task),
        "latency_ms": _number(candidate.latency_ms),
        "latency_change": slower,
        "feasible": candidate.feasible,
        "nearest": _nearest(candidate),
        "hypothesis": quoted(proposal.hypothesis, 160),
        "expected_effect": quoted(proposal.expected_effect, 120),
    }


def _score_at(rung: int, candidate: Candidate) -> float | None:
    """The candidate's score at `rung`; None where it has none."""
    if rung == candidate.rung:
        return candidate.score
    return candidate.rung_scores[rung] if 0 <= rung < len(candidate.rung_scores) else None


def _epochs(rung: int, task: Task) -> int | None:
    """How long a candidate was trained for its score; None without one."""
    return task.rungs[rung].epochs if 0 <= rung < len(task.rungs) else None


def _parent(candidate: Candidate, context: ProposalContext) -> Candidate | None:
    for parent_id in candidate.proposal.parents:
        try:
            return context.population.get(parent_id)
        except KeyError:
            continue
    return None


def _setback(candidate: Candidate) -> dict[str, Any]:
    what = candidate.summary or candidate.proposal.edit
    return {
        "id": candidate.id,
        "arm": candidate.proposal.arm,
        "state": candidate.state.value,
        "what": quoted(what, 120),
        "edit": quoted(candidate.proposal.edit, 120),
        "nearest": _nearest(candidate),
        "reason": quoted(candidate.reason, 400),
    }


def _nearest(candidate: Candidate) -> str:
    """The earlier candidate that it is most like, where that is news: no parent, nor what it duplicates."""
    nearest = candidate.nearest
    if nearest is None or nearest.similarity < ALIKE or candidate.duplicate_of is not None:
        return ""
    return "" if nearest.id in candidate.proposal.parents else quoted(show_nearest(nearest), 200)


def _telling(setbacks: Iterable[Candidate]) -> list[Candidate]:
    """The newest setback of each kind and reason; reviewers' rejections are told apart."""
    found: dict[tuple[str, str], Candidate] = {}
    for candidate in setbacks:
        if candidate.state is CandidateState.REJECTED:
            continue
        # each duplicate has a reason of its own, the others repeat theirs
        found.setdefault((candidate.state.value, candidate.reason), candidate)
    return list(found.values())[:SETBACKS]


def _spread(front: Sequence[Candidate], k: int) -> list[Candidate]:
    """At most `k` members of the front from one end to the other."""
    if len(front) <= k:
        return list(front)
    return [front[round(i * (len(front) - 1) / (k - 1))] for i in range(k)]


def _examples(context: ProposalContext) -> list[dict[str, str]]:
    """Members of the space to show its form while next to nothing is evaluated."""
    known = list(context.space.baselines().items())[:2]
    if not known:
        known = [("a random member", context.space.sample(context.rng))]
    return [{"name": name, "genotype": genotype_json(genotype)} for name, genotype in known]


def _focus(context: ProposalContext) -> dict[str, Any]:
    """What this proposal should attempt, drawn at random: slots that ask at the same time ask differently.

    Exploring gives way to refining as the budget runs out.
    """
    rng = context.rng
    parents = Parents.of(context.population, 0)
    if not parents.everyone:
        return {"kind": "explore", "ids": []}
    shares: Mapping[str, float] = _SHARES | {
        "explore": _SHARES["explore"] * 2 * min(1.0, context.budget_left)
    }
    kind = rng.choices(list(shares), weights=list(shares.values()))[0]
    if kind == "combine" and len(parents.everyone) > 1:
        return {"kind": kind, "ids": [parent.id for parent in parents.select_two(rng)]}
    if kind == "explore":
        return {"kind": kind, "ids": []}
    return {"kind": "refine", "ids": [parents.select(rng).id]}


def _number(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.4g}")


def _change(value: float) -> str:
    return f"{value:+.3g}"
