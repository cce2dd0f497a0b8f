"""The `Proxy` protocol, what a proxy is given, and how it is kept from leaving traces."""

from __future__ import annotations

import functools
import math
import random
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules.dropout import _DropoutNd

from cambrian.sandbox.examination.meta import SEED, seeded
from cambrian.search_spaces import Loss

LARGEST = 1e30
"""No number above this is told: see `examination.report.Finite`."""


@dataclass(eq=False)
class Specimen:
    """An initialised network and a batch of its task.

    Attributes:
        module: on the CPU, in training mode but for its dropout, so that nothing is drawn.
        inputs: `(n, *input_shape)`; float32, or int64 ids.
        targets: classes `(n,)`, or values `(n, n_outputs)`.
        loss: what training would minimise.
    """

    module: nn.Module
    inputs: Tensor
    targets: Tensor
    loss: Loss

    @property
    def takes_ids(self) -> bool:
        """Whether inputs are ids, of symbols or of nodes."""
        return not self.inputs.is_floating_point()

    @functools.cached_property
    def nodes(self) -> int | None:
        """How many nodes the graph has whose nodes the inputs name; None where inputs are something else."""
        if self.inputs.ndim > 1 or not self.takes_ids:
            return None
        held = [each for name, each in self.module.named_buffers() if name.split(".")[-1] == "features"]
        return len(held[0]) if held else None

    def rows(self, values: Tensor) -> Tensor | None:
        """What `values`, taken anywhere in the network, says of each sample: `(n, -1)`; None if unclear.

        A first dimension of n times k is read as k parts of each sample, such as windows. In a graph, values
        of all nodes are narrowed down to the nodes that are asked for.
        """
        n, first = len(self.inputs), len(values) if values.ndim else 0
        if self.nodes is not None and first == self.nodes:
            return values[self.inputs].reshape(n, -1)
        if first == n or (self.nodes is None and first and first % n == 0):
            return values.reshape(n, -1)
        return None

    def weights(self) -> list[nn.Parameter]:
        """Trained matrices and kernels: no biases, no scales."""
        return [each for each in self.module.parameters() if each.requires_grad and each.ndim > 1]

    def loss_of(self, outputs: Tensor) -> Tensor:
        """Mean loss of the batch, a scalar."""
        if self.loss == "cross-entropy":
            return functional.cross_entropy(outputs, self.targets)
        return functional.mse_loss(outputs, self.targets)

    @functools.cached_property
    def gradients(self) -> list[tuple[Tensor, Tensor]]:
        """Each weight that the loss depends on, with its gradient; worked out once for all proxies."""
        torch.default_generator.manual_seed(SEED)
        weights = self.weights()
        if not weights:
            return []
        outputs = self.module(self.inputs)
        found = torch.autograd.grad(self.loss_of(outputs), weights, allow_unused=True)
        return [(w, grad) for w, grad in zip(weights, found, strict=True) if grad is not None]


@runtime_checkable
class Proxy(Protocol):
    """One number of an untrained network that may go along with its score after training.

    Factories take no arguments. A number depends on what the network computes and on the batch, never on
    names or on the order in which parameters were made.
    """

    name: str

    def measure(self, specimen: Specimen) -> float | None:
        """The number; None, or one that is not finite, where the network has no such thing.

        May change the module's parameters, buffers, gradients and modes: the caller puts them back.
        """
        ...


def compute_all(
    proxies: Mapping[str, Proxy],
    build: Callable[[], nn.Module],
    inputs: Tensor,
    targets: Tensor,
    loss: Loss,
) -> dict[str, float]:
    """See `compute` of the package."""
    with _same_draws():
        module = build()
    specimen = Specimen(module, inputs, targets, loss)
    found: dict[str, float] = {}
    for name, proxy in proxies.items():
        try:
            value = measured(proxy, specimen)
        except Exception:  # of a network's own code: whatever stopped it, there is no number
            continue
        if value is not None:
            found[name] = value
    return found


def measured(proxy: Proxy, specimen: Specimen) -> float | None:
    """What `proxy` says of `specimen`, which is as it was before; None if that is no finite number."""
    with _same_draws(), undisturbed(specimen.module), torch.inference_mode(False), torch.enable_grad():
        specimen.module.train()
        for child in specimen.module.modules():
            if isinstance(child, _DropoutNd):
                child.eval()
        value = proxy.measure(specimen)
    return value if value is not None and math.isfinite(value) and abs(value) <= LARGEST else None


@contextmanager
def undisturbed(module: nn.Module) -> Iterator[None]:
    """Whatever happens to the module's parameters, buffers, gradients and modes inside is undone."""
    modes = [(child, child.training) for child in module.modules()]
    parameters = [(p, p.data, p.data.clone(), p.grad, p.requires_grad) for p in module.parameters()]
    buffers = [
        (child, name, value, value.clone())
        for child in module.modules()
        for name, value in child._buffers.items()
        if value is not None
    ]
    try:
        yield
    finally:
        with torch.no_grad():
            for parameter, data, values, grad, trained in parameters:
                parameter.data = data.copy_(values)
                parameter.grad = grad
                parameter.requires_grad_(trained)
            for child, name, buffer, values in buffers:
                child._buffers[name] = buffer.copy_(values)
        for child, mode in modes:
            child.training = mode


@contextmanager
def _same_draws() -> Iterator[None]:
    """Every generator that a network might draw from at a fixed seed, and as it was afterwards."""
    python, array = random.getstate(), np.random.get_state()
    random.seed(SEED)
    np.random.seed(SEED)
    try:
        with seeded():
            yield
    finally:
        random.setstate(python)
        np.random.set_state(array)
