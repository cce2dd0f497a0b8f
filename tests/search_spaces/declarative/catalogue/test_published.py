"""Plans put together to known networks: their parameters and operations are the published ones."""

from __future__ import annotations

from typing import Any

import pytest

from cambrian.search_spaces.declarative.catalogue import catalogue
from cambrian.search_spaces.declarative.shape import Shape, image

Layer = tuple[str, dict[str, Any]]
RELU6 = {"activation": "relu6"}


def totals(layers: list[Layer], shape: Shape) -> tuple[int, int]:
    params = macs = 0
    for name, given in layers:
        planned = catalogue()[name].planned(shape, given)
        shape, params, macs = planned.shape, params + planned.params, macs + planned.macs
    return params, macs


def head(classes: int) -> list[Layer]:
    return [("GlobalPool", {"kind": "avg"}), ("Linear", {"out": classes})]


def resnet(block: str, widths: tuple[int, ...], depths: tuple[int, ...], **more: Any) -> list[Layer]:
    stages = [
        (block, {"out": width, "kernel": 3, "stride": 2 if stage and not index else 1, **more})
        for stage, (width, depth) in enumerate(zip(widths, depths, strict=True))
        for index in range(depth)
    ]
    return [("ConvBlock", {"out": 64, "kernel": 7, "stride": 2, "pool": 2}), *stages, *head(1000)]


def mobilenet_v2() -> list[Layer]:
    rows = [
        (1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2),
        (6, 320, 1, 1),
    ]  # fmt: skip
    blocks = [
        ("InvertedBlock", {"expansion": e, "out": out, "stride": stride if not index else 1, **RELU6})
        for e, out, depth, stride in rows
        for index in range(depth)
    ]
    return [
        ("ConvBlock", {"out": 32, "kernel": 3, "stride": 2, **RELU6}),
        *blocks,
        ("ConvBlock", {"out": 1280, "kernel": 1, **RELU6}),
        *head(1000),
    ]


def convnext_tiny() -> list[Layer]:
    layers: list[Layer] = [("PatchEmbed", {"out": 96, "patch": 4, "norm": "layer"})]
    for width, depth in ((96, 3), (192, 3), (384, 9), (768, 3)):
        if width > 96:
            layers += [("ChannelNorm", {}), ("PatchEmbed", {"out": width, "patch": 2, "norm": "none"})]
        layers += [("ConvNextBlock", {"out": width})] * depth
    pool, linear = head(1000)
    return [*layers, pool, ("ChannelNorm", {}), linear]


WIDE = (256, 512, 1024, 2048)
IMAGENET: dict[str, tuple[list[Layer], int, int]] = {
    "ResNet-18": (resnet("ResidualBlock", (64, 128, 256, 512), (2, 2, 2, 2)), 11_689_512, 1_814_073_344),
    "ResNet-50": (resnet("BottleneckBlock", WIDE, (3, 4, 6, 3)), 25_557_032, 4_089_184_256),
    "ResNeXt-50": (
        resnet("BottleneckBlock", WIDE, (3, 4, 6, 3), reduction=2, groups=32), 25_028_904, 4_230_479_872,
    ),
    "MobileNetV2": (mobilenet_v2(), 3_504_872, 300_774_272),
    "ConvNeXt-T": (convnext_tiny(), 28_589_128, 4_455_531_264),
}  # fmt: skip
"""Layers, parameters and multiply-accumulates at 3x224x224 and 1000 classes."""


@pytest.mark.parametrize("name", IMAGENET)
def test_imagenet_networks(name: str) -> None:
    layers, params, macs = IMAGENET[name]
    assert totals(layers, image(3, 224, 224)) == (params, macs)


def nas_bench_201(cell: list[Layer], classes: int) -> list[Layer]:
    """A cell's operations in a row cost what they cost as a graph."""
    return [
        ("ConvNorm", {"out": 16, "kernel": 3}),
        *cell * 5,
        ("CellReduction", {"out": 32}),
        *cell * 5,
        ("CellReduction", {"out": 64}),
        *cell * 5,
        ("BatchNorm", {}),
        ("Activation", {"name": "relu"}),
        *head(classes),
    ]


THREE: Layer = ("CellConv", {"kernel": 3})
ONE: Layer = ("CellConv", {"kernel": 1})
POOL: Layer = ("CellPool", {})
SKIP: Layer = ("Identity", {})
NONE: Layer = ("Zero", {})
CELLS: dict[int, tuple[list[Layer], int, float]] = {
    0: ([POOL, ONE, SKIP, ONE, SKIP, SKIP], 129_306, 15.64737),
    6111: ([THREE, THREE, ONE, SKIP, THREE, THREE], 1_073_466, 153.27297),
}
"""Operations, parameters and MFLOPs for CIFAR-10 of two cells of NAS-Bench-201, by their index."""


@pytest.mark.parametrize("index", CELLS)
def test_cells_of_nas_bench_201(index: int) -> None:
    cell, params, mflops = CELLS[index]
    counted, macs = totals(nas_bench_201(cell, 10), image(3, 32, 32))
    assert counted == params
    assert (macs + 10) / 1e6 == pytest.approx(mflops, abs=1e-9)  # the benchmark counts the biases too
    hundred, _ = totals(nas_bench_201(cell, 100), image(3, 32, 32))
    assert hundred - counted == 65 * 90


def test_operations_without_weights_cost_nothing() -> None:
    assert totals([POOL, SKIP, NONE], image(16, 8, 8)) == (0, 0)
