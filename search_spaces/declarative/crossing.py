"""Children of two parents."""

from __future__ import annotations

import random
from typing import Any

from cambrian.search_spaces.declarative.definition import Definition
from cambrian.search_spaces.declarative.folding import fold
from cambrian.search_spaces.declarative.grammar import KIND, Domain, Options, Repeat, Scalar
from cambrian.search_spaces.declarative.membership import copied_value, copy_of
from cambrian.search_spaces.declarative.rules import problem
from cambrian.search_spaces.declarative.sites import depths_of, sites_of
from cambrian.search_spaces.declarative.telling import cut, place
from cambrian.search_spaces.space import Genotype

TRIES = 20
"""Joints that may fail before the first parent is returned."""
SUBTREES = 0.7
"""Share of joints that exchange a subtree, where rules contain themselves."""


def crossover(
    definition: Definition, first: Genotype, second: Genotype, rng: random.Random
) -> tuple[Genotype, str]:
    """A child of two parents, and where they were joined.

    Fields come from either parent; of lists the child has the front of the first's and the back of the
    second's, of any length that is allowed; in place of a node of a rule that contains itself stands one of
    the second's of the same rule. After 20 joints that break a rule or make nothing new, the child is
    `first`.
    """
    for _ in range(TRIES):
        made = _exchange(definition, first, second, rng) if rng.random() < SUBTREES else None
        if made is None:
            joint = _Joint(rng)
            child: Genotype = copied_value(joint.of(definition.grammar.start, first, second, ""))
            made = child, joint.words()
        child = fold(definition, made[0])
        if child not in (first, second) and problem(definition, child) is None:
            return child, cut(made[1], 100)
    return copy_of(first), f"the first unchanged: {TRIES} joints of the two gave no new member"


def _exchange(
    definition: Definition, first: Genotype, second: Genotype, rng: random.Random
) -> tuple[Genotype, str] | None:
    """The first with one node replaced by one of the second's; None where no rule contains itself."""
    grammar = definition.grammar
    rules = {id(grammar.rules[name]) for name in grammar.recursive}
    if not rules:
        return None
    child, depths = copy_of(first), depths_of(definition)
    targets = [site for site in sites_of(definition, child) if id(site.domain) in rules and site.path]
    if not targets:
        return None
    target = targets[int(rng.random() * len(targets))]
    sources = [
        site
        for site in sites_of(definition, second)
        if site.domain is target.domain and depths.used(site.domain, site.value) <= target.left
    ]
    if not sources:
        return None
    source = sources[int(rng.random() * len(sources))]
    target.owner[target.key] = copied_value(source.value)
    return (
        child,
        f"{place(target.path, 30)} of the first replaced by {place(source.path, 30) or 'all'} of the second",
    )


class _Joint:
    """One way of joining two derivations, noted down as it goes; the result shares parts with both."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.spliced: list[str] = []
        self.taken: list[str] = []

    def words(self) -> str:
        """Where the parents were joined."""
        taken = [f"from the second: {', '.join(self.taken)}"] if self.taken else []
        return "; ".join([*self.spliced, *taken]) or "all from the first"

    def of(self, domain: Domain, first: Any, second: Any, path: str) -> Any:
        """The joint of two derivations of `domain`."""
        if isinstance(domain, Repeat):
            return self.list_(domain, first, second, path)
        whole = isinstance(domain, Scalar) or (isinstance(domain, Options) and first[KIND] != second[KIND])
        # half of the records come whole, as what lies together often works together
        if whole or (path and self.rng.random() < 0.5):
            return self.either(first, second, path)
        record = domain.cases[first[KIND]] if isinstance(domain, Options) else domain
        assert not isinstance(record, Scalar)
        made = {} if record.kind is None else {KIND: record.kind}
        dot = f"{path}." if path else ""
        for field in record.fields:
            made[field.name] = self.of(field.domain, first[field.name], second[field.name], dot + field.name)
        return made

    def either(self, first: Any, second: Any, path: str) -> Any:
        if self.rng.random() < 0.5:
            return first
        if first != second:
            self.taken.append(place(path) or "all")
        return second

    def list_(self, domain: Repeat, first: list[Any], second: list[Any], path: str) -> list[Any]:
        front = int(self.rng.random() * (len(first) + 1))
        fewest = max(0, front + len(second) - domain.most)
        most = min(len(second), front + len(second) - domain.least)
        if fewest > most:  # front and all of second are still too few
            front, fewest, most = len(first), len(second), len(second)
        back = fewest + int(self.rng.random() * (most - fewest + 1))
        joint = [*first[:front], *second[back:]]
        if joint != first:
            parts = [f"{place(path)}[:{front}] of the first"] if front else []
            parts += [f"{place(path)}[{back}:] of the second"] if back < len(second) else []
            self.spliced.append(" + ".join(parts) or f"{place(path)} empty")
        return joint
