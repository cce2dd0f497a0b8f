"""Grey images seen as images, as sequences of their rows, or as vectors of their pixels."""

from __future__ import annotations

from cambrian.search_spaces.errors import UserError
from cambrian.search_spaces.registry import near_names
from cambrian.search_spaces.tasks.task import Array

VIEWS = ("image", "sequence", "vector")


def shape_of(task: str, view: str, side: int) -> tuple[int, ...]:
    """The shape of a square image of `side` pixels in this view.

    Raises:
        UserError: no such view.
    """
    shapes = {"image": (1, side, side), "sequence": (side, side), "vector": (side * side,)}
    if view not in shapes:
        raise UserError(f"task {task}: view: unknown view {view!r}", hint=near_names(str(view), list(VIEWS)))
    return shapes[view]


def seen_as(images: Array, shape: tuple[int, ...]) -> Array:
    """Images `(n, 1, side, side)` in the view that has this shape."""
    return images.reshape(len(images), *shape)


def words_of(shape: tuple[int, ...]) -> str:
    """How arrays of this view lie, in a few words."""
    said = f"float32 of shape (n, {', '.join(map(str, shape))})"
    return said + ("" if len(shape) == 3 else ", row by row")
