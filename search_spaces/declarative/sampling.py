"""Random members: what the control arm proposes, and what edits draw from."""

from __future__ import annotations

import math
import random
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable
from itertools import accumulate
from typing import Any

from cambrian.search_spaces.declarative.definition import Definition
from cambrian.search_spaces.declarative.folding import fold
from cambrian.search_spaces.declarative.grammar import KIND, Domain, Options, Record, Repeat, Scalar
from cambrian.search_spaces.declarative.rules import problem
from cambrian.search_spaces.declarative.sites import depths_of
from cambrian.search_spaces.space import Genotype

TRIES = 10_000
"""Draws in a row that may fail before a space is said to be without members."""

Draw = Callable[[Callable[[], float]], Any]
"""Of a generator's `random`: one derivation."""


def sample(definition: Definition, rng: random.Random) -> Genotype:
    """A random member.

    With `sampling: weights` the genes are drawn from the outside in: an option, a length and a value by their
    weights, independently of each other. With `uniform` every distinct derivation is equally likely, so that
    options which contain much are drawn often. In both, a derivation deeper than `max_depth` is never begun:
    options that could not end in time are left out and the weights of the others keep their proportions.

    A draw that breaks a rule, a limit or the typing is thrown away whole and drawn anew, which leaves the
    distribution over the members as it is: proportional to the weights, respectively uniform. Nothing is
    tuned towards networks known to be good: this is the control that other arms are compared with.

    Raises:
        SpaceFileError: no draw of 10,000 was a member; the message has the most common reason.
        UserError: there are too many derivations to draw uniformly.
    """
    draw = drawer(definition)
    reasons: Counter[str] = Counter()
    for _ in range(TRIES):
        genotype = draw(rng)
        if genotype is None:
            reasons["the same derivation written differently"] += 1
            continue
        found = problem(definition, genotype)
        if found is None:
            return genotype
        reasons[f"more {found.limit} than the limit" if found.limit else found.text] += 1
    from cambrian.search_spaces.declarative.loading import SpaceFileError  # it imports our callers

    reason, times = reasons.most_common(1)[0]
    raise SpaceFileError(
        f"space {definition.file.name}: none of {TRIES:,} random designs is valid; {times:,} times: {reason}",
        hint="loosen that rule, or give the options that satisfy it a larger weight",
    )


def drawer(definition: Definition) -> Callable[[random.Random], Genotype | None]:
    """What draws one folded derivation, by the space's own distribution, before rules, limits and typing.

    The draw is None where a uniform one has to be thrown away because it is not in canonical form.
    """
    if definition.file.sampling == "uniform":
        from cambrian.search_spaces.declarative.counting import table_of  # it imports this module

        return table_of(definition).draw
    start = draws_of(definition).of(definition.grammar.start, definition.grammar.max_depth)
    return lambda rng: fold(definition, start(rng.random))


def draw(definition: Definition, domain: Domain, rng: random.Random, left: int) -> Any:
    """A derivation of `domain` by weights, not folded, in which at most `left` rules are nested."""
    return draws_of(definition).of(domain, left)(rng.random)


def log2_probability(definition: Definition, domain: Domain, value: Any, left: int) -> float:
    """Logarithm of the probability with which `draw` gives `value`, a derivation that is not folded."""
    depths = depths_of(definition)
    inside = depths.inside(domain, left)
    if isinstance(domain, Scalar):
        at = next(i for i, v in enumerate(domain.values) if v == value and type(v) is type(value))
        return _log2_share(domain.cumulative, at, len(domain.values))
    if isinstance(domain, Repeat):
        if depths.needs[id(domain.item)] > left:
            return 0.0
        lengths = domain.most - domain.least + 1
        length = _log2_share(domain.cumulative, len(value) - domain.least, lengths)
        return length + sum(log2_probability(definition, domain.item, item, left) for item in value)
    if isinstance(domain, Options):
        fits = [depths.needs[id(case)] <= inside for case in domain.cases.values()]
        at = sum(fits[: list(domain.cases).index(value[KIND])])
        option = _log2_share(_kept_weights(domain.cumulative, fits), at, sum(fits))
        return option + log2_probability(definition, domain.cases[value[KIND]], value, inside)
    return sum(
        log2_probability(definition, field.domain, value[field.name], inside) for field in domain.fields
    )


