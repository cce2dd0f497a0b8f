"""Our proxies on the real networks of NAS-Bench-201, beside what NAS-Bench-Suite-Zero published of them.

`make bench NAME=proxies` is the whole comparison. Here: cells from the smallest published SynFlow to the
largest. Synaptic flow needs no data, so that ours differs by the random weights only; the published NASWOT
was taken on 64 images of CIFAR-10, ours on noise.
"""

from __future__ import annotations

from itertools import combinations

import pytest
import torch
from scipy.stats import kendalltau

from cambrian.sandbox.examination.proxies import compute
from cambrian.search_spaces import SPACES, Signature
from cambrian.search_spaces.tasks.nasbench201 import EDGES

OPERATIONS = {
    "0": "none",
    "s": "skip_connect",
    "1": "nor_conv_1x1",
    "3": "nor_conv_3x3",
    "p": "avg_pool_3x3",
}
# edges e01 e02 e12 e03 e13 e23; parameters and operations in millions, SynFlow, NASWOT
CELLS = {
    "ss011s": (0.129306, 16.668352, 44.4500, 758.156),
    "s3ppss": (0.316346, 46.343872, 51.9564, 699.388),
    "11110p": (0.185306, 26.683072, 56.0097, 804.492),
    "103ppp": (0.344346, 51.996352, 65.9666, 757.228),
    "s3p3p1": (0.587386, 86.525632, 69.8512, 777.750),
    "30310s": (0.587386, 83.945152, 80.1818, 788.626),
    "1110p3": (0.400346, 58.140352, 84.5796, 803.463),
    "333333": (1.531546, 222.860992, 114.8257, 829.012),
}


@pytest.fixture(scope="module")
def ours() -> dict[str, dict[str, float]]:
    """Our numbers of each cell, at the published resolution; NASWOT of a few samples only, for the time."""
    space, signature = SPACES.create("cell"), Signature(input_shape=(3, 32, 32), n_outputs=10)
    inputs, targets = torch.randn(8, 3, 32, 32, generator=torch.Generator().manual_seed(0)), torch.zeros(8)
    found = {}
    for cell in CELLS:
        genotype = dict(zip(EDGES, map(OPERATIONS.get, cell), strict=True))
        found[cell] = compute(
            ["params", "flops", "synflow", "naswot"],
            lambda: space.build(space.validate(genotype), signature),  # noqa: B023
            inputs,
            targets,
            "cross-entropy",
        )
    return found


def test_parameters_are_the_published_ones(ours: dict[str, dict[str, float]]) -> None:
    assert {c: n["params"] for c, n in ours.items()} == {c: round(1e6 * p[0]) for c, p in CELLS.items()}


def test_operations_are_in_the_published_order(ours: dict[str, dict[str, float]]) -> None:
    """Theirs count norms and pooling too, in which alone two cells may differ."""
    for one, other in combinations(CELLS, 2):
        assert (ours[one]["flops"] - ours[other]["flops"]) * (CELLS[one][1] - CELLS[other][1]) >= 0
    assert all(0.85 * p[1] < ours[c]["flops"] / 2e6 < p[1] for c, p in CELLS.items())


def test_synaptic_flow_is_the_published_one(ours: dict[str, dict[str, float]]) -> None:
    assert {c: n["synflow"] for c, n in ours.items()} == pytest.approx(
        {c: p[2] for c, p in CELLS.items()}, abs=0.3
    )


def test_naswot_ranks_as_published(ours: dict[str, dict[str, float]]) -> None:
    published = [p[3] for p in CELLS.values()]
    assert kendalltau([ours[cell]["naswot"] for cell in CELLS], published).statistic > 0.7
