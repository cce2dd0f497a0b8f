"""Building a module on the meta device: no memory, no random numbers, all initial values known."""

from __future__ import annotations

import hashlib
import re
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._device import _device_constructors

from cambrian.search_spaces import Genotype, ProposalError, Signature, Space

Provenance = tuple[Any, ...]
"""How a tensor's values came about: its factory, then what was done to it in place; plain nested tuples."""

_FACTORIES = frozenset(_device_constructors())
_HARMLESS = frozenset(
    {"_set_grad_enabled", "__get__", "__len__", "dim", "is_contiguous", "numel", "size", "stride"}
)
_FILLING = frozenset(
    {
        "add_", "clamp_", "constant_", "copy_", "div_", "erfinv_", "exponential_", "fill_", "kaiming_normal_",
        "kaiming_uniform_", "mul_", "normal_", "sub_", "uniform_", "zero_",
    }
)  # fmt: skip
"""In-place calls that change values only, so that they may be left out where nobody reads values."""
_RANDOM = re.compile("rand|normal|uniform|xavier|kaiming|orthogonal|sparse|bernoulli|exponential|multinomial")
"""In the provenance of values that were drawn."""
_SIMPLE = frozenset({bool, float, int, str, type(None)})
_META = torch.device("meta")

SEED = 20230210
_generator = threading.Lock()


class InitLog(TorchFunctionMode):
    """Puts every new tensor on the meta device, and notes how it would get its first values.

    Layers initialise themselves when they are built. On the meta device there is nothing to fill, and torch's
    meta kernels for random numbers are slow, so in-place calls are only written down: `kaiming_uniform_` with
    its arguments says all there is to know. What is computed from tensors (`0.02 * torch.randn(n)`) is noted
    with the provenance of its inputs.

    Args:
        on_meta: False leaves tensors where they are and fills them, for constructors that read values; what
            they do is written down all the same.
    """

    def __init__(self, *, on_meta: bool = True) -> None:
        super().__init__()
        self._on_meta = on_meta
        # By address of the storage; the tensor is kept as well, or its address could be given to another.
        self._notes: dict[int, tuple[Tensor, list[Any]]] = {}

    def provenance(self, tensor: Tensor) -> Provenance:
        """All notes on the memory of `tensor`, in order; as text and numbers only."""
        found = self._notes.get(tensor.untyped_storage()._cdata)
        return tuple(found[1]) if found else ()

    def note(self, tensor: Tensor, *entries: Provenance) -> None:
        """Say how `tensor` got its values, where no call told."""
        self._notes[tensor.untyped_storage()._cdata] = (tensor, list(entries))

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        kwargs = dict(kwargs) if kwargs else {}
        name = func.__name__
        if name in _HARMLESS:
            return func(*args, **kwargs)
        if func in _FACTORIES:
            if self._on_meta and kwargs.get("device") is None:
                kwargs["device"] = _META
            made = func(*args, **kwargs)
            kwargs.pop("device", None)
            self._notes[made.untyped_storage()._cdata] = (made, [(name, *self._plain(args, kwargs))])
            return made
        if name[-1] == "_" and name[-2] != "_":
            target = kwargs.pop("tensor", None) if not args else args[0]
            if isinstance(target, Tensor):
                _, notes = self._notes.setdefault(target.untyped_storage()._cdata, (target, []))
                place = (*target.shape, target.storage_offset())
                notes.append((name, place, *self._plain(args[1:], kwargs)))
                skipped = self._on_meta and name in _FILLING
                return target if skipped else func(target, *args[1:], **kwargs)
        result = func(*args, **kwargs)
        if isinstance(result, Tensor) and result.untyped_storage()._cdata not in self._notes:
            entry = (name, *self._plain(args, kwargs))
            self._notes[result.untyped_storage()._cdata] = (result, [entry])
        return result

    def _plain(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> list[Any]:
        found = [value if type(value) in _SIMPLE else self._as_plain(value) for value in args]
        for key, value in kwargs.items():
            if value is not None:
                found.append((key, value if type(value) in _SIMPLE else self._as_plain(value)))
        return found

    def _as_plain(self, value: Any) -> Any:
        if type(value) in _SIMPLE:
            return value
        if isinstance(value, list | tuple):
            return tuple(self._as_plain(item) for item in value)
        return self.provenance(value) if isinstance(value, Tensor) else repr(value)


def _tensors(child: nn.Module) -> list[Tensor]:
    return [each for each in (*child._parameters.values(), *child._buffers.values()) if each is not None]


def modules_of(module: nn.Module) -> tuple[nn.Module, ...]:
    """What `module.modules()` gives, in a fifth of the time: a network of cells has hundreds."""
    found: dict[nn.Module, None] = {}
    waiting: list[nn.Module | None] = [module]
    while waiting:
        child = waiting.pop()
        if child is not None and child not in found:
            found[child] = None
            if child._modules:
                waiting.extend(reversed(child._modules.values()))
    return tuple(found)


def parameters_of(modules: Iterable[nn.Module]) -> tuple[nn.Parameter, ...]:
    """Parameters of all `modules`, each once, in the order of `module.parameters()`."""
    return tuple({p: None for child in modules for p in child._parameters.values() if p is not None})


@contextmanager
def seeded() -> Iterator[None]:
    """Torch's global generator at a fixed seed for this thread alone, and as it was afterwards."""
    with _generator:
        before = torch.get_rng_state()
        torch.default_generator.manual_seed(SEED)
        try:
            yield
        finally:
            torch.set_rng_state(before)


def build_on_meta(
    space: Space, genotype: Genotype, signature: Signature, *, inside: bool = False
) -> tuple[nn.Module, InitLog]:
    """The module of a canonical genotype on the meta device, and how it would be initialised.

    Args:
        space: builds it.
        genotype: canonical.
        signature: what it takes and gives.
        inside: whether this process is a sandbox, so that code may run.

    Raises:
        ProposalError: from the space.
        ValueError: the space holds code, which is never run outside a sandbox.
    """
    if space.kind != "declarative" and not inside:
        raise ValueError(f"space {space.name!r} holds code: check its candidates inside a sandbox")
    log = InitLog()
    try:
        with log:
            module = space.build(genotype, signature)
    except ProposalError:
        raise
    except Exception:  # the constructor reads values that a meta tensor has not
        log = InitLog(on_meta=False)
        with seeded(), log:
            module = space.build(genotype, signature)
    held = (tensor for child in modules_of(module) for tensor in _tensors(child))
    if not all(tensor.is_meta for tensor in held):
        real = {n: tensor for n, tensor in module.state_dict(keep_vars=True).items() if not tensor.is_meta}
        module.to(_META)
        moved = module.state_dict(keep_vars=True)
        for name, tensor in real.items():
            told = log.provenance(tensor)
            if not _RANDOM.search(repr(told)):  # values say more than calls, but random ones depend on order
                told = (("array", hashlib.blake2b(tensor.detach().numpy().tobytes()).hexdigest()),)
            log.note(moved[name], *told)
    return module, log