def _log2_share(cumulative: tuple[float, ...] | None, at: int, n: int) -> float:
    if cumulative is None:
        return -math.log2(n)
    weight = cumulative[at] - (cumulative[at - 1] if at else 0.0)
    return math.log2(weight / cumulative[-1])


def draws_of(definition: Definition) -> _Draws:
    """The definition's closures, made once."""
    cache = definition.cached("sampling")
    if "draws" not in cache:
        cache["draws"] = _Draws(definition)
    found: _Draws = cache["draws"]
    return found


class _Draws:
    """One closure for each domain and the number of rules that may still be nested there."""

    def __init__(self, definition: Definition) -> None:
        self.depths = depths_of(definition)
        self.made: dict[tuple[int, int], Draw] = {}

    def of(self, domain: Domain, left: int) -> Draw:
        """What draws `domain` where `left` rules may be nested, which must be enough for it."""
        key = (id(domain), left)
        if key not in self.made:
            self.made[key] = self.compile(domain, left)
        return self.made[key]

    def compile(self, domain: Domain, left: int) -> Draw:
        if isinstance(domain, Scalar):
            return _pick(domain.values, domain.cumulative)
        if isinstance(domain, Repeat):
            return self.list_(domain, left)
        inside = self.depths.inside(domain, left)
        if isinstance(domain, Options):
            names = list(domain.cases)
            fits = [self.depths.needs[id(case)] <= inside for case in domain.cases.values()]
            kept = [domain.cases[name] for name, fit in zip(names, fits, strict=True) if fit]
            which = _pick(tuple(kept), _kept_weights(domain.cumulative, fits))
            # cases are compiled when first drawn: rules that contain themselves have many depths
            return lambda r: self.of(which(r), inside)(r)
        return self.record(domain, inside)

    def list_(self, domain: Repeat, left: int) -> Draw:
        if self.depths.needs[id(domain.item)] > left:
            return lambda r: []
        lengths = _pick(tuple(range(domain.least, domain.most + 1)), domain.cumulative)
        made: list[Draw] = []

        def draw_list(r: Callable[[], float]) -> Any:
            if not made:
                made.append(self.of(domain.item, left))
            item = made[0]
            return [item(r) for _ in range(lengths(r))]

        return draw_list

    def record(self, domain: Record, left: int) -> Draw:
        fields = [(field.name, self.of(field.domain, left)) for field in domain.fields]
        if domain.kind is None:
            return lambda r: {name: pick(r) for name, pick in fields}
        kind = domain.kind

        def draw_option(r: Callable[[], float]) -> Any:
            made = {KIND: kind}
            for name, pick in fields:
                made[name] = pick(r)
            return made

        return draw_option


def _pick(values: tuple[Any, ...], cumulative: tuple[float, ...] | None) -> Draw:
    # int(random() * n) is several times faster than choice(), and sampling has a rate to keep
    n = len(values)
    if n == 1:
        only = values[0]
        return lambda r: only
    if cumulative is None:
        return lambda r: values[int(r() * n)]
    total = cumulative[-1]
    return lambda r: values[bisect_right(cumulative, r() * total)]


def _kept_weights(cumulative: tuple[float, ...] | None, fits: list[bool]) -> tuple[float, ...] | None:
    """Running sums over the options that fit; None where they are equal, or all zero."""
    if cumulative is None or all(fits):
        return cumulative
    weights = [high - low for low, high in zip((0.0, *cumulative), cumulative, strict=False)]
    kept = tuple(accumulate(weight for weight, fit in zip(weights, fits, strict=True) if fit))
    return kept if kept[-1] > 0 else None
