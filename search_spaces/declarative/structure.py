"""What a member of a space computes, read from its plan: motifs, and sizes of the part that matters.

The plan is read unit by unit: a unit is a graph, a residual part or a set of branches on the way from the
input to the output. Equal units, such as a cell that is laid fifteen times, are looked at once.
"""

from __future__ import annotations

import math
from collections import Counter
from typing import Any, NamedTuple

from cambrian.search_spaces.declarative.definition import Definition
from cambrian.search_spaces.declarative.features import families
from cambrian.search_spaces.declarative.motifs import Operations, Summary, Terms, chain_motifs
from cambrian.search_spaces.declarative.plan import Composite, Leaf, Node
from cambrian.search_spaces.declarative.planning import block_name, plan
from cambrian.search_spaces.space import Genotype

_KEPT = 20_000
_SAID = frozenset(
    {"kernel", "kernel_size", "stride", "dilation", "heads", "window", "depth", "expansion", "pool"}
)
"""Whole numbers that tell one operation from another; all others are widths, which features tell."""


_Size = tuple[int, int, str]
"""Parameters, multiply-accumulates and family of an operation."""
_NO_SIZE: _Size = (0, 0, "")


class Structure(NamedTuple):
    """What a network computes, whatever is written beside it that its output does not depend on.

    Attributes:
        totals: `live.log_params`, `live.log_macs` (base 10), `live.deepest`, `live.shallowest`, `live.mean`
            (blocks with weights on a path), `live.log_paths`, `live.skips` (paths through units without any
            operation), `live.dead`, and `live.blocks.FAMILY` for each kind of block that the space has.
        motifs: see `motifs`.
    """

    totals: dict[str, float]
    motifs: dict[str, float]


def structure(definition: Definition, genotype: Genotype) -> Structure:
    """The structure of a canonical genotype, for the reference input."""
    network = plan(definition, genotype, definition.file.reference)
    reader = _Reader(definition.cached("structure"))
    reader.spine(network)
    return reader.result(families(definition))


class _Reader:
    """Walks the way from the input to the output and sums up what it meets."""

    def __init__(self, kept: dict[Any, Summary]) -> None:
        if len(kept) > _KEPT:
            kept.clear()
        self.kept = kept
        self.met: dict[int, tuple[Summary, list[_Size]]] = {}
        self.words: list[str] = []
        self.units: Counter[int] = Counter()
        self.by_unit: dict[int, Summary] = {}
        self.params = self.macs = self.skips = 0
        self.blocks: Counter[str] = Counter()
        self.deepest = self.shallowest = self.mean = self.log_paths = 0.0
        self.dead = False

    def result(self, families: tuple[str, ...]) -> Structure:
        motifs = chain_motifs(self.words)
        for number, times in self.units.items():
            for label, count in self.by_unit[number].motifs.items():
                motifs[label] += count * times  # type: ignore[assignment]
        totals = {
            "live.log_params": math.log10(1 + self.params),
            "live.log_macs": math.log10(1 + self.macs),
            "live.deepest": self.deepest,
            "live.shallowest": self.shallowest,
            "live.mean": self.mean,
            "live.log_paths": self.log_paths,
            "live.skips": float(self.skips),
            "live.dead": float(self.dead),
        }
        totals.update({f"live.blocks.{family}": float(self.blocks[family]) for family in families})
        if self.dead:  # nothing before it matters
            return Structure(dict.fromkeys(totals, 0.0) | {"live.dead": 1.0}, {"0|dead": 1.0})
        return Structure(totals, {label: float(count) for label, count in motifs.items()})

    def spine(self, node: Node) -> None:
        """Follow `node`, which everything passes through."""
        if isinstance(node, Leaf):
            if node.block.name == "Zero":
                self.dead = True
            elif node.block.name != "Identity":
                self.words.append(word_of(node))
                self.add(_size(node))
                weighted = float(node.params > 0)
                self.deepest += weighted
                self.shallowest += weighted
                self.mean += weighted
            return
        if node.kind in ("graph", "residual", "parallel"):
            self.unit(node)
            return
        if node.kind == "route":
            self.words.append(node.options["how"])
        for child in node.children:
            self.spine(child)

    def unit(self, node: Composite) -> None:
        found = self.met.get(id(node.children))
        if found is None:
            found = self.met[id(node.children)] = self.read(node)
        summary, sizes = found
        for size in sizes:
            self.add(size)
        self.deepest += summary.deepest
        self.shallowest += summary.shallowest
        self.mean += summary.mean
        self.log_paths += summary.log_paths
        self.skips += summary.skips
        self.dead = self.dead or summary.ends == "dead"
        self.units[id(summary)] += 1
        self.by_unit[id(summary)] = summary
        self.words.append(node.kind + summary.ends)

    def add(self, size: _Size) -> None:
        params, macs, family = size
        self.params += params
        self.macs += macs
        self.blocks[family] += 1

    def read(self, node: Composite) -> tuple[Summary, list[_Size]]:
        """The summary of a unit, and the sizes of its live operations."""
        operations, sizes = Operations(), [_NO_SIZE]
        output = _flow(node, (0,), operations, sizes)
        key = operations.key(output)
        summary = self.kept.get(key)
        if summary is None:
            summary = self.kept[key] = operations.summary(output)
        return summary, [sizes[i] for i in summary.live]


