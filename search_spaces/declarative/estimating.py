"""How many members a space has, estimated from random derivations."""

from __future__ import annotations

import math
import random
from typing import NamedTuple

from cambrian.search_spaces.declarative.counting import Table, table_of
from cambrian.search_spaces.declarative.definition import Definition
from cambrian.search_spaces.declarative.folding import fold
from cambrian.search_spaces.declarative.magnitude import Magnitude, log2_sum
from cambrian.search_spaces.declarative.membership import copy_of
from cambrian.search_spaces.declarative.rules import problem
from cambrian.search_spaces.declarative.sampling import draw, log2_probability

DOUBT = 20
"""One in this many lower bounds may be wrong."""


class SizeEstimate(NamedTuple):
    """How many members a space has.

    Attributes:
        total: derivations, from `count`.
        exact: of `count`.
        accepted_share: share of the draws that are members.
        uniform: whether the draws were uniform; else they followed the weights, as the sampler does.
        members: `total` times the share of uniform draws, rounded down; None when they were not uniform.
        low: 95 % confidence bound from below; 0 when no draw was a member.
        high: the same from above; `total` where nothing can be drawn uniformly.
    """

    total: Magnitude
    exact: bool
    accepted_share: float
    uniform: bool
    members: Magnitude | None
    low: Magnitude
    high: Magnitude


def estimate(definition: Definition, draws: int, rng: random.Random) -> SizeEstimate:
    """The number of members.

    Where derivations can be drawn uniformly it is their number times the share that are members, with
    Wilson's (1927) interval of the share. In grammars that are too large for that nearly all derivations are
    too large for any use as well. Then, and where no uniform draw is a member, there is only a lower bound:
    draws by weights, each counted as the inverse of its probability, have the number of members for their
    mean, and by Markov's inequality their average is more than 20 times that in no more than 1 of 20 cases
    (Gomes et al. 2007, "From sampling to model counting").
    """
    table = table_of(definition)
    if table.total is None:
        return _lower_bound(definition, table, draws, rng, table.magnitude)
    accepted = 0
    for _ in range(draws):
        genotype = table.draw(rng)
        accepted += genotype is not None and problem(definition, genotype) is None
    low, high = _wilson(accepted, draws)
    if not accepted:
        return _lower_bound(definition, table, draws, rng, Magnitude.of(_times(table.total, high)))
    members, least, most = (
        Magnitude.of(number)
        for number in (
            table.total * accepted // draws, _times(table.total, low), _times(table.total, high),
        )
    )  # fmt: skip
    total = table.magnitude
    return SizeEstimate(total, table.exact, accepted / draws, True, members, least, most)


def _lower_bound(
    definition: Definition, table: Table, draws: int, rng: random.Random, high: Magnitude
) -> SizeEstimate:
    grammar = definition.grammar
    inverses = []
    for _ in range(draws):
        genotype = draw(definition, grammar.start, rng, grammar.max_depth)
        # of the derivations that fold to one member, only the folded one counts
        canonical = fold(definition, copy_of(genotype)) == genotype
        if canonical and problem(definition, genotype) is None:
            inverses.append(-log2_probability(definition, grammar.start, genotype, grammar.max_depth))
    found = log2_sum(inverses) - math.log2(draws) - math.log2(DOUBT)
    # a set of members is at least as large as what was seen of it
    low = Magnitude(found, None) if found > 60 else Magnitude.of(max(int(2.0**found), bool(inverses)))
    return SizeEstimate(table.magnitude, table.exact, len(inverses) / draws, False, None, low, high)


def _wilson(successes: int, n: int, z: float = 1.96) -> tuple[float, float]:
    share = successes / n
    centre = share + z * z / (2 * n)
    spread = z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    low, high = (centre - spread) / (1 + z * z / n), (centre + spread) / (1 + z * z / n)
    return (0.0 if successes == 0 else low), (1.0 if successes == n else high)


def _times(total: int, share: float) -> int:
    # totals exceed the range of floats
    return total * round(share * 10**15) // 10**15
