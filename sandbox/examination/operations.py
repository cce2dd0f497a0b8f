"""What operations are called in motifs: one name however they are written."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

WIDTH, MAP = "@", "map~"
"""`conv3x3@32`: about 32 channels come out. `map~8`: weights applied at about 8 positions a side."""

QUERIES = frozenset(
    {
        "__len__", "dim", "is_contiguous", "numel", "size", "stride", "is_floating_point", "item", "tolist",
        "__bool__", "__float__", "__int__", "data_ptr", "storage_offset", "type", "get_device",
        "requires_grad_",
    }
)  # fmt: skip
RESHAPING = frozenset(
    {
        "get", "view", "view_as", "reshape", "reshape_as", "flatten", "unflatten", "squeeze", "unsqueeze",
        "contiguous", "to", "float", "double", "half", "bfloat16", "type_as", "clone", "expand", "expand_as",
        "detach", "alias", "chunk", "split", "unbind", "tensor_split", "narrow", "broadcast_to",
        "broadcast_tensors", "ravel", "long", "int",
    }
)  # fmt: skip
"""Results are the first argument in another form, or parts of it."""
DROPOUT = frozenset({"dropout", "dropout1d", "dropout2d", "dropout3d", "alpha_dropout", "feature_dropout"})
EMPTY = frozenset({"zeros_like", "zeros", "new_zeros"})
ZERO_AT_ZERO = frozenset(
    {"relu", "gelu", "silu", "tanh", "avg_pool2d", "max_pool2d", "mean", "sum", "hardswish", "neg"}
)
_SAME = {
    "iadd": "add", "radd": "add", "isub": "sub", "rsub": "sub", "imul": "mul", "rmul": "mul",
    "multiply": "mul", "truediv": "div", "rtruediv": "div", "itruediv": "div", "true_divide": "div",
    "divide": "div", "subtract": "sub", "rmatmul": "matmul", "bmm": "matmul", "mm": "matmul",
    "einsum": "matmul", "addmm": "matmul", "baddbmm": "matmul", "mv": "matmul", "concat": "cat",
    "concatenate": "cat", "transpose": "permute", "swapaxes": "permute", "swapdims": "permute",
    "movedim": "permute", "t": "permute", "moveaxis": "permute", "ipow": "pow", "rpow": "pow",
    "special_expit": "sigmoid", "amax": "max", "batch_norm": "bn", "layer_norm": "ln", "group_norm": "gn",
    "instance_norm": "in", "rms_norm": "rms", "scaled_dot_product_attention": "attention",
    "multi_head_attention_forward": "attention", "embedding": "embed", "special_softmax": "softmax",
    "select": "getitem", "max_pool1d_with_indices": "max_pool1d", "max_pool2d_with_indices": "max_pool2d",
}  # fmt: skip
_POOLS = re.compile(r"(adaptive_)?(avg|max|lp)_pool[123]d")
_CONVOLUTIONS = re.compile(r"conv(_transpose)?([123])d")
_NUMBERED = frozenset({"mul", "div", "add", "sub", "pow"})


def plain_name(name: str) -> str:
    """What a function is called in names: tensor methods, operators and in-place forms alike."""
    name = name.strip("_").lower()
    return _SAME.get(name, name)


def kind_of(
    name: str,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    weights: Tensor | None,
    learned: bool,
    made: Tensor,
) -> str:
    """The name of an operation, with window, stride and groups where it has them.

    Args:
        name: from `plain_name`.
        args: of the call, as are `kwargs`.
        kwargs: see `args`.
        weights: its first parameter of two or more dimensions, if any.
        learned: whether it takes any parameter.
        made: the (first) result.
    """
    if weights is not None and (found := _CONVOLUTIONS.fullmatch(name)):
        return _convolution(found, args, kwargs, weights)
    if found := _POOLS.fullmatch(name):
        return _pool(found, args, kwargs, made)
    if name == "matmul" and learned:
        return "linear"
    if name == "getitem":
        return "pick"
    if name in _NUMBERED:
        if learned:
            return f"{name}.w"  # with a parameter: a learned scale or a position's encoding
        if any(isinstance(value, int | float) for value in args):
            return f"{name}.c"
    return re.sub(r"[^a-z0-9_]", "", name)[:24] or "op"


def _convolution(
    found: re.Match[str], args: tuple[Any, ...], kwargs: Mapping[str, Any], weights: Tensor
) -> str:
    options = dict(
        zip(("input", "weight", "bias", "stride", "padding", "dilation", "groups"), args, strict=False)
    )
    options |= kwargs
    window = "x".join(str(side) for side in weights.shape[2:])
    groups = options.get("groups", 1)
    prefix = "" if groups == 1 else "dw" if groups == weights.shape[0] else "g"
    kind = f"{prefix}conv{'T' if found[1] else ''}{window}"
    stride, spread = _first(options.get("stride", 1)), _first(options.get("dilation", 1))
    return kind + (f"/{stride}" if stride != 1 else "") + (f"d{spread}" if spread != 1 else "")


def _pool(found: re.Match[str], args: tuple[Any, ...], kwargs: Mapping[str, Any], made: Tensor) -> str:
    if found[1]:
        whole = math.prod(made.shape[2:]) == 1
        return (
            {"avg": "mean", "max": "max"}[found[2]] if whole else f"{found[2]}pool~{coarse(made.shape[-1])}"
        )
    window = kwargs.get("kernel_size", args[1] if len(args) > 1 else 0)
    stride = kwargs.get("stride", args[2] if len(args) > 2 else None)
    step = _first(stride) if stride not in (None, (), []) else _first(window)
    return f"{found[2]}pool{_first(window)}" + (f"/{step}" if step != 1 else "")


def _first(value: Any) -> Any:
    """Of a size per axis the first: nearly all are equal."""
    return value[0] if isinstance(value, list | tuple) and value else value


def picks(args: tuple[Any, ...]) -> bool:
    """Whether indexing takes single positions, rather than ranges that are put to use elsewhere."""
    index = args[1] if len(args) > 1 else ()
    parts = index if isinstance(index, tuple) else (index,)
    return not all(part is None or part is Ellipsis or isinstance(part, slice) for part in parts)


def dropout_rate(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> float:
    """The rate that a dropout was called with."""
    rate = kwargs.get("p", args[1] if len(args) > 1 else 0.5)
    return float(rate) if isinstance(rate, int | float) else 0.0


def sizes_of(kind: str, made: Tensor) -> tuple[str, ...]:
    """Coarse sizes of what weights gave: channels, and positions a side."""
    channels_first = "conv" in kind
    shape = made.shape[1:]
    if not shape:
        return ()
    channels = shape[0] if channels_first else shape[-1]
    sides = shape[1:] if channels_first else shape[:-1]
    found = [f"{kind}{WIDTH}{coarse(channels)}"]
    if sides and math.prod(sides) > 0:
        found.append(f"{MAP}{coarse(math.prod(sides) ** (1 / len(sides)))}")
    return tuple(found)


def coarse(size: float) -> int:
    """The nearest of 1, 2, 3, 4, 6, 8, 12, 16, 24, ... by ratio; 0 for 0."""
    if size < 1:
        return 0
    exponent = math.floor(math.log2(size))
    steps = (2**exponent, 3 * 2 ** (exponent - 1), 2 ** (exponent + 1))
    return int(min((s for s in steps if s >= 1), key=lambda step: abs(math.log(size / step))))
