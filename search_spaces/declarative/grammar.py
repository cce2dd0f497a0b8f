"""A space file's choices, compiled: the domains that genotypes are drawn from, checked by and edited in.

A domain is a `Scalar`, `Repeat`, `Record` or `Options`. References to rules are resolved, so the domains form
a graph, with cycles where rules refer to themselves.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import accumulate
from typing import TYPE_CHECKING, Any

from cambrian.search_spaces.declarative.expression import Expression

if TYPE_CHECKING:
    from cambrian.search_spaces.declarative.layout import Part

NOTHING: Any = object()
"""A field without a default."""
KIND = "kind"
"""The key by which a genotype tells which option was taken."""


@dataclass(eq=False, slots=True)
class Scalar:
    """One value of a finite table.

    Attributes:
        values: in the order of the file; ascending when `ordered`.
        cumulative: running sums of the weights, the last is the total; None when all are equally likely.
        ordered: neighbours in the table are similar, so that edits prefer single steps.
        layout: what a value builds, where one stands in a layout; None when it only is a number or a name.
    """

    values: tuple[bool | int | float | str, ...]
    cumulative: tuple[float, ...] | None = None
    ordered: bool = False
    about: str = ""
    layout: Part | None = None


@dataclass(eq=False, slots=True)
class Repeat:
    """A list of `least` to `most` items; the length has weights as `Scalar` values do."""

    item: Domain
    least: int
    most: int
    cumulative: tuple[float, ...] | None = None
    about: str = ""


@dataclass(eq=False, slots=True)
class Field:
    """A field of a record.

    Attributes:
        default: what a missing field means; `NOTHING` when it must be there.
        when: while false, the field means nothing and is folded to `otherwise`; None means always.
    """

    name: str
    domain: Domain
    about: str = ""
    default: Any = NOTHING
    when: Expression | None = None
    otherwise: Any = None


@dataclass(eq=False, slots=True)
class Require:
    """A rule over several fields."""

    rule: Expression
    message: str


@dataclass(eq=False, slots=True)
class Record:
    """An object with fields.

    Attributes:
        name: of the rule, the option (`rule.option`) or the place of an inline record (`rule.field`).
        kind: name of the option that this is, which is the first entry of its genotype; else None.
        height: nested rules in its shortest derivation, itself included; filled in by the compiler.
        layout: what it builds; None when it only carries values.
        label: template such as `{block} {width}`; None makes one from the values.
    """

    name: str
    kind: str | None = None
    fields: tuple[Field, ...] = ()
    requires: tuple[Require, ...] = ()
    about: str = ""
    label: str | None = None
    height: int = 0
    layout: Part | None = None
    by_name: dict[str, Field] = field(default_factory=dict)


@dataclass(eq=False, slots=True)
class Options:
    """Exactly one of several records; `cumulative` as in `Scalar`, over `cases` in order."""

    name: str
    cases: dict[str, Record] = field(default_factory=dict)
    cumulative: tuple[float, ...] | None = None
    about: str = ""
    height: int = 0


Domain = Scalar | Repeat | Record | Options


@dataclass(eq=False, slots=True)
class Grammar:
    """All rules of a space; the first is the start.

    Attributes:
        recursive: names of the rules that can contain themselves.
        max_depth: rules (named ones; inline records do not count) nested in a genotype, the start included.
    """

    start: Record | Options
    rules: dict[str, Record | Options]
    max_depth: int
    recursive: frozenset[str] = frozenset()


def walk(domain: Domain, seen: set[int] | None = None) -> Iterator[Domain]:
    """`domain` and everything below it, each once, outer before inner."""
    seen = set() if seen is None else seen
    if id(domain) in seen:
        return
    seen.add(id(domain))
    yield domain
    for child in children(domain):
        yield from walk(child, seen)


def children(domain: Domain) -> list[Domain]:
    """The domains directly below `domain`."""
    if isinstance(domain, Repeat):
        return [domain.item]
    if isinstance(domain, Options):
        return list(domain.cases.values())
    return [each.domain for each in domain.fields] if isinstance(domain, Record) else []


def cumulated(weights: tuple[float, ...] | None) -> tuple[float, ...] | None:
    """Running sums, or None where all weights are equal."""
    return None if weights is None or len(set(weights)) == 1 else tuple(accumulate(weights))


def log_integers(low: int, high: int, per_octave: int, multiple_of: int) -> tuple[int, ...]:
    """Whole numbers spaced evenly in the logarithm, both ends included, ascending, without repeats."""
    steps = max(1, round(math.log2(high / low) * per_octave)) if high > low else 0
    raw = [low * (high / low) ** (i / steps) for i in range(steps + 1)] if steps else [low]
    found = {min(high, max(low, multiple_of * round(value / multiple_of))) for value in raw}
    return tuple(sorted(found))


def log_numbers(low: float, high: float, per_decade: int) -> tuple[float, ...]:
    """Reals spaced evenly in the logarithm, rounded to two significant digits, ascending."""
    steps = max(1, round(math.log10(high / low) * per_decade)) if high > low else 0
    raw = [low * (high / low) ** (i / steps) for i in range(steps + 1)] if steps else [low]
    return tuple(sorted({float(f"{value:.2g}") for value in raw}))


def scope_of(genotype: Mapping[str, Any], outer: Mapping[str, Any]) -> dict[str, Any]:
    """What expressions of a record see: its fields over those of the records around it."""
    return {**outer, **genotype}
