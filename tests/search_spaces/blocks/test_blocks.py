"""Blocks on their own: shapes at odd sizes, shortcuts, independence of samples, affordable attention."""

from __future__ import annotations

import ast
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from cambrian.search_spaces import blocks
from cambrian.search_spaces.blocks import (
    AttentionBlock,
    BottleneckBlock,
    ConvBlock,
    ConvNextBlock,
    GlobalPool,
    GridPool,
    InvertedBlock,
    MapWindowAttention,
    PatchEmbed,
    Pool,
    PooledAttention,
    ResidualBlock,
    SeparableBlock,
    SpatialReduction,
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
    "attention-windows": lambda i, o, s: AttentionBlock(
        i, o, heads=2, reduction=1, expansion=2, activation="gelu", stride=s, window=(3, 2)
    ),
    "bottleneck": lambda i, o, s: BottleneckBlock(
        i, o, hidden=4, kernel=3, activation="relu", stride=s, groups=2, se=4
    ),
    "convnext": lambda i, o, s: ConvNextBlock(i, o, kernel=7, expansion=2, activation="gelu", stride=s),
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


@pytest.mark.parametrize(
    "name", ["inverted", "residual", "attention", "attention-windows", "bottleneck", "convnext"]
)
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


def test_windows_do_not_see_one_another() -> None:
    torch.manual_seed(0)
    attention = MapWindowAttention(8, heads=2, window=(3, 4))
    x = torch.randn(1, 8, 7, 9, requires_grad=True)
    attention(x)[0, :, 4, 5].sum().backward()
    assert x.grad is not None
    seen = x.grad.abs().sum(dim=1)[0] > 0
    expected = torch.zeros(7, 9, dtype=torch.bool)
    expected[3:6, 4:8] = True
    assert torch.equal(seen, expected)


def test_one_window_over_all_is_attention_to_the_whole_map() -> None:
    torch.manual_seed(0)
    windows, whole = MapWindowAttention(8, heads=2, window=(3, 5)), PooledAttention(8, heads=2, reduction=1)
    # the three parts of a head stand together there, those of all heads here
    parts = [
        windows.query_key_value.weight.reshape(2, 3, 4, 8),
        windows.query_key_value.bias.reshape(2, 3, 4),
    ]
    (query, key, value), (query_bias, key_bias, value_bias) = (part.unbind(1) for part in parts)
    whole.load_state_dict(
        {
            "query.weight": query.reshape(8, 8, 1, 1),
            "query.bias": query_bias.reshape(8),
            "key_value.weight": torch.cat([key.reshape(8, 8, 1, 1), value.reshape(8, 8, 1, 1)]),
            "key_value.bias": torch.cat([key_bias.reshape(8), value_bias.reshape(8)]),
            "project.weight": windows.project.weight,
            "project.bias": windows.project.bias,
        }
    )
    x = torch.randn(2, 8, 3, 5)
    assert torch.allclose(windows(x), whole(x), atol=1e-6)


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


def test_pools_leave_the_outside_out() -> None:
    x = -torch.ones(1, 2, 5, 4)
    for kind in ("max", "avg"):
        assert torch.equal(Pool(kind, kernel=3)(x), x)
        assert torch.equal(Pool(kind, kernel=3, stride=2)(x), x[:, :, ::2, ::2])


def test_patches_are_mapped_one_by_one() -> None:
    torch.manual_seed(0)
    embed = PatchEmbed(3, 5, patch=4, padding=(1, 0), norm="none")
    x = torch.randn(1, 3, 7, 8, requires_grad=True)
    out = embed(x)
    assert out.shape == (1, 5, 2, 2)
    out[0, :, 0, 1].sum().backward()
    assert x.grad is not None
    seen = x.grad.abs().sum(dim=1)[0] > 0
    assert seen[:3, 4:].all() and seen.sum() == 12  # a row of zeros stands above the first patches


def test_reductions_for_transformers_halve_rounding_up() -> None:
    for size in ((2, 2), (5, 3), (8, 7)):
        out = SpatialReduction(4, 6)(torch.randn(2, 4, *size))
        assert out.shape == (2, 6, -(-size[0] // 2), -(-size[1] // 2))


@pytest.mark.parametrize("name", BLOCKS)
def test_blocks_can_be_traced(name: str) -> None:
    """No control flow depends on values or shapes; what is traced still takes maps of any size."""
    block = BLOCKS[name](8, 8, 1).eval()
    traced = torch.fx.symbolic_trace(block)
    for size in ((6, 6), (5, 7)):
        x = torch.randn(2, 8, *size)
        with torch.no_grad():
            assert torch.allclose(traced(x), block(x), atol=1e-6)


def test_what_is_exported_stands_alone() -> None:
    """Exports take classes and functions by name: no constants beside them, no name twice."""
    seen: dict[str, str] = {}
    for path in sorted(Path(blocks.__file__).parent.glob("*.py")):
        if path.name == "__init__.py":
            continue
        _, *body = ast.parse(path.read_text(encoding="utf-8")).body
        for node in body:
            assert isinstance(node, ast.Import | ast.ImportFrom | ast.ClassDef | ast.FunctionDef), path.name
            if isinstance(node, ast.ClassDef | ast.FunctionDef):
                assert node.name not in seen, f"{node.name} is in {seen[node.name]} and in {path.name}"
                seen[node.name] = path.name


def test_unknown_activation_is_a_key_error() -> None:
    with pytest.raises(KeyError):
        make_activation("tanhh")
