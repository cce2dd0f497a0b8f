"""A genotype as a layer program: the one truth that `build`, `source`, `draw` and `features` all read.

Nothing here imports torch, so shapes, parameters and multiply-accumulates are known without it.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from cambrian.search_spaces.errors import ProposalError
from cambrian.search_spaces.space import Genotype, Signature

CLASSES = {
    "conv": "ConvBlock",
    "separable": "SeparableBlock",
    "inverted": "InvertedBlock",
    "residual": "ResidualBlock",
    "attention": "AttentionBlock",
}
GRID = 4
KEY_SIDE = 8


class Layer(NamedTuple):
    """One line of a program.

    Attributes:
        name: its key in the state dict.
        gene: the part of the genotype it comes from, such as `stages[1]`.
        block: a class of `cambrian.search_spaces.blocks`, or of `torch.nn` when it starts with `nn.`.
        args: positional arguments.
        kwargs: keyword arguments.
        shape: of its output for one sample.
        params: learned numbers.
        macs: multiply-accumulates of convolutions, linear layers and attention for one sample.
    """

    name: str
    gene: str
    block: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    shape: tuple[int, ...]
    params: int
    macs: int


def compile_program(genotype: Genotype, signature: Signature) -> list[Layer]:
    """The layers of a canonical genotype, in order, for inputs and outputs of `signature`.

    Raises:
        ProposalError: the input is no image, or some layer would halve a map that is one pixel high or wide.
    """
    if len(signature.input_shape) != 3:
        raise ProposalError(
            f"convnet takes images of shape (channels, height, width), not {signature.input_shape}",
            hint="choose another space or reshape the task's inputs",
        )
    layers = [_stem(genotype["stem"], signature)]
    for index, stage in enumerate(genotype["stages"]):
        _append_stage(layers, stage, index)
    _append_head(layers, genotype["head"], signature.n_outputs)
    return layers


def _halved(shape: tuple[int, ...], gene: str) -> tuple[int, int]:
    height, width = shape[1:]
    if min(height, width) < 2:
        raise ProposalError(
            f"{gene}.downsample: the map is already {height}x{width} there and cannot be halved",
            hint="set it to none, or halve less before it",
        )
    return (height + 1) // 2, (width + 1) // 2


def _stem(stem: dict[str, Any], signature: Signature) -> Layer:
    channels, height, width = signature.input_shape
    out, kernel = stem["width"], stem["kernel"]
    area = height * width
    kwargs = {"kernel": kernel, "activation": stem["activation"]}
    if stem["downsample"] != "none":
        height, width = _halved(signature.input_shape, "stem")
        kwargs["stride" if stem["downsample"] == "stride" else "pool"] = 2
    if stem["downsample"] == "stride":
        area = height * width
    weights = channels * out * kernel**2
    return Layer(
        "stem", "stem", "ConvBlock", (channels, out), kwargs, (out, height, width),
        weights + 2 * out, weights * area,
    )  # fmt: skip


def _append_stage(layers: list[Layer], stage: dict[str, Any], index: int) -> None:
    kind, depth = stage["block"], stage["depth"]
    gene = f"stages[{index}]"
    strided = {"none": -1, "first": 0, "last": depth - 1}[stage["downsample"]]
    for position in range(depth):
        shape = layers[-1].shape
        halve = position == strided
        height, width = _halved(shape, gene) if halve else shape[1:]
        kwargs, params, macs = _BLOCKS[kind](stage, shape, (height, width), halve)
        layers.append(
            Layer(
                f"stage{index + 1}_block{position + 1}", gene, CLASSES[kind], (shape[0], stage["width"]),
                kwargs, (stage["width"], height, width), params, macs,
            )
        )  # fmt: skip


_Cost = tuple[dict[str, Any], int, int]


def _se(stage: dict[str, Any], channels: int, kwargs: dict[str, Any]) -> tuple[int, int]:
    """Parameters and multiply-accumulates of the gate over `channels`, whose width goes to `kwargs`."""
    if not stage["se"]:
        return 0, 0
    hidden = max(1, round(channels * stage["se"]))
    kwargs["se"] = hidden
    return 2 * channels * hidden + hidden + channels, 2 * channels * hidden


def _conv(stage: dict[str, Any], shape: tuple[int, ...], size: tuple[int, int], halve: bool) -> _Cost:
    # halves by max-pooling, as plain stacks of convolutions classically do, hence the area before it
    out = stage["width"]
    kwargs = {"kernel": stage["kernel"], "activation": stage["activation"], **({"pool": 2} if halve else {})}
    weights = shape[0] * out * stage["kernel"] ** 2
    params, macs = _se(stage, out, kwargs)
    return kwargs, weights + 2 * out + params, weights * shape[1] * shape[2] + macs


def _separable(stage: dict[str, Any], shape: tuple[int, ...], size: tuple[int, int], halve: bool) -> _Cost:
    channels, out = shape[0], stage["width"]
    kwargs = {
        "kernel": stage["kernel"],
        "activation": stage["activation"],
        **({"stride": 2} if halve else {}),
    }
    weights = channels * stage["kernel"] ** 2 + channels * out
    params, macs = _se(stage, channels, kwargs)
    return kwargs, weights + 2 * (channels + out) + params, weights * size[0] * size[1] + macs


def _inverted(stage: dict[str, Any], shape: tuple[int, ...], size: tuple[int, int], halve: bool) -> _Cost:
    channels, out, expansion = shape[0], stage["width"], stage["expansion"]
    hidden = channels * expansion
    kwargs = {
        "kernel": stage["kernel"], "expansion": expansion, "activation": stage["activation"],
        **({"stride": 2} if halve else {}),
    }  # fmt: skip
    params, macs = _se(stage, hidden, kwargs)
    weights = hidden * stage["kernel"] ** 2 + hidden * out
    params += weights + 2 * (hidden + out)
    macs += weights * size[0] * size[1]
    if expansion > 1:
        params += channels * hidden + 2 * hidden
        macs += channels * hidden * shape[1] * shape[2]
    return kwargs, params, macs


def _residual(stage: dict[str, Any], shape: tuple[int, ...], size: tuple[int, int], halve: bool) -> _Cost:
    channels, out, window = shape[0], stage["width"], stage["kernel"] ** 2
    kwargs = {
        "kernel": stage["kernel"],
        "activation": stage["activation"],
        **({"stride": 2} if halve else {}),
    }
    params, macs = _se(stage, out, kwargs)
    weights = channels * out * window + out * out * window
    norms = 4 * out
    if halve or channels != out:
        weights += channels * out
        norms += 2 * out
    return kwargs, weights + norms + params, weights * size[0] * size[1] + macs


def _attention(stage: dict[str, Any], shape: tuple[int, ...], size: tuple[int, int], halve: bool) -> _Cost:
    channels, out, expansion = shape[0], stage["width"], stage["expansion"]
    reduction = -(-max(size) // KEY_SIDE)
    kwargs = {
        "heads": max(1, out // 16), "reduction": reduction, "expansion": expansion,
        "activation": stage["activation"], **({"stride": 2} if halve else {}),
    }  # fmt: skip
    tokens = size[0] * size[1]
    keys = -(-size[0] // reduction) * -(-size[1] // reduction)
    perceptron = 2 * out * out * expansion
    params = 10 * out + 4 * out + 4 * (out * out + out) + perceptron + out * expansion + out
    macs = tokens * (9 * out + 2 * out * out + perceptron) + keys * 2 * out * out + 2 * tokens * keys * out
    if halve or channels != out:
        weights = channels * out * (9 if halve else 1)
        params += weights + 2 * out
        macs += weights * tokens
    return kwargs, params, macs


_BLOCKS = {
    "conv": _conv,
    "separable": _separable,
    "inverted": _inverted,
    "residual": _residual,
    "attention": _attention,
}


def _append_head(layers: list[Layer], head: dict[str, Any], n_outputs: int) -> None:
    channels, height, width = layers[-1].shape
    if head["pool"] == "grid":
        cells = (min(GRID, height), min(GRID, width))
        flat = channels * cells[0] * cells[1]
        layers.append(_free("pool", "GridPool", cells, flat))
    else:
        flat = channels * (2 if head["pool"] == "avgmax" else 1)
        layers.append(_free("pool", "GlobalPool", (head["pool"],), flat))
    if head["hidden"]:
        layers.append(_linear("hidden", flat, head["hidden"]))
        layers.append(_free("hidden_act", "nn.ReLU", (), head["hidden"]))
        flat = head["hidden"]
    if head["dropout"]:
        layers.append(_free("dropout", "nn.Dropout", (head["dropout"],), flat))
    layers.append(_linear("classifier", flat, n_outputs))


def _free(name: str, block: str, args: tuple[Any, ...], size: int) -> Layer:
    return Layer(name, "head", block, args, {}, (size,), 0, 0)


def _linear(name: str, inputs: int, outputs: int) -> Layer:
    weights = inputs * outputs
    return Layer(name, "head", "nn.Linear", (inputs, outputs), {}, (outputs,), weights + outputs, weights)
