"""Counting what a forward pass of a real module does, call by call, below autograd.

Work is 2 operations per multiply-add of products of matrices and convolutions, and one for each element that
any other call reads or writes; views are free.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.utils._python_dispatch import TorchDispatchMode

from cambrian.sandbox.examination.report import StaticFacts
from cambrian.search_spaces import Signature

_MIB = 2**20


@dataclass(frozen=True)
class Counted:
    """What a forward pass does.

    Attributes:
        work: operations.
        flops: those of products of matrices and convolutions.
        kept: bytes kept for the backward pass, without parameters and buffers.
        largest: bytes of the largest tensor made.
    """

    work: int
    flops: int
    kept: int
    largest: int


def count(module: nn.Module, inputs: Tensor) -> Counted:
    """Run `module` once on `inputs` as it is, with gradients, and count.

    Raises:
        Exception: whatever the module raises.
    """
    own = {tensor.untyped_storage().data_ptr() for tensor in (*module.parameters(), *module.buffers())}
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    counter = Counter()
    torch.manual_seed(0)
    with torch.enable_grad(), saved_tensors_hooks(keep, lambda tensor: tensor), counter:
        outputs = module(inputs)
    del outputs  # until here nothing that was kept is freed, so that no address is given twice
    return Counted(counter.work + counter.flops, counter.flops, sum(kept.values()), counter.largest)


def counted_facts(module: nn.Module, inputs: Tensor, signature: Signature, batch_size: int) -> StaticFacts:
    """What the static check tells, of a module that only runs on real numbers; see `StaticFacts`.

    Args:
        module: in training mode.
        inputs: at least two real samples.
        signature: what it takes.
        batch_size: samples of a training step.
    """
    counted, n = count(module, inputs), len(inputs)
    shares = 1 if signature.graph is not None else n  # one pass over a graph answers for all of its nodes
    parameters = list(module.parameters())
    weights = sum(p.numel() * p.element_size() for p in parameters)
    backward = (counted.kept + 2 * counted.largest) * batch_size // n
    return StaticFacts(
        parameters=sum(p.numel() for p in parameters if p.requires_grad),
        flops=counted.flops // shares,
        peak_memory_mb=(3 * weights + max(backward, weights)) / _MIB,
        depth=sum(p.dim() > 1 for p in parameters),
    )


class Counter(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the work of every call below autograd.

    Attributes:
        flops: operations of products so far.
        work: elements that other calls read and wrote.
        largest: bytes of the largest tensor made.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.flops = 0
        self.work = 0
        self.largest = 0

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """What torch would do for its compiler, which is not used here, imports it first: a CPU second."""
        return False

    def __torch_dispatch__(
        self,
        func: Any,
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        if not _is_view(func):
            made = _tensors(result)
            product = _PRODUCTS.get(func.overloadpacket.__name__)
            if product is not None:
                self.flops += product(args, made[0])
            self.work += sum(t.numel() for t in (*made, *_tensors(args)))
            self.largest = max(self.largest, *(t.numel() * t.element_size() for t in made), 0)
        return result


def _tensors(value: Any) -> list[Tensor]:
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, list | tuple):
        return [tensor for item in value for tensor in _tensors(item)]
    return []


_views: dict[Any, bool] = {}


def _is_view(func: Any) -> bool:
    if func not in _views:
        returned = [r.alias_info for r in func._schema.returns]
        _views[func] = any(info is not None and not info.is_write for info in returned)
    return _views[func]


def _matrices(a: Tensor, b: Tensor) -> int:
    return 2 * a.numel() * b.shape[-1]


def _convolved(args: tuple[Any, ...], made: Tensor) -> int:
    inputs, weight = args[0], args[1]
    transposed = len(args) > 6 and bool(args[6])
    each: int = weight[0].numel()
    return 2 * (inputs.numel() if transposed else made.numel()) * each


def _attended(args: tuple[Any, ...], made: Tensor) -> int:
    query, key, value = args[:3]
    pairs: int = query[..., 0].numel() * key.shape[-2]
    return 2 * pairs * int(query.shape[-1] + value.shape[-1])


_PRODUCTS: dict[str, Callable[[tuple[Any, ...], Tensor], int]] = {
    "mm": lambda args, made: _matrices(args[0], args[1]),
    "bmm": lambda args, made: _matrices(args[0], args[1]),
    "addmm": lambda args, made: _matrices(args[1], args[2]),
    "baddbmm": lambda args, made: _matrices(args[1], args[2]),
    "mv": lambda args, made: 2 * args[0].numel(),
    "convolution": _convolved,
    "_scaled_dot_product_flash_attention_for_cpu": _attended,
    "_scaled_dot_product_flash_attention": _attended,
    "_scaled_dot_product_efficient_attention": _attended,
}
