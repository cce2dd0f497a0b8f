"""What networks of any signature are given in tests."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from cambrian.search_spaces import Signature, Space, UserError
from cambrian.search_spaces.blocks.graph import set_context
from cambrian.search_spaces.declarative.space import DeclarativeSpace
from cambrian.search_spaces.tasks.listing import create_listed

IMAGES = (
    Signature(input_shape=(1, 8, 8), n_outputs=10),
    Signature(input_shape=(1, 28, 28), n_outputs=10),
    Signature(input_shape=(3, 33, 20), n_outputs=3),
)


def signatures_of(space: Space) -> list[Signature]:
    """What a space must build for: what its file names, the tasks that it says it fits, and odd images."""
    if not isinstance(space, DeclarativeSpace):
        return list(IMAGES)
    found = dict.fromkeys(space.definition.signatures)
    for name in space.definition.file.tasks:
        try:
            found.setdefault(create_listed(name).signature)
        except UserError:  # the data of a user's own, such as npz
            continue
    if any(len(signature.input_shape) == 3 for signature in found):
        found.update(dict.fromkeys(IMAGES))
    return list(found)


def inputs_of(signature: Signature, n: int) -> Tensor:
    """`n` samples of random numbers or ids."""
    if signature.n_ids is not None:
        return torch.randint(0, signature.n_ids, (n, *signature.input_shape))
    return torch.randn(n, *signature.input_shape)


def with_graph(network: nn.Module, signature: Signature) -> nn.Module:
    """The same network, holding a random graph where the signature has one."""
    if signature.graph is not None:
        graph, rng = signature.graph, torch.Generator().manual_seed(0)
        edges = torch.randint(0, graph.nodes, (2, graph.edges), generator=rng)
        features = torch.rand(graph.nodes, graph.features, generator=rng)
        set_context(network, {"features": features, "edges": edges})
    return network
