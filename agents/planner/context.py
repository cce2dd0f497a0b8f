"""What a template may show the planner: the context of a proposal as plain data, short and harmless.

It is built, not dumped: of a population of thousands those are shown that a next proposal can learn from, so
that the size of a prompt does not depend on the population's. All lists begin with what matters most, because
a budget of tokens cuts their ends (`budgeting`). Texts that came from models, reviewers, notes or candidates
are quoted once, here and in `showing`, whatever a template does with them; see `quoting`.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, get_args

from cambrian.agents.evaluator.noise import NoiseFloor
from cambrian.agents.planner.arm import PopulationView, ProposalContext
from cambrian.agents.planner.changes import genes
from cambrian.agents.planner.credit import relative_merits
from cambrian.agents.planner.evidence import Offer, offers, was_made
from cambrian.agents.planner.evolution import Parents
from cambrian.agents.planner.knowledge import retrieve
from cambrian.agents.planner.quoting import quoted
from cambrian.agents.planner.showing import (
    change,
    comment,
    effect,
    genotype_and_source,
    genotype_json,
    is_change,
    is_duplicate,
    number,
    setback,
    shown,
    tried,
)
from cambrian.agents.population.archive import diverse
from cambrian.agents.population.model import BASELINE_ARM, FACTORIAL_ARM, Author, Candidate, CandidateState
from cambrian.agents.spaces.fit import inputs_in_words
from cambrian.agents.wording import show_number
from cambrian.search_spaces import Task
from cambrian.search_spaces.recipes import task_in_words

__all__ = ["genotype_json", "prompt_variables", "quoted"]

ELITE = 5
FRONT = 5
DIVERSE = 3
EFFECTS = 8
REJECTED = 10
SETBACKS = 8
COMMENTS = 6
AVOID = 12
OPERATORS = 6
LOOK_BACK = 64
"""How many of the newest setbacks, and of the newest scores, are looked through for what is worth telling."""
LEAST_TRIED = 2.0
"""Evaluations from which on it is told what an author brought."""
_OFFERED = {"refine": 4, "combine": 3, "explore": 5}
"""Changes of a parent that a model may choose from. Few: small models take any that stands there, and what
they are worth falls with their place (in situations of `make bench NAME=history` 0.93 of all cells are worse
than what the first change makes, 0.87 than the fourth makes, 0.77 than the eighth)."""
_SHARES = {"refine": 0.5, "combine": 0.2, "explore": 0.3}


def prompt_variables(context: ProposalContext, n: int = 1, by_changes: bool = False) -> dict[str, Any]:
    """Everything that the templates `system`, `propose` and `repair` may use, as plain data.

    The result is a function of the context alone, and what changes from moment to moment (the budget that is
    left) is rounded: a resumed run that asks the same thing again finds the answer that is already paid for.

    Args:
        context: of the proposals; its generator is drawn from.
        n: how many proposals are asked for.
        by_changes: one is asked for as changes of a parent, where the space has genes and there is a parent.
    """
    population, task, space = context.population, context.task, context.space
    front = list(population.front())
    by_changes = by_changes and n == 1 and space.kind != "code"
    focuses = _focuses(context, n, from_parents=by_changes)
    changes = offers_of(context, focuses[0]) if by_changes and focuses[0]["ids"] else []
    # what is to be changed must be seen, however many are better
    asked_for = [population.get(cid) for focus in focuses for cid in focus["ids"]]
    best = {c.id: c for c in (*population.elite(ELITE), *_spread(front, FRONT), *asked_for)}
    on_front = {candidate.id for candidate in front}
    # as the run ranks them: scores after different numbers of epochs do not compare
    sign = -1 if task.maximize else 1
    ranked = sorted(best.values(), key=lambda c: (-c.rung, sign * c.reward(c.score or 0.0, task.maximize)))
    others = diverse(population, DIVERSE, set(best), space)
    setbacks = population.setbacks(LOOK_BACK)
    rejected = [c for c in setbacks if c.state is CandidateState.REJECTED][:REJECTED]
    telling = _telling(setbacks)
    edited = [each for c in population.recent(LOOK_BACK) if is_change(each := effect(c, context))][:EFFECTS]
    above = {*best, *(c.id for c in (*others, *rejected, *telling)), *(each["id"] for each in edited)}
    return {
        "number": context.index + 1,
        "batch": n,
        "task": {
            "name": task.name,
            "description": task_in_words(task, space),
            "metric": task.metric,
            "maximize": task.maximize,
            "input": inputs_in_words(context.signature),
            "input_shape": list(context.signature.input_shape),
            "n_outputs": context.signature.n_outputs,
        },
        "noise": noise_in_words(context.noise, task),
        "space": {"name": space.name, "kind": space.kind, "description": space.describe().strip()},
        "knowledge": [p.model_dump() for p in retrieve(space, _query(context, asked_for, telling))],
        "cost": context.cost,
        "limits": [str(constraint) for constraint in context.constraints],
        "budget_left": round(context.budget_left * 10) * 10,
        "counts": {state: n for state, n in sorted(population.counts().items()) if n},
        "best": [shown(c, context, c.id in on_front) for c in ranked],
        "diverse": [shown(c, context, c.id in on_front) for c in others],
        "examples": _examples(context) if len(best) < 2 else [],
        "effects": edited,
        "avoid": _avoid(context, focuses, setbacks, above),
        "paid": _paid(context),
        "rejected": [setback(c) for c in rejected],
        "comments": _comments(context),
        "setbacks": [setback(c) for c in telling],
        "predictor_view": [quoted(line, 160) for line in context.predictor_view()],
        "notes": [quoted(note, 500) for note in context.notes()],
        "focus": focuses[0],
        "focuses": focuses,
        "reference": reference(population) or "",
        "answer": "changes" if changes else "genotype",
        "changes": [change(each) for each in changes],
        # one at a time teaches most, and two that go well alone go worse together than either, on the average
        "most_changes": 2 if changes and all(was_made(offer) for offer in changes) else 1,
    }


def reference(population: PopulationView) -> str | None:
    """The id of the network that one without parents is compared with: the best so far; None without any."""
    return next((best.id for best in population.elite(1)), None)


def offers_of(context: ProposalContext, focus: Mapping[str, Any]) -> list[Offer]:
    """The changes that are offered to a proposal with `focus`, the most promising first."""
    parents = [context.population.get(cid) for cid in focus["ids"]]
    found = genes(context.space, parents[0].genotype)
    kind = focus["kind"]
    explore = kind == "explore"
    return offers(context.population, found, parents, _OFFERED[kind], context.task.maximize, explore)


def noise_in_words(noise: NoiseFloor | None, task: Task) -> dict[str, Any] | None:
    """What is a tie, as a number and in words; None where nothing is known of the noise."""
    if noise is None or noise.difference() <= 0:
        return None
    tie = noise.difference()
    size = f"{tie:.2g}"  # as scores are shown: not in per cent
    why = (
        "two trainings of one network with different seeds differ by as much"
        if noise.std is not None
        else "the finite validation sample alone makes as much, and seeds add to it"
    )
    return {"score": f"differences in {task.metric} of up to {size} are ties: {why}", "tie": number(tie)}


def _telling(setbacks: Iterable[Candidate]) -> list[Candidate]:
    """The newest setback of each kind and reason; rejections and duplicates are told apart."""
    found: dict[tuple[str, str], Candidate] = {}
    for candidate in setbacks:
        if candidate.state is not CandidateState.REJECTED and not is_duplicate(candidate):
            found.setdefault((candidate.state.value, candidate.reason), candidate)
    return list(found.values())[:SETBACKS]


def _avoid(
    context: ProposalContext,
    focuses: Sequence[Mapping[str, Any]],
    setbacks: Sequence[Candidate],
    above: Collection[str],
) -> list[dict[str, Any]]:
    """What not to propose again: what was made of the same parents before, and what keeps coming back.

    Of those `above`, which the question shows already, only what keeps coming back: that is not said there.
    """
    population = context.population
    again = Counter(c.duplicate_of for c in setbacks if c.duplicate_of is not None and is_duplicate(c))
    parents = {cid for focus in focuses for cid in focus["ids"]}
    near: dict[str, tuple[float, int]] = {}
    for candidate in population.known() if parents else ():
        made_of = set(candidate.proposal.parents[:2])
        nearest = candidate.nearest
        if candidate.id in parents or candidate.id in above or is_duplicate(candidate):
            continue
        if (made_of and made_of <= parents) or candidate.proposal.parents[:1] == tuple(parents):
            near[candidate.id] = (1.0, candidate.index)
        elif nearest is not None and nearest.id in parents:
            near[candidate.id] = (nearest.similarity, candidate.index)
    # half of the room for each, and all of it where the other has little to say
    closest = sorted(near, key=lambda cid: near[cid], reverse=True)
    repeated = [cid for cid, _ in again.most_common() if cid not in near]
    kept = max(AVOID // 2, AVOID - len(repeated))
    ids = [*closest[:kept], *repeated][:AVOID]
    return [tried(population.get(cid), 1 + again[cid], context.task) for cid in ids]


def _paid(context: ProposalContext) -> list[str]:
    """What operators, ideas and arms brought for what they cost, the best of each kind first."""
    lines = []
    for by in ("idea", "operator", "arm"):
        assert by in get_args(Author)
        spent, credits = context.population.spent(by), context.population.credits(by)
        rates = {
            name: credits.get(name, 0.0) / made
            for name, made in spent.items()
            if made >= LEAST_TRIED and name not in {BASELINE_ARM, FACTORIAL_ARM}
        }
        if len(rates) < 2:
            continue  # one alone cannot be compared
        for name in sorted(rates, key=lambda name: (-rates[name], name))[:OPERATORS]:
            lines.append(f"{by} {quoted(name, 60)}: {rates[name]:.2f} ({show_number(spent[name])} spent)")
    return lines


def _comments(context: ProposalContext) -> list[dict[str, Any]]:
    """What reviewers said of those they let through, newest first."""
    said = [c for c in context.population.known() if c.comment]
    return [comment(c, context.task) for c in sorted(said, key=lambda c: -c.index)[:COMMENTS]]


def _query(context: ProposalContext, parents: Sequence[Candidate], setbacks: Sequence[Candidate]) -> str:
    """What the notes are searched for: the parents' genes first, then the task, limits and failures."""
    words = [context.task.name, context.task.describe(), *map(str, context.constraints)]
    for parent in parents:
        words += [parent.summary, parent.proposal.edit, genotype_json(parent.genotype)]
    words += [f"{c.summary} {c.proposal.edit} {c.reason[:200]}" for c in setbacks[:3]]
    return "\n".join(words)


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
    found = []
    for name, member in known:
        genotype, source = genotype_and_source(member, context.space)
        found.append({"name": quoted(name, 60), "genotype": genotype, "source": source})
    return found


