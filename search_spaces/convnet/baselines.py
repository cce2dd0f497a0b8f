"""Known networks written as members of `convnet`."""

from __future__ import annotations

from typing import Any

from cambrian.search_spaces.convnet.genes import validate
from cambrian.search_spaces.space import Genotype


def baselines() -> dict[str, Genotype]:
    """Hand-written networks by name.

    `two-layer-cnn` is the classic of tutorials: two convolutions of 32 and 64 channels, each with
    max-pooling, then a dense layer. Two things differ from the classic: batch norm follows the convolutions,
    and the last map is averaged to 4x4 cells before it is flattened. `small-resnet` has the widths of the
    CIFAR ResNets (He et al. 2015) with one block a stage; `mobilenet-like` is a short MobileNetV2
    (Sandler et al. 2018).
    """
    return {
        "two-layer-cnn": validate(
            {
                "stem": {"width": 32, "downsample": "pool"},
                "stages": [_stage("conv", 64, downsample="first")],
                "head": {"pool": "grid", "hidden": 64},
            }
        ),
        "small-resnet": validate(
            {
                "stem": {"width": 16},
                "stages": [
                    _stage("residual", 16),
                    _stage("residual", 32, downsample="first"),
                    _stage("residual", 64, downsample="first"),
                ],
            }
        ),
        "mobilenet-like": validate(
            {
                "stem": {"width": 16, "downsample": "stride", "activation": "hardswish"},
                "stages": [
                    _stage("inverted", 24, depth=2, expansion=4, activation="hardswish"),
                    _stage(
                        "inverted",
                        32,
                        depth=2,
                        expansion=4,
                        se=0.25,
                        activation="hardswish",
                        downsample="first",
                    ),
                    _stage(
                        "inverted",
                        48,
                        depth=2,
                        expansion=4,
                        se=0.25,
                        activation="hardswish",
                        downsample="first",
                    ),
                ],
                "head": {"dropout": 0.1},
            }
        ),
    }


def _stage(block: str, width: int, **genes: Any) -> dict[str, Any]:
    return {"block": block, "width": width, **genes}
