from __future__ import annotations

import torch
from torch import nn

from cambrian.sandbox.examination.proxies import compute
from cambrian.sandbox.examination.static import static_check
from cambrian.search_spaces import SPACES, Signature
from tests.contracts.proxy import CASES, ProxyContract


class TestParameters(ProxyContract):
    name = "params"


class TestFlops(ProxyContract):
    name = "flops"


def test_of_a_known_network() -> None:
    def build() -> nn.Module:
        return nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 64, 5))

    _, inputs, targets, loss = CASES["images"]
    multiply_adds = 64 * 4 * 27 + 4 * 64 * 5
    assert compute(["params", "flops"], build, inputs, targets, loss) == {
        "params": 4 * 27 + 4 + 4 * 64 * 5 + 5,
        "flops": 2 * multiply_adds,
    }


def test_are_the_numbers_of_the_static_check() -> None:
    space, signature = SPACES.create("encoder"), Signature(input_shape=(12,), n_outputs=5, vocabulary=20)
    for genotype in space.baselines().values():
        with torch.device("meta"):
            facts = static_check(space.build(genotype, signature), signature, 4)
        inputs = torch.randint(0, 20, (4, 12))
        found = compute(
            ["params", "flops"],
            lambda: space.build(genotype, signature),  # noqa: B023
            inputs,
            torch.zeros(4, dtype=torch.int64),
            "cross-entropy",
        )
        assert found == {"params": facts.parameters, "flops": facts.flops}


def test_frozen_parameters_do_not_count() -> None:
    _, inputs, targets, loss = CASES["regression"]
    found = compute(["params"], lambda: nn.Linear(6, 2).requires_grad_(False), inputs, targets, loss)
    assert found == {"params": 0}


def test_networks_that_look_at_values_are_counted_on_real_samples() -> None:
    class Looks(nn.Linear):
        def forward(self, input: torch.Tensor) -> torch.Tensor:
            return super().forward(input if float(input.detach().sum()) < 1e9 else -input)

    _, inputs, targets, loss = CASES["regression"]
    assert compute(["flops"], lambda: Looks(6, 2), inputs, targets, loss) == {"flops": 2 * 6 * 2}
