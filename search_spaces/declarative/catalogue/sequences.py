"""Blocks of the shelf `sequences`: embeddings, mixers of positions, convolutions in time, pooling."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from cambrian.search_spaces.declarative.catalogue.block import Argument, Block, Planned
from cambrian.search_spaces.declarative.catalogue.vectors import (
    ACTIVATION,
    DROPOUT,
    FEATURES,
    OUT,
    checked_rate,
    linear_cost,
)
from cambrian.search_spaces.declarative.shape import Shape, ShapeError, sequence, vector

_SEQUENCE = "cambrian.search_spaces.blocks.sequence"
_MIXER = "cambrian.search_spaces.blocks.mixer"

_HEADS = Argument(int, "heads; must divide the channels", minimum=1)
_ODD = Argument(int, "odd size of the window", minimum=1)


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


def _embedding(shape: Shape, given: Mapping[str, Any]) -> Planned:
    vocabulary, out = given["vocabulary"], given["out"]
    return Planned((vocabulary, out), {}, sequence(shape.length, out), vocabulary * out, 0)


def _positions(shape: Shape, given: Mapping[str, Any]) -> Planned:
    params = math.prod(shape.dims) if given["kind"] == "learned" else 0
    return Planned((shape.channels,), {"length": shape.length, "kind": given["kind"]}, shape, params, 0)


def _class_token(shape: Shape, given: Mapping[str, Any]) -> Planned:
    return Planned((shape.channels,), {}, sequence(shape.length + 1, shape.channels), shape.channels, 0)


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


def _feed_forward(shape: Shape, given: Mapping[str, Any]) -> Planned:
    channels = shape.channels
    hidden = given["hidden"] or round(given["expansion"] * channels)
    if hidden < 1:
        raise ShapeError(f"an expansion of {given['expansion']:g} leaves {channels} channels no hidden ones")
    checked_rate(given["dropout"])
    costs = [linear_cost(shape, channels, hidden)] * (1 + given["gated"])
    costs += [linear_cost(shape, hidden, hidden)] * (given["depth"] - 1)
    costs.append(linear_cost(shape, hidden, channels))
    params, macs = (sum(parts) for parts in zip(*costs, strict=True))
    kwargs = {"hidden": hidden} | {key: given[key] for key in ("activation", "depth", "gated", "dropout")}
    return Planned((channels,), kwargs, shape, params, macs)


def _conv1d(shape: Shape, given: Mapping[str, Any]) -> Planned:
    channels, out, groups = shape.channels, given["out"], given["groups"]
    if channels % groups or out % groups:
        raise ShapeError(f"{groups} groups do not divide {channels} and {out} channels")
    weights = channels * out * odd(given["kernel"]) // groups
    length = math.ceil(shape.length / given["stride"])
    kwargs = {key: given[key] for key in ("kernel", "activation", "stride", "groups")}
    return Planned((channels, out), kwargs, sequence(length, out), weights + 2 * out, length * weights)


def _temporal(shape: Shape, given: Mapping[str, Any]) -> Planned:
    channels, out, kernel = shape.channels, given["out"], given["kernel"]
    checked_rate(given["dropout"])
    weights = (channels + out) * out * kernel
    shortcut = channels * out if channels != out else 0
    params = weights + 4 * out + (shortcut + out if shortcut else 0)
    kwargs = {key: given[key] for key in ("kernel", "dilation", "activation", "dropout")}
    macs = shape.length * (weights + shortcut)
    return Planned((channels, out), kwargs, shape.with_channels(out), params, macs)


def _downsample(shape: Shape, given: Mapping[str, Any]) -> Planned:
    length = math.ceil(shape.length / given["factor"])
    return Planned((), dict(given), sequence(length, shape.channels), 0, 0)


def _pool(shape: Shape, given: Mapping[str, Any]) -> Planned:
    channels = shape.channels
    learned = given["kind"] == "attention"
    return Planned(
        (channels,), dict(given), vector(channels), channels * learned, shape.length * channels * learned
    )


BLOCKS: tuple[Block, ...] = (
    Block(
        "TokenEmbedding",
        _SEQUENCE,
        "embedding",
        ("ids",),
        "a learned vector for each id",
        _embedding,
        {"out": OUT, "vocabulary": Argument(int, "number of ids, most often =vocabulary", minimum=1)},
    ),
    Block(
        "Positions",
        _SEQUENCE,
        "embedding",
        ("sequence",),
        "adds a vector that depends on the position",
        _positions,
        {"kind": Argument(str, "how positions are told", "learned", allowed=("learned", "sinusoidal"))},
    ),
    Block(
        "ClassToken",
        _SEQUENCE,
        "embedding",
        ("sequence",),
        "puts one learned token first, for SequencePool of kind first",
        _class_token,
    ),
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
        {"kernel": _ODD, "dilation": Argument(int, "steps between the inputs of a window", 1, minimum=1)},
    ),
    Block(
        "SpanConv",
        _MIXER,
        "convolution",
        ("sequence",),
        "convolution in time whose kernels are computed from the input",
        _span_conv,
        {"heads": _HEADS, "kernel": _ODD},
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
    Block(
        "FeedForward",
        _SEQUENCE,
        "linear",
        FEATURES,
        "perceptron on each position; keeps the channels",
        _feed_forward,
        {
            "activation": ACTIVATION,
            "expansion": Argument(float, "hidden channels per channel, where hidden is 0", 4.0, minimum=0),
            "hidden": Argument(int, "hidden channels; 0: by expansion", 0, minimum=0),
            "depth": Argument(int, "hidden layers", 1, minimum=1),
            "gated": Argument(bool, "whether the first hidden layer is multiplied by a linear map", False),
            "dropout": DROPOUT,
        },
    ),
    Block(
        "Conv1dBlock",
        _SEQUENCE,
        "convolution",
        ("sequence",),
        "convolution in time, batch norm, activation; a stride divides the length, rounding up",
        _conv1d,
        {
            "out": OUT,
            "kernel": _ODD,
            "activation": ACTIVATION,
            "stride": Argument(int, "steps between windows", 1, minimum=1),
            "groups": Argument(int, "groups of channels; must divide both widths", 1, minimum=1),
        },
    ),
    Block(
        "TemporalBlock",
        _SEQUENCE,
        "convolution",
        ("sequence",),
        "two causal dilated convolutions beside a shortcut",
        _temporal,
        {
            "out": OUT,
            "kernel": Argument(int, "size of the window", minimum=1),
            "dilation": Argument(int, "steps between the inputs of a window", 1, minimum=1),
            "activation": Argument(str, ACTIVATION.about, "relu", allowed=ACTIVATION.allowed),
            "dropout": DROPOUT,
        },
    ),
    Block(
        "SequenceDownsample",
        _SEQUENCE,
        "pooling",
        ("sequence",),
        "one token from each few neighbours; the length is divided, rounding up",
        _downsample,
        {
            "factor": Argument(int, "neighbours that become one token", 2, minimum=1),
            "kind": Argument(str, "what is taken of them", "mean", allowed=("mean", "max")),
        },
    ),
    Block(
        "SequencePool",
        _SEQUENCE,
        "pooling",
        ("sequence",),
        "a sequence as one vector",
        _pool,
        {
            "kind": Argument(
                str,
                "what is taken of the tokens",
                "mean",
                allowed=("mean", "max", "first", "middle", "last", "attention"),
            )
        },
    ),
)
