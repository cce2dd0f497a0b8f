"""What is special to encoder: comparison at equal size, what a layer sees, widths, kinds of input."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from cambrian.search_spaces import SPACES, Signature
from cambrian.search_spaces.declarative.plan import leaves
from cambrian.search_spaces.declarative.planning import plan
from cambrian.search_spaces.declarative.space import DeclarativeSpace

SPACE = SPACES.create("encoder")
assert isinstance(SPACE, DeclarativeSpace)
DEFINITION = SPACE.definition
REFERENCE = DEFINITION.file.reference
LENGTH = REFERENCE.input_shape[0]
MIDDLE = LENGTH // 2


def encoder(*layers: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return SPACE.validate({"layers": list(layers), **fields})


def seen_by_middle(genotype: dict[str, Any]) -> set[int]:
    """How far from the middle are the positions that the pooled middle depends on."""
    torch.manual_seed(0)
    module = SPACE.build(genotype, REFERENCE).double().eval()
    embedding = next(part for part in module.modules() if isinstance(part, nn.Embedding))
    arrived: list[Tensor] = []

    def keep(_: nn.Module, __: Any, out: Tensor) -> Tensor:
        arrived.append(out.detach().requires_grad_())
        return arrived[0]

    embedding.register_forward_hook(keep)
    module(torch.randint(0, LENGTH, (1, LENGTH))).square().sum().backward()
    assert arrived[0].grad is not None
    touched = arrived[0].grad[0].abs().sum(1) > 0
    return {abs(place - MIDDLE) for place in range(LENGTH) if touched[place]}


@pytest.mark.parametrize(
    ("layers", "far"),
    [
        ([{"mixer": "conv", "reach": 1}], 1),
        ([{"mixer": "conv", "reach": 4}, {"mixer": "window", "reach": 2}], 6),
        ([{"mixer": "span", "reach": 1}, {"mixer": "conv", "reach": 1}], 2),
        ([{"mixer": "window", "reach": 1}, {"mixer": "attention"}], MIDDLE),
        ([{"mixer": "linear"}], MIDDLE),
        ([{"mixer": "fourier"}], MIDDLE),
    ],
)
def test_what_the_middle_sees(layers: list[dict[str, Any]], far: int) -> None:
    assert max(seen_by_middle(encoder(*layers))) == far


def test_a_mixture_and_uniform_encoders_compare_at_equal_size() -> None:
    names = ("attention", "convolutional", "fnet-like", "mixed")
    designs = {name: SPACE.baselines()[name] for name in names}
    sizes = {name: plan(DEFINITION, design, REFERENCE).params for name, design in designs.items()}
    middle = (max(sizes.values()) + min(sizes.values())) / 2
    assert all(abs(size - middle) < 0.04 * middle for size in sizes.values()), sizes
    mixed = {name: SPACE.features(design)["mixed"] for name, design in designs.items()}
    assert mixed == {"attention": 0, "convolutional": 0, "fnet-like": 0, "mixed": 1}


def test_layers_of_different_width_are_joined_by_linear_maps() -> None:
    widths = (32, 96, 96, 64)
    design = encoder(*({"mixer": "conv", "width": width, "expansion": 0} for width in widths))
    maps = [leaf for leaf in leaves(plan(DEFINITION, design, REFERENCE)) if leaf.block.name == "Linear"]
    assert [leaf.args for leaf in maps] == [(32, 96), (96, 64), (64, 65)]


def test_ids_are_looked_up_and_real_sequences_are_mapped() -> None:
    design = encoder({"width": 48}, pool="first")
    rows = Signature(input_shape=(28, 28), n_outputs=10)
    firsts = [next(leaves(plan(DEFINITION, design, signature))) for signature in (REFERENCE, rows)]
    assert [(leaf.block.name, leaf.args) for leaf in firsts] == [
        ("TokenEmbedding", (66, 48)),
        ("Linear", (28, 48)),
    ]
    assert SPACE.build(design, rows)(torch.randn(2, 28, 28)).shape == (2, 10)


def test_the_network_without_perceptrons_has_no_activation_genes() -> None:
    first = encoder({"expansion": 0, "hidden_layers": 3}, activation="relu", gated=True)
    assert first == encoder({"expansion": 0})
    assert first != encoder({"expansion": 0}, {"expansion": 1})


def test_post_norm_ends_every_sum_and_pre_norm_begins_every_branch() -> None:
    counts = {
        norm: sum(
            leaf.block.name == "LayerNorm"
            for leaf in leaves(plan(DEFINITION, encoder({}, {}, norm=norm), REFERENCE))
        )
        for norm in ("pre", "post")
    }
    # two layers of two branches, and one at the end, or behind the embedding
    assert counts == {"pre": 5, "post": 5}
    *_, norm, pool, head = leaves(plan(DEFINITION, encoder({}, norm="pre"), REFERENCE))
    assert [leaf.block.name for leaf in (norm, pool, head)] == ["LayerNorm", "SequencePool", "Linear"]
