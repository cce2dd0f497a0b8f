"""Every block of the catalogue against its class: what a plan promises is what torch then has and does."""

from __future__ import annotations

import importlib
import random
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from cambrian.search_spaces.blocks.graph import set_context
from cambrian.search_spaces.declarative.catalogue import REQUIRED, Argument, Block, Planned, catalogue
from cambrian.search_spaces.declarative.shape import Kind, Shape, ShapeError

EDGES = 10
NODES = 6
VALUES: dict[str, tuple[Any, ...]] = {
    "out": (4, 8, 12, 24, 40),
    "heads": (1, 2, 4),
    "kernel": (1, 2, 3, 5),
    "window": (1, 2, 3, 4),
    "vocabulary": (2, 5, 11),
    "edges": (EDGES,),
    "names": ("relu", "relu+tanh+sine"),
}
"""Values that blocks are likely to take, by the argument's name."""
ORDINARY: dict[type, tuple[Any, ...]] = {
    int: (0, 1, 2, 3, 4, 6),
    float: (0.0, 0.25, 0.5, 1.0, 2.0),
    bool: (False, True),
}


class Draw(NamedTuple):
    shape: Shape
    given: Mapping[str, Any]
    planned: Planned


def value(name: str, argument: Argument, rng: random.Random) -> Any:
    values = argument.allowed or VALUES.get(name) or ORDINARY[argument.kind]
    low = argument.minimum
    return rng.choice([each for each in values if low is None or each >= low])


def shape_of(kind: Kind, rng: random.Random) -> Shape:
    channels = rng.choice((1, 2, 3, 4, 6, 8, 12, 16))
    side = rng.choice((1, 2, 3, 4, 5, 7, 8, 11))
    other = rng.choice((side, side, 1, 2, 6, 9))
    dims: dict[Kind, tuple[int, ...]] = {
        "image": (channels, side, other),
        "sequence": (side, channels),
        "ids": (side,),
        "vector": (channels,),
        "nodes": (NODES, channels),
    }
    return Shape(kind, dims[kind])


def draws(block: Block, wanted: int = 20) -> Iterator[Draw]:
    """Random uses of `block` that fit; half of the optional arguments are left out."""
    rng = random.Random(block.name)
    found = 0
    for attempt in range(30 * wanted):
        shape = shape_of(block.takes[attempt % len(block.takes)], rng)
        given = {
            name: value(name, argument, rng)
            for name, argument in block.arguments.items()
            if argument.default is REQUIRED or rng.random() < 0.5
        }
        try:
            planned = block.planned(shape, given)
        except ShapeError:
            continue
        yield Draw(shape, given, planned)
        found += 1
        if found == wanted:
            return
    assert found >= 5, f"only {found} of {30 * wanted} draws fit {block.name}"


def build(block: Block, planned: Planned) -> nn.Module:
    made = getattr(importlib.import_module(block.module), block.name)(*planned.args, **planned.kwargs)
    assert isinstance(made, nn.Module)
    return made


def batch(shape: Shape, n: int) -> Tensor:
    dims = shape.dims if shape.kind == "nodes" else (n, *shape.dims)
    return torch.randint(0, 2, dims) if shape.kind == "ids" else torch.randn(dims)


def batched(shape: Shape, n: int) -> tuple[int, ...]:
    return shape.dims if shape.kind == "nodes" else (n, *shape.dims)


@pytest.mark.parametrize("block", catalogue().values(), ids=lambda block: block.name)
def test_plans_are_exact(block: Block) -> None:
    for shape, given, planned in draws(block):
        with torch.device("meta"):
            module, x = build(block, planned).eval(), batch(shape, 1)
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            out = module(x)
        assert tuple(out.shape) == batched(planned.shape, 1), (shape, given)
        assert sum(p.numel() for p in module.parameters()) == planned.params, (shape, given)
        assert counter.get_total_flops() == 2 * planned.macs, (shape, given)


@pytest.mark.parametrize("block", catalogue().values(), ids=lambda block: block.name)
def test_gradients_reach_every_parameter(block: Block) -> None:
    torch.manual_seed(0)
    source, target = torch.randint(0, NODES, (2, EDGES))
    edges = torch.stack([source, torch.where(source == target, (target + 1) % NODES, target)])
    for shape, given, planned in draws(block, 5):
        module, x = build(block, planned).train(), batch(shape, 3)
        set_context(module, {"edges": edges})
        if shape.kind != "ids":
            x.requires_grad_()
        out = module(x)
        assert tuple(out.shape) == batched(planned.shape, 3), (shape, given)
        if out.requires_grad:
            (out * torch.randn_like(out)).sum().backward()
        for name, parameter in module.named_parameters():
            assert parameter.grad is not None, (name, shape, given)
            assert parameter.grad.isfinite().all(), (name, shape, given)
        if shape.kind != "ids":
            assert x.grad is not None and x.grad.isfinite().all(), (shape, given)


@pytest.mark.parametrize("block", catalogue().values(), ids=lambda block: block.name)
def test_blocks_say_what_they_are(block: Block) -> None:
    assert block.takes and block.about and not block.about.endswith(".")
    for argument in block.arguments.values():
        assert argument.about
        if argument.default is not REQUIRED:
            assert type(argument.default) is argument.kind
            assert not argument.allowed or argument.default in argument.allowed
            assert argument.minimum is None or argument.default >= argument.minimum


def test_wrong_uses_are_refused() -> None:
    block, shape = catalogue()["ConvBlock"], Shape("image", (3, 8, 8))
    cases: dict[str, tuple[Shape, dict[str, Any]]] = {
        "takes image, not vector 3": (Shape("vector", (3,)), {"out": 8}),
        "needs the argument out": (shape, {"kernel": 3}),
        "no argument 'width'": (shape, {"out": 8, "width": 8}),
        "must be int, not '8'": (shape, {"out": "8"}),
        "allowed: 1, 3, 5": (shape, {"out": 8, "kernel": 4}),
        "at least 1": (shape, {"out": 0}),
    }
    for message, (given_shape, given) in cases.items():
        with pytest.raises(ShapeError, match=message):
            block.planned(given_shape, given)