def _flow(node: Node, terms: Terms, found: Operations, sizes: list[_Size]) -> Terms:
    """What leaves `node` when `terms` arrive; its operations go to `found`, their sizes to `sizes`."""
    if isinstance(node, Leaf):
        if node.block.name == "Identity":
            return terms
        if node.block.name == "Zero":
            return ()
        return _add(word_of(node), terms, found, sizes, _size(node))
    if node.kind == "residual":
        inner = _flow(node.children[0], terms, found, sizes)
        if not node.options["add"]:
            return inner
        beside = _flow(node.children[1], terms, found, sizes) if len(node.children) > 1 else terms
        return tuple(sorted(inner + beside))
    if node.kind == "parallel":
        branches = [_flow(child, terms, found, sizes) for child in node.children]
        return _merged(node.options["merge"], branches, found, sizes)
    if node.kind == "graph":
        arriving: dict[int, list[Terms]] = {}
        at = {0: terms}
        # edges are laid node by node, so that what arrives at a source is complete when it is needed
        for (source, target), child in zip(node.options["edges"], node.children, strict=True):
            if source not in at:
                at[source] = _merged(node.options["merge"], arriving[source], found, sizes)
            arriving.setdefault(target, []).append(_flow(child, at[source], found, sizes))
        out = [
            at[n] if n in at else _merged(node.options["merge"], arriving[n], found, sizes)
            for n in node.options["output"]
        ]
        return out[0] if len(out) == 1 else _merged("concat", out, found, sizes)
    if node.kind == "route":
        terms = _add(node.options["how"], terms, found, sizes)
    for child in node.children:
        terms = _flow(child, terms, found, sizes)
    return terms


def _merged(merge: str, arriving: list[Terms], found: Operations, sizes: list[_Size]) -> Terms:
    if len(arriving) == 1:
        return arriving[0]
    if merge == "product" and not all(arriving):
        return ()
    terms = tuple(sorted(term for each in arriving for term in each))
    return terms if merge == "sum" else _add(merge, terms, found, sizes)


def _add(word: str, terms: Terms, found: Operations, sizes: list[_Size], size: _Size = _NO_SIZE) -> Terms:
    added = found.add(word, terms, size[0] > 0)
    if added:
        sizes.append(size)
    return added


def _size(leaf: Leaf) -> _Size:
    return leaf.params, leaf.macs, leaf.block.family


def word_of(leaf: Leaf) -> str:
    """What a block does, whatever its widths: `cell conv kernel 3`, `activation relu`."""
    words = [block_name(leaf.block).replace("_", " ")]
    words += [value for value in (*leaf.args, *leaf.kwargs.values()) if isinstance(value, str)]
    for key, value in leaf.kwargs.items():
        if value is True and key not in ("image", "bias"):
            words.append(key)
        elif key in _SAID and isinstance(value, int) and value > 0:
            words.append(f"{key} {value}")
        elif key == "se" and value:
            words.append("se")
    return " ".join(words)
