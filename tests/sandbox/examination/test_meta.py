"""How first values come about is known also where a constructor reads values, which a meta tensor has not."""

from __future__ import annotations

import torch
from torch import nn

from cambrian.sandbox.examination.meta import build_on_meta
from cambrian.search_spaces import Signature
from tests.sandbox.examination.conftest import ToySpace

VECTOR = Signature(input_shape=(6,), n_outputs=3)


class Reading(nn.Module):
    """Counts its inputs with tensors, as generated code likes to."""

    def __init__(self, order: tuple[str, ...], scale: float = 1.0) -> None:
        super().__init__()
        width = int(torch.tensor([2, 3]).prod())
        rates = [rate.item() for rate in torch.linspace(0, 0.2, 2)]
        self.dropout = nn.Dropout(rates[1])
        for name in order:
            setattr(self, name, nn.Linear(width, 3))
        self.register_buffer("table", scale * torch.arange(3.0))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.first(x) + self.second(x).relu() + self.table
        return out


SPACE = ToySpace(
    one=lambda: Reading(("first", "second")),
    other=lambda: Reading(("second", "first")),
    scaled=lambda: Reading(("first", "second"), 2.0),
)


def first_values(name: str) -> dict[str, object]:
    before = torch.get_rng_state()
    module, log = build_on_meta(SPACE, {"of": name}, VECTOR)  # type: ignore[arg-type]
    assert torch.equal(torch.get_rng_state(), before)
    tensors = module.state_dict(keep_vars=True)
    assert all(tensor.is_meta for tensor in tensors.values())
    return {name: log.provenance(tensor) for name, tensor in tensors.items()}


def test_the_order_in_which_layers_are_made_does_not_show() -> None:
    assert first_values("one") == first_values("other")
    assert "kaiming_uniform_" in repr(first_values("one")["first.weight"])


def test_values_that_are_not_drawn_show() -> None:
    one, scaled = first_values("one"), first_values("scaled")
    assert {name for name in one if one[name] != scaled[name]} == {"table"}
