from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import nn

from cambrian.search_spaces import Genotype, Signature


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


class ToySpace:
    """A declarative space of hand-written modules, chosen by name; just what check and identity call."""

    name = "toy"
    version = "1"
    kind = "declarative"

    def __init__(self, **makers: Callable[[], nn.Module]) -> None:
        self.makers = makers

    def build(self, genotype: Genotype, signature: Signature) -> nn.Module:
        return self.makers[genotype["of"]]()


class Apply(nn.Module):
    """A function as a module."""

    def __init__(self, function: Callable[..., Any], **parts: nn.Module) -> None:
        super().__init__()
        self.function = function
        for name, part in parts.items():
            self.add_module(name, part)

    def forward(self, x: torch.Tensor) -> Any:
        return self.function(self, x) if self._modules else self.function(x)


def convnets(n: int, seed: int = 0) -> list[Genotype]:
    from cambrian.search_spaces import SPACES

    space, rng = SPACES.create("convnet"), random.Random(seed)
    return [space.sample(rng) for _ in range(n)]
