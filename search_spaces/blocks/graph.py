"""Message passing on the one graph that a task is about, in plain torch.

Networks for graphs are given ids of nodes. The graph itself is no input: modules hold its tensors as buffers
that are not saved, created with zeros and filled by `set_context` once the network is on its device. Tensors
of node features are `(count, channels)`. These definitions are also printed into exported networks, so they
may use torch and one another only.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn


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
