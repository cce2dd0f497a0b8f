"""Blocks of the shelf `sequences`: embeddings, mixers of positions, convolutions in time, pooling."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from cambrian.search_spaces.declarative.catalogue.block import Argument, Block, Planned
from cambrian.search_spaces.declarative.catalogue.mixers import MIXERS, ODD, odd
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


def _embedding(shape: Shape, given: Mapping[str, Any]) -> Planned:
    vocabulary, out = given["vocabulary"], given["out"]
    return Planned((vocabulary, out), {}, sequence(shape.length, out), vocabulary * out, 0)


def _positions(shape: Shape, given: Mapping[str, Any]) -> Planned:
    params = math.prod(shape.dims) if given["kind"] == "learned" else 0
    return Planned((shape.channels,), {"length": shape.length, "kind": given["kind"]}, shape, params, 0)


def _class_token(shape: Shape, given: Mapping[str, Any]) -> Planned:
    return Planned((shape.channels,), {}, sequence(shape.length + 1, shape.channels), shape.channels, 0)


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
    *MIXERS,
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
            "kernel": ODD,
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
