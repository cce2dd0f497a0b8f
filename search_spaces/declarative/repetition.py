"""Which parts of a plan are equal, so that a drawing shows each once; and which part costs most."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from cambrian.search_spaces.declarative.phrases import leaf_words
from cambrian.search_spaces.declarative.plan import Composite, Leaf, Node, leaves

_KEPT_LEAVES = 6
"""Equal blocks in a row up to which each is drawn."""


class Run(NamedTuple):
    """Children `start` to `start + period` of a sequence, which stand there `times` times in a row."""

    start: int
    period: int
    times: int


def key(node: Node) -> object:
    """Equal for nodes that look and cost the same."""
    if isinstance(node, Leaf):
        kwargs = tuple(sorted((k, str(v)) for k, v in node.kwargs.items()))
        return (node.block.name, node.given, node.shape, node.args, kwargs)
    inner = tuple(key(child) for child in node.children)
    return (node.kind, node.given, node.shape, str(node.options), inner)


def runs(nodes: Sequence[Node]) -> list[Run]:
    """Repetitions in a sequence: what is longer than a few equal blocks is drawn once."""
    keys = [key(node) for node in nodes]
    found: list[Run] = []
    start = 0
    while start < len(nodes):
        best = Run(start, 1, 1)
        for period in range(1, min(8, (len(nodes) - start) // 2) + 1):
            times = 1
            pattern = keys[start : start + period]
            while keys[start + times * period : start + (times + 1) * period] == pattern:
                times += 1
            plain = all(isinstance(node, Leaf) for node in nodes[start : start + period])
            enough = _KEPT_LEAVES / period if plain else 1
            if times > enough and times * period > best.times * best.period:
                best = Run(start, period, times)
        found.append(best)
        start += best.period * best.times
    return found


def dominant(node: Node) -> Leaf | None:
    """The block that most parameters below `node` are in, else most operations, else the first."""
    return max(leaves(node), key=lambda leaf: (leaf.params, leaf.macs), default=None)


def graph_key(node: Composite) -> object:
    """Equal for graphs of the same wiring and operations, whatever their channels."""
    inner = tuple(tuple(leaf_words(leaf) for leaf in leaves(child)) for child in node.children)
    return (node.options["edges"], node.options["output"], node.options["merge"], inner)
