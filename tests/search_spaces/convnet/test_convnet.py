"""What is special to convnet: its words, its folding, its limits; the rest is swept with all spaces."""

from __future__ import annotations

import copy
import random
from typing import Any

import pytest
import torch

from cambrian.search_spaces import SPACES, ProposalError, Signature
from cambrian.search_spaces.declarative.grammar import Record, Repeat, Scalar
from cambrian.search_spaces.declarative.plan import leaves
from cambrian.search_spaces.declarative.planning import plan
from cambrian.search_spaces.declarative.space import DeclarativeSpace

SPACE = SPACES.create("convnet")
assert isinstance(SPACE, DeclarativeSpace)
DEFINITION = SPACE.definition
REFERENCE = DEFINITION.file.reference
FASHION = Signature(input_shape=(1, 28, 28), n_outputs=10)

FOLDED = {
    "conv": {"expansion"}, "separable": {"expansion"}, "inverted": set(), "residual": {"expansion"},
    "attention": {"kernel", "se"},
}  # fmt: skip
"""The genes that each kind of block ignores."""


def tables(rule: str) -> dict[str, tuple[Any, ...]]:
    record = DEFINITION.grammar.rules[rule]
    assert isinstance(record, Record)
    return {field.name: field.domain.values for field in record.fields if isinstance(field.domain, Scalar)}


def genotype(**stage: Any) -> dict[str, Any]:
    return {
        "stem": {"kernel": 3, "width": 16, "downsample": "none", "activation": "relu"},
        "stages": [
            {"block": "conv", "width": 12, "downsample": "first"},
            {"block": "inverted", "width": 32, "expansion": 4, **stage},
        ],
        "head": {"pool": "avg", "hidden": 0, "dropout": 0.0},
    }


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("stages", 1, "width"), 33, "stages[1].width: 33 is not allowed; allowed: 8, 12, 16"),
        (("stages", 1, "width"), "32", "stages[1].width: '32' is not allowed"),
        (("stages", 1, "depth"), True, "stages[1].depth: True is not allowed"),
        (("stages", 1, "kernel"), None, "stages[1].kernel: None is not allowed; allowed: 3, 5, 7"),
        (("stages", 0, "block"), "dense", "allowed: conv, separable, inverted, residual, attention"),
        (("stages", 0, "widht"), 8, "stages[0].widht: no such gene; did you mean width?"),
        (("stages", 1), 3, "stages[1]: must be an object, not 3"),
        (("stages",), [], "stages: needs 1 to 5 items, not 0"),
        (("stem", "width"), 128, "stem.width: 128 is not allowed; allowed: 8, 12, 16, 24, 32, 48, 64"),
        (("stem",), None, "stem: must be an object, not None"),
        (("heads",), {}, "heads: no such gene; did you mean head?"),
    ],
)
def test_the_message_names_gene_value_and_choice(path: tuple[Any, ...], value: object, message: str) -> None:
    data = genotype()
    *way, last = path
    part: Any = data
    for step in way:
        part = part[step]
    part[last] = value
    with pytest.raises(ProposalError) as caught:
        SPACE.validate(data)
    assert message in caught.value.message


def test_defaults_are_filled_in() -> None:
    found = SPACE.validate({"stages": [{"block": "residual", "width": 16}]})
    assert found["stem"] == {"kernel": 3, "width": 16, "downsample": "none", "activation": "relu"}
    assert found["stages"][0]["depth"] == 1
    assert found["head"]["pool"] == "avg"


@pytest.mark.parametrize(
    ("block", "gene", "values"),
    [
        ("conv", "expansion", (1, 6)),
        ("separable", "expansion", (2, 3)),
        ("residual", "expansion", (1, 4)),
        ("attention", "kernel", (3, 7)),
        ("attention", "se", (0.0, 0.5)),
        ("conv", "downsample", ("first", "last")),
    ],
)
def test_inactive_genes_are_folded(block: str, gene: str, values: tuple[Any, Any]) -> None:
    first, second = (SPACE.validate(genotype(block=block, **{gene: value})) for value in values)
    assert first == second


@pytest.mark.parametrize("block", FOLDED)
def test_active_genes_change_the_plan(block: str) -> None:
    """Folding must not merge what differs: each other gene, changed alone, changes the blocks."""

    def blocks(genotype: dict[str, Any]) -> list[Any]:
        return [leaf[2:] for leaf in leaves(plan(DEFINITION, genotype, REFERENCE))]

    base = SPACE.validate(genotype(block=block, width=16, depth=2, downsample="first", se=0.25, expansion=2))
    for gene, values in tables("stage").items():
        for value in values:
            if gene in FOLDED[block] or base["stages"][1][gene] == value:
                continue
            other = copy.deepcopy(base)
            other["stages"][1][gene] = value
            assert blocks(SPACE.validate(other)) != blocks(base), (gene, value)


