"""Numbers that describe a member of a space to a predictor, from its genotype and from its plan."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from typing import Any, get_args

from cambrian.search_spaces.declarative.catalogue import Family
from cambrian.search_spaces.declarative.definition import Definition
from cambrian.search_spaces.declarative.expression import ExpressionError
from cambrian.search_spaces.declarative.grammar import (
    KIND,
    Domain,
    Grammar,
    Options,
    Record,
    Repeat,
    Scalar,
    walk,
)
from cambrian.search_spaces.declarative.layout import BlockPart, ResidualPart, parts_of
from cambrian.search_spaces.declarative.plan import Composite, depth, leaves
from cambrian.search_spaces.declarative.planning import plan
from cambrian.search_spaces.space import Genotype

_POSITIONS = 8
"""Lists at most this long also get features of each position."""
_LEVELS = 4
"""Levels of nesting that are told apart; the last stands for all deeper ones."""
_MOST_COPIES = 24
"""Positions of lists within lists that are told apart, at most."""


def features(definition: Definition, genotype: Genotype) -> dict[str, float]:
    """The same keys for every member; sizes are logarithmic and those of the reference input.

    Genes: `stages.length`; `stages.width.mean` over all items, `stages[0].width` of one position; categories
    as shares, `stages.block=conv`. Genes that a member does not have are 0. Rules that contain themselves are
    counted: how often each option occurs (`module.kind=conv`), and on which level of nesting
    (`module@2.kind=conv`). Then totals of the plan, and the space file's own features.
    """
    cache = definition.cached("features")
    collector: _Collector | None = cache.get("collector")
    if collector is None:
        collector = cache["collector"] = _Collector(definition.grammar)
    found = collector.collect(genotype)
    found.update(_totals(plan(definition, genotype, definition.file.reference), families(definition)))
    for name, expression in definition.feature_hints.items():
        try:
            found[name] = float(expression(genotype))
        except (TypeError, ValueError) as error:
            raise ExpressionError(f"features.{name}: {expression.text!r} is not a number: {error}") from None
    return found


def families(definition: Definition) -> tuple[str, ...]:
    """The kinds of block that the layouts can build, in the order of the catalogue's."""
    cache = definition.cached("features")
    if "families" not in cache:
        cache["families"] = _families(definition.grammar)
    found: tuple[str, ...] = cache["families"]
    return found


def _families(grammar: Grammar) -> tuple[str, ...]:
    found: set[str] = set()
    for domain in walk(grammar.start):
        for part in parts_of(getattr(domain, "layout", None)):
            if isinstance(part, BlockPart):
                found.add(part.block.family)
            elif isinstance(part, ResidualPart) and part.shortcut == "project":
                found.update(("convolution", "linear"))
    known: tuple[str, ...] = get_args(Family)
    return tuple(family for family in known if family in found)


def _totals(network: Composite, families: tuple[str, ...]) -> dict[str, float]:
    activations = 0
    blocks: Counter[str] = Counter()
    params: Counter[str] = Counter()
    channels = []
    positions = [network.given.length] if network.given.kind in ("image", "sequence") else []
    for leaf in leaves(network):
        family, shape = leaf.block.family, leaf.shape
        blocks[family] += 1
        params[family] += leaf.params
        activations += math.prod(shape.dims)
        if shape.kind != "ids":
            channels.append(shape.channels)
        if shape.kind in ("image", "sequence"):
            positions.append(shape.length)
    found = {
        "log_params": math.log10(1 + network.params),
        "log_macs": math.log10(1 + network.macs),
        "log_activations": math.log10(1 + activations),
        "depth": float(depth(network)),
        "blocks": float(sum(blocks.values())),
        "channels.min": float(min(channels[:-1] or channels or [0])),
        "channels.max": float(max(channels or [0])),
        "downsampling": math.log2(max(positions) / min(positions)) if positions else 0.0,
    }
    total = network.params or 1
    for kind in families:
        found[f"blocks.{kind}"] = float(blocks[kind])
        found[f"params.{kind}"] = params[kind] / total
    return found


_Visit = Callable[[Any, list[float], list[int], int], None]
"""Adds what a piece of genotype says to the sums and counts; the number is the level of recursion."""


