"""Canonical weights: values that depend on what a parameter is for, not on its name or its place."""

from __future__ import annotations

import functools
import hashlib
import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from cambrian.sandbox.examination.probe import PERIOD, noise, series

DEAD = 1e-9
"""A parameter whose gradient, weighed by its value, is smaller than this share of the largest has none."""

Role = tuple[int, ...]
"""What a parameter does, as a few integers: its gradient, quantised. Empty where it gets none."""


@functools.lru_cache(maxsize=4096)
def form(shape: tuple[int, ...]) -> tuple[int, ...]:
    """`(rows, columns)` of a matrix or kernel, `(n,)` of anything else: a kernel of 1x1 is a matrix."""
    sides = [side for side in shape if side != 1]
    if len(sides) < 2:
        return (math.prod(sides),)
    return (sides[0], math.prod(sides[1:]))


@functools.lru_cache(maxsize=1024)
def common_weights(shape: tuple[int, ...], of: tuple[int, ...]) -> Tensor:
    """The `weights` that all parameters of form `of` share on probe A."""
    return weights(shape, (of, "A"))


def weights(shape: tuple[int, ...], key: object) -> Tensor:
    """The canonical value of a parameter, float64: mostly a view of a long series, never to be written to.

    Matrices and kernels keep the size of a signal (He et al., arXiv:1502.01852); vectors, which shift and
    scale channels, are positive, and so is the first row of a matrix with few rows: no rectified layer dies
    as a whole. Every fourth element of a vector is large, so that activations show where they saturate.

    Args:
        shape: of the parameter; only its `form` matters.
        key: anything with a representation; other keys, other values.
    """
    rows = form(shape)
    digest = hashlib.blake2b(repr(key).encode(), digest_size=8).digest()
    offset = int.from_bytes(digest, "little") % PERIOD
    if len(rows) == 1:
        value = _window(_positive(), offset, rows[0])
        return value if len(shape) == 1 else value.view(shape)
    value = _window(_scaled(rows[1]), offset, rows[0] * rows[1])
    if rows[0] <= _FEW:
        value = value.clone()
        value[: rows[1]].abs_()
    return value.view(shape)


def _window(numbers: Tensor, offset: int, n: int) -> Tensor:
    if n > PERIOD and offset + n > len(numbers):  # three periods are there, and the offset is in the first
        numbers = numbers[:PERIOD].repeat(-(-(offset + n) // PERIOD))
    return numbers[offset : offset + n]


_FEW = 8


@functools.lru_cache(maxsize=24)
def _scaled(fan_in: int) -> Tensor:
    return series() * math.sqrt(6 / fan_in)


@functools.cache
def _positive() -> Tensor:
    value = torch.exp(1.1 * series() - 0.2)
    value[1::4] *= 5
    return value


def roles(gradients: Sequence[Tensor | None]) -> list[Role]:
    """The role of each parameter from its gradient; see `Role`.

    The norm and a projection are kept, to about four digits; what is far below the largest is rounding.
    """
    found: list[tuple[float, float] | None] = []
    for gradient in gradients:
        if gradient is None:
            found.append(None)
            continue
        flat = gradient.reshape(-1)
        along = torch.dot(flat, _direction(flat.numel()))
        found.append((along.item(), torch.linalg.vector_norm(flat).item()))
    largest = max((pair[1] for pair in found if pair is not None), default=0.0)
    return [_role(pair, largest) for pair in found]


@functools.lru_cache(maxsize=256)
def _direction(n: int) -> Tensor:
    return noise((n,), 11)


def _role(pair: tuple[float, float] | None, largest: float) -> Role:
    if pair is None or not pair[1] > DEAD * largest:
        return ()
    along, norm = pair
    sure = norm + 1e-6 * largest
    return (round(math.log(sure) * 1e4), round(along / sure * 1e4))


@functools.lru_cache(maxsize=4096)
def first_values(notes: tuple[Any, ...], shape: tuple[int, ...]) -> str:
    """How a parameter is initialised, as text; its own shape is told as its `form` where only that matters.

    Args:
        notes: the provenance that the meta device's log has of it.
        shape: of the parameter.
    """
    plain = all(note and note[0] in _OF_FORM for note in notes) and "fan_out" not in repr(notes)
    return repr((form(shape), *(_shapeless(note, shape) for note in notes)) if plain else (shape, notes))


def _shapeless(note: Any, shape: tuple[int, ...]) -> Any:
    if not isinstance(note, tuple):
        return note
    n = len(shape)
    for at in (0, 1):  # as a tuple of its own, or as the first arguments of a factory
        if n and note[at : at + n] == shape:
            return (*note[:at], "own", *(_shapeless(each, shape) for each in note[at + n :]))
    return tuple(_shapeless(each, shape) for each in note)


_OF_FORM = frozenset(
    {
        "add_", "constant_", "empty", "fill_", "full", "kaiming_normal_", "kaiming_uniform_", "mul_",
        "normal_", "ones", "ones_", "rand", "randn", "trunc_normal_", "uniform_", "zero_", "zeros", "zeros_",
    }
)  # fmt: skip
"""Ways to fill a tensor that give a kernel of 1x1 and a matrix the same values."""
