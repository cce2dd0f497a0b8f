from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from cambrian.sandbox.examination.proxies.jacobian import JacobianCovariance
from cambrian.sandbox.examination.proxies.proxy import Specimen, measured
from tests.contracts.proxy import ProxyContract

K = 1e-5


class TestJacobianCovariance(ProxyContract):
    name = "jacob_cov"


def jacob_cov(module: nn.Module, inputs: torch.Tensor) -> float | None:
    targets = torch.zeros(len(inputs), dtype=torch.int64)
    return measured(JacobianCovariance(), Specimen(module, inputs, targets, "cross-entropy"))


def test_of_a_linear_map() -> None:
    """All samples have one gradient: one eigenvalue is n, the others are 0."""
    n = 6
    expected = -(math.log(n + K) + 1 / (n + K) + (n - 1) * (math.log(K) + 1 / K))
    assert jacob_cov(nn.Linear(10, 3), torch.randn(n, 10)) == pytest.approx(expected)


def test_is_best_where_gradients_are_uncorrelated() -> None:
    class Squares(nn.Module):
        """Gradients are twice the inputs."""

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.square()

    apart = torch.tensor([[1.0, -1, 1, -1], [1.0, 1, -1, -1], [1.0, -1, -1, 1]])
    assert jacob_cov(Squares(), apart) == pytest.approx(-3, abs=1e-3)
    alike = apart + torch.tensor([10.0, 0, 0, 0])
    value = jacob_cov(Squares(), alike)
    assert value is not None and value < -4


def test_is_missing_where_outputs_do_not_depend_on_a_sample() -> None:
    assert jacob_cov(nn.ReLU(), torch.tensor([[1.0, -1, 2], [-1.0, -1, -1]])) is None

    class OneHot(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head = nn.Linear(9, 3)

        def forward(self, ids: torch.Tensor) -> torch.Tensor:
            return self.head(nn.functional.one_hot(ids, 9).float()).mean(1)

    assert jacob_cov(OneHot(), torch.randint(0, 9, (4, 5))) is None