def _focuses(context: ProposalContext, n: int, from_parents: bool = False) -> list[dict[str, Any]]:
    """What each proposal should attempt; no two the same where there is a choice.

    Args:
        context: of the proposals.
        n: how many.
        from_parents: exploring starts from a parent, too.
    """
    parents = Parents.of(context.population, 0, context.space if from_parents else None)
    found: list[dict[str, Any]] = []
    for _ in range(max(1, n)):
        for _ in range(4):
            focus = _focus(context, parents, from_parents)
            if focus not in found:
                break
        found.append(focus)
    return found


def _focus(context: ProposalContext, parents: Parents, from_parents: bool = False) -> dict[str, Any]:
    """What a proposal should attempt, drawn at random: slots that ask at the same time ask differently.

    Exploring gives way to refining as the budget runs out, and each idea to those that brought more.
    """
    rng = context.rng
    if not parents.everyone:
        return {"kind": "explore", "ids": []}
    shares: Mapping[str, float] = _SHARES | {
        "explore": _SHARES["explore"] * 2 * min(1.0, context.budget_left)
    }
    merit = relative_merits(
        context.population.spent("idea"), context.population.credits("idea"), list(shares)
    )
    kind = rng.choices(list(shares), weights=[share * merit[name] for name, share in shares.items()])[0]
    if kind == "combine" and len(parents.everyone) > 1:
        return {"kind": kind, "ids": [parent.id for parent in parents.select_two(rng)]}
    if kind == "explore":
        if not from_parents:
            return {"kind": kind, "ids": []}
        # the best of its kind and cost, and as likely as any other: who is unlike the rest leads elsewhere
        kinds = parents.cells or parents.everyone
        return {"kind": kind, "ids": [rng.choice(kinds[: math.ceil(len(kinds) / 2)]).id]}
    return {"kind": "refine", "ids": [parents.select(rng).id]}
