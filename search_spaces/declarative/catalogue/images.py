"""Blocks of the shelf `images`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cambrian.search_spaces.declarative.catalogue import convolutions
from cambrian.search_spaces.declarative.catalogue.arguments import (
    ACTIVATION,
    KERNEL,
    OUT,
    STRIDE,
    divides,
    expansion,
    halved,
    strided,
)
from cambrian.search_spaces.declarative.catalogue.block import Argument, Block, Planned
from cambrian.search_spaces.declarative.shape import Shape, ShapeError, image, vector

_Given = Mapping[str, Any]
_BLOCKS = "cambrian.search_spaces.blocks"
KEY_SIDE = 8
"""Keys of attention are averaged to a map of at most this side where a layout does not say."""
HEAD_WIDTH = 16
"""Channels of a head where a layout does not say."""


def _heads(channels: int, heads: int) -> int:
    if heads:
        divides(channels, heads, "heads")
        return heads
    heads = max(1, channels // HEAD_WIDTH)
    while channels % heads:
        heads -= 1
    return heads


def _attention(shape: Shape, given: _Given) -> Planned:
    channels, out, factor = shape.dims[0], given["out"], given["expansion"]
    strides: dict[str, Any] = {}
    height, width = strided(shape, given, strides)
    reduction = 1 if given["window"] else given["reduction"] or -(-max(height, width) // KEY_SIDE)
    kwargs = {
        "heads": _heads(out, given["heads"]), "reduction": reduction, "expansion": factor,
        "activation": given["activation"], **strides,
    }  # fmt: skip
    tokens = queries = height * width
    if given["window"]:
        if given["reduction"] > 1:
            raise ShapeError("AttentionBlock takes a window or a reduction, not both")
        # as even as possible, so that little of the last window in a row is padding
        down, across = -(-height // given["window"]), -(-width // given["window"])
        rows, columns = -(-height // down), -(-width // across)
        kwargs["window"] = (rows, columns)
        sources, keys = tokens, rows * columns
        queries = down * across * keys
    else:
        sources = keys = -(-height // reduction) * -(-width // reduction)
    perceptron = 2 * out * out * factor
    params = 18 * out + 4 * out * out + perceptron + out * factor + out
    macs = tokens * (9 * out + 2 * out * out + perceptron) + 2 * out * (sources * out + queries * keys)
    if channels != out or given["stride"] > 1:
        weights = channels * out * (9 if given["stride"] > 1 else 1)
        params += weights + 2 * out
        macs += weights * tokens
    return Planned((channels, out), kwargs, image(out, height, width), params, macs)


def _patch_embed(shape: Shape, given: _Given) -> Planned:
    channels, height, width = shape.dims
    out, patch, norm = given["out"], given["patch"], given["norm"]
    if patch > max(height, width):
        raise ShapeError(f"the map of {height}x{width} is smaller than one patch of {patch}x{patch}")
    # half of what is missing on either side: the last patch still starts inside of the map
    padding = tuple((-side % patch + 1) // 2 for side in (height, width))
    kwargs = {"patch": patch, **({"padding": padding} if any(padding) else {}), "norm": norm}
    height, width = -(-height // patch), -(-width // patch)
    weights = channels * out * patch**2
    params = weights + {"batch": 2, "layer": 3, "none": 1}[norm] * out
    return Planned((channels, out), kwargs, image(out, height, width), params, weights * height * width)


def _spatial_reduction(shape: Shape, given: _Given) -> Planned:
    channels, out = shape.dims[0], given["out"]
    height, width = halved(shape)
    weights = 10 * channels * out
    return Planned(
        (channels, out), {}, image(out, height, width), weights + 2 * channels + 2 * out,
        weights * height * width,
    )  # fmt: skip


def _pool(shape: Shape, given: _Given) -> Planned:
    kwargs = {"kernel": given["kernel"]}
    height, width = strided(shape, given, kwargs)
    return Planned((given["kind"],), kwargs, image(shape.dims[0], height, width), 0, 0)


def _global_pool(shape: Shape, given: _Given) -> Planned:
    kind = given["kind"]
    return Planned((kind,), {}, vector(shape.dims[0] * (2 if kind == "avgmax" else 1)), 0, 0)


def _grid_pool(shape: Shape, given: _Given) -> Planned:
    channels, height, width = shape.dims
    cells = (min(given["size"], height), min(given["size"], width))
    return Planned(cells, {}, vector(channels * cells[0] * cells[1]), 0, 0)


BLOCKS: tuple[Block, ...] = (
    *convolutions.BLOCKS,
    Block(
        "AttentionBlock", f"{_BLOCKS}.attention", "attention", ("image",),
        "self-attention between pixels and a perceptron, both residual; positions by a depthwise convolution",
        _attention,
        {
            "out": OUT,
            "heads": Argument(int, "heads, a divisor of out; 0: one for every 16 channels", 0, minimum=0),
            "reduction": Argument(
                int, "side of the patches that keys are averaged over; 0: so that at most 8x8 are left", 0,
                minimum=0,
            ),
            "window": Argument(
                int, "greatest side of the windows that attention stays inside of; 0: the whole map", 0,
                minimum=0,
            ),
            "expansion": expansion(4), "activation": ACTIVATION, "stride": STRIDE,
        },
    ),
    Block(
        "PatchEmbed", f"{_BLOCKS}.vision", "embedding", ("image",),
        "patches that don't overlap, each mapped to one pixel: stem of a vision transformer, or downsampling",
        _patch_embed,
        {
            "out": OUT, "patch": Argument(int, "side of a patch", 4, minimum=1),
            "norm": Argument(str, "what follows the map", "batch", allowed=("batch", "layer", "none")),
        },
    ),
    Block(
        "SpatialReduction", f"{_BLOCKS}.vision", "convolution", ("image",),
        "halves the map by a strided convolution beside a pooled shortcut (ViT-ResNAS)", _spatial_reduction,
        {"out": OUT},
    ),
    Block(
        "Pool", f"{_BLOCKS}.pooling", "pooling", ("image",),
        "maximum or mean of the window around each pixel", _pool,
        {"kind": Argument(str, "which", "max", allowed=("max", "avg")), "kernel": KERNEL, "stride": STRIDE},
    ),
    Block(
        "GlobalPool", f"{_BLOCKS}.pooling", "pooling", ("image",),
        "from a map to a vector: each channel's mean, maximum or both", _global_pool,
        {"kind": Argument(str, "which", "avg", allowed=("avg", "max", "avgmax"))},
    ),
    Block(
        "GridPool", f"{_BLOCKS}.pooling", "pooling", ("image",),
        "from a map to a vector: the means of a grid of cells, so that coarse positions survive", _grid_pool,
        {"size": Argument(int, "cells on a side; fewer on a smaller map", 4, minimum=1)},
    ),
)  # fmt: skip
"""Blocks on images, and from images to vectors."""
