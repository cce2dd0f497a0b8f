"""Convolutional blocks of the shelf `images`: their plans, exact and without torch.

Spaces plan thousands of these a second, hence sums written out rather than layers put together.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cambrian.search_spaces.declarative.catalogue.arguments import (
    ACTIVATION,
    KERNEL,
    OUT,
    SE,
    STRIDE,
    divides,
    expansion,
    gate,
    gate_width,
    halved,
    strided,
)
from cambrian.search_spaces.declarative.catalogue.block import Argument, Block, Planned
from cambrian.search_spaces.declarative.shape import Shape, ShapeError

_Given = Mapping[str, Any]
_MODULE = "cambrian.search_spaces.blocks.convolution"
_VISION = "cambrian.search_spaces.blocks.vision"


def _conv_norm(shape: Shape, given: _Given) -> Planned:
    channels, out, groups = shape.dims[0], given["out"], given["groups"]
    divides(channels, groups, "groups")
    divides(out, groups, "groups")
    kwargs = {"kernel": given["kernel"]}
    height, width = strided(shape, given, kwargs)
    if groups > 1:
        kwargs["groups"] = groups
    weights = channels // groups * out * given["kernel"] ** 2
    return Planned(
        (channels, out), kwargs, Shape("image", (out, height, width)), weights + 2 * out,
        weights * height * width,
    )  # fmt: skip


def _squeeze_excite(shape: Shape, given: _Given) -> Planned:
    channels = shape.dims[0]
    hidden = gate_width(channels, given["ratio"])
    if not hidden:
        raise ShapeError("SqueezeExcite.ratio must be above 0")
    weights = 2 * channels * hidden
    return Planned((channels, hidden), {}, shape, weights + hidden + channels, weights)


def _conv(shape: Shape, given: _Given) -> Planned:
    channels, out, kernel = shape.dims[0], given["out"], given["kernel"]
    kwargs: dict[str, Any] = {"kernel": kernel, "activation": given["activation"]}
    height, width = strided(shape, given, kwargs)
    weights = channels * out * kernel**2
    macs = weights * height * width  # pooling comes after the convolution
    shape = Shape("image", (out, height, width))
    if given["pool"] > 1:
        kwargs["pool"] = 2
        shape = Shape("image", (out, *halved(shape)))
    params, gating = gate(out, given["se"], kwargs)
    return Planned((channels, out), kwargs, shape, weights + 2 * out + params, macs + gating)


def _separable(shape: Shape, given: _Given) -> Planned:
    channels, out, kernel = shape.dims[0], given["out"], given["kernel"]
    kwargs: dict[str, Any] = {"kernel": kernel, "activation": given["activation"]}
    height, width = strided(shape, given, kwargs)
    params, macs = gate(channels, given["se"], kwargs)
    weights = channels * kernel**2 + channels * out
    return Planned(
        (channels, out), kwargs, Shape("image", (out, height, width)),
        weights + 2 * (channels + out) + params, weights * height * width + macs,
    )  # fmt: skip


def _inverted(shape: Shape, given: _Given) -> Planned:
    channels, tall, wide = shape.dims
    out, kernel, factor = given["out"], given["kernel"], given["expansion"]
    hidden = channels * factor
    kwargs: dict[str, Any] = {"kernel": kernel, "expansion": factor, "activation": given["activation"]}
    height, width = strided(shape, given, kwargs)
    params, macs = gate(hidden, given["se"], kwargs)
    weights = hidden * kernel**2 + hidden * out
    params += weights + 2 * (hidden + out)
    macs += weights * height * width
    if factor > 1:
        params += channels * hidden + 2 * hidden
        macs += channels * hidden * tall * wide
    return Planned((channels, out), kwargs, Shape("image", (out, height, width)), params, macs)


def _residual(shape: Shape, given: _Given) -> Planned:
    channels, out, window = shape.dims[0], given["out"], given["kernel"] ** 2
    kwargs: dict[str, Any] = {"kernel": given["kernel"], "activation": given["activation"]}
    height, width = strided(shape, given, kwargs)
    params, macs = gate(out, given["se"], kwargs)
    weights = (channels + out) * out * window
    norms = 4 * out
    if channels != out or given["stride"] > 1:
        weights += channels * out
        norms += 2 * out
    return Planned(
        (channels, out), kwargs, Shape("image", (out, height, width)), weights + norms + params,
        weights * height * width + macs,
    )  # fmt: skip


def _bottleneck(shape: Shape, given: _Given) -> Planned:
    channels, tall, wide = shape.dims
    out, kernel, groups = given["out"], given["kernel"], given["groups"]
    hidden = max(1, out // given["reduction"])
    divides(hidden, groups, "groups")
    kwargs: dict[str, Any] = {"hidden": hidden, "kernel": kernel, "activation": given["activation"]}
    height, width = strided(shape, given, kwargs)
    if groups > 1:
        kwargs["groups"] = groups
    params, macs = gate(out, given["se"], kwargs)
    weights = hidden // groups * hidden * kernel**2 + hidden * out
    norms = 4 * hidden + 2 * out
    if channels != out or given["stride"] > 1:
        weights += channels * out
        norms += 2 * out
    params += channels * hidden + weights + norms
    macs += channels * hidden * tall * wide + weights * height * width
    return Planned((channels, out), kwargs, Shape("image", (out, height, width)), params, macs)


def _conv_next(shape: Shape, given: _Given) -> Planned:
    channels, out, kernel, factor = shape.dims[0], given["out"], given["kernel"], given["expansion"]
    kwargs: dict[str, Any] = {"kernel": kernel, "expansion": factor, "activation": given["activation"]}
    height, width = strided(shape, given, kwargs)
    weights = out * kernel**2 + 2 * out * out * factor
    biases = 5 * out + out * factor  # of the three convolutions, the norm's two vectors and the scale
    if channels != out or given["stride"] > 1:
        weights += channels * out * (9 if given["stride"] > 1 else 1)
        biases += 2 * out
    return Planned(
        (channels, out), kwargs, Shape("image", (out, height, width)), weights + biases,
        weights * height * width,
    )  # fmt: skip


_GROUPS = Argument(int, "groups of channels that are convolved apart", 1, minimum=1)

BLOCKS: tuple[Block, ...] = (
    Block(
        "ConvNorm", _MODULE, "convolution", ("image",), "convolution without bias, then batch norm",
        _conv_norm, {"out": OUT, "kernel": KERNEL, "stride": STRIDE, "groups": _GROUPS},
    ),
    Block(
        "ConvBlock", _MODULE, "convolution", ("image",), "convolution, batch norm, activation",
        _conv,
        {
            "out": OUT, "kernel": KERNEL, "activation": ACTIVATION, "stride": STRIDE,
            "pool": Argument(int, "2 halves the map by max-pooling at the end", 1, allowed=(1, 2)), "se": SE,
        },
    ),
    Block(
        "SeparableBlock", _MODULE, "convolution", ("image",),
        "depthwise then pointwise convolution (MobileNet)", _separable,
        {"out": OUT, "kernel": KERNEL, "activation": ACTIVATION, "stride": STRIDE, "se": SE},
    ),
    Block(
        "InvertedBlock", _MODULE, "convolution", ("image",),
        "expand, depthwise convolution, project; residual where shapes agree (MobileNetV2)", _inverted,
        {
            "out": OUT, "kernel": KERNEL, "expansion": expansion(4), "activation": ACTIVATION,
            "stride": STRIDE, "se": SE,
        },
    ),
    Block(
        "ResidualBlock", _MODULE, "convolution", ("image",),
        "two convolutions beside a shortcut (ResNet's basic block)", _residual,
        {"out": OUT, "kernel": KERNEL, "activation": ACTIVATION, "stride": STRIDE, "se": SE},
    ),
    Block(
        "BottleneckBlock", _VISION, "convolution", ("image",),
        "narrow, convolve, widen beside a shortcut (ResNet-50; with groups ResNeXt)", _bottleneck,
        {
            "out": OUT, "kernel": KERNEL, "activation": ACTIVATION, "stride": STRIDE,
            "reduction": Argument(int, "output channels per hidden channel", 4, minimum=1),
            "groups": _GROUPS, "se": SE,
        },
    ),
    Block(
        "ConvNextBlock", _VISION, "convolution", ("image",),
        "depthwise convolution, layer norm and perceptron, residual (ConvNeXt)", _conv_next,
        {
            "out": OUT, "kernel": Argument(int, "odd side of the window", 7, allowed=KERNEL.allowed),
            "expansion": expansion(4),
            "activation": Argument(str, "of the perceptron", "gelu", allowed=ACTIVATION.allowed),
            "stride": STRIDE,
        },
    ),
    Block(
        "SqueezeExcite", _MODULE, "attention", ("image",),
        "scales each channel by a gate computed from all channels' means", _squeeze_excite,
        {"ratio": Argument(float, "hidden channels of the gate per channel, at most 1", 0.25, minimum=0)},
    ),
)  # fmt: skip
"""Blocks that the shelf `images` begins with."""
