"""Which choices of a space are never taken: a rule that no design can keep, or a weight that is too small."""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from cambrian.search_spaces import Genotype
from cambrian.search_spaces.declarative.grammar import KIND, Domain, Grammar, Options, Repeat, Scalar

EXPECTED = 12.0
"""Draws that a value must have been due for before its absence counts: chance alone leaves it out in one case
of e^12, about 160,000."""


@dataclass
class _Seen:
    """How often each value, length or option of one domain was drawn, and where it stands."""

    domain: Domain
    place: str
    counts: Counter[Any] = field(default_factory=Counter)


@dataclass(frozen=True)
class Missing:
    """A value, length or option that no design has though it was due.

    Attributes:
        domain: whose it is.
        place: where that stands, such as `stages[].width`.
        due: designs, or parts of designs, that took another one.
    """

    domain: Domain
    place: str
    value: Any
    due: int

    @property
    def key(self) -> tuple[int, Any]:
        """What `taken` tells it by."""
        return id(self.domain), _key(self.value)

    @property
    def text(self) -> str:
        """The value as a space file writes it."""
        return repr(self.value) if isinstance(self.value, str) else str(self.value)


def missing(grammar: Grammar, designs: Iterable[Genotype]) -> list[Missing]:
    """Values, lengths and options of `grammar` that none of `designs` has though they were due.

    Fields that are folded away say nothing and are not counted; of what lies below an option that is never
    taken, only the option is told.
    """
    seen: dict[int, _Seen] = {}
    for design in designs:
        _look(grammar.start, design, {}, "", seen)
    found = []
    for each in seen.values():
        due = sum(each.counts.values())
        found += [
            Missing(each.domain, each.place or "the start", value, due)
            for value, share in _shares(each.domain)
            if share * due >= EXPECTED and not each.counts[_key(value)]
        ]
    return found


def taken(grammar: Grammar, design: Genotype) -> set[tuple[int, Any]]:
    """The keys of all that `design` takes, as `Missing.key` has them."""
    seen: dict[int, _Seen] = {}
    _look(grammar.start, design, {}, "", seen)
    return {(domain, key) for domain, each in seen.items() for key in each.counts}


def never_drawn(
    grammar: Grammar, designs: Iterable[Genotype], told: Container[tuple[int, Any]] = ()
) -> list[str]:
    """What is `missing` in words, a line for each choice, but for the keys that were `told` elsewhere."""
    lines: dict[int, list[Missing]] = {}
    for each in missing(grammar, designs):
        if each.key not in told:
            lines.setdefault(id(each.domain), []).append(each)
    return [
        f"{first.place}: {'lengths ' if isinstance(first.domain, Repeat) else ''}"
        f"{', '.join(each.text for each in (first, *others))} in none of {first.due} draws"
        for first, *others in lines.values()
    ]


def _look(domain: Domain, value: Any, outer: Mapping[str, Any], place: str, seen: dict[int, _Seen]) -> None:
    """Count what `value` takes of `domain` and of all below it."""
    counts = seen.setdefault(id(domain), _Seen(domain, place)).counts
    if isinstance(domain, Scalar):
        counts[_key(value)] += 1
    elif isinstance(domain, Repeat):
        counts[_key(len(value))] += 1
        for item in value:
            _look(domain.item, item, outer, f"{place}[]", seen)
    elif isinstance(domain, Options):
        counts[_key(value[KIND])] += 1
        _look(domain.cases[value[KIND]], value, outer, _below(place, value[KIND]), seen)
    else:
        scope = {**outer, **value}
        for each in domain.fields:
            if each.when is None or each.when(scope):
                _look(each.domain, value[each.name], scope, _below(place, each.name), seen)


def _below(place: str, name: str) -> str:
    return f"{place}.{name}" if place else name


def _shares(domain: Domain) -> list[tuple[Any, float]]:
    """Values, lengths or options with the share of draws that each is due by its weight."""
    values: Sequence[Any] = ()
    if isinstance(domain, Scalar):
        values = domain.values
    elif isinstance(domain, Repeat):
        values = range(domain.least, domain.most + 1)
    elif isinstance(domain, Options):
        values = list(domain.cases)
    if not values:
        return []
    sums = (0.0, *domain.cumulative) if domain.cumulative else range(len(values) + 1)  # type: ignore[union-attr]
    return [(v, (high - low) / sums[-1]) for v, low, high in zip(values, sums, sums[1:], strict=False)]


def _key(value: Any) -> tuple[type, Any]:
    """`True` and `1` are different values, and so are `1` and `1.0`."""
    return type(value), value
