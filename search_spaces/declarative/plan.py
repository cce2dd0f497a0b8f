"""A genotype as a plan: the tree of blocks that `build`, `source`, `draw` and `features` all read.

Nothing here imports torch, so shapes, parameters and multiply-accumulates are known without it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal, NamedTuple

from cambrian.search_spaces.declarative.catalogue import Block
from cambrian.search_spaces.declarative.shape import Shape


class Leaf(NamedTuple):
    """One block.

    Attributes:
        name: of its module within its parent's.
        gene: the place in the genotype that it comes from, such as `stages[1]`; empty for the start.
        given: the shape of its input.
        shape: the shape of its output.
        args: positional arguments of its class.
        kwargs: keyword arguments of its class.
        params: learned numbers.
        macs: multiply-accumulates for one sample.
    """

    name: str
    gene: str
    block: Block
    given: Shape
    shape: Shape
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    params: int
    macs: int


CompositeKind = Literal["sequential", "residual", "parallel", "route", "graph", "on_nodes"]


class Composite(NamedTuple):
    """Several nodes and how they are put together.

    Attributes:
        kind: `sequential`: one after the other. `residual`: children are the body and, where shapes differ,
            the projection of the shortcut. `parallel`: branches. `route`, `on_nodes`: one child, the body.
            `graph`: one child an edge.
        options: of the module that does it: `merge` of parallel and graph; `how`, `size` of route; of graph
            also `edges`, a tuple of (source, target) numbers beside `children` (0 is the input, the nodes
            count from 1), and `output`, a tuple of node numbers; of on_nodes `nodes` and `features`.
    """

    name: str
    gene: str
    kind: CompositeKind
    given: Shape
    shape: Shape
    children: tuple[Node, ...]
    options: dict[str, Any]
    params: int
    macs: int


Node = Leaf | Composite


def leaves(node: Node) -> Iterator[Leaf]:
    """All blocks below `node`, in the order in which they were laid out."""
    if isinstance(node, Leaf):
        yield node
    else:
        for child in node.children:
            yield from leaves(child)


def depth(node: Node) -> int:
    """Blocks with weights on the longest path."""
    if isinstance(node, Leaf):
        return int(node.params > 0)
    depths = [depth(child) for child in node.children]
    if node.kind != "graph":
        return sum(depths) if node.kind == "sequential" else max(depths, default=0)
    longest = {0: 0}
    for (source, target), length in zip(node.options["edges"], depths, strict=True):
        longest[target] = max(longest.get(target, 0), longest[source] + length)
    return max(longest[target] for target in node.options["output"])


def composite(
    name: str, gene: str, kind: CompositeKind, given: Shape, shape: Shape, children: list[Node],
    options: dict[str, Any],
) -> Composite:  # fmt: skip
    """A composite whose size is that of its children."""
    params = macs = 0
    for child in children:
        params += child.params
        macs += child.macs
    return Composite(name, gene, kind, given, shape, tuple(children), options, params, macs)


class Sink:
    """The sequence that parts are laid into: its nodes, under names that occur once."""

    __slots__ = ("names", "nodes")

    def __init__(self) -> None:
        self.nodes: list[Node] = []
        self.names: dict[str, int] = {}

    def name(self, wanted: str) -> str:
        """`wanted`, or with a number behind it where that is taken."""
        n = self.names[wanted] = self.names.get(wanted, 0) + 1
        if n == 1:
            return wanted
        # a digit at the end belongs to the gene, so that the counter needs a sign before it
        return f"{wanted}_{n}" if wanted[-1].isdigit() else f"{wanted}{n}"
