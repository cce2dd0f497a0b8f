"""What networks are run on to be told apart: fixed samples, ids, and a small graph."""

from __future__ import annotations

import functools
import math

import numpy as np
import torch
from torch import Tensor, nn

from cambrian.sandbox.examination.meta import SEED
from cambrian.search_spaces import Genotype, Signature, Space
from cambrian.search_spaces.blocks.graph import set_context
from cambrian.search_spaces.space import GraphShape

PERIOD = 262_139
"""Length of the series of `noise`; prime: no two rows of a repeated window fall on the same numbers."""

_NODES = 24
_PROBED = ((0, 5, 23, 7), (9, 18, 1, 16))
_APART = 100_003
_EDGES = (
    *((node, (node + 1) % 23) for node in range(23)),  # a ring; node 23 stays alone
    *((0, node) for node in range(3, 19, 3)),  # a hub
    (1, 3), (7, 9), (8, 10), (5, 16),  # triangles and a short cut
)  # fmt: skip
"""Nodes of many degrees, so that sums, means and maxima of neighbours differ, and however they are scaled."""


def probe(batch: int, signature: Signature, number: int = 0) -> Tensor:
    """At most four samples `(batch, *input_shape)`, float64 or ids.

    Real samples are of different sizes, for activations near and far from 0.

    Args:
        batch: number of samples.
        signature: what they are.
        number: 0 or 1: the samples of one have nothing to do with those of the other.
    """
    if signature.graph is not None:
        return torch.tensor(_PROBED[number][:batch])
    drawn = noise((batch, *signature.input_shape), number * _APART)
    if signature.vocabulary is not None:
        return ((drawn + 1) / 2 * signature.vocabulary).long()
    sizes = torch.tensor([[1.7, 6.0, 0.8, 3.0], [4.0, 1.1, 2.3, 0.6]][number], dtype=torch.float64)[:batch]
    return drawn * sizes.view(-1, *[1] * len(signature.input_shape))


def build_for_probe(space: Space, genotype: Genotype, signature: Signature) -> nn.Module:
    """The real module on the CPU; one for nodes is built for a small graph, and holds it.

    Such a module computes the same function of another graph, thousands of times quicker, unless its
    parameters depend on the number of nodes, which their shapes tell.

    Raises:
        ProposalError: from the space.
    """
    if signature.graph is None:
        return space.build(genotype, signature)
    one_way = torch.tensor(_EDGES).T
    edges = torch.cat([one_way, one_way.flip(0)], dim=1)
    features = signature.graph.features
    shape = GraphShape(nodes=_NODES, features=features, edges=edges.shape[1])
    module = space.build(genotype, signature.model_copy(update={"graph": shape})).double()
    set_context(module, {"features": noise((_NODES, features), 3), "edges": edges})
    return module


def noise(shape: tuple[int, ...], offset: int) -> Tensor:
    """Fixed pseudo-random numbers in (-1, 1), float64: a window on one long series."""
    n = math.prod(shape)
    drawn = series()
    if offset + n > len(drawn):
        drawn = drawn[:PERIOD].repeat(-(-(offset + n) // PERIOD))
    return drawn[offset : offset + n].view(shape)


@functools.cache
def series() -> Tensor:
    """The long series that `noise` is a window on: three times `PERIOD` numbers, never to be written to."""
    # numpy promises this stream for PCG64's raw output
    raw = np.random.PCG64(SEED).random_raw(PERIOD)
    return torch.from_numpy((raw >> np.uint64(11)).astype(np.float64) * 2.0**-52 - 1.0).repeat(3)
