"""Typed shapes: what flows between blocks, known without torch."""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

from cambrian.search_spaces.errors import ProposalError
from cambrian.search_spaces.space import Signature

Kind = Literal["image", "sequence", "ids", "vector", "nodes"]

AXES: dict[str, tuple[str, ...]] = {
    "image": ("channels", "height", "width"),
    "sequence": ("length", "channels"),
    "ids": ("length",),
    "vector": ("channels",),
    "nodes": ("count", "channels"),
}
"""The dimensions of one sample, in the order that tensors have them after the batch."""


class Shape(NamedTuple):
    """The shape of one sample, without the batch dimension, and what its dimensions mean."""

    kind: Kind
    dims: tuple[int, ...]

    @property
    def channels(self) -> int:
        """Features of a pixel, token, node or vector."""
        return self.dims[0] if self.kind == "image" else self.dims[-1]

    @property
    def height(self) -> int:
        """Rows of an image."""
        return self.dims[1]

    @property
    def width(self) -> int:
        """Columns of an image."""
        return self.dims[2]

    @property
    def length(self) -> int:
        """Positions: tokens of a sequence, pixels of an image, nodes of a graph, 1 for a vector."""
        return math.prod(self.dims) // self.channels if self.kind != "ids" else self.dims[0]

    def with_channels(self, channels: int) -> Shape:
        """The same shape with other features."""
        dims = (channels, *self.dims[1:]) if self.kind == "image" else (*self.dims[:-1], channels)
        return Shape(self.kind, dims)

    def __str__(self) -> str:
        return f"{self.kind} {'x'.join(map(str, self.dims))}"


def image(channels: int, height: int, width: int) -> Shape:
    """Maps of `(n, channels, height, width)`."""
    return Shape("image", (channels, height, width))


def sequence(length: int, channels: int) -> Shape:
    """Tokens of `(n, length, channels)`."""
    return Shape("sequence", (length, channels))


def vector(channels: int) -> Shape:
    """Features of `(n, channels)`."""
    return Shape("vector", (channels,))


def nodes(count: int, channels: int) -> Shape:
    """All nodes of one graph, `(count, channels)`: there is no batch."""
    return Shape("nodes", (count, channels))


def input_of(signature: Signature) -> Shape:
    """What a network of `signature` is given.

    Raises:
        ProposalError: a rank that no kind of input has.
    """
    shape = signature.input_shape
    if signature.graph is not None or signature.vocabulary is not None:
        # node ids are ids too: `on_nodes` turns them into rows
        return Shape("ids", shape or (1,))
    kinds: dict[int, Kind] = {1: "vector", 2: "sequence", 3: "image"}
    if len(shape) not in kinds:
        raise ProposalError(
            f"inputs of shape {shape} are neither vectors, sequences nor images",
            hint="a sample has 1 to 3 dimensions",
        )
    return Shape(kinds[len(shape)], shape)


class ShapeError(ValueError):
    """A block cannot take what arrives; the message says why, the caller knows where."""
