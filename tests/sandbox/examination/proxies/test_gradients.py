from __future__ import annotations

import pytest
import torch
from torch import nn

from cambrian.sandbox.examination.proxies.gradients import GradNorm, Snip
from cambrian.sandbox.examination.proxies.proxy import Proxy, Specimen, measured
from tests.contracts.proxy import ProxyContract


class TestSnip(ProxyContract):
    name = "snip"


class TestGradNorm(ProxyContract):
    name = "grad_norm"


def linear() -> tuple[Specimen, torch.Tensor, torch.Tensor]:
    """Linear regression, its weights, and their gradient worked out by hand."""
    rng = torch.Generator().manual_seed(0)
    inputs, targets = torch.randn(7, 4, generator=rng), torch.randn(7, 2, generator=rng)
    layer = nn.Linear(4, 2)
    weights = layer.weight.detach()
    error = inputs @ weights.T + layer.bias.detach() - targets
    return Specimen(layer, inputs, targets, "squared-error"), weights, 2 * error.T @ inputs / error.numel()


def test_of_a_linear_layer() -> None:
    specimen, weights, gradient = linear()
    assert measured(GradNorm(), specimen) == pytest.approx(float(gradient.norm()), rel=1e-5)
    assert measured(Snip(), specimen) == pytest.approx(float((weights * gradient).abs().sum()), rel=1e-5)


def test_grow_with_the_error() -> None:
    specimen, _, _ = linear()
    far = Specimen(specimen.module, specimen.inputs, specimen.targets + 100, "squared-error")
    for proxy in (Snip(), GradNorm()):
        near_value, far_value = measured(proxy, specimen), measured(proxy, far)
        assert near_value is not None and far_value is not None and far_value > 10 * near_value


@pytest.mark.parametrize("proxy", [Snip(), GradNorm()], ids=lambda p: p.name)
def test_are_missing_without_a_gradient(proxy: Proxy) -> None:
    class Cut(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner, self.scale = nn.Linear(4, 2), nn.Parameter(torch.ones(2))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.inner(x).detach() * self.scale

    specimen, _, _ = linear()
    assert measured(proxy, Specimen(Cut(), specimen.inputs, specimen.targets, "squared-error")) is None
    frozen = nn.Linear(4, 2).requires_grad_(False)
    assert measured(proxy, Specimen(frozen, specimen.inputs, specimen.targets, "squared-error")) is None
