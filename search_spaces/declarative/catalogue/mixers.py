"""Blocks of the shelf `sequences` that mix positions: kinds of attention, convolution, fixed transforms."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from cambrian.search_spaces.declarative.catalogue.block import Argument, Block, Planned
from cambrian.search_spaces.declarative.catalogue.vectors import linear_cost
from cambrian.search_spaces.declarative.shape import Shape, ShapeError

_MIXER = "cambrian.search_spaces.blocks.mixer"

_HEADS = Argument(int, "heads; must divide the channels", minimum=1)
ODD = Argument(int, "odd size of the window", minimum=1)


def odd(kernel: int) -> int:
    """`kernel`, odd, so that a padded convolution keeps the length.

    Raises:
        ShapeError: it is even.
    """
    if kernel % 2 == 0:
        raise ShapeError(f"the kernel is {kernel}; it must be odd")
    return kernel


def head_size(channels: int, heads: int) -> int:
    """Channels of each of `heads` heads.

    Raises:
        ShapeError: the channels cannot be shared evenly.
    """
    if channels % heads:
        raise ShapeError(f"{heads} heads do not divide {channels} channels")
    return channels // heads


def _attention(shape: Shape, given: Mapping[str, Any]) -> Planned:
    channels, length, heads = shape.channels, shape.length, given["heads"]
    size = given["head_dim"] or head_size(channels, heads)
    inner = heads * size
    inputs, project = linear_cost(shape, channels, 3 * inner), linear_cost(shape, inner, channels)
    params, macs = inputs[0] + project[0], inputs[1] + project[1] + 2 * length * length * inner
    if given["similarity"] == "multiplicative":
        params += inner * size
        macs += length * inner * size
    return Planned((channels,), dict(given), shape, params, macs)


def _projections(shape: Shape) -> tuple[int, int]:
    channels = shape.channels
    inputs, project = linear_cost(shape, channels, 3 * channels), linear_cost(shape, channels, channels)
    return inputs[0] + project[0], inputs[1] + project[1]


def _linear_attention(shape: Shape, given: Mapping[str, Any]) -> Planned:
    size = head_size(shape.channels, given["heads"])
    params, macs = _projections(shape)
    macs += 2 * shape.length * shape.channels * size
    return Planned((shape.channels,), dict(given), shape, params, macs)


def _window_attention(shape: Shape, given: Mapping[str, Any]) -> Planned:
    length, window = shape.length, given["window"]
    head_size(shape.channels, given["heads"])
    params, macs = _projections(shape)
    pairs = length**2 if length <= 3 * window else math.ceil(length / window) * 3 * window**2
    return Planned((shape.channels,), dict(given), shape, params, macs + 2 * pairs * shape.channels)


def _separable(shape: Shape, kernel: int) -> tuple[int, int]:
    channels = shape.channels
    params, macs = linear_cost(shape, channels, channels)
    return params + channels * (kernel + 1), macs + shape.length * channels * kernel


def _sequence_conv(shape: Shape, given: Mapping[str, Any]) -> Planned:
    params, macs = _separable(shape, odd(given["kernel"]))
    return Planned((shape.channels,), dict(given), shape, params, macs)


def _span_conv(shape: Shape, given: Mapping[str, Any]) -> Planned:
    channels, heads, kernel = shape.channels, given["heads"], odd(given["kernel"])
    head_size(channels, heads)
    costs = [
        _separable(shape, kernel),
        linear_cost(shape, channels, 2 * channels),
        linear_cost(shape, channels, heads * kernel),
        linear_cost(shape, channels, channels),
    ]
    params, macs = (sum(parts) for parts in zip(*costs, strict=True))
    return Planned((channels,), dict(given), shape, params, macs)


def _fourier(shape: Shape, given: Mapping[str, Any]) -> Planned:
    return Planned((), dict(given), shape, 0, 0)


MIXERS: tuple[Block, ...] = (
    Block(
        "SelfAttention",
        _MIXER,
        "attention",
        ("sequence",),
        "softmax attention between all positions; cost grows with the square of the length",
        _attention,
        {
            "heads": _HEADS,
            "head_dim": Argument(int, "channels of a head; 0: channels / heads", 0, minimum=0),
            "similarity": Argument(
                str,
                "of query and key; multiplicative learns a matrix",
                "dot",
                allowed=("dot", "multiplicative"),
            ),
            "causal": Argument(bool, "whether positions see none that come later", False),
        },
    ),
    Block(
        "LinearAttention",
        _MIXER,
        "attention",
        ("sequence",),
        "attention by products of features; cost grows with the length",
        _linear_attention,
        {"heads": _HEADS},
    ),
    Block(
        "WindowAttention",
        _MIXER,
        "attention",
        ("sequence",),
        "softmax attention to the neighbours; cost grows with the length",
        _window_attention,
        {"heads": _HEADS, "window": Argument(int, "positions seen on either side", minimum=1)},
    ),
    Block(
        "SequenceConv",
        _MIXER,
        "convolution",
        ("sequence",),
        "depthwise convolution in time, then a linear map of the channels",
        _sequence_conv,
        {"kernel": ODD, "dilation": Argument(int, "steps between the inputs of a window", 1, minimum=1)},
    ),
    Block(
        "SpanConv",
        _MIXER,
        "convolution",
        ("sequence",),
        "convolution in time whose kernels are computed from the input",
        _span_conv,
        {"heads": _HEADS, "kernel": ODD},
    ),
    Block(
        "Fourier",
        _MIXER,
        "other",
        ("sequence",),
        "mixes positions and channels by a fixed transform, without parameters",
        _fourier,
        {"kind": Argument(str, "the transform", "fourier", allowed=("fourier", "cosine"))},
    ),
)
