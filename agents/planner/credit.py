"""Credit: who is asked how often, by what was improved for what it cost.

Arms, mutation operators and models compete by one rule: probability matching, as in adaptive operator
selection (Thierens, "An Adaptive Pursuit Strategy for Allocating Operator Probabilities", GECCO 2005). It
differs in this: quality is the mean credit per cost over the whole run instead of the recent past, shrunk to
a prior so that luck at the start decides nothing; shares follow a power of it, for more pursuit than matching
has; and nobody falls below a floor, so that who pays late is found after all.

Credit is `PopulationView.credits`: of each candidate, how far it came into the upper half of those before it.
Cost is `PopulationView.spent`, in evaluations; where a run is limited by its time alone, an evaluation counts
by the seconds that it took, see `Population`.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence

from cambrian.agents.planner.arm import PopulationView

PRIOR = 6.0
"""Evaluations of middling merit that everyone is taken to have made: luck at the start decides nothing."""
MIDDLING = 0.4
"""Credit per evaluation of an arm that nothing is known of."""
GREED = 2.0
"""Power of merit in the shares."""
FLOOR = 0.25
"""Part of its weight that everyone keeps, whatever it has brought."""


def merits(
    spent: Mapping[str, float], credits: Mapping[str, float], middling: float = MIDDLING
) -> dict[str, float]:
    """By how much each one's share is raised or lowered: at least `FLOOR`, 1 for one that is not known yet.

    Args:
        spent: what each used of the common budget, in evaluations.
        credits: what it brought for that, at most 1 an evaluation.
        middling: credit per evaluation that counts as neither good nor bad.
    """
    if not credits:
        return {}
    rates = {
        name: (credits.get(name, 0.0) + PRIOR * middling) / (made + PRIOR) for name, made in spent.items()
    }
    return {name: max(FLOOR, (rate / middling) ** GREED) for name, rate in rates.items()}


def relative_merits(
    spent: Mapping[str, float], credits: Mapping[str, float], names: Sequence[str]
) -> dict[str, float]:
    """Merits among `names` alone: what is middling is what all of them bring together."""
    made = {name: spent.get(name, 0.0) for name in names}
    brought = {name: credits.get(name, 0.0) for name in names}
    middling = (sum(brought.values()) + PRIOR * MIDDLING) / (sum(made.values()) + PRIOR)
    return merits(made, brought, middling)


def choose_model(
    population: PopulationView,
    names: Sequence[str],
    rng: random.Random,
    beside: Mapping[str, float] | None = None,
) -> str:
    """The model that makes the next proposal, drawn by merit; the same for the same population and generator.

    Args:
        population: whose candidates name their model.
        names: who may be asked, at least one.
        rng: not used where there is no choice.
        beside: what each has cost beside its candidates' evaluations, in evaluations.

    Raises:
        ValueError: `names` is empty.
    """
    if not names:
        raise ValueError("there is no model to choose from")
    if len(names) == 1:
        return names[0]
    spent = dict(population.spent("model"))
    for name, cost in (beside or {}).items():
        spent[name] = spent.get(name, 0.0) + cost
    merit = relative_merits(spent, population.credits("model"), names)
    return rng.choices(names, weights=[merit[name] for name in names])[0]


def operator_weights(population: PopulationView, names: Mapping[str, float]) -> dict[str, float]:
    """How often each operator is tried: its usual weight times its merit.

    Args:
        population: whose candidates name their operator.
        names: usual weights by operator.
    """
    merit = relative_merits(population.spent("operator"), population.credits("operator"), list(names))
    return {name: weight * merit[name] for name, weight in names.items()}
