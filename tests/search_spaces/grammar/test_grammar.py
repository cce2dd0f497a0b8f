"""What is special to grammar: known networks are derivations, sizes are finite, subtree edits stay valid."""

from __future__ import annotations

import json
import random
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from cambrian.sandbox.worker.training import Data, History, train
from cambrian.search_spaces import SPACES, TASKS, Genotype, Signature
from cambrian.search_spaces.declarative.grammar import Domain, Options, Record, Repeat, Scalar
from cambrian.search_spaces.declarative.planning import plan
from cambrian.search_spaces.declarative.rules import problem
from cambrian.search_spaces.declarative.sampling import drawer
from cambrian.search_spaces.declarative.space import DeclarativeSpace

SPACE = SPACES.create("grammar")
assert isinstance(SPACE, DeclarativeSpace)
DEFINITION = SPACE.definition
CLOTHES = Signature(input_shape=(1, 28, 28), n_outputs=10)


def network(*modules: dict[str, Any], width: int = 16, stride: int = 2) -> Genotype:
    stage = {"width": width, "stride": stride, "entry": {"kind": "patches"}, "modules": list(modules)}
    return SPACE.validate({"stages": [stage], "head": "avg"})


def body_of(module: nn.Module, start: str) -> nn.Module:
    """The child of `module` whose name begins with `start`."""
    return next(child for name, child in module.named_children() if start in name)


def test_a_derivation_is_torchs_encoder_layer() -> None:
    """Attention and perceptron from operations compute what the whole layer does, weight by weight."""
    residual = [
        {"kind": "layer_norm"},
        {
            "kind": "mix",
            "scores": {"kind": "products", "width": 64},
            "normalise": "softmax",
            "value": [{"kind": "linear"}],
        },
        {"kind": "linear"},
    ]
    perceptron = [
        {"kind": "layer_norm"},
        {"kind": "inside", "factor": 4, "body": [{"kind": "activation", "function": "gelu"}]},
    ]
    both = [{"kind": "residual", "body": residual}, {"kind": "residual", "body": perceptron}]
    design = network({"kind": "tokens", "body": both}, width=64, stride=4)
    ours = body_of(SPACE.build(design, CLOTHES), "route")
    theirs = nn.TransformerEncoderLayer(
        64, 1, 256, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
    )
    assert sum(p.numel() for p in ours.parameters()) == sum(p.numel() for p in theirs.parameters())

    norm1, scores, value, out, norm2, widen, narrow = [
        each for each in ours.modules() if isinstance(each, nn.LayerNorm | nn.Linear)
    ]
    attention = theirs.self_attn
    assert isinstance(scores, nn.Linear) and isinstance(value, nn.Linear)
    with torch.no_grad():
        attention.in_proj_weight.copy_(torch.cat([scores.weight, value.weight]))
        attention.in_proj_bias.copy_(torch.cat([scores.bias, value.bias]))
    pairs = [(attention.out_proj, out), (theirs.norm1, norm1), (theirs.norm2, norm2)]
    for theirs_part, ours_part in [*pairs, (theirs.linear1, widen), (theirs.linear2, narrow)]:
        theirs_part.load_state_dict(ours_part.state_dict())
    maps = torch.randn(2, 64, 7, 7)
    tokens = theirs(maps.flatten(2).transpose(1, 2))
    torch.testing.assert_close(ours(maps), tokens.transpose(1, 2).reshape(maps.shape), atol=1e-5, rtol=1e-4)


def test_a_derivation_is_a_convolution() -> None:
    design = network({"kind": "convolution", "kernel": 5})
    module = SPACE.build(design, CLOTHES)
    (linear,) = [
        each for name, each in module.named_modules() if name.startswith("stages1_modules1_pointwise.")
    ]
    assert isinstance(linear, nn.Conv2d)
    x = torch.randn(2, 1, 28, 28)
    seen: list[Tensor] = []
    for name, child in module.named_children():
        x = child(x)
        seen.append(x)
        if "pointwise" in name:
            break
    # the entry's map, its windows, and what the linear map makes of them
    before, _, after = seen
    kernel = linear.weight.reshape(16, 16, 5, 5)
    torch.testing.assert_close(
        after, functional.conv2d(before, kernel, linear.bias, padding=2), atol=1e-5, rtol=1e-4
    )


