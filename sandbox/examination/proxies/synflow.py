"""SynFlow: how much the weights let through, without any data."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from cambrian.sandbox.examination.proxies.naswot import RECTIFIERS
from cambrian.sandbox.examination.proxies.proxy import Specimen

_NORMS: frozenset[Any] = frozenset(
    {
        functional.batch_norm, functional.layer_norm, functional.group_norm, functional.instance_norm,
        functional.rms_norm, functional.local_response_norm, torch.batch_norm, torch.layer_norm,
        torch.group_norm, torch.instance_norm, torch.rms_norm,
    }
)  # fmt: skip
_BOUNDED: frozenset[Any] = frozenset(
    (functional.hardtanh, functional.tanh, functional.softsign, torch.tanh, Tensor.tanh)
)
_PASSED = _NORMS | _BOUNDED | RECTIFIERS


class SynFlow:
    """Synaptic flow (Tanaka et al. 2020, arXiv:2006.05467) as a proxy (Abdelfattah et al., arXiv:2101.08134).

    The weights take their absolute values, an input of ones goes through, and the proxy is the natural
    logarithm of the sum over the weights of weight times gradient of the summed output. It multiplies over
    layers, hence the logarithm and double precision.

    As published, normalisation is left out. Where a network is not piecewise linear, activations pass their
    input on, but gates (sigmoid, softmax) stay. Ids have no value to be one: each becomes the mean of all
    embeddings; in a graph, all features of nodes are ones. Missing where nothing comes through.
    """

    name = "synflow"

    def measure(self, specimen: Specimen) -> float | None:
        """See `Proxy`."""
        module = specimen.module.double().eval()
        for parameter in module.parameters():
            parameter.data = parameter.data.abs()
        weights = specimen.weights()
        if not weights:
            return None
        inputs = specimen.inputs
        if specimen.nodes is not None:
            for name, buffer in module.named_buffers():
                if name.split(".")[-1] == "features":
                    buffer.fill_(1.0)
        elif specimen.takes_ids:
            inputs = inputs[:1]
        else:
            inputs = torch.ones_like(inputs[:1], dtype=torch.float64)
        with _Linear():
            outputs = module(inputs)
        flow = torch.autograd.grad(outputs.sum(), weights, allow_unused=True)
        total = math.fsum(
            float((weight.detach() * grad).abs().sum())
            for weight, grad in zip(weights, flow, strict=True)
            if grad is not None
        )
        return math.log(total) if total > 0 else None


class _Linear(TorchFunctionMode):
    """Lets normalisation and activations pass their input on, and all ids have one embedding."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        kwargs = dict(kwargs or {})
        if func in _PASSED:
            return args[0] if args else kwargs["input"]
        if func is functional.embedding:
            ids = args[0] if args else kwargs["input"]
            table = args[1] if len(args) > 1 else kwargs["weight"]
            return table.mean(0).expand(*ids.shape, -1)
        return func(*args, **kwargs)
