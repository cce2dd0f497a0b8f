"""Fundamental operations compose to what they say: convolution, attention."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional

from cambrian.search_spaces.blocks import (
    ChannelNorm,
    Pointwise,
    PositionalEncoding,
    Scale,
    Softmax,
    TokenMix,
    TokenScores,
    Unfold,
)


@pytest.mark.parametrize(("kernel", "stride"), [(1, 1), (3, 1), (3, 2), (5, 2)])
def test_unfold_and_pointwise_are_a_convolution(kernel: int, stride: int) -> None:
    torch.manual_seed(0)
    x, conv = torch.randn(2, 3, 7, 4), nn.Conv2d(3, 5, kernel, stride, padding=kernel // 2)
    pointwise = Pointwise(3 * kernel**2, 5, image=True)
    pointwise.map.load_state_dict({"weight": conv.weight.reshape(5, -1, 1, 1), "bias": conv.bias})
    assert torch.allclose(pointwise(Unfold(kernel=kernel, stride=stride)(x)), conv(x), atol=1e-5)


def test_scores_softmax_and_mix_are_attention() -> None:
    torch.manual_seed(0)
    query, key, value = torch.randn(3, 2, 6, 8)
    weights = Softmax()(TokenScores()(torch.cat([query, key], dim=-1)))
    mixed = TokenMix(6)(torch.cat([weights, value], dim=-1))
    assert torch.allclose(mixed, functional.scaled_dot_product_attention(query, key, value), atol=1e-5)


def test_images_and_tokens_are_treated_alike() -> None:
    torch.manual_seed(0)
    image = torch.randn(2, 6, 3, 4)
    tokens = image.flatten(2).transpose(1, 2)
    for of_image, of_tokens in (
        (ChannelNorm(6, image=True), ChannelNorm(6)),
        (Softmax(image=True), Softmax()),
        (Scale(6, initial=0.3, image=True), Scale(6, initial=0.3)),
    ):
        assert torch.allclose(of_image(image).flatten(2).transpose(1, 2), of_tokens(tokens), atol=1e-6)


def test_positions_are_told_apart() -> None:
    torch.manual_seed(0)
    out = PositionalEncoding(5, 4)(torch.zeros(2, 5, 4))
    assert torch.equal(out[0], out[1])
    assert len({tuple(row) for row in out[0].tolist()}) == 5
