"""Fisher: how much the loss would feel it if a channel were gone."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from cambrian.sandbox.examination.proxies.proxy import Specimen

_CONVOLUTIONS = frozenset(
    {
        torch.conv1d, torch.conv2d, torch.conv3d, torch.conv_transpose1d, torch.conv_transpose2d,
        torch.conv_transpose3d,
    }
)  # fmt: skip


class Fisher:
    """Fisher information of channels (Turner et al. 2020, arXiv:1906.04113; Liu et al., arXiv:2108.00708).

    Added up over a network as by Abdelfattah et al. (2021, arXiv:2101.08134). For every output of a
    convolution or linear layer: activation times gradient of the loss, summed over positions, squared,
    halved, mean over the samples, summed over channels. Positions of a sequence are summed over as those of
    an image are. In a graph each node counts as a sample. Linear maps inside `nn.MultiheadAttention` are
    fused and do not show. Missing where no such layer has a gradient.
    """

    name = "fisher"

    def measure(self, specimen: Specimen) -> float | None:
        """See `Proxy`."""
        layers = _Layers()
        with layers:
            outputs = specimen.module(specimen.inputs)
        if not layers.outputs:
            return None
        loss = specimen.loss_of(outputs)
        found = torch.autograd.grad(loss, [out for out, _ in layers.outputs], allow_unused=True)
        effects = [
            _saliency(out.detach() * grad, channel)
            for (out, channel), grad in zip(layers.outputs, found, strict=True)
            if grad is not None
        ]
        return math.fsum(effects) if effects else None


def _saliency(effect: Tensor, channel: int) -> float:
    """Of activation times gradient, samples along the first axis and channels along `channel`."""
    rows = effect.movedim(channel, -1)
    summed = rows.flatten(1, -2).sum(1) if rows.ndim > 2 else rows
    return float(summed.double().square().mean(0).sum() / 2)


class _Layers(TorchFunctionMode):
    """Keeps the output of every convolution and linear layer, with its axis of channels."""

    def __init__(self) -> None:
        super().__init__()
        self.outputs: list[tuple[Tensor, int]] = []

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        spatial = func in _CONVOLUTIONS
        if not (spatial or func is functional.linear) or not out.requires_grad or out.ndim < 2:
            return out
        self.outputs.append((out, 1 if spatial else out.ndim - 1))
        return out.clone()  # what follows may work in place, and must not spoil what is kept
