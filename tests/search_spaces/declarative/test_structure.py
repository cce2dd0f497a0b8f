import random

import pytest

from cambrian.search_spaces import SPACES, Genotype
from cambrian.search_spaces.declarative.motifs import Operations
from cambrian.search_spaces.declarative.space import DeclarativeSpace
from cambrian.search_spaces.declarative.structure import Structure

EDGES = ("e01", "e02", "e12", "e03", "e13", "e23")
SHORT = {".": "none", "i": "skip_connect", "1": "nor_conv_1x1", "3": "nor_conv_3x3", "p": "avg_pool_3x3"}


@pytest.fixture(scope="module")
def cells() -> DeclarativeSpace:
    space = SPACES.create("cell")
    assert isinstance(space, DeclarativeSpace)
    return space


def cell(text: str) -> Genotype:
    """Operations of the edges 01 02 12 03 13 23, a sign each."""
    return {edge: SHORT[sign] for edge, sign in zip(EDGES, text, strict=True)}


@pytest.mark.parametrize(
    ("first", "second", "why"),
    [
        ("3.....", "......", "dead ends compute nothing"),
        ("3.1.1.", "3...1.", "node 2 leads nowhere"),
        ("3..p1.", "3p..1i", "a pool beside, by another way"),
        ("i...3.", ".i...3", "identities"),
        ("33.i..", "...i..", "branches without an end"),
        ("p..1..", "...1..", "a pool that leads nowhere"),
        ("31..13", "13..31", "nodes 1 and 2 exchanged"),
    ],
)
def test_what_computes_the_same_has_the_same_structure(
    cells: DeclarativeSpace, first: str, second: str, why: str
) -> None:
    assert cells.structure(cell(first)) == cells.structure(cell(second)), why


@pytest.mark.parametrize(
    ("first", "second"),
    [("3...1.", "1...3."), ("3...3.", "...3.."), ("...3..", "...i.."), ("3..i..", "3..i1.")],
)
def test_what_does_not_has_not(cells: DeclarativeSpace, first: str, second: str) -> None:
    assert cells.structure(cell(first)).motifs != cells.structure(cell(second)).motifs


def test_counts_and_sizes_of_a_cell_are_those_of_fifteen(cells: DeclarativeSpace) -> None:
    found = cells.structure(cell("3..i1."))
    assert found.motifs["0|cell conv kernel 3"] == 15
    assert found.motifs["1|cell conv kernel 1(cell conv kernel 3)"] == 15
    assert found.motifs["path|cell conv kernel 3>cell conv kernel 1"] == 15
    assert found.motifs["path|skip"] == 15
    # the stem, two reductions and the classifier; two convolutions a cell or none
    assert found.totals["live.deepest"] - found.totals["live.shallowest"] == 2 * 15
    assert found.totals["live.mean"] == (found.totals["live.deepest"] + found.totals["live.shallowest"]) / 2
    assert found.totals["live.skips"] == 15
    whole = cells.features(cell("3..i1."))
    assert found.totals["live.log_params"] == pytest.approx(whole["log_params"])
    beside = cells.structure(cell("3.3i1."))
    assert beside.totals == found.totals
    assert cells.features(cell("3.3i1."))["log_params"] > whole["log_params"]


def test_a_dead_network_has_nothing_but_that(cells: DeclarativeSpace) -> None:
    found = cells.structure(cell("3....."))
    assert found.motifs == {"0|dead": 1.0}
    assert found.totals["live.dead"] == 1.0 and sum(found.totals.values()) == 1.0


@pytest.mark.parametrize("name", ["cell", "convnet", "encoder", "gnn", "grammar", "hybrid", "mlp"])
def test_every_member_has_a_structure_with_the_same_totals(name: str) -> None:
    space = SPACES.create(name)
    assert isinstance(space, DeclarativeSpace)
    rng = random.Random(0)
    found: list[Structure] = [space.structure(space.sample(rng)) for _ in range(20)]
    assert len({tuple(sorted(each.totals)) for each in found}) == 1
    assert all(count > 0 for each in found for count in each.motifs.values())
    assert all(each.motifs for each in found)
    assert len({tuple(sorted(each.motifs.items())) for each in found}) > 5


def test_widths_change_sizes_and_not_motifs() -> None:
    space = SPACES.create("mlp")
    assert isinstance(space, DeclarativeSpace)
    rng = random.Random(1)
    known: dict[tuple[str, ...], set[float]] = {}
    for _ in range(300):
        found = space.structure(space.sample(rng))
        known.setdefault(tuple(sorted(found.motifs)), set()).add(found.totals["live.log_params"])
    assert max(len(sizes) for sizes in known.values()) > 1


class TestOperations:
    def test_the_order_of_terms_and_of_insertion_does_not_matter(self) -> None:
        found = []
        for words in (("a", "b"), ("b", "a")):
            graph = Operations()
            terms = [graph.add(word, (0,), word == "a") for word in words]
            found.append(graph.summary(graph.add("c", tuple(sorted(terms[0] + terms[1])))))
        assert found[0].motifs == found[1].motifs
        assert (found[0].deepest, found[0].shallowest, found[0].mean) == (1, 0, 0.5)

    def test_of_zero_comes_zero(self) -> None:
        graph = Operations()
        assert graph.add("conv", ()) == ()
        assert graph.summary(()).ends == "dead"

    def test_many_paths_are_counted_and_not_listed(self) -> None:
        graph = Operations()
        terms: tuple[int, ...] = (0,)
        for level in range(20):
            terms = tuple(graph.add(f"{level}{side}", terms)[0] for side in "ab")
        found = graph.summary(terms)
        assert found.log_paths == pytest.approx(20 * 0.6931, abs=0.01)
        assert not any(motif.startswith("path|") for motif in found.motifs)
        assert max(map(len, found.motifs)) < 140
