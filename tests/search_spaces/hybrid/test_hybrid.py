"""What is special to hybrid: kinds of layers and downsampling positions are free of each other."""

from __future__ import annotations

import itertools
import random
from collections import Counter
from typing import Any

import pytest
import torch

from cambrian.sandbox.worker.training import Data, History, train
from cambrian.search_spaces import SPACES, TASKS, ProposalError, Signature
from cambrian.search_spaces.declarative.plan import leaves
from cambrian.search_spaces.declarative.planning import plan
from cambrian.search_spaces.declarative.space import DeclarativeSpace

SPACE = SPACES.create("hybrid")
assert isinstance(SPACE, DeclarativeSpace)
DEFINITION = SPACE.definition
CLOTHES = Signature(input_shape=(1, 28, 28), n_outputs=10)
KINDS = ("conv", "inverted", "convnext", "attention", "window")
ATTENTION = ("attention", "window")


def maps(genotype: dict[str, Any], signature: Signature = CLOTHES) -> list[tuple[int, ...]]:
    """What each layer hands on."""
    planned = leaves(plan(DEFINITION, SPACE.validate(genotype), signature))
    last = {leaf.gene: leaf.shape.dims for leaf in planned}
    return [dims for gene, dims in last.items() if gene.startswith("layers")]


@pytest.mark.parametrize("halving", ["stride", "reduce"])
@pytest.mark.parametrize("at", [(), (0,), (3,), (0, 1), (1, 3), (0, 1, 2), (1, 2, 3)])
def test_any_layers_may_halve_the_map(at: tuple[int, ...], halving: str) -> None:
    for kinds in itertools.product(("convnext", "attention"), repeat=4):
        layers = [
            {"block": kind, "down": halving if i in at else "none", "widen": 2 if i in at else 1}
            for i, kind in enumerate(kinds)
        ]
        found = maps({"stem": {"width": 8, "stride": 1}, "layers": layers})
        sides, width = 28, 8
        for i, dims in enumerate(found):
            if i in at:
                sides, width = -(-sides // 2), 2 * width
            assert dims == (width, sides, sides)


@pytest.mark.parametrize("head_width", [8, 16, 32])
@pytest.mark.parametrize("window", [2, 4, 8])
def test_heads_and_windows_are_as_the_genes_say(head_width: int, window: int) -> None:
    genes = {"expansion": 1, "head_width": head_width, "window": window}
    layers = [
        {"block": "window", **genes},
        {"block": "attention", "widen": 1.5, **genes},
        {"block": "attention", "down": "stride", "widen": 1.5, **genes},
        {"block": "inverted", **genes},
    ]
    genotype = SPACE.validate({"stem": {"width": 32, "stride": 2}, "layers": layers})
    planned = leaves(plan(DEFINITION, genotype, CLOTHES))
    blocks = [leaf.kwargs for leaf in planned if leaf.block.name == "AttentionBlock"]
    # 32, 48 and 72 channels; where the heads asked for do not divide them there are fewer
    assert [kwargs["heads"] for kwargs in blocks] == {8: [4, 6, 9], 16: [2, 3, 4], 32: [1, 1, 2]}[head_width]
    # as even as they can be on 14x14
    assert [kwargs.get("window") for kwargs in blocks] == [
        {2: (2, 2), 4: (4, 4), 8: (7, 7)}[window],
        None,
        None,
    ]
    # a gene that a layer has no use for is folded
    assert [layer["window"] for layer in genotype["layers"]] == [window, 4, 4, 4]
    assert [layer["head_width"] for layer in genotype["layers"]] == [head_width] * 3 + [16]
    summary = SPACE.summarise(genotype)
    assert (f"h{head_width}" in summary) == (head_width != 16)
    assert (f"w{window}" in summary) == (window != 4)


def test_more_than_three_halvings_are_refused() -> None:
    layers = [{"block": kind, "down": "stride"} for kind in ("conv", "window", "attention")]
    with pytest.raises(ProposalError, match="halved more than 3 times"):
        SPACE.validate({"stem": {"stride": 2}, "layers": layers})
    assert maps({"stem": {"stride": 1}, "layers": layers})[-1][1:] == (4, 4)


@pytest.mark.parametrize("width", [8, 16, 24, 32, 48, 64])
@pytest.mark.parametrize("widen", [1, 1.5, 2])
def test_widths_are_multiples_of_eight(width: int, widen: float) -> None:
    layers = [{"block": "attention", "widen": widen}, {"block": "inverted", "expansion": 1}]
    genotype = {"stem": {"width": width, "stride": 4}, "layers": layers}
    channels = maps(genotype)[0][0]
    assert channels % 8 == 0 and width * widen <= channels < width * widen + 8


def test_draws_put_every_kind_and_halving_anywhere() -> None:
    rng = random.Random(0)
    drawn = [SPACE.sample(rng) for _ in range(400)]
    kinds = Counter((i, layer["block"]) for g in drawn for i, layer in enumerate(g["layers"]))
    downs = Counter((i, layer["down"]) for g in drawn for i, layer in enumerate(g["layers"]))
    assert {(i, kind) for i in range(6) for kind in KINDS} <= kinds.keys()
    assert {(i, down) for i in range(6) for down in ("stride", "reduce")} <= downs.keys()
    assert len({tuple(layer["block"] for layer in g["layers"]) for g in drawn}) > 300


def test_baselines_have_the_layouts_of_their_papers() -> None:
    features = {name: SPACE.features(genotype) for name, genotype in SPACE.baselines().items()}
    assert features["resnet-like"]["attention_share"] == 0
    assert features["vit-like"]["attention_share"] == features["vit-resnas-like"]["attention_share"] == 1
    # C-C-T-T changes once; the uneven layout changes back and forth, with more attention towards the end
    assert features["coatnet-like"]["changes_of_kind"] == 1
    assert features["ascan-like"]["changes_of_kind"] > 1
    layers = SPACE.baselines()["ascan-like"]["layers"]
    late = [layer["block"] in ATTENTION for layer in layers]
    assert sum(late[: len(late) // 2]) < sum(late[len(late) // 2 :])
    residual = [
        leaf.block.name for leaf in leaves(plan(DEFINITION, SPACE.baselines()["vit-resnas-like"], CLOTHES))
    ]
    assert residual.count("SpatialReduction") == 2


@pytest.mark.parametrize("name", ["resnet-like", "vit-like"])
def test_pure_layouts_learn(name: str) -> None:
    task = TASKS.create("digits")
    splits = task.load()
    arrays = (splits.x_train, splits.y_train, splits.x_val, splits.x_test)
    x_train, y_train, x_val, x_test = map(torch.from_numpy, arrays)
    data = Data(x_train, y_train, {"val": x_val, "test": x_test}.__getitem__)
    torch.manual_seed(0)
    module = SPACE.build(SPACE.baselines()[name], task.signature)
    outputs = train(module, data, task.recipe, 2, 0, History(), lambda: None)
    assert (outputs.argmax(axis=1) == splits.y_val).mean() > 0.8