def test_too_many_halvings_are_refused() -> None:
    data = {"stages": [{"block": "conv", "width": 8, "downsample": "first"}] * 4}
    with pytest.raises(ProposalError, match="halved more than 3 times"):
        SPACE.validate(data)


def test_too_large_networks_are_refused_with_the_heaviest_part() -> None:
    heavy = {"block": "residual", "width": 128, "depth": 4, "kernel": 7, "downsample": "first"}
    with pytest.raises(ProposalError, match=r"parameters .* reduce stages\[1\]"):
        SPACE.validate({"stages": [{"block": "conv", "width": 8, "downsample": "first"}, heavy]})
    wide = {"block": "residual", "width": 96, "depth": 2, "kernel": 3}
    with pytest.raises(ProposalError, match=r"multiply-accumulates .* reduce stages\[0\]"):
        SPACE.validate({"stages": [wide]})


def test_a_map_of_one_pixel_cannot_be_halved() -> None:
    stage = {"block": "conv", "width": 8, "downsample": "first"}
    genotype = SPACE.validate({"stages": [stage, stage, stage]})
    for small in ((1, 4, 4), (1, 100, 4)):
        with pytest.raises(ProposalError, match=r"stages\[2\]: .*cannot be halved"):
            SPACE.build(genotype, Signature(input_shape=small, n_outputs=2))
    SPACE.build(genotype, Signature(input_shape=(1, 5, 5), n_outputs=2))


def test_keys_of_attention_stay_few_on_large_maps() -> None:
    genotype = SPACE.validate({"stem": {"width": 8}, "stages": [{"block": "attention", "width": 8}]})
    for side in (8, 28, 32, 64, 90):
        planned = list(
            leaves(plan(DEFINITION, genotype, Signature(input_shape=(1, side, side), n_outputs=2)))
        )
        assert (-(-side // planned[1].kwargs["reduction"])) ** 2 <= 64


def test_networks_can_be_traced() -> None:
    """No control flow depends on values or shapes at run time, so that graphs can be read off a network."""
    rng = random.Random(23)
    for genotype in [*SPACE.baselines().values(), *(SPACE.sample(rng) for _ in range(10))]:
        torch.fx.symbolic_trace(SPACE.build(genotype, FASHION))


def test_the_sampler_covers_all_values_and_lengths() -> None:
    rng = random.Random(0)
    members = [SPACE.sample(rng) for _ in range(2000)]
    stages = DEFINITION.grammar.rules["network"].by_name["stages"].domain  # type: ignore[union-attr]
    assert isinstance(stages, Repeat)
    assert {len(member["stages"]) for member in members} == set(range(stages.least, stages.most + 1))
    for gene, values in tables("stage").items():
        assert {stage[gene] for member in members for stage in member["stages"]} == set(values)
    for owner in ("stem", "head"):
        for gene, values in tables(owner).items():
            assert {member[owner][gene] for member in members} == set(values)


def test_the_summary_shows_what_a_person_looks_for() -> None:
    stages = [
        {"block": "inverted", "width": 24, "depth": 2, "expansion": 4, "se": 0.25, "downsample": "first"}
    ]
    member = {"stem": {"downsample": "stride", "activation": "hardswish"}, "stages": stages}
    line = SPACE.summarise(SPACE.validate(member))
    assert line == "16 /2 hardswish | inverted 24x2 e4 se0.25 /2 | avg"
    stage = {"block": "inverted", "width": 128, "depth": 4, "kernel": 7, "expansion": 2, "se": 0.125}
    small = {**stage, "width": 12}
    stages = [{**small, "downsample": "last"}] * 3 + [stage, small]
    longest = SPACE.validate({"stages": stages, "head": {"pool": "avgmax", "hidden": 256}})
    assert len(SPACE.summarise(longest)) <= 100


def test_the_prose_names_every_gene_value_and_limit() -> None:
    text = SPACE.describe()
    for rule in ("stem", "stage", "head"):
        for gene, values in tables(rule).items():
            if gene != "depth":  # a range
                shown = [value if isinstance(value, str) else f"{value:g}" for value in values]
                assert ", ".join(shown) in text, gene
    assert "3 times" in text and "3M parameters" in text
