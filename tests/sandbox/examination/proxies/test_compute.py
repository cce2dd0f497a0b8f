from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from cambrian.sandbox.examination.proxies import PROXIES, compute
from cambrian.sandbox.examination.proxies.proxy import Specimen, compute_all
from cambrian.search_spaces import SPACES, Signature, UnknownNameError
from tests.contracts.inputs import inputs_of, with_graph
from tests.contracts.proxy import CASES

ALL = {"fisher", "flops", "grad_norm", "jacob_cov", "naswot", "params", "snip", "synflow"}


class Constant:
    """A proxy that says what it is told to."""

    name = "constant"

    def __init__(self, value: float | None) -> None:
        self.value = value

    def measure(self, specimen: Specimen) -> float | None:
        return self.value


def test_all_proxies_are_registered() -> None:
    assert set(PROXIES.names()) == ALL


def test_unknown_name_lists_the_near_ones() -> None:
    with pytest.raises(UnknownNameError, match="unknown proxy 'synflo'") as caught:
        compute(["synflo"], *CASES["images"])
    assert "synflow" in caught.value.hint


def test_only_what_is_asked_for() -> None:
    assert set(compute(["snip", "params"], *CASES["images"])) == {"snip", "params"}
    assert compute([], *CASES["images"]) == {}


def test_numbers_do_not_depend_on_what_else_is_asked_for() -> None:
    together = compute(sorted(ALL, reverse=True), *CASES["images"])
    assert together == {name: compute([name], *CASES["images"])[name] for name in ALL}


@pytest.mark.parametrize("value", [None, float("nan"), float("inf"), -1e31])
def test_what_is_no_finite_number_is_missing(value: float | None) -> None:
    assert compute_all({"constant": Constant(value)}, *CASES["images"]) == {}


def test_a_network_that_breaks_off_has_the_others() -> None:
    class Narrow(nn.Module):
        """Runs forward only, and not on the meta device."""

        def __init__(self) -> None:
            super().__init__()
            self.head = nn.Linear(6, 2)

        def forward(self, x: Tensor) -> Tensor:
            if torch.is_grad_enabled() or float(x.sum()) > 1e9:
                raise ValueError("no gradients here")
            return self.head(x)

    _, inputs, targets, loss = CASES["regression"]
    assert compute(sorted(ALL), Narrow, inputs, targets, loss) == {"params": 14}


def test_networks_whose_loss_is_nan_have_no_gradient_to_tell_of() -> None:
    class Broken(nn.Linear):
        def forward(self, input: Tensor) -> Tensor:
            return super().forward(input) * float("nan")

    _, inputs, targets, loss = CASES["regression"]
    assert set(compute(sorted(ALL), lambda: Broken(6, 2), inputs, targets, loss)) == {"params", "flops"}


@pytest.mark.parametrize("name", ["convnet", "encoder", "gnn", "grammar", "hybrid", "mlp"])
def test_baselines_of_every_space_have_proxies(name: str) -> None:
    """NASWOT and others may be missing for a single network; for the first baselines none is."""
    space = SPACES.create(name)
    signature: Signature = space.definition.file.reference
    inputs, targets = inputs_of(signature, 8), torch.arange(8) % signature.n_outputs
    for genotype in list(space.baselines().values())[:1]:
        found = compute(
            sorted(ALL - {"naswot"}),
            lambda: with_graph(space.build(genotype, signature), signature),  # noqa: B023
            inputs,
            targets,
            "cross-entropy",
        )
        assert set(found) == ALL - {"naswot"}
