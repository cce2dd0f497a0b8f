"""Motifs say what a network computes, whatever it is called and however it is written."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from cambrian.sandbox.examination.meta import build_on_meta
from cambrian.sandbox.examination.motifs import LONGEST, MAX_NODES, motifs, trace_graph
from cambrian.sandbox.examination.operations import coarse
from cambrian.search_spaces import SPACES, Signature
from tests.sandbox.examination.conftest import Apply

IMAGE = Signature(input_shape=(3, 8, 8), n_outputs=5)
VECTOR = Signature(input_shape=(6,), n_outputs=6)


def net(forward: Callable[[nn.Module, Tensor], Tensor]) -> nn.Module:
    return Apply(
        forward,
        first=nn.Conv2d(3, 16, 3, padding=1),
        second=nn.Conv2d(3, 16, 1),
        norm=nn.BatchNorm2d(16),
        spare=nn.Conv2d(3, 16, 5, padding=2),
        head=nn.Linear(16, 5),
    )


def plain(m: nn.Module, x: Tensor) -> Tensor:
    return m.head((m.norm(m.first(x)).relu() + m.second(x)).mean((2, 3)))


def test_a_small_network_word_for_word() -> None:
    """The names are fixed: they are stored, and compared between processes."""
    assert motifs(net(plain), IMAGE) == {
        "input": 1, "conv3x3": 1, "conv1x1": 1, "bn": 1, "relu": 1, "add": 1, "mean": 1, "linear": 1,
        "conv3x3@16": 1, "conv1x1@16": 1, "linear@6": 1, "map~8": 2,
        "input>conv3x3": 1, "input>conv1x1": 1, "conv3x3>bn": 1, "bn>relu": 1, "(conv1x1|relu)>add": 1,
        "add>mean": 1, "mean>linear": 1,
        "input>conv3x3>bn": 1, "conv3x3>bn>relu": 1, "(bn>relu|input>conv1x1)>add": 1,
        "(conv1x1|relu)>add>mean": 1, "add>mean>linear": 1,
    }  # fmt: skip


def other_words(m: nn.Module, x: Tensor) -> Tensor:
    left = functional.relu(m.norm(m.first(x)), inplace=True)
    total = torch.add(m.second(x), left)
    return functional.linear(functional.adaptive_avg_pool2d(total, 1).flatten(1), m.head.weight, m.head.bias)


def dead_branch(m: nn.Module, x: Tensor) -> Tensor:
    m.spare(x).relu()
    return plain(m, x)


def zero_branch(m: nn.Module, x: Tensor) -> Tensor:
    zero = functional.relu(m.spare(x) * 0)
    y = m.norm(m.first(x)).relu() + zero + m.second(x) + torch.zeros_like(zero)
    return m.head(y.mean((2, 3)))


def identities(m: nn.Module, x: Tensor) -> Tensor:
    x = functional.pad(x.contiguous(), (0, 0, 0, 0)) * 1
    y = m.norm(m.first(x)).relu().view(x.shape[0], -1).unflatten(1, (16, 8, 8)) + 0
    return m.head((y + functional.dropout(m.second(x), 0.0)).mean((2, 3)).reshape(-1, 16))


@pytest.mark.parametrize("way", [other_words, dead_branch, zero_branch, identities])
def test_ways_to_write_one_network(way: Callable[[nn.Module, Tensor], Tensor]) -> None:
    assert motifs(net(way), IMAGE) == motifs(net(plain), IMAGE)


@pytest.mark.parametrize(
    "other",
    [
        lambda m, x: m.head((m.norm(m.first(x)).relu() * m.second(x)).mean((2, 3))),
        lambda m, x: m.head((m.norm(m.first(x).relu()) + m.second(x)).mean((2, 3))),
        lambda m, x: m.head((m.norm(m.spare(x)).relu() + m.second(x)).mean((2, 3))),
        lambda m, x: m.head((m.norm(m.first(x)).relu() + m.second(x)).amax((2, 3))),
    ],
)
def test_other_networks_have_other_motifs(other: Callable[[nn.Module, Tensor], Tensor]) -> None:
    assert motifs(net(other), IMAGE) != motifs(net(plain), IMAGE)


def test_sums_do_not_depend_on_order_or_brackets() -> None:
    parts = {name: nn.Linear(6, 6) for name in ("a", "b", "c")}
    left = Apply(lambda m, x: (m.a(x).relu() + m.b(x).tanh()) + m.c(x), **parts)
    right = Apply(lambda m, x: m.c(x) + (m.b(x).tanh() + m.a(x).relu()), **parts)
    assert motifs(left, VECTOR) == motifs(right, VECTOR)
    assert "(linear|relu|tanh)>add" in motifs(left, VECTOR)


def test_the_module_is_left_as_it_was() -> None:
    module = nn.Sequential(nn.BatchNorm1d(6), nn.Dropout(0.5), nn.Linear(6, 6))
    module[2].eval()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    assert motifs(module, VECTOR)["dropout"] == 1
    assert [child.training for child in module] == [True, True, False]
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())


@pytest.mark.parametrize("name", ["convnet", "mlp", "hybrid", "encoder"])
def test_meta_and_real_modules_have_the_same_motifs(name: str) -> None:
    space, rng = SPACES.create(name), random.Random(5)
    signature = space.definition.file.reference
    for _ in range(3):
        genotype = space.sample(rng)
        on_meta, _ = build_on_meta(space, genotype, signature)
        found = motifs(on_meta, signature)
        assert found == motifs(space.build(genotype, signature), signature)
        assert len(found) > 10 and all(len(label) <= LONGEST and label.isascii() for label in found)


def test_loops_and_wide_sums_stay_bounded() -> None:
    def looping(m: nn.Module, x: Tensor) -> Tensor:
        for _ in range(MAX_NODES + 10):
            x = torch.sin(x)
        return x

    loop = Apply(looping, unused=nn.Identity())
    assert len(trace_graph(loop, VECTOR).nodes) == MAX_NODES
    assert motifs(loop, VECTOR)["sin"] == MAX_NODES - 1
    layers = {f"l{i}": nn.Linear(6, 6) for i in range(60)}
    wide = Apply(lambda m, x: sum(getattr(m, name)(x) for name in layers), **layers)
    assert max(map(len, motifs(wide, VECTOR))) == LONGEST


@pytest.mark.parametrize(
    ("size", "is_"), [(0.5, 0), (1, 1), (5, 6), (7, 8), (9, 8), (23, 24), (100, 96), (1000, 1024)]
)
def test_sizes_are_coarse(size: float, is_: int) -> None:
    assert coarse(size) == is_
