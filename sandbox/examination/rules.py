"""One forward pass on the meta device that counts operations and saved memory as it goes.

Torch's own meta kernels are exact but many are written in Python: a batch norm costs a millisecond there, and
`FlopCounterMode` twice the whole pass. So the functions that networks are mostly made of have a rule here: a
few lines that check the shapes, make the output and count. Whatever a rule does not cover exactly goes to
torch's own kernel, which also words the errors; a function never seen before is watched once by
`FlopCounterMode` and, when it multiplies matrices, every time. Tests compare both ways on random networks.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode
from torch.utils.flop_counter import _FlopCounterMode

from cambrian.sandbox.examination.tape import Tape
from cambrian.search_spaces.flop_counting import flop_counter

Rule = Callable[..., Any]
_META = torch.device("meta")
_WATCHED: dict[Any, bool] = {}
"""Functions without a rule that were run once, and whether they multiply matrices."""


class ForwardTrace(TorchFunctionMode):
    """Rides along one forward pass in training mode.

    Attributes:
        flops: of convolutions and matrix products, 2 per multiply-add.
        used: parameters in the order of their first use.
        saved: bytes of the tensors that the backward pass needs, parameters and inputs left out.
        largest: bytes of the largest tensor that was computed.
        norms: momentum and epsilon of each batch norm, and whether it keeps statistics, in order.
        cuts: whether gradients are held back somewhere, as by `detach`.
        narrowest: positions in a map (1 for a vector) that a batch norm averages over, at least.

    Args:
        tape: told of every call, to repeat the pass elsewhere.
    """

    def __init__(self, tape: Tape | None = None) -> None:
        super().__init__()
        self._tape = tape
        self.flops = 0
        self.used: dict[int, nn.Parameter] = {}
        self.saved = 0
        self.largest = 0
        self.norms: list[tuple[float, float, bool]] = []
        self.cuts = False
        self.narrowest = 1 << 62
        self._kept: dict[int, Tensor] = {}

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if func in _CUTS:
            self.cuts = True
        if func.__name__ in _QUERIES:
            return func(*args, **kwargs)
        self._use(args if not kwargs else (*args, *kwargs.values()))
        rule = _RULES.get(func)
        result = None
        if rule is not None and (args or "input" in kwargs):
            result = rule(self, func, *args, **kwargs)
        if result is None:
            result = self._otherwise(func, args, kwargs)
        if self._tape is not None:
            self._tape.write(func, args, dict(kwargs), result)
        return result

    def keep(self, *tensors: Tensor) -> None:
        """Note that the backward pass needs `tensors`; views of one memory count once."""
        for tensor in tensors:
            if type(tensor) is not nn.Parameter:
                storage = tensor.untyped_storage()
                if storage._cdata not in self._kept:
                    self._kept[storage._cdata] = tensor
                    self.saved += storage.nbytes()

    def make(self, like: Tensor, shape: Iterable[int]) -> Tensor:
        """A new tensor of `shape` as the output of a rule."""
        made = torch.empty(tuple(shape), device=_META, dtype=like.dtype)
        self.largest = max(self.largest, made.untyped_storage().nbytes())
        return made

    def _use(self, values: Iterable[Any]) -> None:
        for value in values:
            if type(value) is nn.Parameter:
                self.used.setdefault(id(value), value)
            elif type(value) is list or type(value) is tuple:
                self._use(value)

    def _otherwise(self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        if not any(isinstance(value, Tensor) for value in _flat((*args, *kwargs.values()))):
            with _META:  # a factory, or something that is none of our business
                return func(*args, **kwargs)
        if _WATCHED.get(func, True):
            counter = flop_counter()
            with counter:
                result = func(*args, **kwargs)
            self.flops += counter.get_total_flops()
            _WATCHED[func] = counter.get_total_flops() > 0
        else:
            result = func(*args, **kwargs)
        for made in _flat((result,)):
            if isinstance(made, Tensor) and made.is_floating_point() and func not in _VIEWS:
                self.largest = max(self.largest, made.untyped_storage().nbytes())
                self.keep(made)
        return result


def _flat(values: Iterable[Any]) -> Iterable[Any]:
    for value in values:
        if isinstance(value, list | tuple):
            yield from _flat(value)
        else:
            yield value


# Torch would keep its compiler out of the counter, and imports it first: seconds, and 90 MB in every worker.
_counted: Any = _FlopCounterMode.__torch_dispatch__
_counted.__wrapped__.__dynamo_disable = _counted.__wrapped__

_QUERIES = frozenset({"__get__", "__len__", "dim", "is_contiguous", "numel", "size", "stride"})
_CUTS = frozenset(
    {
        torch.detach, Tensor.detach, Tensor.detach_, Tensor.requires_grad_, torch._C._set_grad_enabled,
        Tensor.data.__get__,  # type: ignore[attr-defined]
    }
)  # fmt: skip
_VIEWS = frozenset(
    {
        torch.cat, torch.chunk, torch.concat, torch.flatten, torch.mean, torch.permute, torch.reshape,
        torch.split, torch.squeeze, torch.stack, torch.sum, torch.transpose, torch.unflatten, torch.unsqueeze,
        Tensor.chunk, Tensor.contiguous, Tensor.expand, Tensor.flatten, Tensor.mean, Tensor.permute,
        Tensor.reshape, Tensor.split, Tensor.squeeze, Tensor.sum, Tensor.transpose, Tensor.unflatten,
        Tensor.unsqueeze, Tensor.view, Tensor.__getitem__,
    }
)  # fmt: skip
"""Functions whose backward pass needs nothing: views, and sums of parts."""


def _convolution(
    trace: ForwardTrace, func: Rule, input: Tensor, weight: Tensor, *args: Any, **kwargs: Any
) -> Tensor:
    out = None if kwargs else _convolved(trace, input, weight, *args)
    if out is None:
        out = func(input, weight, *args, **kwargs)
    trace.flops += 2 * out.numel() * weight[0].numel()
    trace.largest = max(trace.largest, out.untyped_storage().nbytes())
    trace.keep(input)
    return out


def _convolved(
    trace: ForwardTrace,
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Tensor | None:
    """The output where all is as layers pass it; None where torch should have a look."""
    old, kernel = input.shape, weight.shape
    if len(old) != len(kernel) or old[1] != kernel[1] * groups or kernel[0] % groups:
        return None
    if (bias is not None and bias.shape != kernel[:1]) or input.dtype != weight.dtype:
        return None
    if not (isinstance(stride, tuple) and isinstance(padding, tuple) and isinstance(dilation, tuple)):
        return None
    sides = [
        (side + 2 * pad - spread * (window - 1) - 1) // step + 1
        for side, window, step, pad, spread in zip(
            old[2:], kernel[2:], stride, padding, dilation, strict=True
        )
    ]
    return trace.make(input, (old[0], kernel[0], *sides)) if min(sides) > 0 else None


def _linear(
    trace: ForwardTrace, func: Rule, input: Tensor, weight: Tensor, bias: Tensor | None = None
) -> Tensor | None:
    if input.dtype != weight.dtype:  # torch's kernel for the meta device would let it pass
        raise RuntimeError(f"expected inputs of {weight.dtype}, got {input.dtype}")
    fits = weight.dim() == 2 and input.dim() > 0 and input.shape[-1] == weight.shape[1]
    if not fits or (bias is not None and bias.shape != weight.shape[:1]):
        return None
    out = trace.make(input, (*input.shape[:-1], weight.shape[0]))
    trace.flops += 2 * out.numel() * weight.shape[1]
    trace.keep(input)
    return out


def _batch_norm(
    trace: ForwardTrace,
    func: Rule,
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor | None:
    shape = input.shape
    trace.norms.append((momentum, eps, running_mean is not None))
    trace.narrowest = min(trace.narrowest, math.prod(shape[2:]))
    if len(shape) < 2 or (training and input.numel() <= shape[1]):
        return None
    if any(
        each is not None and each.shape != shape[1:2] for each in (running_mean, running_var, weight, bias)
    ):
        return None
    trace.keep(input)
    return trace.make(input, shape)


def _elementwise_of_input(
    trace: ForwardTrace, func: Rule, input: Tensor, *args: Any, **kwargs: Any
) -> Tensor:
    trace.keep(input)
    return input if _in_place(func, args, kwargs) else trace.make(input, input.shape)


def _elementwise_of_output(
    trace: ForwardTrace, func: Rule, input: Tensor, *args: Any, **kwargs: Any
) -> Tensor:
    out = input if _in_place(func, args, kwargs) else trace.make(input, input.shape)
    trace.keep(out)
    return out


def _in_place(func: Rule, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> bool:
    return bool(kwargs.get("inplace") or (args and args[-1] is True))


def _dropout(
    trace: ForwardTrace,
    func: Rule,
    input: Tensor,
    p: float = 0.5,
    training: bool = True,
    inplace: bool = False,
) -> Tensor | None:
    if not 0 <= p <= 1:
        return None
    if not training or p == 0:
        return input
    trace.keep(trace.make(input, input.shape))  # the mask
    return input if inplace else trace.make(input, input.shape)


def _sum(trace: ForwardTrace, func: Rule, input: Any, other: Any, **kwargs: Any) -> Tensor | None:
    return None if kwargs else _broadcast(trace, input, other)


def _product(trace: ForwardTrace, func: Rule, input: Any, other: Any, **kwargs: Any) -> Tensor | None:
    out = None if kwargs else _broadcast(trace, input, other)
    if out is not None:
        trace.keep(*(each for each in (input, other) if isinstance(each, Tensor)))
    return out


def _broadcast(trace: ForwardTrace, input: Any, other: Any) -> Tensor | None:
    """An output for two operands of one type; None where torch should decide on type or shape."""
    if not isinstance(input, Tensor):
        input, other = other, input
    if not isinstance(other, Tensor):
        return (
            trace.make(input, input.shape)
            if isinstance(other, int | float) and input.is_floating_point()
            else None
        )
    if input.dtype != other.dtype:
        return None
    if input.shape == other.shape:
        return trace.make(input, input.shape)
    if input.dim() != other.dim():
        return None
    pairs = list(zip(input.shape, other.shape, strict=True))
    if any(a != b and a != 1 and b != 1 for a, b in pairs):
        return None
    return trace.make(input, [b if a == 1 else a for a, b in pairs])


def _adaptive_pool(trace: ForwardTrace, func: Rule, input: Tensor, output_size: Any) -> Tensor | None:
    if input.dim() not in (3, 4):
        return None
    pair = output_size if isinstance(output_size, list | tuple) else (output_size, output_size)
    sides = [old if new is None else new for old, new in zip(input.shape[-2:], pair, strict=True)]
    if sides != [1, 1]:  # means over the whole map need no input for their gradient
        trace.keep(input)
    return trace.make(input, (*input.shape[:-2], *sides))


def _mean(trace: ForwardTrace, func: Rule, input: Tensor, dim: Any = None, **kwargs: Any) -> Tensor | None:
    if kwargs or not isinstance(dim, tuple | list | int) or not input.is_floating_point():
        return None
    dims = (dim,) if isinstance(dim, int) else dim
    if any(not -input.dim() <= each < input.dim() for each in dims):
        return None
    gone = {each % input.dim() for each in dims}
    return trace.make(input, [side for at, side in enumerate(input.shape) if at not in gone])


def _attention(
    trace: ForwardTrace, func: Rule, query: Tensor, key: Tensor, value: Tensor, **kwargs: Any
) -> Tensor | None:
    batch, width = query.shape[:-2], query.shape[-1]
    plain = not kwargs and query.dim() == key.dim() == value.dim() == 4 and width == key.shape[-1]
    if not plain or key.shape[:-2] != batch or value.shape[:-1] != key.shape[:-1]:
        return None
    length, keys, depth = query.shape[-2], key.shape[-2], value.shape[-1]
    trace.flops += 2 * math.prod(batch) * length * keys * (width + depth)
    out = trace.make(query, (*batch, length, depth))
    trace.keep(query, key, value, out)
    return out


_RULES: dict[Any, Rule] = {
    functional.linear: _linear,
    functional.batch_norm: _batch_norm,
    functional.dropout: _dropout,
    functional.adaptive_avg_pool2d: _adaptive_pool,
    functional.scaled_dot_product_attention: _attention,
    **dict.fromkeys((torch.conv1d, torch.conv2d, torch.conv3d), _convolution),
    **dict.fromkeys((torch.add, Tensor.add, torch.sub, Tensor.sub), _sum),
    **dict.fromkeys((torch.mul, Tensor.mul), _product),
    **dict.fromkeys((torch.mean, Tensor.mean), _mean),
    **dict.fromkeys(
        (functional.silu, functional.gelu, functional.hardswish, functional.hardsigmoid, functional.elu,
         functional.leaky_relu, functional.hardtanh, functional.mish, functional.softplus),
        _elementwise_of_input,
    ),
    **dict.fromkeys(
        (functional.relu, torch.relu, Tensor.relu, torch.sigmoid, Tensor.sigmoid, torch.tanh, Tensor.tanh),
        _elementwise_of_output,
    ),
}  # fmt: skip
