"""When identity is structural, and what identity refuses or allows while a network is built."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
import torch
from torch import nn

from cambrian.sandbox.examination.identity import identity
from cambrian.search_spaces import ProposalError
from tests.sandbox.examination.conftest import Apply, ToySpace
from tests.sandbox.examination.test_identity import ROW, layers, toy


class TestStructural:
    """Where behaviour tells too little, the genotype itself is the identity."""

    @pytest.mark.parametrize(
        "make",
        [
            lambda: Apply(lambda x: torch.zeros(len(x), 10, dtype=x.dtype)),
            lambda: Apply(lambda m, x: m.out(x) / 0, out=nn.Linear(6, 10)),
            lambda: Apply(lambda m, x: m.out(x).float(), out=nn.Linear(6, 10)),
            lambda: Apply(lambda m, x: m.out((x * 0 - 1).relu() + x), out=nn.Linear(6, 10)),
        ],
    )  # fmt: skip
    def test_of_networks_whose_outputs_tell_too_little(self, make: Callable[[], nn.Module]) -> None:
        first = toy(make)
        assert first.startswith("g2:") and toy(make) == first
        assert toy(make, name="other") != first

    def test_of_huge_networks(self) -> None:
        def make() -> nn.Module:
            return nn.Sequential(
                nn.Linear(6, 6_000), nn.ReLU(), nn.Linear(6_000, 6_000), nn.Linear(6_000, 10)
            )

        started = time.monotonic()
        assert toy(make).startswith("g2:")
        assert time.monotonic() - started < 5


def test_shapes_that_do_not_fit_are_proposal_errors() -> None:
    with pytest.raises(ProposalError, match="Linear"):
        toy(lambda: nn.Linear(7, 10))


def test_code_is_never_run_here() -> None:
    space = ToySpace(it=lambda: nn.Linear(6, 10))
    space.kind = "code"
    with pytest.raises(ValueError, match="sandbox"):
        identity(space, {"of": "it"}, ROW)


def test_constructors_may_read_values() -> None:
    def make() -> nn.Module:
        rates = [rate.item() for rate in torch.linspace(0, 0.5, 2)]
        return layers(nn.ReLU(), nn.Dropout(rates[1]))

    assert toy(make) == toy(make)
    assert toy(make).startswith("f2:")
