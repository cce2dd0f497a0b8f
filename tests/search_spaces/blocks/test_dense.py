"""Layers on features: what they compute, on any leading dimensions."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from cambrian.search_spaces.blocks.dense import (
    Activation,
    DenseBlock,
    FeatureTokens,
    MixedActivation,
    PeriodicEmbedding,
    ResidualDense,
    SelectiveActivation,
)
from cambrian.search_spaces.declarative.catalogue.vectors import ACTIVATIONS, BLOCKS
from cambrian.search_spaces.declarative.shape import ShapeError, sequence, vector

X = torch.linspace(-3, 3, 30).reshape(6, 5)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_every_activation_of_the_catalogue(name: str) -> None:
    formulas = {
        "relu": X.clamp(min=0),
        "silu": X * X.sigmoid(),
        "gelu": X * (1 + torch.erf(X / math.sqrt(2))) / 2,
        "hardswish": X * (X + 3).clamp(0, 6) / 6,
        "tanh": X.tanh(),
        "sigmoid": X.sigmoid(),
        "elu": torch.where(X > 0, X, X.exp() - 1),
        "leaky-relu": torch.where(X > 0, X, 0.01 * X),
        "relu6": X.clamp(0, 6),
        "softplus": (1 + X.exp()).log(),
        "sine": X.sin(),
        "squared-relu": X.clamp(min=0) ** 2,
        "identity": X,
    }
    assert torch.allclose(Activation(name)(X), formulas[name], atol=1e-6)


def test_families_share_the_channels() -> None:
    out = MixedActivation("relu+tanh+sine")(X)
    assert torch.equal(out, torch.cat([X[:, :2].relu(), X[:, 2:4].tanh(), X[:, 4:].sin()], dim=1))


def test_channels_choose_their_family() -> None:
    block = SelectiveActivation(5, names="relu+tanh")
    assert torch.allclose(block(X), (X.relu() + X.tanh()) / 2)
    with torch.no_grad():
        block.choice[1, 2] = 50.0
    assert torch.allclose(block(X)[:, 2], X[:, 2].tanh())
    assert torch.allclose(block(X)[:, 3], (X.relu() + X.tanh())[:, 3] / 2)


def test_dense_block_is_what_it_says() -> None:
    torch.manual_seed(0)
    for norm, kind in {"none": nn.Identity, "batch": nn.BatchNorm1d, "layer": nn.LayerNorm}.items():
        block = DenseBlock(5, 8, activation="relu", norm=norm, dropout=0.5).train()
        assert isinstance(block.norm, kind)
        assert torch.equal(block.eval()(X), block.norm(block.linear(X)).relu())
    zeros = (DenseBlock(5, 800, activation="sigmoid", dropout=0.5).train()(X) == 0).float().mean()
    assert 0.45 < zeros < 0.55


def test_residual_block_starts_from_its_input() -> None:
    block = ResidualDense(5, hidden=7, activation="gelu", norm="layer")
    nn.init.zeros_(block.narrow.weight)
    nn.init.zeros_(block.narrow.bias)
    assert torch.equal(block(X), X)


def test_periodic_features() -> None:
    block = PeriodicEmbedding(5, frequencies=2)
    out = block(X)
    assert out.shape == (6, 20)
    angle = 2 * math.pi * X[:, 3] * block.frequencies[3, 1]
    # of each feature first all sines, then all cosines
    assert torch.allclose(out[:, 13], angle.sin(), atol=1e-6)
    assert torch.allclose(out[:, 15], angle.cos(), atol=1e-6)


def test_feature_tokens() -> None:
    block = FeatureTokens(5, 4)
    out = block(X)
    assert out.shape == (6, 5, 4)
    assert torch.allclose(out[2, 3], X[2, 3] * block.weight[3] + block.bias[3])


def test_uses_that_make_no_sense_are_refused() -> None:
    blocks = {block.name: block for block in BLOCKS}
    with pytest.raises(ShapeError, match="batch norm over features takes vector or nodes, not sequence 3x5"):
        blocks["DenseBlock"].planned(sequence(3, 5), {"out": 4, "activation": "relu", "norm": "batch"})
    with pytest.raises(ShapeError, match="dropout of 1 leaves nothing"):
        blocks["Dropout"].planned(vector(5), {"rate": 1})
    with pytest.raises(ShapeError, match="'tan' is no activation"):
        blocks["MixedActivation"].planned(vector(5), {"names": "relu+tan"})
    with pytest.raises(ShapeError, match="3 families need as many channels, not 2"):
        blocks["SelectiveActivation"].planned(vector(2), {"names": "relu+tanh+sine"})
