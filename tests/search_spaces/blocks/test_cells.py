"""The operations of NAS-Bench-201."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from cambrian.search_spaces.blocks import CellConv, CellPool, CellReduction, Zero


def test_pooling_leaves_the_outside_out() -> None:
    """A constant map stays constant, also at its border."""
    assert torch.allclose(CellPool()(torch.full((1, 2, 4, 5), 3.0)), torch.full((1, 2, 4, 5), 3.0))


def test_zero_passes_neither_values_nor_gradients() -> None:
    x = torch.randn(2, 3, requires_grad=True)
    out = Zero()(x)
    out.sum().backward()
    assert not out.any()
    assert x.grad is not None and not x.grad.any()
    assert Zero()(torch.tensor([3])).dtype == torch.int64


def test_the_activation_comes_first() -> None:
    torch.manual_seed(0)
    conv = CellConv(3, 3, kernel=3).eval()
    assert not conv(-torch.rand(1, 3, 4, 4)).any()
    assert conv(torch.randn(1, 3, 4, 4)).min() < 0


@pytest.mark.parametrize("size", [(2, 2), (5, 3), (8, 7)])
def test_reduction_halves_rounding_up(size: tuple[int, int]) -> None:
    out = CellReduction(4, 6)(torch.randn(2, 4, *size))
    assert out.shape == (2, 6, -(-size[0] // 2), -(-size[1] // 2))


def test_the_shortcut_of_a_reduction_is_the_mapped_mean() -> None:
    reduction = CellReduction(2, 2).eval()
    for parameter in reduction.parameters():
        nn.init.zeros_(parameter)
    reduction.shortcut.weight.data = torch.eye(2).reshape(2, 2, 1, 1)
    x = torch.arange(32.0).reshape(1, 2, 4, 4)
    means = x.reshape(1, 2, 2, 2, 2, 2).mean((3, 5))
    assert torch.allclose(reduction(x), means)
