"""Neighbours and children: what the arms without a language model propose."""

from __future__ import annotations

import random
from collections.abc import Mapping

from cambrian.search_spaces.declarative.counting import count
from cambrian.search_spaces.declarative.crossing import crossover
from cambrian.search_spaces.declarative.definition import Definition
from cambrian.search_spaces.declarative.draft import Draft
from cambrian.search_spaces.declarative.folding import fold
from cambrian.search_spaces.declarative.membership import copy_of
from cambrian.search_spaces.declarative.operators import OPERATORS, all_small_edits
from cambrian.search_spaces.declarative.rules import problem
from cambrian.search_spaces.declarative.sampling import sample
from cambrian.search_spaces.declarative.telling import cut
from cambrian.search_spaces.errors import UserError
from cambrian.search_spaces.space import Genotype

__all__ = ["WEIGHTS", "crossover", "mutate", "mutate_by"]

TRIES = 60
"""Random edits that may fail before all small edits are gone through."""
SYSTEMATIC = 2_000
"""Small edits that are gone through at most."""
REDRAWS = 1_000
"""Members drawn before a space is said to have but one."""
_APPLY = {operator.__name__.replace("_", " "): operator for operator, _ in OPERATORS}
WEIGHTS: Mapping[str, float] = {name: weight for name, (_, weight) in zip(_APPLY, OPERATORS, strict=True)}
"""How often each kind of edit is tried, by its name."""


def mutate(definition: Definition, genotype: Genotype, rng: random.Random) -> tuple[Genotype, str]:
    """A member that differs from `genotype` by one typed edit, and that edit in words; see `mutate_by`."""
    return mutate_by(definition, genotype, rng, WEIGHTS)[:2]


def mutate_by(
    definition: Definition, genotype: Genotype, rng: random.Random, weights: Mapping[str, float]
) -> tuple[Genotype, str, str]:
    """A member that differs from `genotype` by one typed edit, that edit in words, and the name of its kind.

    Single values are changed most often, and ordered ones mostly by one step of their table. Edits that break
    a rule, a limit or the typing, or change nothing, are drawn anew. Where 60 in a row fail, all small edits
    are gone through in random order; where none of these is valid, the neighbour is a member drawn anew. Both
    have no kind.

    Args:
        definition: of the space.
        genotype: canonical.
        rng: source of all randomness.
        weights: how often each kind of edit is tried; see `WEIGHTS`.

    Raises:
        UserError: the space has no other member.
        SpaceFileError: no other member was found.
    """
    names, shares = list(_APPLY), [weights[name] for name in _APPLY]
    for _ in range(TRIES):
        name = rng.choices(names, weights=shares)[0]
        draft = Draft(definition, copy_of(genotype), rng)
        words = _APPLY[name](draft)
        if words is not None and _is_new(definition, draft, genotype):
            return draft.genotype, cut(words, 100), name
    edits = list(all_small_edits(Draft(definition, copy_of(genotype), rng)))
    rng.shuffle(edits)
    for edit in edits[:SYSTEMATIC]:
        draft = Draft(definition, copy_of(genotype), rng)
        words = edit(draft)
        if _is_new(definition, draft, genotype):
            return draft.genotype, cut(words, 100), ""
    size = count(definition)
    for _ in range(0 if size.total.value == 1 else REDRAWS):
        child = sample(definition, rng)
        if child != genotype:
            return child, "drawn anew: no small edit is valid", ""
    raise UserError(
        f"space {definition.file.name} has a single member, which has no neighbours",
        hint="give its space file another choice",
    )


def _is_new(definition: Definition, draft: Draft, parent: Genotype) -> bool:
    fold(definition, draft.genotype)
    return draft.genotype != parent and problem(definition, draft.genotype) is None
