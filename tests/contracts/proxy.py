"""What every zero-cost proxy must do. A test class inherits `ProxyContract` and names its proxy."""

from __future__ import annotations

import copy
import math
import random
from collections.abc import Callable
from typing import ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from cambrian.sandbox.examination.proxies import PROXIES, compute
from cambrian.sandbox.examination.proxies.proxy import Proxy, Specimen, measured
from cambrian.search_spaces import Loss
from cambrian.search_spaces.blocks.graph import Aggregate, NodeReadout, set_context

BATCH, NODES, EDGES = 8, 12, 30


class Images(nn.Module):
    """Convolutions with batch norm and dropout, a shared layer, and a ReLU in place."""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, width, 3, padding=1)
        self.norm = nn.BatchNorm2d(width)
        self.mix = nn.Conv2d(width, width, 1, bias=False)
        self.drop = nn.Dropout(0.5)
        self.head = nn.Linear(width, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu_(self.norm(self.stem(x)))
        x = torch.relu(self.mix(self.mix(x)))
        return self.head(self.drop(x.mean((2, 3))))


class Turned(nn.Module):
    """`Images` with the same weights: other names, made in the opposite order."""

    def __init__(self, like: Images) -> None:
        super().__init__()
        self.a_last, self.b_drop, self.c_pointwise, self.d_batch, self.e_first = (
            copy.deepcopy(part) for part in (like.head, like.drop, like.mix, like.norm, like.stem)
        )

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu_(self.d_batch(self.e_first(x)))
        x = torch.relu(self.c_pointwise(self.c_pointwise(x)))
        return self.a_last(self.b_drop(x.mean((2, 3))))


class Symbols(nn.Module):
    """A transformer block over ids of 20 symbols."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(20, 16)
        self.attend = nn.MultiheadAttention(16, 2, batch_first=True)
        self.norm = nn.LayerNorm(16)
        self.widen, self.head = nn.Linear(16, 32), nn.Linear(32, 5)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.embed(ids)
        x = self.norm(x + self.attend(x, x, x, need_weights=False)[0])
        return self.head(nn.functional.gelu(self.widen(x)).mean(1))


def graph_network() -> nn.Module:
    """Two linear maps around one round of messages, on a ring with chords."""
    body = nn.Sequential(
        nn.Linear(6, 32), Aggregate(nodes=NODES, edges=EDGES, kind="mean"), nn.ReLU(), nn.Linear(32, 16)
    )
    network = nn.Sequential(NodeReadout(body, nodes=NODES, features=6), nn.ReLU(), nn.Linear(16, 5))
    rng = torch.Generator().manual_seed(1)
    sources = torch.randint(0, NODES, (EDGES,), generator=rng)
    targets = (sources + torch.randint(1, NODES, (EDGES,), generator=rng)) % NODES
    features = torch.randn(NODES, 6, generator=rng)
    set_context(network, {"features": features, "edges": torch.stack([sources, targets])})
    return network


def regression_network() -> nn.Module:
    """A perceptron of one hidden layer."""
    return nn.Sequential(nn.Linear(6, 32), nn.SiLU(), nn.Linear(32, 2))


def _classes(n: int) -> Tensor:
    return torch.arange(n) % 5


def _drawn(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(2))


Case = tuple[Callable[[], nn.Module], Tensor, Tensor, Loss]
CASES: dict[str, Case] = {
    "images": (Images, _drawn(BATCH, 3, 8, 8), _classes(BATCH), "cross-entropy"),
    "symbols": (
        Symbols,
        torch.randint(0, 20, (BATCH, 7), generator=torch.Generator().manual_seed(3)),
        _classes(BATCH),
        "cross-entropy",
    ),
    "nodes": (graph_network, torch.arange(BATCH) + 2, _classes(BATCH), "cross-entropy"),
    "regression": (regression_network, _drawn(BATCH, 6), _drawn(BATCH, 2), "squared-error"),
}
"""What a task can be: how its network is built, a batch, and the loss."""


def specimen(name: str) -> Specimen:
    """A network of the case, initialised by a fixed seed, and its batch."""
    build, inputs, targets, loss = CASES[name]
    with torch.random.fork_rng():
        torch.manual_seed(7)
        return Specimen(build(), inputs, targets, loss)


class ProxyContract:
    """The suite.

    Attributes:
        name: under which the proxy is registered.
        missing: cases that the proxy has no number for.
    """

    name: ClassVar[str]
    missing: ClassVar[frozenset[str]] = frozenset()

    @pytest.fixture
    def proxy(self) -> Proxy:
        return PROXIES.create(self.name)

    def test_is_a_proxy_under_its_name(self, proxy: Proxy) -> None:
        assert isinstance(proxy, Proxy)
        assert proxy.name == self.name in PROXIES.names()

    @pytest.mark.parametrize("case", CASES)
    def test_is_finite_and_the_same_every_time(self, proxy: Proxy, case: str) -> None:
        found = compute([self.name], *CASES[case])
        random.random(), torch.rand(1), np.random.rand()
        with torch.no_grad():  # what the caller does with gradients is none of its business
            assert compute([self.name], *CASES[case]) == found
        assert set(found) == (set() if case in self.missing else {self.name})
        assert all(type(value) is float and math.isfinite(value) for value in found.values())

    @pytest.mark.parametrize("case", CASES)
    def test_leaves_no_trace(self, proxy: Proxy, case: str) -> None:
        subject = specimen(case)
        module = subject.module
        next(module.parameters()).requires_grad_(False)
        list(module.modules())[-1].eval()
        before = copy.deepcopy(module)
        tensors = {n: t.data_ptr() for n, t in _tensors(module).items()}
        inputs, targets = subject.inputs.clone(), subject.targets.clone()
        generators = (torch.get_rng_state(), random.getstate(), str(np.random.get_state()))
        measured(proxy, subject)
        assert torch.equal(torch.get_rng_state(), generators[0])
        assert (random.getstate(), str(np.random.get_state())) == generators[1:]
        assert torch.is_grad_enabled() and torch.get_default_dtype() is torch.float32
        assert torch.equal(subject.inputs, inputs) and torch.equal(subject.targets, targets)
        assert {n: t.data_ptr() for n, t in _tensors(module).items()} == tensors
        for name, tensor in _tensors(before).items():
            after = _tensors(module)[name]
            assert after.dtype is tensor.dtype and torch.equal(after, tensor), name
            assert after.requires_grad == tensor.requires_grad and after.grad is None, name
        assert [m.training for m in module.modules()] == [m.training for m in before.modules()]
        assert [len(m._forward_hooks) for m in module.modules()] == [0] * len(list(module.modules()))

    def test_names_and_order_of_parameters_do_not_matter(self, proxy: Proxy) -> None:
        one = specimen("images")
        assert isinstance(one.module, Images)
        other = Specimen(Turned(one.module), one.inputs, one.targets, one.loss)
        assert list(dict(one.module.named_parameters())) != list(dict(other.module.named_parameters()))
        value = measured(proxy, one)
        assert value is not None and measured(proxy, other) == value

    def test_what_it_measured_before_does_not_matter(self, proxy: Proxy) -> None:
        others = [PROXIES.create(name) for name in PROXIES.names()]
        subject = specimen("images")
        for other in others:
            measured(other, subject)
        assert measured(proxy, subject) == measured(proxy, specimen("images"))


def _tensors(module: nn.Module) -> dict[str, Tensor]:
    return {**dict(module.named_parameters()), **dict(module.named_buffers(remove_duplicate=False))}
