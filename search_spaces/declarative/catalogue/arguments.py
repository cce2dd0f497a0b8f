"""Arguments that many blocks on images share, and the sums that their plans have in common."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cambrian.search_spaces.declarative.catalogue.block import Argument
from cambrian.search_spaces.declarative.catalogue.vectors import ACTIVATIONS, OUT
from cambrian.search_spaces.declarative.shape import Shape, ShapeError

__all__ = [
    "ACTIVATION",
    "KERNEL",
    "OUT",
    "SE",
    "STRIDE",
    "divides",
    "expansion",
    "gate",
    "gate_width",
    "halved",
    "strided",
]

KERNEL = Argument(int, "odd side of the window", 3, allowed=(1, 3, 5, 7, 9, 11, 13))
ACTIVATION = Argument(str, "kind of all activations", "relu", allowed=ACTIVATIONS)
STRIDE = Argument(int, "2 halves the map, rounding up", 1, allowed=(1, 2))
SE = Argument(float, "width of the squeeze-excite gate per channel, at most 1; 0: no gate", 0.0, minimum=0)


def expansion(default: int) -> Argument:
    """How many hidden channels a block has for each of its channels."""
    return Argument(int, "hidden channels per channel", default, minimum=1)


def halved(shape: Shape) -> tuple[int, int]:
    """Height and width of half the map.

    Raises:
        ShapeError: it is one pixel high or wide.
    """
    _, height, width = shape.dims
    if height < 2 or width < 2:
        raise ShapeError(f"the map is already {height}x{width} and cannot be halved")
    return (height + 1) // 2, (width + 1) // 2


def strided(shape: Shape, given: Mapping[str, Any], kwargs: dict[str, Any]) -> tuple[int, int]:
    """Height and width after `given`'s stride, which goes to `kwargs` where it is not 1."""
    if given["stride"] == 1:
        return shape.dims[1], shape.dims[2]
    kwargs["stride"] = 2
    return halved(shape)


def gate_width(channels: int, ratio: float) -> int:
    """Hidden width of a squeeze-excite gate over `channels`; 0 for none."""
    if ratio > 1:
        raise ShapeError(f"se is a share of the channels, at most 1, not {ratio:g}")
    return max(1, round(channels * ratio)) if ratio else 0


def gate(channels: int, ratio: float, kwargs: dict[str, Any]) -> tuple[int, int]:
    """Parameters and multiply-accumulates of a squeeze-excite gate, whose width goes to `kwargs`."""
    hidden = gate_width(channels, ratio)
    if not hidden:
        return 0, 0
    kwargs["se"] = hidden
    return 2 * channels * hidden + hidden + channels, 2 * channels * hidden


def divides(channels: int, groups: int, what: str) -> None:
    """Insist that `channels` split evenly.

    Raises:
        ShapeError: they don't.
    """
    if channels % groups:
        raise ShapeError(f"{channels} channels cannot be split into {groups} {what}")
