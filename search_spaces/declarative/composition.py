"""The typing of compositions: what merging and rearranging make of shapes."""

from __future__ import annotations

from typing import Any

from cambrian.search_spaces.declarative.shape import Shape, ShapeError, sequence


def merged(merge: str, shapes: list[Shape]) -> Shape:
    """The shape of branches of `shapes` merged by `sum`, `mean`, `product` or `concat`.

    Raises:
        ShapeError: they do not go together.
    """
    first = shapes[0]
    if merge != "concat":
        for other in shapes[1:]:
            if other != first:
                raise ShapeError(f"branches of {first} and {other} have no {merge}")
        return first
    for other in shapes[1:]:
        if other.kind != first.kind or other.with_channels(1) != first.with_channels(1):
            raise ShapeError(f"branches of {first} and {other} cannot be concatenated over channels")
    return first.with_channels(sum(shape.channels for shape in shapes))


def routed(how: str, size: Any, shape: Shape) -> Shape:
    """The sequence that rearranging makes of `shape`.

    Raises:
        ShapeError: it cannot be rearranged in that way.
    """
    if how == "tokens" and shape.kind == "image":
        return sequence(shape.length, shape.channels)
    if how == "transpose" and shape.kind == "sequence":
        return sequence(shape.channels, shape.length)
    if how == "patches" and shape.kind in ("image", "sequence"):
        if not isinstance(size, int) or size < 1:
            raise ShapeError(f"route: patches need a size of at least 1, not {size!r}")
        if shape.kind == "sequence":
            return sequence(-(-shape.length // size), shape.channels * size)
        count = -(-shape.height // size) * -(-shape.width // size)
        return sequence(count, shape.channels * size**2)
    raise ShapeError(f"route: {how} does not apply to {shape}")


def routed_back(how: str, size: Any, shape: Shape, inside: Shape, out: Shape) -> Shape:
    """What rearranging back makes of `out`, the output of the body for `inside`, where `shape` came in.

    Raises:
        ShapeError: there is no way back.
    """
    if out.kind != "sequence" or (how != "transpose" and out.length != inside.length):
        raise ShapeError(f"route: {how}: its body turns {inside} into {out}, which has no way back")
    if how == "transpose":
        return sequence(out.channels, out.length)
    if how == "tokens":
        return shape.with_channels(out.channels)
    cell = size**2 if shape.kind == "image" else size
    if out.channels % cell:
        raise ShapeError(f"route: patches: {out.channels} channels are not a multiple of {cell}")
    return shape.with_channels(out.channels // cell)
