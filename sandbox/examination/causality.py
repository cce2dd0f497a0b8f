"""Causality: can a later position of a sequence change what a network makes of an earlier one?

A network of this project gives one vector for a sequence, which may read all of it. What can be causal are
the features per position on the way: they are read off every submodule that returns some, one position of the
input is changed at a time, and nothing before it may move.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from cambrian.sandbox.examination.report import Finding
from cambrian.search_spaces import Signature

CHECK = "causality"
MOVED = 1e-5
"""Change of a feature, by the largest one of its tensor, that is more than rounding."""
_LENGTH_LAST = (nn.Conv1d, nn.BatchNorm1d, nn.AvgPool1d, nn.MaxPool1d, nn.ConvTranspose1d)


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
    before = _features(module, samples, length)
    if length < 2 or len(before) == 0:
        return Finding(
            check=CHECK,
            verdict="failed" if demanded else "skipped",
            detail="cannot be seen: no submodule returns features per position, (n, length, channels)",
        )
    leaks, numbers = {}, {"sequences": float(len(before))}
    for at in sorted({length // 4, length // 2, 3 * length // 4, length - 1} - {0}):
        after = _features(module, _changed(samples, at, signature), length)
        for key in before.keys() & after.keys():
            moved = _moved_before(before[key], after[key], at)
            if moved > MOVED and key not in leaks:
                leaks[key] = (at, moved)
    numbers["leaks"] = float(len(leaks))
    if not leaks:
        said = f"causal: later positions change nothing earlier in {len(before)} sequences of features"
        return Finding(check=CHECK, verdict="passed", detail=said, numbers=numbers)
    name = next(key for key in before if key in leaks)
    at, moved = leaks[name]
    where = f"of {name[0]}" if name[0] else "that the network returns"
    said = f"not causal: changing position {at} of {length} changes earlier features {where} by {moved:.2g}"
    return Finding(check=CHECK, verdict="failed" if demanded else "noted", detail=said[:380], numbers=numbers)


_Key = tuple[str, int, int]
"""Name of a submodule, number of its call, number of the tensor among those that it returned."""


def _features(module: nn.Module, samples: Tensor, length: int) -> dict[_Key, Tensor]:
    """What submodules return per position, with the axis of the position first, in the order of the calls."""
    found: dict[_Key, Tensor] = {}
    calls: dict[str, int] = {}
    hooks = []

    def listen(name: str, child: nn.Module) -> None:
        def hook(_module: nn.Module, _args: object, output: object) -> None:
            calls[name] = calls.get(name, 0) + 1
            for i, tensor in enumerate(_tensors(output)):
                axis = _position_axis(child, tensor, len(samples), length)
                if axis is not None:
                    found[name, calls[name], i] = tensor.detach().movedim(axis, 0)

        hooks.append(child.register_forward_hook(hook))

    for name, child in module.named_modules():
        listen(name, child)
    module.eval()
    torch.manual_seed(0)
    try:
        with torch.no_grad():
            module(samples)
    finally:
        for hook in hooks:
            hook.remove()
    return found


def _tensors(output: object) -> Iterator[Tensor]:
    if isinstance(output, Tensor):
        if output.is_floating_point():
            yield output
    elif isinstance(output, list | tuple):
        for item in output:
            if isinstance(item, Tensor) and item.is_floating_point():
                yield item


def _position_axis(child: nn.Module, tensor: Tensor, n: int, length: int) -> int | None:
    """Which axis stands for the position; one more than `length` there where a token was added.

    Recurrent layers may have the batch second. A tensor with two such axes, as a map of attention, tells
    nothing; one of three axes is read as its kind of layer writes it.
    """
    if tensor.dim() < 3:
        return None
    batch = 0 if tensor.shape[0] == n else 1 if tensor.shape[1] == n else None
    if batch is None:
        return None
    for wanted in (length, length + 1):
        axes = [axis for axis, size in enumerate(tensor.shape) if size == wanted and axis != batch]
        if len(axes) == 1:
            return axes[0]
        if axes:
            if tensor.dim() > 3:
                return None
            return 2 if isinstance(child, _LENGTH_LAST) else 1
    return None


def _moved_before(before: Tensor, after: Tensor, at: int) -> float:
    """Largest change of features of the positions before `at`, by the largest feature."""
    if before.shape != after.shape or not at:
        return 0.0
    size = float(before.abs().max())
    return float((after[:at] - before[:at]).abs().max()) / max(size, 1e-12)


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