class _Collector:
    """The genotype's features: what each place adds to which sums is worked out once for the grammar."""

    def __init__(self, grammar: Grammar) -> None:
        self.grammar = grammar
        # a feature is sums[number] / counts[divisor], or the sum itself where there is no divisor
        self.keys: list[tuple[str, int, int | None]] = []
        self.sums = self.counts = 0
        self.deepest = -1
        self.recursive: dict[int, _Visit] = {}
        self.levels: dict[tuple[int, int], int] = {}
        start = grammar.start
        self.visit = self.domain(start, "", False, 1)

    def collect(self, genotype: Genotype) -> dict[str, float]:
        # the level of the deepest recursion is kept behind the sums
        sums, counts = [0.0] * (self.sums + 1), [0] * self.counts
        self.visit(genotype, sums, counts, 0)
        found = {}
        for key, total, divisor in self.keys:
            if divisor is None:
                found[key] = sums[total]
            else:
                found[key] = sums[total] / counts[divisor] if counts[divisor] else 0.0
        if self.recursive:
            found["nesting"] = sums[-1]
        return found

    def sum_slot(self, key: str, divisor: int | None) -> int:
        self.keys.append((key, self.sums, divisor))
        self.sums += 1
        return self.sums - 1

    def count_slot(self) -> int:
        self.counts += 1
        return self.counts - 1

    def domain(self, domain: Domain, path: str, many: bool, copies: int) -> _Visit:
        """The visitor of `domain`, whose features begin with `path`; `many`: several items share them."""
        if isinstance(domain, Scalar):
            return self.scalar(domain, path, many)
        if isinstance(domain, Repeat):
            return self.repeat(domain, path, many, copies)
        if domain.name in self.grammar.recursive:
            return self.rule(domain)
        if isinstance(domain, Options):
            return self.options(domain, path, many, copies)
        return self.record(domain, path, many, copies)

    def scalar(self, domain: Scalar, path: str, many: bool) -> _Visit:
        values = domain.values
        counted = self.count_slot()
        if all(isinstance(value, int | float) for value in values) and (domain.ordered or len(values) == 2):
            slot = self.sum_slot(f"{path}.mean" if many else path, counted)

            def add(value: Any, sums: list[float], counts: list[int], level: int) -> None:
                sums[slot] += value
                counts[counted] += 1

            return add
        # the last of two says nothing that the first does not
        slots = {
            value: self.sum_slot(f"{path}={value}", counted)
            for value in values[: len(values) if len(values) > 2 else 1]
        }

        def choose(value: Any, sums: list[float], counts: list[int], level: int) -> None:
            if value in slots:
                sums[slots[value]] += 1
            counts[counted] += 1

        return choose

    def repeat(self, domain: Repeat, path: str, many: bool, copies: int) -> _Visit:
        counted = self.count_slot()
        length = self.sum_slot(f"{path}.length" + (".mean" if many else ""), counted)
        whole = self.domain(domain.item, path, True, copies)
        places: list[_Visit] = []
        recursive = isinstance(domain.item, Record | Options) and domain.item.name in self.grammar.recursive
        copies *= domain.most
        if (
            domain.most <= _POSITIONS
            and copies <= _MOST_COPIES
            and not recursive
            and (not many or copies > domain.most)
        ):
            places = [self.domain(domain.item, f"{path}[{i}]", False, copies) for i in range(domain.most)]

        def each(value: Any, sums: list[float], counts: list[int], level: int) -> None:
            sums[length] += len(value)
            counts[counted] += 1
            for item in value:
                whole(item, sums, counts, level)
            for place, item in zip(places, value, strict=False):
                place(item, sums, counts, level)

        return each

    def record(self, domain: Record, path: str, many: bool, copies: int) -> _Visit:
        fields = [
            (each.name, self.domain(each.domain, f"{path}.{each.name}".lstrip("."), many, copies))
            for each in domain.fields
        ]

        def visit(value: Any, sums: list[float], counts: list[int], level: int) -> None:
            for name, inner in fields:
                inner(value[name], sums, counts, level)

        return visit

    def options(self, domain: Options, path: str, many: bool, copies: int) -> _Visit:
        counted = self.count_slot()
        prefix = f"{path}." if path else ""
        slots = {name: self.sum_slot(f"{prefix}{KIND}={name}", counted) for name in domain.cases}
        # fields of an option are means over the places where it was taken
        cases: dict[str, _Visit] = {}
        if (
            many or copies == 1
        ):  # of single positions the kind is enough, or there would be hundreds of numbers
            for name, case in domain.cases.items():
                cases[name] = self.record(case, f"{prefix}{name}", many, copies)

        def visit(value: Any, sums: list[float], counts: list[int], level: int) -> None:
            kind = value[KIND]
            sums[slots[kind]] += 1
            counts[counted] += 1
            if cases:
                cases[kind](value, sums, counts, level)

        return visit

    def rule(self, domain: Record | Options) -> _Visit:
        """A rule that contains itself: one visitor for all its places, which counts instead of averaging."""
        known = self.recursive.get(id(domain))
        if known is not None:
            return known
        inner: dict[str, _Visit] = {}
        levels: dict[tuple[int, str], int] = {}
        cases = domain.cases if isinstance(domain, Options) else {"": domain}

        def visit(value: Any, sums: list[float], counts: list[int], level: int) -> None:
            kind = value[KIND] if len(cases) > 1 or "" not in cases else ""
            sums[totals[kind]] += 1
            sums[levels[min(level, deepest), kind]] += 1
            if level + 1 > sums[-1]:
                sums[-1] = level + 1.0
            inner[kind](value, sums, counts, level + 1)

        self.recursive[id(domain)] = visit
        deepest = min(self.grammar.max_depth, _LEVELS) - 1
        words = {kind: f".{KIND}={kind}" if kind else ".nodes" for kind in cases}
        totals = {kind: self.sum_slot(domain.name + word, None) for kind, word in words.items()}
        for level in range(deepest + 1):
            for kind, word in words.items():
                levels[level, kind] = self.sum_slot(f"{domain.name}@{level}{word}", None)
        for kind, case in cases.items():
            inner[kind] = self.record(case, f"{domain.name}.{kind}".rstrip("."), True, _MOST_COPIES)
        return visit
