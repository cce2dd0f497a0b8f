"""Kolmogorov-Arnold layers: the bases against their definitions, and a function that they can fit."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.interpolate import BSpline

from cambrian.search_spaces.blocks.kan import Basis, KANLayer

X = torch.linspace(-2.5, 2.5, 101)


def test_splines_are_cubic_splines() -> None:
    grid = 5
    knots = np.linspace(-1, 1, grid + 1)
    step = knots[1] - knots[0]
    knots = np.concatenate([knots[0] - step * np.arange(3, 0, -1), knots, knots[-1] + step * np.arange(1, 4)])
    expected = BSpline.design_matrix(X.tanh().double().numpy(), knots, 3).toarray()
    found = Basis("spline", grid)(X)
    assert found.shape == (101, grid + 3)
    assert torch.allclose(found.double(), torch.from_numpy(expected), atol=1e-5)


def test_polynomials_are_chebyshevs() -> None:
    found = Basis("chebyshev", 6)(X)
    expected = torch.stack([torch.cos(n * torch.acos(X.tanh())) for n in range(1, 7)], dim=-1)
    assert torch.allclose(found, expected, atol=1e-4)


def test_gaussians_and_waves() -> None:
    gaussians = Basis("rbf", 4)(X)
    centres = torch.linspace(-1, 1, 5)
    assert torch.allclose(gaussians, torch.exp(-(((X.tanh().unsqueeze(1) - centres) / 0.5) ** 2)), atol=1e-6)
    waves = Basis("fourier", 3)(X)
    expected = [
        torch.sin(X),
        torch.sin(2 * X),
        torch.sin(3 * X),
        torch.cos(X),
        torch.cos(2 * X),
        torch.cos(3 * X),
    ]
    assert torch.allclose(waves, torch.stack(expected, dim=-1), atol=1e-5)


@pytest.mark.parametrize("basis", ["spline", "rbf", "chebyshev", "fourier"])
def test_outputs_are_sums_of_functions_of_one_input(basis: str) -> None:
    torch.manual_seed(0)
    layer = KANLayer(3, 2, basis=basis, grid=4)
    a, b = torch.randn(7, 3), torch.randn(7, 3)
    mixed = torch.cat([a[:, :1], b[:, 1:]], dim=1)
    other = torch.cat([b[:, :1], a[:, 1:]], dim=1)
    assert torch.allclose(layer(a) + layer(b), layer(mixed) + layer(other), atol=1e-5)
    assert torch.allclose(layer(a.reshape(7, 1, 3)).squeeze(1), layer(a), atol=1e-6)


@pytest.mark.parametrize("basis", ["spline", "rbf", "chebyshev", "fourier"])
def test_a_curve_is_fitted_that_the_base_alone_cannot_fit(basis: str) -> None:
    torch.manual_seed(0)
    x = torch.linspace(-1, 1, 200).unsqueeze(1)
    target = torch.sin(5 * x)
    layer = KANLayer(1, 1, basis=basis, grid=6)
    with torch.no_grad():
        design = torch.cat(
            [layer.basis(x).flatten(1), torch.nn.functional.silu(x), torch.ones_like(x)], dim=1
        )
        fit = torch.linalg.lstsq(design.double(), target.double()).solution.float()
        layer.curves.weight.copy_(fit[:-2].T)
        layer.base.weight.copy_(fit[-2:-1])
        layer.base.bias.copy_(fit[-1])
        assert (layer(x) - target).square().mean().sqrt() < 0.02
        base = design[:, -2:]
        alone = base @ torch.linalg.lstsq(base, target).solution
        assert (alone - target).square().mean().sqrt() > 0.5
