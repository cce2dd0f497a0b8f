"""Causality: can a later position of a sequence change what a network makes of an earlier one?

A network of this project gives one vector for a sequence, which may read all of it. What can be causal are
the features per position on the way. One position of the input is changed at a time, and nothing before it
may move: neither in what submodules return, nor, where no submodule shows how positions are mixed, in what
single operations return.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from cambrian.sandbox.examination.report import Finding
from cambrian.search_spaces import Signature

CHECK = "causality"
MOVED = 1e-5
"""Change of a feature, by the largest one of its tensor, that is more than rounding."""
MOST = 4096
"""Tensors that are kept of a pass."""
_LENGTH_LAST = (nn.Conv1d, nn.BatchNorm1d, nn.AvgPool1d, nn.MaxPool1d, nn.ConvTranspose1d)

_Key = tuple[str, int, int]
"""Where a tensor came from: a name, the number of the call, the number among those that it returned."""


def causality(module: nn.Module, samples: Tensor, signature: Signature, demanded: bool) -> Finding:
    """Whether changes of later positions leave earlier features alone, in eval mode.

    Args:
        module: with weights of which none is zero by design.
        samples: ids `(n, length)` or values `(n, length, channels)`.
        signature: of the task.
        demanded: whether it is a failure when they do not.
    """
    samples = _of_telling_length(module, samples)
    length = samples.shape[1]
    before = _watch(module, samples)
    positions = sorted({length // 4, length // 2, 3 * length // 4, length - 1} - {0})
    after = [(at, _watch(module, _changed(samples, at, signature))) for at in positions]
    seen = _compare(before.modules, [(at, seen.modules) for at, seen in after])
    if not seen.leaks and not seen.mixed:
        seen = _compare(before.calls, [(at, seen.calls) for at, seen in after])
    numbers = {"sequences": float(seen.count), "leaks": float(len(seen.leaks))}
    if not seen.count:
        detail = "cannot be seen: nothing returns features per position, (n, length, channels)"
        verdict = "failed" if demanded else "skipped"
        return Finding.model_validate({"check": CHECK, "verdict": verdict, "detail": detail})
    if not seen.leaks:
        said = f"causal: later positions change nothing earlier in {seen.count} sequences of features"
        return Finding(check=CHECK, verdict="passed", detail=said, numbers=numbers)
    name, (at, moved) = next(iter(seen.leaks.items()))
    where = f"of {name[0]}" if name[0] else "that the network returns"
    said = f"not causal: changing position {at} of {length} changes earlier features {where} by {moved:.2g}"
    return Finding(check=CHECK, verdict="failed" if demanded else "noted", detail=said[:380], numbers=numbers)


@dataclass
class _Seen:
    """What a comparison showed.

    Attributes:
        count: sequences of features.
        mixed: whether a change moved later positions in any of them.
        leaks: position and size of the change, of each sequence in which it moved earlier ones.
    """

    count: int = 0
    mixed: bool = False
    leaks: dict[_Key, tuple[int, float]] = field(default_factory=dict)


def _compare(before: Mapping[_Key, Tensor], after: list[tuple[int, dict[_Key, Tensor]]]) -> _Seen:
    seen = _Seen(count=len(before))
    for key, features in before.items():
        for at, passes in after:
            other = passes.get(key)
            if other is None or other.shape != features.shape:
                continue
            moved = _change(features[:at], other[:at], features)
            if moved > MOVED:
                seen.leaks.setdefault(key, (at, moved))
            seen.mixed |= _change(features[at + 1 :], other[at + 1 :], features) > MOVED
    return seen


def _change(ours: Tensor, theirs: Tensor, whole: Tensor) -> float:
    """Largest difference, by the largest of `whole`."""
    if not ours.numel():
        return 0.0
    return float((ours - theirs).abs().max()) / max(float(whole.abs().max()), 1e-12)


@dataclass
class _Watched(TorchFunctionMode):
    """Features per position of one pass, the axis of the position first, in the order of the calls.

    Attributes:
        n: samples.
        length: positions.
        modules: what submodules return.
        calls: what single operations return.
    """

    n: int
    length: int
    modules: dict[_Key, Tensor] = field(default_factory=dict)
    calls: dict[_Key, Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__init__()
        self._count = 0

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        self._count += 1
        name = getattr(func, "__name__", "")
        if name != "__get__" and len(self.calls) < MOST:
            for i, tensor in enumerate(_tensors(result)):
                axis = _position_axis(None, tensor, self.n, self.length)
                if axis is not None:
                    # in-place operations would change it later
                    self.calls[name, self._count, i] = tensor.detach().movedim(axis, 0).clone()
        return result

    def hook(self, name: str) -> Callable[[nn.Module, object, object], None]:
        """For the submodule of that name."""
        count = 0

        def note(child: nn.Module, _args: object, output: object) -> None:
            nonlocal count
            count += 1
            for i, tensor in enumerate(_tensors(output)):
                axis = _position_axis(child, tensor, self.n, self.length)
                if axis is not None and len(self.modules) < MOST:
                    self.modules[name, count, i] = tensor.detach().movedim(axis, 0).clone()

        return note


def _watch(module: nn.Module, samples: Tensor) -> _Watched:
    watched = _Watched(len(samples), samples.shape[1])
    module.eval()
    torch.manual_seed(0)
    with ExitStack() as hooks:
        for name, child in module.named_modules():
            hooks.callback(child.register_forward_hook(watched.hook(name)).remove)
        with torch.no_grad(), watched:
            module(samples)
    return watched


def _tensors(output: object) -> Iterator[Tensor]:
    if isinstance(output, Tensor):
        if output.is_floating_point():
            yield output
    elif isinstance(output, list | tuple):
        for item in output:
            if isinstance(item, Tensor) and item.is_floating_point():
                yield item


def _position_axis(child: nn.Module | None, tensor: Tensor, n: int, length: int) -> int | None:
    """Which axis stands for the position; one more than `length` there where a token was added.

    Recurrent layers may have the batch second. A tensor with two such axes, as a map of attention, tells
    nothing; one of three axes is read as its kind of layer writes it.

    Args:
        child: the submodule that returned it; None for what an operation did.
        tensor: of any shape.
        n: samples.
        length: positions.
    """
    if tensor.dim() < 3:
        return None
    batch = 0 if tensor.shape[0] == n else 1 if tensor.shape[1] == n else None
    if batch is None:
        return None
    axes = [axis for axis, size in enumerate(tensor.shape) if size in (length, length + 1) and axis != batch]
    if len(axes) > 1 and (child is None or tensor.dim() > 3):
        return None
    if not axes:
        return None
    return axes[-1] if isinstance(child, _LENGTH_LAST) else axes[0]


def _changed(samples: Tensor, at: int, signature: Signature) -> Tensor:
    """The samples with another value at position `at`."""
    other = samples.clone()
    if signature.vocabulary is not None:
        other[:, at] = (samples[:, at] + 1 + signature.vocabulary // 3) % signature.vocabulary
    else:
        other[:, at] = 1 - samples[:, at]
    return other


def _of_telling_length(module: nn.Module, samples: Tensor) -> Tensor:
    """The samples, cut so that no axis of features has as many elements as there are positions.

    They are as they were where that cannot be had, as of a network that refuses other lengths.
    """
    sizes = {size for tensor in module.state_dict().values() for size in tensor.shape} | {len(samples)}
    length = samples.shape[1]
    for shorter in range(length, max(1, 3 * length // 4), -1):
        if {shorter, shorter + 1} & sizes:
            continue
        if shorter == length:
            return samples
        try:
            with torch.no_grad():
                module.eval()(samples[:, :shorter])
        except Exception:
            return samples
        return samples[:, :shorter]
    return samples
