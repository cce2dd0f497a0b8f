"""What is special to cell: names, frequencies and sizes are those of NAS-Bench-201."""

from __future__ import annotations

import random
import re
from collections import Counter

import pytest
import torch

from cambrian.search_spaces import SPACES, Genotype
from cambrian.search_spaces.declarative.planning import plan
from cambrian.search_spaces.declarative.space import DeclarativeSpace
from cambrian.search_spaces.tasks.nasbench201 import EDGES, OPERATIONS

SPACE = SPACES.create("cell")
assert isinstance(SPACE, DeclarativeSpace)
DEFINITION = SPACE.definition
REFERENCE = DEFINITION.file.reference
BEST = "|nor_conv_3x3~0|+|nor_conv_3x3~0|nor_conv_3x3~1|+|skip_connect~0|nor_conv_3x3~1|nor_conv_1x1~2|"
"""The benchmark's best cell on CIFAR-10 after 200 epochs, index 6111."""


def read(name: str) -> Genotype:
    """The genotype of a cell named as the benchmark does: node by node, edges with their sources."""
    genotype = {}
    for node, edges in enumerate(name.split("+"), start=1):
        for operation, source in re.findall(r"(\w+)~(\d)\|", edges):
            genotype[f"e{source}{node}"] = operation
    return SPACE.validate(genotype)


def test_the_summary_is_the_benchmarks_name_of_the_cell() -> None:
    assert SPACE.summarise(read(BEST)) == BEST
    rng = random.Random(0)
    drawn = [SPACE.sample(rng) for _ in range(200)]
    names = [SPACE.summarise(genotype) for genotype in drawn]
    assert [read(name) for name in names] == drawn
    assert all(re.fullmatch(r"\|\w+~0\|\+(\|\w+~[01]){2}\|\+(\|\w+~[0-2]){3}\|", name) for name in names)


@pytest.mark.parametrize(("name", "parameters"), [("resnet-cell", 559_386), (BEST, 1_073_466)])
def test_cells_are_as_large_as_in_the_benchmark(name: str, parameters: int) -> None:
    genotype = SPACE.baselines().get(name) or read(name)
    assert plan(DEFINITION, genotype, REFERENCE).params == parameters
    with torch.device("meta"):
        module = SPACE.build(genotype, REFERENCE)
    assert sum(parameter.numel() for parameter in module.parameters()) == parameters


def test_draws_are_uniform_over_all_cells() -> None:
    """No operation is preferred on an edge, nor a pair on two edges, and draws spread over the cells."""
    rng, draws = random.Random(0), 5000
    drawn = [tuple(SPACE.sample(rng)[edge] for edge in EDGES) for _ in range(draws)]
    groups = [(i, j) for i in range(len(EDGES)) for j in range(i, len(EDGES))]
    for i, j in groups:
        seen = Counter((cell[i], cell[j]) for cell in drawn)
        cells = [(a, b) for a in OPERATIONS for b in OPERATIONS if i != j or a == b]
        expected = draws / len(cells)
        statistic = sum((seen[cell] - expected) ** 2 / expected for cell in cells)
        # the mean of chi-square is its degrees of freedom, its variance twice that; the seed is fixed
        freedom = len(cells) - 1
        assert statistic < freedom + 5 * (2 * freedom) ** 0.5, (EDGES[i], EDGES[j])
    total = len(OPERATIONS) ** len(EDGES)
    assert total == 15_625
    # as many different ones as 5,000 uniform draws from 15,625 give: 4,279 expected, deviation 25
    expected = total * (1 - (1 - 1 / total) ** draws)
    assert abs(len(set(drawn)) - expected) < 125
