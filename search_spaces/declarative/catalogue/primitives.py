"""Blocks of the shelf `primitives`: fundamental operations for grammars (einspace, arXiv:2405.20838)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cambrian.search_spaces.declarative.catalogue.arguments import KERNEL, OUT, STRIDE, strided
from cambrian.search_spaces.declarative.catalogue.block import Argument, Block, Planned
from cambrian.search_spaces.declarative.shape import Kind, Shape, ShapeError, image, sequence

_Given = Mapping[str, Any]
_MODULE = "cambrian.search_spaces.blocks.primitives"
_FEATURES: tuple[Kind, ...] = ("image", "sequence", "vector", "nodes")


def _image(shape: Shape) -> dict[str, Any]:
    """The argument by which a class knows that channels come first."""
    return {"image": True} if shape.kind == "image" else {}


def _pointwise(shape: Shape, given: _Given) -> Planned:
    channels, out = shape.channels, given["out"]
    weights = channels * out
    return Planned(
        (channels, out), _image(shape), shape.with_channels(out), weights + out, weights * shape.length
    )


def _batch_norm(shape: Shape, given: _Given) -> Planned:
    return Planned((shape.channels,), {}, shape, 2 * shape.channels, 0)


def _channel_norm(shape: Shape, given: _Given) -> Planned:
    return Planned((shape.channels,), _image(shape), shape, 2 * shape.channels, 0)


def _softmax(shape: Shape, given: _Given) -> Planned:
    return Planned((), _image(shape), shape, 0, 0)


def _scale(shape: Shape, given: _Given) -> Planned:
    kwargs = {"initial": given["initial"], **_image(shape)}
    return Planned((shape.channels,), kwargs, shape, shape.channels, 0)


def _positional_encoding(shape: Shape, given: _Given) -> Planned:
    return Planned(shape.dims, {}, shape, shape.channels * shape.length, 0)


def _unfold(shape: Shape, given: _Given) -> Planned:
    kwargs = {"kernel": given["kernel"]}
    height, width = strided(shape, given, kwargs)
    return Planned((), kwargs, image(shape.dims[0] * given["kernel"] ** 2, height, width), 0, 0)


def _token_scores(shape: Shape, given: _Given) -> Planned:
    length, channels = shape.dims
    if channels % 2:
        raise ShapeError(f"queries and keys cannot be halves of {channels} channels")
    return Planned((), {}, sequence(length, length), 0, length * length * channels // 2)


def _token_mix(shape: Shape, given: _Given) -> Planned:
    length, channels = shape.dims
    if channels <= length:
        raise ShapeError(f"{channels} channels are no more than the weights of {length} tokens")
    width = channels - length
    return Planned((length,), {}, sequence(length, width), 0, length * length * width)


BLOCKS: tuple[Block, ...] = (
    Block(
        "Pointwise", _MODULE, "linear", _FEATURES, "one linear map of the channels at every position",
        _pointwise, {"out": OUT},
    ),
    Block(
        "BatchNorm", _MODULE, "norm", ("image",), "each channel normalised over the batch and all positions",
        _batch_norm,
    ),
    Block(
        "ChannelNorm", _MODULE, "norm", _FEATURES, "each position normalised over its channels (layer norm)",
        _channel_norm,
    ),
    Block(
        "Softmax", _MODULE, "activation", _FEATURES, "each position's channels as shares that sum to one",
        _softmax,
    ),
    Block(
        "Scale", _MODULE, "other", _FEATURES, "each channel times a learned number", _scale,
        {"initial": Argument(float, "what the numbers start from", 1.0)},
    ),
    Block(
        "PositionalEncoding", _MODULE, "embedding", ("image", "sequence"),
        "adds a learned number for every position and channel", _positional_encoding,
    ),
    Block(
        "Unfold", _MODULE, "shape", ("image",),
        "each pixel gets the window around it as its channels (im2col); Pointwise after it is a convolution",
        _unfold, {"kernel": KERNEL, "stride": STRIDE},
    ),
    Block(
        "TokenScores", _MODULE, "attention", ("sequence",),
        "channels are queries, then keys; each token's channels become its scores of all tokens",
        _token_scores,
    ),
    Block(
        "TokenMix", _MODULE, "attention", ("sequence",),
        "channels are weights of all tokens, then a value; each token becomes the weighted sum of values",
        _token_mix,
    ),
)  # fmt: skip
"""Operations that convolution, attention and MLP-mixers are composed of."""
