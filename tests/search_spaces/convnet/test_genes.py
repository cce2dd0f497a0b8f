"""Validation: what is refused and in which words, what is folded."""

from __future__ import annotations

import copy
import random
from typing import Any

import pytest

from cambrian.search_spaces import ProposalError
from cambrian.search_spaces.convnet import ConvNetSpace, genes
from cambrian.search_spaces.convnet.program import compile_program

SPACE = ConvNetSpace()


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
        (("stages", 1, "kernel"), [3], "stages[1].kernel: [3] is not allowed"),
        (("stages", 0, "block"), "dense", "allowed: conv, separable, inverted, residual, attention"),
        (("stages", 0, "widht"), 8, "stages[0].widht: no such gene; did you mean width?"),
        (("stages", 1), 3, "stages[1]: must be an object, not 3"),
        (("stages",), "conv", "stages: must be a list of stages, not 'conv'"),
        (("stages",), [], "stages: needs 1 to 5 stages, not 0"),
        (("stages",), [{"block": "conv", "width": 8}] * 6, "stages: needs 1 to 5 stages, not 6"),
        (("stem", "width"), 128, "stem.width: 128 is not allowed; allowed: 8, 12, 16, 24, 32, 48, 64"),
        (("stem",), None, "stem: must be an object, not None"),
        (("head", "pool"), "mean", "head.pool: 'mean' is not allowed; allowed: avg, max, avgmax, grid"),
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


def test_missing_genes_are_named() -> None:
    with pytest.raises(ProposalError, match=r"stages\[0\].block: missing"):
        SPACE.validate({"stages": [{"width": 8}]})


def test_many_mistakes_come_in_one_answer() -> None:
    data = genotype(width=33, depth=9)
    data["stem"]["kernel"] = 4
    with pytest.raises(ProposalError) as caught:
        SPACE.validate(data)
    for name in ("stem.kernel", "stages[1].width", "stages[1].depth"):
        assert name in caught.value.message


def test_long_values_are_cut() -> None:
    with pytest.raises(ProposalError) as caught:
        SPACE.validate(genotype(width="x" * 10_000))
    assert len(caught.value.message) < 200


def test_defaults_are_filled_in() -> None:
    found = SPACE.validate({"stages": [{"block": "residual", "width": 16}]})
    assert found["stem"] == {"kernel": 3, "width": 16, "downsample": "none", "activation": "relu"}
    assert found["stages"][0]["depth"] == 1
    assert found["head"]["pool"] == "avg"


def test_whole_floats_count_as_integers() -> None:
    found = SPACE.validate(genotype(width=32.0, se=0))
    assert type(found["stages"][1]["width"]) is int
    assert type(found["stages"][1]["se"]) is float


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


@pytest.mark.parametrize("block", genes.BLOCKS)
def test_active_genes_change_the_program(block: str) -> None:
    """Folding must not merge what differs: each other gene, changed alone, changes the layers."""
    base = SPACE.validate(genotype(block=block, width=16, depth=2, downsample="first", se=0.25, expansion=2))
    for gene, values in genes.STAGE_GENES.items():
        if gene in genes.FOLDED[block]:
            continue
        for value in values:
            other = copy.deepcopy(base)
            if other["stages"][1][gene] == value:
                continue
            other["stages"][1][gene] = value
            other = SPACE.validate(other)
            assert compile_program(other, genes.REFERENCE) != compile_program(base, genes.REFERENCE), (
                gene,
                value,
            )


def test_too_many_halvings_are_refused() -> None:
    data = {"stages": [{"block": "conv", "width": 8, "downsample": "first"}] * 4}
    with pytest.raises(ProposalError, match="halved 4 times; at most 3"):
        SPACE.validate(data)


def test_too_large_networks_are_refused_with_the_heaviest_part() -> None:
    heavy = {"block": "residual", "width": 128, "depth": 4, "kernel": 7, "downsample": "first"}
    with pytest.raises(ProposalError, match=r"parameters .* reduce width, depth or kernel of stages\[1\]"):
        SPACE.validate({"stages": [{"block": "conv", "width": 8, "downsample": "first"}, heavy]})
    wide = {"block": "residual", "width": 96, "depth": 2, "kernel": 3}
    with pytest.raises(ProposalError, match=r"multiply-accumulates .* or downsample earlier"):
        SPACE.validate({"stages": [wide]})


def test_the_input_is_left_alone() -> None:
    data = genotype(block="attention", kernel=7)
    before = copy.deepcopy(data)
    SPACE.validate(data)
    assert data == before


def test_the_sampler_is_uniform_over_stages_and_values() -> None:
    rng = random.Random(0)
    members = [SPACE.sample(rng) for _ in range(3000)]
    for n_stages in range(1, genes.MAX_STAGES + 1):
        assert 500 < sum(len(member["stages"]) == n_stages for member in members) < 700
    for owner, table in (("stem", genes.STEM_GENES), ("head", genes.HEAD_GENES)):
        for gene, values in table.items():
            assert {member[owner][gene] for member in members} == set(values)
    for gene, values in genes.STAGE_GENES.items():
        assert {stage[gene] for member in members for stage in member["stages"]} == set(values)
