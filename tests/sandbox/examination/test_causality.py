"""Causality of sequence networks, by hand-written mixers."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from cambrian.sandbox.examination.causality import causality
from cambrian.search_spaces import Signature

LENGTH, WIDTH = 12, 12
"""Equal, so that axes cannot be told apart by their sizes."""
IDS = Signature(input_shape=(LENGTH,), n_outputs=3, vocabulary=7)
VALUES = Signature(input_shape=(LENGTH, 4), n_outputs=3)


class Sequences(nn.Module):
    """Embedding, a mixer, the mean of all positions, a head."""

    def __init__(self, mix: Callable[[Tensor], Tensor] | nn.Module, floats: bool = False) -> None:
        super().__init__()
        self.embed: nn.Module = nn.Linear(4, WIDTH) if floats else nn.Embedding(7, WIDTH)
        self.mix = mix
        self.head = nn.Linear(WIDTH, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        out = self.mix(x)
        out = out[0] if isinstance(out, tuple) else out
        return self.head((x + out).mean(1))


class InTime(nn.Module):
    """A convolution over positions, causal or not."""

    def __init__(self, causal: bool) -> None:
        super().__init__()
        self.conv = nn.Conv1d(WIDTH, WIDTH, 3)
        self.pad = (2, 0) if causal else (1, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(functional.pad(x.transpose(1, 2), self.pad)).transpose(1, 2)


class Learned(nn.Module):
    """Positions by a table, so that no longer sequence is taken, and a token in front."""

    def __init__(self, causal: bool) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.randn(LENGTH, WIDTH))
        self.token = nn.Parameter(torch.randn(1, 1, WIDTH))
        self.values = nn.Linear(WIDTH, WIDTH)
        self.causal = causal

    def forward(self, x: Tensor) -> Tensor:
        x = torch.cat([self.token.expand(len(x), 1, WIDTH), x + self.table], 1)
        x = functional.scaled_dot_product_attention(x, x, x, is_causal=self.causal)
        return self.values(x)[:, 1:]


def attended(x: Tensor, causal: bool) -> Tensor:
    return functional.scaled_dot_product_attention(x, x, x, is_causal=causal)


def found(mix: Callable[[Tensor], Tensor] | nn.Module, demanded: bool = False, floats: bool = False):
    torch.manual_seed(0)
    samples = torch.randn(3, LENGTH, 4) if floats else torch.randint(0, 7, (3, LENGTH))
    return causality(Sequences(mix, floats), samples, VALUES if floats else IDS, demanded)


MIXERS: dict[str, tuple[Callable[[bool], Callable[[Tensor], Tensor] | nn.Module]]] = {
    "operation": (lambda causal: lambda x: attended(x, causal),),
    "cumulated": (lambda causal: lambda x: x.cumsum(1) if causal else x.flip(1).cumsum(1).flip(1),),
    "convolution": (InTime,),
    "recurrent": (lambda causal: nn.GRU(WIDTH, WIDTH if causal else WIDTH // 2, batch_first=True,
                                        bidirectional=not causal),),
    "learned": (Learned,),
}  # fmt: skip


@pytest.mark.parametrize("floats", [False, True])
@pytest.mark.parametrize("name", MIXERS)
def test_causal_and_other_mixers_are_told_apart(name: str, floats: bool) -> None:
    (make,) = MIXERS[name]
    causal, other = found(make(True), floats=floats), found(make(False), floats=floats)
    assert causal.verdict == "passed", causal
    assert other.verdict == "noted" and other.detail.startswith("not causal: changing position"), other
    assert found(make(False), demanded=True, floats=floats).verdict == "failed"
    assert found(make(True), demanded=True, floats=floats).verdict == "passed"


def test_the_submodule_is_named_that_saw_a_later_position() -> None:
    assert "earlier features of mix" in found(InTime(causal=False)).detail


def test_what_has_no_features_per_position_cannot_be_causal() -> None:
    network = nn.Sequential(nn.Flatten(), nn.Linear(LENGTH * 4, 3))
    samples = torch.randn(3, LENGTH, 4)
    assert causality(network, samples, VALUES, demanded=False).verdict == "skipped"
    assert causality(network, samples, VALUES, demanded=True).verdict == "failed"


def test_nothing_stays_behind() -> None:
    network = Sequences(InTime(causal=True))
    causality(network, torch.randint(0, 7, (3, LENGTH)), IDS, demanded=False)
    assert not any(child._forward_hooks for child in network.modules())
