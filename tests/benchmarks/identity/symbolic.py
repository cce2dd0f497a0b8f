"""A cell of NAS-Bench-201 as algebra: which cells compute the same function for generic weights.

The rules, none of which looks at a hash:
  - `none` gives zero, and zero absorbs: whatever is done to zero is zero;
  - `skip_connect` is the identity;
  - pooling by mean is linear: it is a power of one operator P, and distributes over sums;
  - sums commute, and equal terms add up to a factor;
  - each convolution that the output depends on is an instance of its own, with weights of its own; it is
    ReLU, convolution, batch norm, and nothing passes through the ReLU but the whole sum.

A convolution of zero has a batch norm of zeros, whose bias could learn a constant; as in the benchmark's own
unique strings, that is taken for zero. The other way round, a factor is kept: batch norm makes the networks
of x and of x + x before a convolution alike, but for its epsilon.

So a value is a sum of terms `factor * P^k(atom)`, an atom being the input or a convolution. Two cells are
equal when there is a one-to-one match of their convolutions that makes their outputs equal.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

EDGES = ("e01", "e02", "e12", "e03", "e13", "e23")
OPERATIONS = ("none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3")

INPUT = -1
Terms = Mapping[tuple[int, int], int]
"""Factors by atom and power of P; the atom is `INPUT` or the number of a convolution."""


@dataclass(frozen=True)
class Convolution:
    """An instance: its kind, and what it is given."""

    kind: str
    given: Terms


def symbolic(cell: Mapping[str, str]) -> str:
    """The canonical form of a cell, the same text for equal cells only.

    Args:
        cell: the operation of each of the six edges.
    """
    convolutions: list[Convolution] = []
    first: Terms = {(INPUT, 0): 1}
    nodes = [first]
    for into in (1, 2, 3):
        total: Counter[tuple[int, int]] = Counter()
        for origin in range(into):
            total.update(_apply(cell[f"e{origin}{into}"], nodes[origin], convolutions))
        nodes.append(dict(total))
    live = _live(nodes[3], convolutions)
    # the least text over all ways to number the convolutions: at most six, mostly two or three
    orders = itertools.permutations(range(len(live)))
    return min(_text(nodes[3], convolutions, dict(zip(live, numbers, strict=True))) for numbers in orders)


def _apply(operation: str, given: Terms, convolutions: list[Convolution]) -> Terms:
    if operation == "none" or not given:
        return {}
    if operation == "skip_connect":
        return given
    if operation == "avg_pool_3x3":
        return {(atom, power + 1): factor for (atom, power), factor in given.items()}
    convolutions.append(Convolution(operation, given))
    return {(len(convolutions) - 1, 0): 1}


def _live(output: Terms, convolutions: Sequence[Convolution]) -> list[int]:
    """The convolutions that the output depends on."""
    found: set[int] = set()
    waiting = [atom for atom, _ in output]
    while waiting:
        atom = waiting.pop()
        if atom != INPUT and atom not in found:
            found.add(atom)
            waiting.extend(before for before, _ in convolutions[atom].given)
    return sorted(found)


def _text(output: Terms, convolutions: Sequence[Convolution], numbers: Mapping[int, int]) -> str:
    def sum_of(terms: Terms) -> str:
        named = sorted((numbers.get(atom, INPUT), power, factor) for (atom, power), factor in terms.items())
        return "+".join(
            f"{factor}*P{power}({'x' if atom == INPUT else f'c{atom}'})" for atom, power, factor in named
        )

    ordered = sorted((number, atom) for atom, number in numbers.items())
    lines = [
        f"c{number}={convolutions[atom].kind}({sum_of(convolutions[atom].given)})" for number, atom in ordered
    ]
    return "; ".join([*lines, f"out={sum_of(output) or '0'}"])
