"""Message passing on the one graph that a task is about, in plain torch.

Networks for graphs are given ids of nodes. The graph itself is no input: modules hold its tensors as buffers
that are not saved, created with zeros and filled by `set_context` once the network is on its device. Tensors
of node features are `(count, channels)`. These definitions are also printed into exported networks, so they
may use torch and one another only.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional


def set_context(network: nn.Module, context: Mapping[str, Tensor]) -> None:
    """Give every module of `network` the tensors of the graph that it keeps a buffer for.

    Modules share one copy of each tensor. What a module derives from the graph, such as normalising
    coefficients, is computed again by its `refresh`.

    Args:
        network: on its final device; the tensors follow each buffer's device.
        context: `features`, float32 `(nodes, features)`; `edges`, int64 `(2, edges)`: row 0 has the sources,
            row 1 the targets, both directions of an undirected edge are there and no self-loops are. Names
            that no module asks for are ignored.

    Raises:
        ValueError: a tensor has another shape than the network was built for.
    """
    moved: dict[tuple[str, torch.device, torch.dtype], Tensor] = {}
    for path, module in network.named_modules():
        changed = False
        for name, buffer in list(module.named_buffers(recurse=False)):
            if name not in context:
                continue
            value = context[name]
            if value.shape != buffer.shape:
                raise ValueError(
                    f"{name} has the shape {tuple(value.shape)}, but {path or 'the network'} was built for "
                    f"{tuple(buffer.shape)}"
                )
            key = (name, buffer.device, buffer.dtype)
            if key not in moved:
                moved[key] = value.to(device=buffer.device, dtype=buffer.dtype)
            setattr(module, name, moved[key])
            changed = True
        refresh = getattr(module, "refresh", None)
        if changed and callable(refresh):
            refresh()


class NodeReadout(nn.Module):
    """Features of all nodes through `body`, then the rows of the nodes that are asked for.

    Args:
        body: maps `(nodes, features)` to `(nodes, channels)`.
        nodes: number of nodes of the graph.
        features: numbers that describe a node.
    """

    features: Tensor

    def __init__(self, body: nn.Module, nodes: int, features: int) -> None:
        super().__init__()
        self.body = body
        self.register_buffer("features", torch.zeros(nodes, features), persistent=False)

    def forward(self, ids: Tensor) -> Tensor:
        """Map ids of nodes `(n,)`, or `(n, 1)`, to `(n, channels)`."""
        rows: Tensor = self.body(self.features)[ids.flatten()]
        return rows


class MessagePassing(nn.Module):
    """What blocks that pass messages have in common: the edges, with or without a loop at every node.

    Args:
        nodes: number of nodes.
        edges: number of directed edges.
        self_loops: whether every node is a neighbour of its own.

    Attributes:
        sources: int64, where each message comes from.
        targets: int64, where it goes.
    """

    edges: Tensor
    sources: Tensor
    targets: Tensor

    def __init__(self, *, nodes: int, edges: int, self_loops: bool) -> None:
        super().__init__()
        self.nodes = nodes
        self.self_loops = self_loops
        self.register_buffer("edges", torch.zeros(2, edges, dtype=torch.int64), persistent=False)
        for name in ("sources", "targets"):
            self.register_buffer(name, torch.empty(0, dtype=torch.int64), persistent=False)
        self.refresh()

    def refresh(self) -> None:
        """Compute what follows from the edges, on their device."""
        self.sources, self.targets = self.edges
        if self.self_loops:
            loops = torch.arange(self.nodes, device=self.edges.device)
            self.sources = torch.cat([self.sources, loops])
            self.targets = torch.cat([self.targets, loops])

    def degrees(self) -> Tensor:
        """Messages that each node gets, at least 1, float32 `(nodes, 1)`."""
        ones = torch.ones(len(self.targets), 1, device=self.edges.device)
        return self.collect(ones).clamp(min=1)

    def collect(self, messages: Tensor) -> Tensor:
        """Sum the messages `(edges, ...)` of each node to `(nodes, ...)`."""
        zeros = torch.zeros(self.nodes, *messages.shape[1:], dtype=messages.dtype, device=messages.device)
        return zeros.index_add(0, self.targets, messages)

    def highest(self, messages: Tensor) -> Tensor:
        """The greatest of the messages `(edges, channels)` of each node; 0 where there are none."""
        zeros = torch.zeros(self.nodes, messages.shape[1], dtype=messages.dtype, device=messages.device)
        index = self.targets.unsqueeze(1).expand_as(messages)
        return zeros.scatter_reduce(0, index, messages, "amax", include_self=False)


class Aggregate(MessagePassing):
    """Each node becomes a summary of its neighbours' features; nothing is learned.

    Args:
        kind: `gcn`, a sum weighted by the degrees of both ends, 1 / sqrt(d_i d_j) (arXiv:1609.02907); `mean`,
            `sum` or `max`, which are 0 where there are no neighbours.
        self_loops: whether a node counts among its neighbours.
    """

    weights: Tensor

    def __init__(self, *, nodes: int, edges: int, kind: str, self_loops: bool = True) -> None:
        self.kind = kind  # before the rest, as `refresh` reads it
        super().__init__(nodes=nodes, edges=edges, self_loops=self_loops)

    def refresh(self) -> None:
        """Compute the edges' weights too."""
        super().refresh()
        weights = torch.ones(len(self.targets), 1, device=self.edges.device)
        if self.kind == "gcn":
            # edges run both ways, so that a node sends as many messages as it gets
            root = self.degrees().rsqrt()
            weights = root[self.sources] * root[self.targets]
        elif self.kind == "mean":
            weights = self.degrees().reciprocal()[self.targets]
        self.register_buffer("weights", weights, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """The same shape `(nodes, channels)`."""
        messages = x[self.sources]
        if self.kind == "max":
            return self.highest(messages)
        return self.collect(messages * self.weights)


class Propagate(nn.Module):
    """Many aggregations without layers between them, each pulled back to the start (APPNP, arXiv:1810.05997).

    Depth of propagation is thereby free of the depth of the network.

    Args:
        steps: number of aggregations, of kind `gcn`.
        teleport: weight of the block's input after each step; 0 smooths without end.
    """

    def __init__(self, *, nodes: int, edges: int, steps: int, teleport: float) -> None:
        super().__init__()
        self.aggregate = Aggregate(nodes=nodes, edges=edges, kind="gcn")
        self.steps = steps
        self.teleport = teleport

    def forward(self, x: Tensor) -> Tensor:
        """The same shape `(nodes, channels)`."""
        out = x
        for _ in range(self.steps):
            out = (1 - self.teleport) * self.aggregate(out) + self.teleport * x
        return out


class GraphAttention(MessagePassing):
    """Each node attends to its neighbours and itself (GAT, arXiv:1710.10903; GATv2, arXiv:2105.14491).

    Args:
        heads: of attention; must divide `out_channels`, as heads stand side by side.
        kind: `gat`, the score of an edge is a leaky ReLU of a linear map of both ends; `gatv2`, a linear map
            of a leaky ReLU, so that nodes can differ in how they rank their neighbours.
        dropout: share of the attention weights that are zeroed in training.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        nodes: int,
        edges: int,
        heads: int,
        kind: str = "gat",
        dropout: float = 0.0,
    ) -> None:
        super().__init__(nodes=nodes, edges=edges, self_loops=True)
        size = out_channels // heads
        bound = size**-0.5
        self.heads = heads
        self.value = nn.Linear(in_channels, out_channels, bias=False)
        self.query = nn.Linear(in_channels, out_channels, bias=False) if kind == "gatv2" else None
        scores = 1 if kind == "gatv2" else 2
        self.score = nn.Parameter(torch.empty(scores, heads, size).uniform_(-bound, bound))
        self.dropout = nn.Dropout(dropout)
        self.bias = nn.Parameter(torch.zeros(out_channels))

    def forward(self, x: Tensor) -> Tensor:
        """Map `(nodes, in_channels)` to `(nodes, out_channels)`."""
        value = torch.unflatten(self.value(x), 1, (self.heads, -1))
        if self.query is None:
            sent, got = ((value * score).sum(2) for score in self.score)
            scores = functional.leaky_relu(sent[self.sources] + got[self.targets], 0.2)
        else:
            query = torch.unflatten(self.query(x), 1, (self.heads, -1))
            ends = functional.leaky_relu(value[self.sources] + query[self.targets], 0.2)
            scores = (ends * self.score[0]).sum(2)
        # softmax over the messages of each node; the shift cancels in gradients too, so nothing is detached
        scores = (scores - self.highest(scores)[self.targets]).exp()
        weights = self.dropout(scores / self.collect(scores)[self.targets])
        mixed: Tensor = self.collect(weights.unsqueeze(2) * value[self.sources]).flatten(1)
        return mixed + self.bias


class EdgeGate(MessagePassing):
    """Neighbours pass a gate of their edge: sigmoids of both ends' features (arXiv:1711.07553).

    Output i is U x_i plus the mean of the V x_j of its neighbours, each channel weighted by its gate.
    """

    def __init__(self, in_channels: int, out_channels: int, *, nodes: int, edges: int) -> None:
        super().__init__(nodes=nodes, edges=edges, self_loops=False)
        self.own = nn.Linear(in_channels, out_channels)
        self.value = nn.Linear(in_channels, out_channels, bias=False)
        self.source_gate = nn.Linear(in_channels, out_channels, bias=False)
        self.target_gate = nn.Linear(in_channels, out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """Map `(nodes, in_channels)` to `(nodes, out_channels)`."""
        gates = torch.sigmoid(self.source_gate(x)[self.sources] + self.target_gate(x)[self.targets])
        heard = self.collect(gates * self.value(x)[self.sources])
        out: Tensor = self.own(x) + heard / (self.collect(gates) + 1e-6)
        return out


class FeatureFilter(nn.Module):
    """Lets each node's features through by a learned gate: feature filtering (GNAS, arXiv:2103.14282).

    Args:
        kind: `dense`, a gate for every channel; `sparse`, one for the whole node.
    """

    def __init__(self, channels: int, *, kind: str) -> None:
        super().__init__()
        self.gate = nn.Linear(channels, channels if kind == "dense" else 1)

    def forward(self, x: Tensor) -> Tensor:
        """The same shape `(nodes, channels)`."""
        return x * torch.sigmoid(self.gate(x))


class PairNorm(nn.Module):
    """Keeps the mean distance between nodes, against oversmoothing (arXiv:1909.12223).

    Args:
        scale: root of the mean squared norm of a node after it.
    """

    def __init__(self, scale: float = 1.0) -> None:
        super().__init__()
        self.scale = scale

    def forward(self, x: Tensor) -> Tensor:
        """The same shape `(nodes, channels)`."""
        x = x - x.mean(0, keepdim=True)
        return self.scale * x / (x.square().sum(1).mean() + 1e-6).sqrt()


class GraphNorm(nn.Module):
    """Normalises each channel over the nodes; learns how much of the mean to take off (arXiv:2009.03294)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.share = nn.Parameter(torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        """The same shape `(nodes, channels)`."""
        x = x - self.share * x.mean(0, keepdim=True)
        spread = x.square().mean(0, keepdim=True)
        return self.weight * x * (spread + 1e-5).rsqrt() + self.bias
