"""Which parts of a plan are drawn over one label: what one part of the genotype builds."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import NamedTuple

from cambrian.search_spaces.declarative.definition import Definition
from cambrian.search_spaces.declarative.labels import label_at
from cambrian.search_spaces.declarative.phrases import leaf_words, wrapper_words
from cambrian.search_spaces.declarative.plan import Composite, Leaf, Node, leaves
from cambrian.search_spaces.declarative.repetition import graph_key, key, runs
from cambrian.search_spaces.declarative.shape import Shape
from cambrian.search_spaces.space import Genotype

_MOST_SPLIT = 14
"""Groups of a genotype's part that builds everything, at most."""


class Group(NamedTuple):
    """What stands over one label: the input, or what one part of the genotype builds.

    Attributes:
        nodes: in sequence.
        heading: bold first line.
        lines: below it.
        times: how often it stands there in a row.
        within: of the wrapper that it lies in, such as `on all 2,708 nodes`; empty for most.
    """

    nodes: tuple[Node, ...]
    heading: str
    lines: tuple[str, ...]
    shape: Shape
    times: int = 1
    within: str = ""

    @property
    def params(self) -> int:
        """Learned numbers of all its repetitions."""
        return self.times * sum(node.params for node in self.nodes)

    @property
    def macs(self) -> int:
        """Multiply-accumulates of all its repetitions."""
        return self.times * sum(node.macs for node in self.nodes)


def groups_of(
    definition: Definition, genotype: Genotype, network: Composite, letters: Mapping[object, str]
) -> list[Group]:
    """The input, then a group for each part of the genotype, in the order of the flow.

    `letters` are, by `graph_key`, what graphs are called in the picture.
    """
    given = network.given
    found = [Group((), "input", (), given)]
    for nodes, within in _top(network):
        level = _level(nodes)
        parts = [
            (gene, tuple(run)) for gene, run in groupby(nodes, key=lambda node: _prefix(node.gene, level))
        ]
        for i, (gene, members) in enumerate(parts):
            if gene == _prefix(network.gene, level):
                found += _own(members, i == 0 and not within, i == len(parts) - 1, within, letters)
            else:
                heading, lines = _names(definition, genotype, gene)
                found.append(Group(members, heading, lines, members[-1].shape, 1, within))
    folded: list[Group] = []
    for group in found:
        last = folded[-1] if folded else None
        same = last is not None and last.heading == group.heading and last.lines == group.lines
        if last is not None and same and _keys(last) == _keys(group):
            folded[-1] = last._replace(times=last.times + 1)
        else:
            folded.append(group)
    return folded


def _keys(group: Group) -> list[object]:
    return [key(node) for node in group.nodes]


def _top(network: Composite) -> list[tuple[list[Node], str]]:
    """The nodes of the outermost sequence; the one wrapper that holds nearly everything is opened."""
    sections: list[tuple[list[Node], str]] = [([], "")]
    for child in network.children:
        opened = isinstance(child, Composite) and child.kind in ("route", "on_nodes")
        if (
            opened
            and isinstance(child, Composite)
            and len(list(leaves(child))) > len(list(leaves(network))) / 2
        ):
            body = child.children[0]
            within = wrapper_words(child)
            inside = (
                list(body.children) if isinstance(body, Composite) and body.kind == "sequential" else [body]
            )
            sections += [(inside, within), ([], "")]
        else:
            sections[-1][0].append(child)
    return [section for section in sections if section[0]]


def _prefix(gene: str, level: int) -> str:
    return ".".join(gene.split(".")[:level])


def _level(nodes: Sequence[Node]) -> int:
    """How deep in the genotype groups are told apart: one part of it that builds everything is opened."""
    for level in range(1, 6):
        genes = [_prefix(node.gene, level) for node in nodes]
        distinct = {gene for gene in genes if gene}
        if len(distinct) > 1:
            return level if len(distinct) <= _MOST_SPLIT else max(1, level - 1)
        if all(node.gene.count(".") < level for node in nodes):
            return level
    return 1


def _own(
    members: tuple[Node, ...], first: bool, last: bool, within: str, letters: Mapping[object, str]
) -> list[Group]:
    """Groups of what the start's layout builds itself: stem, head, and compositions between them."""
    found: list[Group] = []
    cuts: list[tuple[Node, ...]] = []
    for run in runs(members):
        part = members[run.start : run.start + run.period * run.times]
        plain = all(isinstance(node, Leaf) for node in part)
        if plain and cuts and all(isinstance(node, Leaf) for node in cuts[-1]):
            cuts[-1] += part
        else:
            cuts.append(part)
    for i, part in enumerate(cuts):
        plain = all(isinstance(node, Leaf) for node in part)
        if plain:
            ends = (first and i == 0, last and i == len(cuts) - 1)
            words = [leaf_words(leaf) for leaf in leaves(part[0])] if len(part) == 1 else []
            heading = "stem" if ends[0] and not ends[1] else "head" if ends[1] else ""
            heading, lines = (heading, tuple(words)) if heading else (_sequence_words(part), ())
        else:
            kinds = list(dict.fromkeys(_kind_words(node, letters) for node in part))
            heading, lines = ", ".join(kinds[:3]), ()
        found.append(Group(part, heading, lines, part[-1].shape, 1, within))
    return found


def _sequence_words(part: Sequence[Node]) -> str:
    words = list(dict.fromkeys(leaf_words(leaf) for node in part for leaf in leaves(node)))
    return ", ".join(words[:2]) + (" .." if len(words) > 2 else "")


def _kind_words(node: Node, letters: Mapping[object, str]) -> str:
    if isinstance(node, Leaf):
        return leaf_words(node)
    if node.name and node.kind == "sequential":
        return re.sub(r"_?\d+$", "", node.name).replace("_", " ")
    if isinstance(node, Composite) and node.kind == "graph":
        return f"cell {letters[graph_key(node)]}"
    return {"on_nodes": "graph", "sequential": "block"}.get(node.kind, node.kind)


def _names(definition: Definition, genotype: Genotype, gene: str) -> tuple[str, tuple[str, ...]]:
    label = label_at(definition, genotype, gene, 110)
    if gene.endswith("]") and label:
        return label, ()
    name = gene.rpartition(".")[2].replace("_", " ")
    return name, (label,) if label and label != name else ()
