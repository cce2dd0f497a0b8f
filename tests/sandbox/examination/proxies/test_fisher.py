from __future__ import annotations

import pytest
import torch
from torch import nn

from cambrian.sandbox.examination.proxies.fisher import Fisher
from cambrian.sandbox.examination.proxies.proxy import Specimen, measured
from tests.contracts.proxy import ProxyContract


class TestFisher(ProxyContract):
    name = "fisher"


def fisher(module: nn.Module, inputs: torch.Tensor, targets: torch.Tensor) -> float | None:
    return measured(Fisher(), Specimen(module, inputs, targets, "squared-error"))


def test_of_a_linear_layer() -> None:
    rng = torch.Generator().manual_seed(0)
    inputs, targets = torch.randn(7, 4, generator=rng), torch.randn(7, 2, generator=rng)
    layer = nn.Linear(4, 2)
    outputs = layer(inputs).detach()
    effect = outputs * 2 * (outputs - targets) / targets.numel()
    assert fisher(layer, inputs, targets) == pytest.approx(float(effect.square().mean(0).sum() / 2), rel=1e-5)


def test_positions_are_summed_in_images_and_sequences() -> None:
    """A convolution of one pixel, and the linear layer of the same weights along the last axis."""

    class Along(nn.Module):
        def __init__(self, layer: nn.Module, axes: tuple[int, ...]) -> None:
            super().__init__()
            self.layer, self.axes = layer, axes

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.layer(x).mean(self.axes)

    torch.manual_seed(0)
    dense, pixel = nn.Linear(3, 5), nn.Conv2d(3, 5, 1)
    with torch.no_grad():
        pixel.weight.copy_(dense.weight[:, :, None, None])
        pixel.bias.copy_(dense.bias)
    images, targets = torch.randn(6, 3, 2, 4), torch.randn(6, 5)
    value = fisher(Along(pixel, (2, 3)), images, targets)
    sequences = images.flatten(2).movedim(1, 2)
    assert value is not None and value == pytest.approx(
        fisher(Along(dense, (1,)), sequences, targets), rel=1e-5
    )


def test_activations_in_place_do_not_spoil_what_is_kept() -> None:
    torch.manual_seed(0)
    inputs, targets = torch.randn(6, 4), torch.randn(6, 2)
    first, last = nn.Linear(4, 8), nn.Linear(8, 2)
    found = [
        fisher(nn.Sequential(first, nn.ReLU(inplace=way), last), inputs, targets) for way in (False, True)
    ]
    assert found[0] is not None and found[0] == found[1]


def test_is_missing_without_layers() -> None:
    assert fisher(nn.BatchNorm1d(2), torch.randn(6, 2), torch.randn(6, 2)) is None