def test_a_derivation_mixes_tokens_as_a_mixer() -> None:
    """What mixes tokens does the same to every channel, and lets every token reach every other."""
    mixer = {"kind": "inside", "factor": 2, "body": [{"kind": "activation", "function": "gelu"}]}
    design = network({"kind": "tokens", "body": [{"kind": "transpose", "body": [mixer]}]}, width=8, stride=4)
    module = body_of(SPACE.build(design, CLOTHES), "route")
    maps = torch.randn(1, 8, 7, 7)
    order = torch.randperm(8)
    torch.testing.assert_close(module(maps)[:, order], module(maps[:, order]))
    maps.requires_grad_()
    module(maps)[0, 3, 0, 0].backward()
    assert maps.grad is not None
    assert (maps.grad[0, 3] != 0).all() and not maps.grad[0, :3].any()


@pytest.mark.parametrize("channels", [1, 3, 16])
def test_modules_keep_their_shape_whatever_the_width(channels: int) -> None:
    """Halves of one channel, bottlenecks of a quarter of it: transposed tokens have any width."""
    halves = {"kind": "halves", "first": [{"kind": "softmax"}], "second": [{"kind": "identity"}]}
    narrow = {"kind": "inside", "factor": 0.25, "body": [halves]}
    body = [{"kind": "transpose", "body": [halves, narrow]}, halves]
    design = network({"kind": "tokens", "body": body}, width=8)
    given = Signature(input_shape=(1, 2 * channels, 2), n_outputs=3)  # as many tokens as channels, transposed
    assert plan(DEFINITION, design, given).shape.dims == (3,)


def expected(domain: Domain, rules: list[int], top: bool = False) -> np.ndarray:
    """How many of each rule a derivation of `domain` has directly, on average."""
    found = np.zeros(len(rules))
    if not top and id(domain) in rules:
        found[rules.index(id(domain))] = 1
        return found
    if isinstance(domain, Scalar):
        return found
    if isinstance(domain, Record):
        return sum((expected(field.domain, rules) for field in domain.fields), found)
    parts = (
        range(domain.least, domain.most + 1) if isinstance(domain, Repeat) else list(domain.cases.values())
    )
    steps = np.arange(1, len(parts) + 1) if domain.cumulative is None else np.array(domain.cumulative)
    shares = np.diff(steps, prepend=0) / steps[-1]
    if isinstance(domain, Repeat):
        return float(shares @ np.array(parts)) * expected(domain.item, rules)
    assert isinstance(domain, Options)
    return sum(
        (p * expected(case, rules) for p, case in zip(shares, domain.cases.values(), strict=True)), found
    )


def test_the_weights_make_derivations_of_finite_size() -> None:
    """A branching process ends when the largest eigenvalue of its mean offspring is below 1."""
    rules = list(DEFINITION.grammar.rules.values())
    offspring = np.array([expected(rule, [id(r) for r in rules], top=True) for rule in rules])
    assert max(abs(np.linalg.eigvals(offspring))) < 0.9


def test_draws_are_mostly_valid_and_of_readable_size() -> None:
    rng, draw = random.Random(0), drawer(DEFINITION)
    drawn = [draw(rng) for _ in range(600)]
    fit = [g for g in drawn if g is not None and problem(DEFINITION, g) is None]
    assert len(fit) > 0.25 * len(drawn)
    sizes = sorted(json.dumps(g).count('"kind"') for g in fit)
    assert 8 <= sizes[len(sizes) // 2] <= 30


def test_subtree_edits_of_known_networks_stay_valid() -> None:
    """A walk of 1,000 edits from the seeds: every step a member, and structures change, not only values."""
    rng, structural = random.Random(0), 0
    for seed in SPACE.baselines().values():
        genotype = seed
        for _ in range(250):
            child, words = SPACE.mutate(genotype, rng)
            assert SPACE.validate(child) == child != genotype
            structural += any(
                w in words for w in ("wrapped", "replaced", "kind", "redrawn", "inserted", "removed")
            )
            genotype = child
    assert structural > 200


@pytest.mark.parametrize("name", ["resnet-like", "mixer-like", "mobilenet-like"])
def test_seeds_learn(name: str) -> None:
    task = TASKS.create("digits")
    splits = task.load()
    arrays = (splits.x_train, splits.y_train, splits.x_val, splits.x_test)
    x_train, y_train, x_val, x_test = map(torch.from_numpy, arrays)
    data = Data(x_train, y_train, {"val": x_val, "test": x_test}.__getitem__)
    torch.manual_seed(0)
    module = SPACE.build(SPACE.baselines()[name], task.signature)
    outputs = train(module, data, task.recipe, 3, 0, History(), lambda: None)
    assert (outputs.argmax(axis=1) == splits.y_val).mean() > 0.85
