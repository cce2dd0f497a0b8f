from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from cambrian.sandbox.examination.proxies.proxy import Specimen, measured
from cambrian.sandbox.examination.proxies.synflow import SynFlow
from tests.contracts.proxy import ProxyContract


class TestSynFlow(ProxyContract):
    name = "synflow"


def synflow(module: nn.Module, inputs: torch.Tensor) -> float | None:
    targets = torch.zeros(len(inputs), dtype=torch.int64)
    return measured(SynFlow(), Specimen(module, inputs, targets, "cross-entropy"))


def chain(scale: float = 1.0, act: type[nn.Module] = nn.ReLU) -> nn.Sequential:
    torch.manual_seed(0)
    layers = nn.Sequential(nn.Linear(4, 6, bias=False), act(), nn.Linear(6, 3, bias=False))
    with torch.no_grad():
        for parameter in layers.parameters():
            parameter.mul_(scale)
    return layers


def test_is_the_product_of_absolute_weights() -> None:
    module = chain()
    first, second = (p.detach().double().abs() for p in module.parameters())
    # each of the two layers contributes the whole flow: 1' |W2| |W1| 1
    assert synflow(module, torch.rand(5, 4)) == pytest.approx(math.log(2 * float((second @ first).sum())))


def test_scales_with_every_layer() -> None:
    inputs = torch.rand(5, 4)
    before, after = synflow(chain(), inputs), synflow(chain(3.0), inputs)
    assert before is not None and after == pytest.approx(before + 2 * math.log(3))


def test_data_signs_norms_and_activations_do_not_matter() -> None:
    value = synflow(chain(), torch.rand(5, 4))
    assert synflow(chain(-1.0), torch.full((2, 4), -100.0)) == value
    assert synflow(chain(act=nn.GELU), torch.rand(5, 4)) == value
    assert synflow(nn.Sequential(nn.BatchNorm1d(4), chain(), nn.LayerNorm(3)), torch.rand(5, 4)) == value


def test_deep_networks_do_not_overflow() -> None:
    torch.manual_seed(0)
    deep = nn.Sequential(
        *(nn.Sequential(nn.Linear(64, 64), nn.BatchNorm1d(64), nn.ReLU()) for _ in range(60))
    )
    value = synflow(deep, torch.rand(4, 64))
    assert value is not None and value > 88.8  # the logarithm of the largest float32


def test_is_missing_where_nothing_comes_through() -> None:
    assert synflow(chain(0.0), torch.rand(5, 4)) is None
    assert synflow(nn.Flatten(), torch.rand(5, 4)) is None
