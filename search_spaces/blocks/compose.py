"""How layouts put blocks together: shortcuts, branches, rearrangements and graphs.

These definitions are also printed into exported networks, so they may use torch and one another only.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional


def merge_tensors(tensors: list[Tensor], how: str) -> Tensor:
    """Tensors as one: `sum`, `mean` or `product` of equal shapes, or `concat` over the channels.

    Channels are the second dimension of maps (four dimensions) and the last of everything else.
    """
    if how == "concat":
        return torch.cat(tensors, dim=1 if tensors[0].dim() == 4 else -1) if len(tensors) > 1 else tensors[0]
    out = tensors[0]
    for tensor in tensors[1:]:
        out = out * tensor if how == "product" else out + tensor
    return out / len(tensors) if how == "mean" else out


class Residual(nn.Module):
    """`shortcut(x) + body(x)`; without `add` only the body, where shapes do not agree."""

    def __init__(self, body: nn.Module, shortcut: nn.Module | None = None, *, add: bool = True) -> None:
        super().__init__()
        self.body = body
        self.shortcut = nn.Identity() if shortcut is None else shortcut
        self.add = add

    def forward(self, x: Tensor) -> Tensor:
        """The shape of the body's output."""
        out: Tensor = self.body(x)
        return self.shortcut(x) + out if self.add else out


class Parallel(nn.Module):
    """Branches on one input, merged as `merge_tensors` does."""

    def __init__(self, *branches: nn.Module, merge: str) -> None:
        super().__init__()
        self.branches = nn.ModuleList(branches)
        self.merge = merge

    def forward(self, x: Tensor) -> Tensor:
        """The shape of one branch's output; with `concat`, the channels of all."""
        return merge_tensors([branch(x) for branch in self.branches], self.merge)


class Route(nn.Module):
    """Rearrange, apply the body to the sequence `(n, length, channels)` that results, rearrange back.

    Args:
        body: keeps the length of its sequence, except for `transpose`.
        how: `tokens`: pixels become tokens; `transpose`: length and channels change places; `patches`:
            squares of `size` pixels, or runs of `size` tokens, become tokens (zeros fill up the last ones).
        size: side of a patch.
    """

    def __init__(self, body: nn.Module, *, how: str, size: int = 0) -> None:
        super().__init__()
        self.body = body
        self.how = how
        self.size = size

    def forward(self, x: Tensor) -> Tensor:
        """An image or sequence of the same height, width and length as `x` (`transpose`: see above)."""
        if self.how == "transpose":
            out: Tensor = self.body(x.transpose(1, 2)).transpose(1, 2)
            return out
        if self.how == "tokens":
            tokens = self.body(x.flatten(2).transpose(1, 2))
            return torch.unflatten(tokens.transpose(1, 2), 2, tuple(x.shape[2:]))
        return self._sequence(x) if x.dim() == 3 else self._image(x)

    def _sequence(self, x: Tensor) -> Tensor:
        length, size = x.shape[1], self.size
        padded = functional.pad(x, (0, 0, 0, -length % size))
        tokens = self.body(torch.unflatten(padded, 1, (-1, size)).flatten(2))
        return torch.unflatten(tokens, 2, (size, -1)).flatten(1, 2)[:, :length]

    def _image(self, x: Tensor) -> Tensor:
        height, width, size = x.shape[2], x.shape[3], self.size
        padded = functional.pad(x, (0, -width % size, 0, -height % size))
        tokens = self.body(functional.pixel_unshuffle(padded, size).flatten(2).transpose(1, 2))
        rows = padded.shape[2] // size
        maps = torch.unflatten(tokens.transpose(1, 2), 2, (rows, -1))
        return functional.pixel_shuffle(maps, size)[:, :, :height, :width]


class Graph(nn.Module):
    """A directed acyclic graph of modules: a node is the merge of what its edges bring.

    Args:
        edges: one module an edge.
        ends: source and target of each edge; 0 is the input, nodes count from 1 in topological order.
        output: nodes whose channels are concatenated.
        merge: as in `merge_tensors`.
    """

    def __init__(
        self, *edges: nn.Module, ends: Sequence[tuple[int, int]], output: Sequence[int], merge: str
    ) -> None:
        super().__init__()
        self.edges = nn.ModuleList(edges)
        self.ends = tuple(ends)
        self.output = tuple(output)
        self.merge = merge

    def forward(self, x: Tensor) -> Tensor:
        """What the output nodes hold."""
        found = {0: x}
        for node in range(1, max(target for _, target in self.ends) + 1):
            arriving = [
                edge(found[source])
                for edge, (source, target) in zip(self.edges, self.ends, strict=True)
                if target == node
            ]
            found[node] = merge_tensors(arriving, self.merge)
        return merge_tensors([found[node] for node in self.output], "concat")


def named_sequence(*modules: tuple[str, nn.Module]) -> nn.Sequential:
    """Modules one after the other, under the given names."""
    network = nn.Sequential()
    for name, module in modules:
        network.add_module(name, module)
    return network
