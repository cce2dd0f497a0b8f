"""Blocks of the shelf `cells`: NAS-Bench-201's operations and skeleton (arXiv:2001.00326).

A cell is a graph of `Zero`, `Identity`, `CellConv` (kernels 1 and 3) and `CellPool`. The skeleton is a 3x3
`ConvNorm` to 16 channels, three stages of five cells with a `CellReduction` to 32 and to 64 channels between
them, then `BatchNorm`, ReLU, `GlobalPool` and a linear classifier. Parameters are exactly the published ones.
So are multiply-accumulates, which the benchmark calls FLOPs and adds the classifier's biases to.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cambrian.search_spaces.declarative.catalogue.arguments import KERNEL, OUT, STRIDE, halved, strided
from cambrian.search_spaces.declarative.catalogue.block import Argument, Block, Planned
from cambrian.search_spaces.declarative.shape import Kind, Shape, image

_Given = Mapping[str, Any]
_MODULE = "cambrian.search_spaces.blocks.cells"
_ANY: tuple[Kind, ...] = ("image", "sequence", "ids", "vector", "nodes")


def _cell_conv(shape: Shape, given: _Given) -> Planned:
    channels, kernel = shape.dims[0], given["kernel"]
    out = given["out"] or channels
    kwargs = {"kernel": kernel}
    height, width = strided(shape, given, kwargs)
    weights = channels * out * kernel**2
    return Planned(
        (channels, out), kwargs, image(out, height, width), weights + 2 * out, weights * height * width
    )


def _cell_reduction(shape: Shape, given: _Given) -> Planned:
    channels, out = shape.dims[0], given["out"]
    height, width = halved(shape)
    weights = 10 * channels * out + 9 * out * out
    return Planned(
        (channels, out), {}, image(out, height, width), weights + 4 * out, weights * height * width
    )


def _same(shape: Shape, given: _Given) -> Planned:
    return Planned((), {}, shape, 0, 0)


BLOCKS: tuple[Block, ...] = (
    Block(
        "CellConv", _MODULE, "convolution", ("image",), "ReLU, convolution without bias, batch norm",
        _cell_conv,
        {
            "kernel": KERNEL, "out": Argument(int, "output channels; 0: as many as arrive", 0, minimum=0),
            "stride": STRIDE,
        },
    ),
    Block(
        "CellPool", _MODULE, "pooling", ("image",), "mean of the 3x3 window around each pixel", _same
    ),
    Block(
        "CellReduction", _MODULE, "convolution", ("image",),
        "halves the map: two of CellConv beside a mean-pooled 1x1 convolution", _cell_reduction, {"out": OUT},
    ),
    Block("Identity", "torch.nn", "other", _ANY, "passes on what arrives", _same),
    Block("Zero", _MODULE, "other", _ANY, "passes on zeros", _same),
)  # fmt: skip
"""Operations of cells; `Identity` and `Zero` take anything."""
