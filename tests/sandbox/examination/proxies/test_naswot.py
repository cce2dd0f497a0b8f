from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

from cambrian.sandbox.examination.proxies import compute
from cambrian.sandbox.examination.proxies.naswot import Naswot
from cambrian.sandbox.examination.proxies.proxy import Specimen, measured
from tests.contracts.proxy import Images, ProxyContract, specimen


class TestNaswot(ProxyContract):
    name = "naswot"


def naswot(module: nn.Module, inputs: torch.Tensor) -> float | None:
    return measured(
        Naswot(), Specimen(module, inputs, torch.zeros(len(inputs), dtype=torch.int64), "cross-entropy")
    )


def test_is_the_log_determinant_of_the_agreements() -> None:
    inputs = torch.tensor([[1.0, 1.0, -1.0], [1.0, -1.0, -1.0]])
    # of three rectifiers two agree: | 3 2 | = 5
    #                                | 2 3 |
    assert naswot(nn.ReLU(), inputs) == pytest.approx(math.log(5))
    # and twice as many of each in two layers
    assert naswot(nn.Sequential(nn.GELU(), nn.ReLU()), inputs) == pytest.approx(math.log(20))


def test_rectifiers_are_found_as_functions_and_as_modules() -> None:
    class Written(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return nn.functional.leaky_relu(x.clone()).relu_()

    inputs = torch.tensor([[1.0, 1.0, -1.0], [1.0, -1.0, -1.0]])
    assert naswot(Written(), inputs) == naswot(nn.Sequential(nn.PReLU(), nn.ReLU()), inputs)


def test_is_missing_without_rectifiers() -> None:
    assert naswot(nn.Sequential(nn.Linear(3, 8), nn.Tanh()), torch.rand(4, 3)) is None


def test_is_missing_where_the_kernel_is_singular() -> None:
    rng = torch.Generator().manual_seed(0)
    assert naswot(nn.ReLU(), torch.ones(4, 9)) is None  # all codes are equal
    assert naswot(nn.ReLU(), torch.randn(16, 4, generator=rng)) is None  # more samples than rectifiers
    assert naswot(nn.ReLU(), torch.randn(4, 64, generator=rng)) is not None


def test_wider_networks_tell_samples_apart_better() -> None:
    batch = specimen("images")
    found = [
        compute(["naswot"], lambda: Images(width), batch.inputs, batch.targets, "cross-entropy")["naswot"]  # noqa: B023
        for width in (8, 16, 32)
    ]
    assert found == sorted(found) and np.ptp(found) > 1


def test_parts_of_a_sample_belong_to_its_row() -> None:
    """Windows in the first dimension, as of an attention over parts of images, are their sample's."""

    class Windows(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return nn.functional.relu(x.reshape(-1, 3)).reshape(len(x), -1)

    inputs = torch.randn(4, 12, generator=torch.Generator().manual_seed(0))
    assert naswot(Windows(), inputs) == naswot(nn.ReLU(), inputs)
