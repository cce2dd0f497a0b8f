"""Blocks on their own: shapes at odd sizes, shortcuts, independence of samples, affordable attention."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

from cambrian.search_spaces.blocks import (
    AttentionBlock,
    ConvBlock,
    GlobalPool,
    GridPool,
    InvertedBlock,
    PooledAttention,
    ResidualBlock,
    SeparableBlock,
    SqueezeExcite,
    make_activation,
)

Make = Callable[[int, int, int], nn.Module]
BLOCKS: dict[str, Make] = {
    "conv": lambda i, o, s: ConvBlock(i, o, kernel=5, activation="relu", stride=s, se=4),
    "conv-pool": lambda i, o, s: ConvBlock(i, o, kernel=3, activation="gelu", pool=s),
    "separable": lambda i, o, s: SeparableBlock(i, o, kernel=7, activation="silu", stride=s, se=4),
    "inverted": lambda i, o, s: InvertedBlock(
        i, o, kernel=5, expansion=3, activation="hardswish", stride=s, se=4
    ),
    "inverted-1": lambda i, o, s: InvertedBlock(i, o, kernel=3, expansion=1, activation="relu", stride=s),
    "residual": lambda i, o, s: ResidualBlock(i, o, kernel=3, activation="relu", stride=s, se=4),
    "attention": lambda i, o, s: AttentionBlock(
        i, o, heads=2, reduction=1, expansion=2, activation="gelu", stride=s
    ),
    "attention-pooled": lambda i, o, s: AttentionBlock(
        i, o, heads=2, reduction=3, expansion=2, activation="gelu", stride=s
    ),
}


@pytest.mark.parametrize("name", BLOCKS)
@pytest.mark.parametrize("size", [(1, 1), (2, 3), (7, 7), (8, 5), (33, 20)])
@pytest.mark.parametrize("stride", [1, 2])
def test_maps_are_kept_or_halved_rounding_up(name: str, size: tuple[int, int], stride: int) -> None:
    block = BLOCKS[name](8, 12, stride)
    out = block(torch.randn(2, 8, *size))
    assert out.shape == (2, 12, -(-size[0] // stride), -(-size[1] // stride))


@pytest.mark.parametrize("name", BLOCKS)
def test_samples_do_not_see_each_other_at_evaluation(name: str) -> None:
    torch.manual_seed(0)
    block = BLOCKS[name](8, 8, 1).eval()
    x = torch.randn(3, 8, 6, 6)
    with torch.no_grad():
        assert torch.allclose(block(x)[1:2], block(x[1:2]), atol=1e-5)


@pytest.mark.parametrize("name", ["inverted", "residual", "attention"])
def test_shortcuts_carry_the_input(name: str) -> None:
    """With all weights at zero a residual block is the identity (of a positive map)."""
    block = BLOCKS[name](8, 8, 1).eval()
    for parameter in block.parameters():
        nn.init.zeros_(parameter)
    x = torch.rand(2, 8, 5, 5)
    assert torch.equal(block(x), x)


def test_an_inverted_block_of_other_width_has_no_shortcut() -> None:
    block = BLOCKS["inverted"](8, 16, 1).eval()
    for parameter in block.parameters():
        nn.init.zeros_(parameter)
    assert not block(torch.rand(2, 8, 5, 5)).any()


def test_attention_sees_the_whole_map() -> None:
    torch.manual_seed(0)
    attention = PooledAttention(8, heads=2, reduction=2)
    x = torch.randn(1, 8, 9, 9, requires_grad=True)
    attention(x)[0, :, 0, 0].sum().backward()
    assert x.grad is not None and (x.grad.abs().sum(dim=1) > 0).all()


def test_attention_is_what_the_formula_says() -> None:
    """Against softmax(q k / sqrt(d)) v written out for one head without pooling."""
    torch.manual_seed(0)
    attention = PooledAttention(4, heads=1, reduction=1)
    x = torch.randn(2, 4, 3, 5)
    query, (key, value) = attention.query(x), attention.key_value(x).chunk(2, dim=1)
    q, k, v = (part.flatten(2).transpose(1, 2) for part in (query, key, value))
    mixed = torch.softmax(q @ k.transpose(1, 2) / 2.0, dim=-1) @ v
    expected = attention.project(mixed.transpose(1, 2).reshape(2, 4, 3, 5))
    assert torch.allclose(attention(x), expected, atol=1e-6)


def test_positions_matter_to_the_attention_block() -> None:
    """Without position information a flipped input would give the flipped output."""
    torch.manual_seed(0)
    block = BLOCKS["attention"](8, 8, 1).eval()
    x = torch.randn(1, 8, 6, 6)
    with torch.no_grad():
        assert not torch.allclose(block(x.flip(-1)).flip(-1), block(x), atol=1e-3)


def test_squeeze_excite_scales_channels_between_zero_and_one() -> None:
    torch.manual_seed(0)
    x = torch.rand(2, 8, 4, 4) + 0.1
    ratio = SqueezeExcite(8, 4)(x) / x
    assert ((ratio > 0) & (ratio < 1)).all()
    assert torch.allclose(ratio, ratio.mean((2, 3), keepdim=True).expand_as(ratio), atol=1e-6)


def test_pooling() -> None:
    x = torch.arange(32, dtype=torch.float32).reshape(1, 2, 4, 4)
    assert torch.equal(GlobalPool("avg")(x), torch.tensor([[7.5, 23.5]]))
    assert torch.equal(GlobalPool("max")(x), torch.tensor([[15.0, 31.0]]))
    assert torch.equal(GlobalPool("avgmax")(x), torch.tensor([[7.5, 23.5, 15.0, 31.0]]))
    assert torch.equal(GridPool(1, 2)(x), torch.tensor([[6.5, 8.5, 22.5, 24.5]]))


def test_unknown_activation_is_a_key_error() -> None:
    with pytest.raises(KeyError):
        make_activation("tanhh")
