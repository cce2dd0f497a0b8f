"""The layer program against torch: shapes, parameters and multiply-accumulates are exact."""

from __future__ import annotations

import random

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from cambrian.search_spaces import Genotype, ProposalError, Signature
from cambrian.search_spaces.convnet import ConvNetSpace
from cambrian.search_spaces.convnet.program import compile_program

SPACE = ConvNetSpace()
SIGNATURES = [
    Signature(input_shape=shape, n_outputs=7) for shape in ((1, 8, 8), (1, 28, 28), (3, 32, 32), (2, 37, 50))
]


def members(n: int) -> list[Genotype]:
    rng = random.Random(23)
    return [*SPACE.baselines().values(), *(SPACE.sample(rng) for _ in range(n))]


@pytest.mark.parametrize("signature", SIGNATURES, ids=lambda s: str(s.input_shape))
def test_costs_and_shapes_are_those_of_torch(signature: Signature) -> None:
    for genotype in members(12):
        layers = compile_program(genotype, signature)
        with torch.device("meta"):
            network = SPACE.build(genotype, signature).eval()
            map_ = torch.empty(1, *signature.input_shape)
        with FlopCounterMode(display=False) as counter:
            for layer, module in zip(layers, network.children(), strict=True):
                map_ = module(map_)
                assert tuple(map_.shape[1:]) == layer.shape, (layer.name, genotype)
                assert sum(p.numel() for p in module.parameters()) == layer.params, (layer.name, genotype)
        assert counter.get_total_flops() == 2 * sum(layer.macs for layer in layers), genotype
        assert [name for name, _ in network.named_children()] == [layer.name for layer in layers]


def test_a_map_of_one_pixel_cannot_be_halved() -> None:
    stage = {"block": "conv", "width": 8, "downsample": "first"}
    genotype = SPACE.validate({"stages": [stage, stage, stage]})
    for small in ((1, 4, 4), (1, 100, 4)):
        with pytest.raises(ProposalError, match=r"stages\[2\].downsample: the map is already"):
            SPACE.build(genotype, Signature(input_shape=small, n_outputs=2))
    SPACE.build(genotype, Signature(input_shape=(1, 5, 5), n_outputs=2))


def test_a_stem_may_not_halve_a_single_row() -> None:
    genotype = SPACE.validate({"stem": {"downsample": "pool"}, "stages": [{"block": "conv", "width": 8}]})
    with pytest.raises(ProposalError, match=r"stem\.downsample"):
        SPACE.build(genotype, Signature(input_shape=(1, 1, 9), n_outputs=2))


def test_inputs_that_are_no_images_are_refused() -> None:
    genotype = members(0)[0]
    with pytest.raises(ProposalError, match="images"):
        SPACE.build(genotype, Signature(input_shape=(64,), n_outputs=2))


def test_keys_of_attention_stay_few_on_large_maps() -> None:
    genotype = SPACE.validate({"stem": {"width": 8}, "stages": [{"block": "attention", "width": 8}]})
    for side in (8, 28, 32, 64, 90):
        layers = compile_program(genotype, Signature(input_shape=(1, side, side), n_outputs=2))
        reduction = layers[1].kwargs["reduction"]
        assert (-(-side // reduction)) ** 2 <= 64


def test_networks_can_be_traced() -> None:
    """No control flow depends on values or shapes at run time, so that graphs can be read off a network."""
    for genotype in members(20):
        torch.fx.symbolic_trace(SPACE.build(genotype, SIGNATURES[1]))
