"""Drafts that guided proposals are chosen from, and which of them the run's limits allow."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass

from cambrian.agents.errors import ProposalError
from cambrian.agents.planner.arm import ProposalContext
from cambrian.agents.planner.evolution import fingerprint
from cambrian.agents.planner.snapshot import Snapshot
from cambrian.agents.population.model import Candidate
from cambrian.search_spaces import Genotype
from cambrian.search_spaces.recipes import recipe_for

POOL = {"mutation": 128, "crossover": 32, "random": 64}
"""Drafts of one pool by how they are made."""
STATIC = frozenset({"params", "flops", "memory_mb"})
"""Limits on what a network's shape decides."""
TRIES = 48
"""Drafts that are held against such limits for one proposal, the best hopes first."""


@dataclass(frozen=True)
class Draft:
    """A member, how it was made, and of whom."""

    genotype: Genotype
    edit: str
    parents: tuple[str, ...] = ()


def within_limits(
    context: ProposalContext, drafts: Sequence[Draft], order: Sequence[int], n: int
) -> list[int]:
    """The first `n` of `order` that keep the limits which a network's shape decides, as admission would see.

    Large networks promise most: without a look at the limits the best hopes would lie beyond them.
    """
    limits = [limit for limit in context.constraints if limit.name in STATIC]
    if not limits or context.space.kind == "code":
        return list(order[:n])
    from cambrian.agents.evaluator.ranking import broken
    from cambrian.sandbox.examination.static import check

    found: list[int] = []
    for at in order[:TRIES]:
        genotype = drafts[at].genotype
        batch = recipe_for(context.space, genotype, context.task.recipe).batch_size
        with contextlib.suppress(ProposalError):
            facts = check(context.space, genotype, context.signature, batch)
            if not broken(limits, facts.limited()):
                found.append(at)
        if len(found) == n:
            break
    return found


def fresh_pool(context: ProposalContext, seen: Snapshot) -> list[Draft]:
    """Members that were not proposed before: edits and crossovers of the best, and random ones."""
    rng, space, parents, known = context.rng, context.space, seen.parents, set(seen.shapes)
    found: list[Draft] = []

    def take(genotype: Genotype, edit: str, *of: Candidate) -> None:
        shape = fingerprint(genotype)
        if shape not in known:
            known.add(shape)
            found.append(Draft(genotype, edit, tuple(c.id for c in of)))

    for _ in range(POOL["mutation"]):
        parent = parents[min(rng.randrange(len(parents)), rng.randrange(len(parents)))]
        child, edit = space.mutate(parent.genotype, rng)
        if rng.random() < 0.3:
            child, further = space.mutate(child, rng)
            edit = f"{edit}; {further}"
        take(child, edit, parent)
    if len(parents) > 1:
        for _ in range(POOL["crossover"]):
            first, second = rng.sample(parents, 2)
            child, edit = space.crossover(first.genotype, second.genotype, rng)
            take(child, edit, first, second)
    for _ in range(POOL["random"]):
        take(space.sample(rng), "random sample, the best of a pool")
    return found
