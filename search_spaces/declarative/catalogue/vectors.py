"""Blocks of the shelf `vectors`: layers on the features of vectors, tokens and nodes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from cambrian.search_spaces.declarative.catalogue.block import Argument, Block, Planned
from cambrian.search_spaces.declarative.shape import Kind, Shape, ShapeError, sequence, vector

ACTIVATIONS = (
    "relu",
    "silu",
    "gelu",
    "hardswish",
    "tanh",
    "sigmoid",
    "elu",
    "leaky-relu",
    "relu6",
    "softplus",
    "sine",
    "squared-relu",
    "identity",
)
"""Names that `make_activation` knows."""

NORMS = ("none", "batch", "layer")

FEATURES: tuple[Kind, ...] = ("vector", "sequence", "nodes")
"""Kinds whose features are their last dimension."""

_ANY: tuple[Kind, ...] = ("image", "sequence", "vector", "nodes")
_DENSE = "cambrian.search_spaces.blocks.dense"
_KAN = "cambrian.search_spaces.blocks.kan"

OUT = Argument(int, "output channels", minimum=1)
ACTIVATION = Argument(str, "activation", allowed=ACTIVATIONS)
DROPOUT = Argument(float, "share of the features that are zeroed in training, below 1", 0.0, minimum=0)
_NORM = Argument(str, "norm; batch does not take sequences", "none", allowed=NORMS)
_NAMES = Argument(str, "families of activations joined by +, such as relu+tanh+sine")


def linear_cost(shape: Shape, channels: int, out: int, *, bias: bool = True) -> tuple[int, int]:
    """Parameters and multiply-accumulates of a linear map at every position of `shape`."""
    return channels * out + out * bias, shape.length * channels * out


def checked_rate(rate: float) -> float:
    """`rate`, below 1.

    Raises:
        ShapeError: all would be zeroed.
    """
    if rate >= 1:
        raise ShapeError(f"a dropout of {rate:g} leaves nothing; it must be below 1")
    return rate


def _norm_params(shape: Shape, norm: str, channels: int) -> int:
    if norm == "batch" and shape.kind == "sequence":
        raise ShapeError(f"batch norm over features takes vector or nodes, not {shape}; use layer")
    return 0 if norm == "none" else 2 * channels


def _linear(shape: Shape, given: Mapping[str, Any]) -> Planned:
    out, bias = given["out"], given["bias"]
    params, macs = linear_cost(shape, shape.channels, out, bias=bias)
    return Planned((shape.channels, out), {"bias": bias}, shape.with_channels(out), params, macs)


def _dropout(shape: Shape, given: Mapping[str, Any]) -> Planned:
    return Planned((checked_rate(given["rate"]),), {}, shape, 0, 0)


def _activation(shape: Shape, given: Mapping[str, Any]) -> Planned:
    return Planned((given["name"],), {}, shape, 0, 0)


def _families(shape: Shape, given: Mapping[str, Any]) -> int:
    names = given["names"].split("+")
    for name in names:
        if name not in ACTIVATIONS:
            raise ShapeError(f"{name!r} is no activation; there are: {', '.join(ACTIVATIONS)}")
    if len(names) > shape.channels:
        raise ShapeError(f"{len(names)} families need as many channels, not {shape.channels}")
    return len(names)


def _mixed(shape: Shape, given: Mapping[str, Any]) -> Planned:
    _families(shape, given)
    return Planned((given["names"],), {}, shape, 0, 0)


def _selective(shape: Shape, given: Mapping[str, Any]) -> Planned:
    params = _families(shape, given) * shape.channels
    return Planned((shape.channels,), dict(given), shape, params, 0)


def _norm(shape: Shape, given: Mapping[str, Any]) -> Planned:
    return Planned((shape.channels,), {}, shape, 2 * shape.channels, 0)


def _flatten(shape: Shape, given: Mapping[str, Any]) -> Planned:
    return Planned((), {}, vector(math.prod(shape.dims)), 0, 0)


def _dense(shape: Shape, given: Mapping[str, Any]) -> Planned:
    out = given["out"]
    kwargs = {key: given[key] for key in ("activation", "norm", "dropout")}
    checked_rate(kwargs["dropout"])
    params, macs = linear_cost(shape, shape.channels, out)
    params += _norm_params(shape, kwargs["norm"], out)
    return Planned((shape.channels, out), kwargs, shape.with_channels(out), params, macs)


def _residual(shape: Shape, given: Mapping[str, Any]) -> Planned:
    channels, hidden = shape.channels, given["hidden"]
    checked_rate(given["dropout"])
    widen, narrow = linear_cost(shape, channels, hidden), linear_cost(shape, hidden, channels)
    params = widen[0] + narrow[0] + _norm_params(shape, given["norm"], channels)
    return Planned((channels,), dict(given), shape, params, widen[1] + narrow[1])


def _periodic(shape: Shape, given: Mapping[str, Any]) -> Planned:
    channels, frequencies = shape.channels, given["frequencies"]
    out = shape.with_channels(2 * channels * frequencies)
    return Planned((channels,), dict(given), out, channels * frequencies, 0)


def _tokens(shape: Shape, given: Mapping[str, Any]) -> Planned:
    channels, out = shape.channels, given["out"]
    return Planned((channels, out), {}, sequence(channels, out), 2 * channels * out, 0)


def _kan(shape: Shape, given: Mapping[str, Any]) -> Planned:
    channels, out, grid = shape.channels, given["out"], given["grid"]
    size = {"spline": grid + 3, "rbf": grid + 1, "chebyshev": grid, "fourier": 2 * grid}[given["basis"]]
    base = linear_cost(shape, channels, out)
    curves = linear_cost(shape, channels * size, out, bias=False)
    kwargs = {"basis": given["basis"], "grid": grid}
    return Planned(
        (channels, out), kwargs, shape.with_channels(out), base[0] + curves[0], base[1] + curves[1]
    )


BLOCKS: tuple[Block, ...] = (
    Block(
        "Linear",
        "torch.nn",
        "linear",
        FEATURES,
        "linear map of the features, the same at every position",
        _linear,
        {"out": OUT, "bias": Argument(bool, "whether a constant is added", True)},
    ),
    Block(
        "Dropout",
        "torch.nn",
        "other",
        _ANY,
        "zeroes numbers at random in training",
        _dropout,
        {"rate": Argument(float, "share that is zeroed, below 1", minimum=0)},
    ),
    Block(
        "Activation",
        _DENSE,
        "activation",
        _ANY,
        "one function of every number",
        _activation,
        {"name": ACTIVATION},
    ),
    Block(
        "MixedActivation",
        _DENSE,
        "activation",
        FEATURES,
        "several families of activations, each on its own share of the channels",
        _mixed,
        {"names": _NAMES},
    ),
    Block(
        "SelectiveActivation",
        _DENSE,
        "activation",
        FEATURES,
        "each channel learns its mixture of several families of activations",
        _selective,
        {"names": _NAMES},
    ),
    Block("LayerNorm", "torch.nn", "norm", FEATURES, "layer norm over the features of each position", _norm),
    Block(
        "BatchNorm1d",
        "torch.nn",
        "norm",
        ("vector", "nodes"),
        "batch norm of each feature",
        _norm,
    ),
    Block(
        "Flatten",
        "torch.nn",
        "shape",
        ("image", "sequence", "vector"),
        "all numbers of a sample as one vector",
        _flatten,
    ),
    Block(
        "DenseBlock",
        _DENSE,
        "linear",
        FEATURES,
        "linear map, norm, activation, dropout",
        _dense,
        {"out": OUT, "activation": ACTIVATION, "norm": _NORM, "dropout": DROPOUT},
    ),
    Block(
        "ResidualDense",
        _DENSE,
        "linear",
        FEATURES,
        "pre-norm residual perceptron with one hidden layer; keeps the width",
        _residual,
        {
            "hidden": Argument(int, "width of the hidden layer", minimum=1),
            "activation": ACTIVATION,
            "norm": _NORM,
            "dropout": DROPOUT,
        },
    ),
    Block(
        "PeriodicEmbedding",
        _DENSE,
        "embedding",
        FEATURES,
        "sines and cosines of each feature at learned frequencies: 2 * frequencies channels for each",
        _periodic,
        {
            "frequencies": Argument(int, "learned frequencies of each feature", minimum=1),
            "scale": Argument(
                float, "spread of the frequencies at the start, cycles per unit", 0.1, minimum=0
            ),
        },
    ),
    Block(
        "FeatureTokens",
        _DENSE,
        "embedding",
        ("vector",),
        "each feature of a vector becomes a token of a sequence",
        _tokens,
        {"out": OUT},
    ),
    Block(
        "KANLayer",
        _KAN,
        "linear",
        FEATURES,
        "Kolmogorov-Arnold layer: a learned function on every edge",
        _kan,
        {
            "out": OUT,
            "basis": Argument(
                str,
                "functions that the curves are made of",
                allowed=("spline", "rbf", "chebyshev", "fourier"),
            ),
            "grid": Argument(int, "intervals, degree or highest frequency of the basis", 5, minimum=1),
        },
    ),
)
