"""What functions of torch do, by name: as much of it as a tape has to know."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

NORM_ARGUMENTS = (
    "input", "running_mean", "running_var", "weight", "bias", "training", "momentum", "eps",
)  # fmt: skip
SUMS = frozenset({"__add__", "__radd__", "__iadd__", "add", "add_", "sub", "__sub__"})
PRODUCTS = frozenset(
    {
        "__matmul__", "__mul__", "batch_norm", "bmm", "conv1d", "conv2d", "conv3d", "group_norm",
        "layer_norm", "linear", "matmul", "mm", "mul",
    }
)  # fmt: skip
BIASES = {
    "batch_norm": 2,
    "conv1d": 2,
    "conv2d": 2,
    "conv3d": 2,
    "group_norm": 3,
    "layer_norm": 3,
    "linear": 2,
}
"""Which argument is added in the end."""
QUERIES = frozenset(
    {
        "__get__", "__len__", "dim", "is_contiguous", "is_floating_point", "ndimension", "nelement",
        "numel", "size", "stride",
    }
)  # fmt: skip
SWITCHES = frozenset({"_set_grad_enabled"})
INPLACE = frozenset({"elu", "hardtanh", "leaky_relu", "relu", "relu6", "silu", "dropout", "threshold"})
SIZED = frozenset(
    {
        "__getitem__", "arange", "broadcast_to", "chunk", "empty", "expand", "full", "index_select",
        "narrow", "new_empty", "new_full", "new_ones", "new_zeros", "ones", "pad", "rand", "randn",
        "repeat", "repeat_interleave", "reshape", "roll", "split", "tile", "unflatten", "unfold",
        "view", "zeros",
    }
)  # fmt: skip
"""Functions whose arguments may tell them the size of the batch."""
FLAT = frozenset(
    {
        functional.relu, torch.relu, torch.relu_, Tensor.relu, Tensor.relu_, functional.relu6,
        functional.hardtanh, functional.hardsigmoid, functional.hardswish, functional.threshold, torch.clamp,
        Tensor.clamp, Tensor.clamp_, Tensor.clip, torch.clip,
    }
)  # fmt: skip
OF_ZEROS = frozenset(
    {
        "adaptive_avg_pool2d", "add", "avg_pool2d", "batch_norm", "conv2d", "dropout", "flatten",
        "mean", "neg", "permute", "relu", "reshape", "sub", "sum", "transpose", "view",
    }
)  # fmt: skip
"""Functions that make zeros of zeros."""
LOCAL = QUERIES | {
        "adaptive_avg_pool2d", "add", "avg_pool2d", "batch_norm", "conv2d", "dropout", "flatten",
        "gelu", "leaky_relu", "linear", "max_pool2d", "mean", "mul", "neg", "relu", "sigmoid", "silu",
        "sub", "tanh",
}  # fmt: skip
"""Functions that do to a part of a picture what they do to the whole."""
PLAIN = frozenset(
    {
        "_zeros", "adaptive_avg_pool1d", "adaptive_avg_pool2d", "add", "addmm", "avg_pool1d",
        "avg_pool2d", "_batch_norm", "bmm", "cat", "conv1d", "conv2d", "conv3d", "div", "dropout",
        "expand", "flatten", "linear", "matmul", "mean", "mul", "neg", "permute", "relu", "reshape",
        "stack", "sub", "sum", "transpose", "unsqueeze", "view", "zeros_like",
    }
)  # fmt: skip
