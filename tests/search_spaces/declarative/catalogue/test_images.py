"""What plans of image blocks choose and refuse."""

from __future__ import annotations

from typing import Any

import pytest

from cambrian.search_spaces.blocks import make_activation
from cambrian.search_spaces.declarative.catalogue import Planned, catalogue
from cambrian.search_spaces.declarative.shape import ShapeError, image, sequence


def plan(name: str, dims: tuple[int, int, int] = (16, 8, 8), **given: Any) -> Planned:
    return catalogue()[name].planned(image(*dims), given)


@pytest.mark.parametrize(
    ("name", "given"),
    [
        (name, {argument: 2})
        for name, block in catalogue().items()
        if "image" in block.takes
        for argument in ("stride", "pool")
        if argument in block.arguments
    ]
    + [("CellReduction", {}), ("SpatialReduction", {})],
)
@pytest.mark.parametrize("dims", [(4, 1, 1), (4, 1, 9), (4, 9, 1)])
def test_a_map_of_one_pixel_cannot_be_halved(name: str, given: dict[str, int], dims: tuple[int, ...]) -> None:
    if "out" in catalogue()[name].arguments:
        given = {**given, "out": 8}
    message = f"the map is already {dims[1]}x{dims[2]} and cannot be halved"
    with pytest.raises(ShapeError, match=message):
        catalogue()[name].planned(image(*dims), given)


def test_a_stride_and_a_pool_halve_twice() -> None:
    assert plan("ConvBlock", (3, 3, 3), out=8, stride=2, pool=2).shape == image(8, 1, 1)
    with pytest.raises(ShapeError, match="already 1x1"):
        plan("ConvBlock", (3, 2, 2), out=8, stride=2, pool=2)


def test_gates_are_shares_of_the_channels_that_they_gate() -> None:
    assert plan("ConvBlock", out=32, se=0.25).kwargs["se"] == 8
    assert plan("SeparableBlock", out=32, se=0.25).kwargs["se"] == 4
    assert plan("InvertedBlock", out=32, expansion=4, se=0.25).kwargs["se"] == 16
    assert plan("ResidualBlock", out=2, se=0.01).kwargs["se"] == 1
    assert "se" not in plan("ConvBlock", out=32, se=0).kwargs
    assert plan("SqueezeExcite", ratio=0.5).args == (16, 8)
    with pytest.raises(ShapeError, match="at most 1"):
        plan("ConvBlock", out=8, se=1.5)
    with pytest.raises(ShapeError, match="above 0"):
        plan("SqueezeExcite", ratio=0)


def test_attention_chooses_heads_that_divide() -> None:
    heads = {out: plan("AttentionBlock", out=out).kwargs["heads"] for out in (8, 16, 48, 56, 64, 104)}
    assert heads == {8: 1, 16: 1, 48: 3, 56: 2, 64: 4, 104: 4}
    with pytest.raises(ShapeError, match="48 channels cannot be split into 5 heads"):
        plan("AttentionBlock", out=48, heads=5)


def test_keys_of_attention_stay_few_on_large_maps() -> None:
    for side in (8, 28, 32, 64, 90):
        reduction = plan("AttentionBlock", (8, side, side), out=8).kwargs["reduction"]
        assert (-(-side // reduction)) ** 2 <= 64
    assert plan("AttentionBlock", (8, 64, 64), out=8, reduction=1).kwargs["reduction"] == 1


def test_windows_are_as_even_as_they_can_be() -> None:
    windows = {
        side: plan("AttentionBlock", (8, side, 2), out=8, window=8).kwargs["window"]
        for side in (3, 8, 9, 16, 20, 33)
    }
    assert windows == {3: (3, 2), 8: (8, 2), 9: (5, 2), 16: (8, 2), 20: (7, 2), 33: (7, 2)}
    with pytest.raises(ShapeError, match="a window or a reduction"):
        plan("AttentionBlock", out=8, window=4, reduction=2)


def test_windows_cost_less_than_the_whole_map() -> None:
    whole = plan("AttentionBlock", (16, 32, 32), out=16, reduction=1)
    parts = plan("AttentionBlock", (16, 32, 32), out=16, window=8)
    assert parts.params == whole.params
    assert whole.macs - parts.macs == 2 * 16 * 32 * 32 * (32 * 32 - 8 * 8)


def test_channels_must_split_into_groups() -> None:
    for name, dims in (("ConvNorm", (6, 8, 8)), ("BottleneckBlock", (16, 8, 8))):
        with pytest.raises(ShapeError, match="6 channels cannot be split into 4 groups"):
            plan(name, dims, out=24, groups=4)


def test_patches_must_fit_on_the_map() -> None:
    assert plan("PatchEmbed", (3, 30, 28), out=8, patch=4).shape == image(8, 8, 7)
    assert plan("PatchEmbed", (3, 30, 28), out=8, patch=4).kwargs["padding"] == (1, 0)
    with pytest.raises(ShapeError, match="smaller than one patch of 9x9"):
        plan("PatchEmbed", (3, 8, 8), out=8, patch=9)


def test_grids_shrink_to_small_maps() -> None:
    assert plan("GridPool", (8, 3, 9)).args == (3, 4)
    assert plan("GridPool", (8, 3, 9), size=2).shape.dims == (32,)


def test_tokens_know_how_many_channels_they_need() -> None:
    with pytest.raises(ShapeError, match="halves of 7 channels"):
        catalogue()["TokenScores"].planned(sequence(5, 7), {})
    with pytest.raises(ShapeError, match="no more than the weights of 5 tokens"):
        catalogue()["TokenMix"].planned(sequence(5, 5), {})


def test_all_activations_exist() -> None:
    for name in catalogue()["ConvBlock"].arguments["activation"].allowed:
        make_activation(name)
