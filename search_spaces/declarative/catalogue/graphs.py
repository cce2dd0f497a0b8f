"""Blocks of the shelf `graphs`: message passing between the nodes of the task's graph.

Features arrive as nodes `(count, channels)`, most often inside a layout's `on_nodes`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cambrian.search_spaces.declarative.catalogue.block import Argument, Block, Planned
from cambrian.search_spaces.declarative.catalogue.mixers import head_size
from cambrian.search_spaces.declarative.catalogue.vectors import DROPOUT, OUT, checked_rate, linear_cost
from cambrian.search_spaces.declarative.shape import Kind, Shape, ShapeError

_GRAPH = "cambrian.search_spaces.blocks.graph"
_NODES: tuple[Kind, ...] = ("nodes",)

_EDGES = Argument(int, "directed edges of the graph: =graph.edges", minimum=0)


def _sizes(shape: Shape, given: Mapping[str, Any]) -> dict[str, Any]:
    return {"nodes": shape.dims[0], "edges": given["edges"]}


def _aggregate(shape: Shape, given: Mapping[str, Any]) -> Planned:
    kwargs = _sizes(shape, given) | {key: given[key] for key in ("kind", "self_loops")}
    return Planned((), kwargs, shape, 0, 0)


def _propagate(shape: Shape, given: Mapping[str, Any]) -> Planned:
    if given["teleport"] > 1:
        raise ShapeError(f"the teleport is {given['teleport']:g}; it must be at most 1")
    kwargs = _sizes(shape, given) | {key: given[key] for key in ("steps", "teleport")}
    return Planned((), kwargs, shape, 0, 0)


def _attention(shape: Shape, given: Mapping[str, Any]) -> Planned:
    channels, out, heads, kind = shape.channels, given["out"], given["heads"], given["kind"]
    head_size(out, heads)
    checked_rate(given["dropout"])
    maps = 2 if kind == "gatv2" else 1
    params, macs = linear_cost(shape, channels, maps * out, bias=False)
    # the scores of `gat` have a part for either end, and both have a bias
    params += out * (3 - maps) + out
    kwargs = _sizes(shape, given) | {"heads": heads, "kind": kind, "dropout": given["dropout"]}
    return Planned((channels, out), kwargs, shape.with_channels(out), params, macs)


def _edge_gate(shape: Shape, given: Mapping[str, Any]) -> Planned:
    channels, out = shape.channels, given["out"]
    params, macs = linear_cost(shape, channels, 4 * out, bias=False)
    return Planned((channels, out), _sizes(shape, given), shape.with_channels(out), params + 2 * out, macs)


def _filter(shape: Shape, given: Mapping[str, Any]) -> Planned:
    channels = shape.channels
    params, macs = linear_cost(shape, channels, channels if given["kind"] == "dense" else 1)
    return Planned((channels,), dict(given), shape, params, macs)


def _pair_norm(shape: Shape, given: Mapping[str, Any]) -> Planned:
    return Planned((given["scale"],), {}, shape, 0, 0)


def _graph_norm(shape: Shape, given: Mapping[str, Any]) -> Planned:
    return Planned((shape.channels,), {}, shape, 3 * shape.channels, 0)


BLOCKS: tuple[Block, ...] = (
    Block(
        "Aggregate",
        _GRAPH,
        "graph",
        _NODES,
        "each node becomes a summary of its neighbours; nothing is learned",
        _aggregate,
        {
            "edges": _EDGES,
            "kind": Argument(
                str, "gcn weighs by the degrees of both ends", "gcn", allowed=("gcn", "mean", "sum", "max")
            ),
            "self_loops": Argument(bool, "whether a node counts among its neighbours", True),
        },
    ),
    Block(
        "Propagate",
        _GRAPH,
        "graph",
        _NODES,
        "many aggregations in a row, each pulled back to where it started",
        _propagate,
        {
            "edges": _EDGES,
            "steps": Argument(int, "number of aggregations", 10, minimum=1),
            "teleport": Argument(float, "weight of the start, 0 to 1", 0.1, minimum=0),
        },
    ),
    Block(
        "GraphAttention",
        _GRAPH,
        "graph",
        _NODES,
        "each node attends to its neighbours and itself",
        _attention,
        {
            "edges": _EDGES,
            "out": OUT,
            "heads": Argument(int, "heads; must divide the output channels", minimum=1),
            "kind": Argument(str, "how edges are scored", "gat", allowed=("gat", "gatv2")),
            "dropout": DROPOUT,
        },
    ),
    Block(
        "EdgeGate",
        _GRAPH,
        "graph",
        _NODES,
        "neighbours pass a learned gate of their edge",
        _edge_gate,
        {"edges": _EDGES, "out": OUT},
    ),
    Block(
        "FeatureFilter",
        _GRAPH,
        "graph",
        _NODES,
        "lets a node's features through by a learned gate",
        _filter,
        {"kind": Argument(str, "a gate per channel or per node", "dense", allowed=("dense", "sparse"))},
    ),
    Block(
        "PairNorm",
        _GRAPH,
        "norm",
        _NODES,
        "keeps the mean distance between nodes, against oversmoothing",
        _pair_norm,
        {"scale": Argument(float, "root mean square norm of a node after it", 1.0, minimum=0)},
    ),
    Block("GraphNorm", _GRAPH, "norm", _NODES, "normalises each channel over the nodes", _graph_norm),
)
