from __future__ import annotations

import itertools
import random
from pathlib import Path

import pytest

from cambrian.agents.benching.flat import FlatSpace
from cambrian.agents.errors import ProposalError, UserError
from cambrian.search_spaces import Enumerable, Genotype, Signature, Space
from tests.agents.benching.tables import WORTH, flat_benchmark
from tests.contracts.space import SpaceContract


class TestFlatSpace(SpaceContract):
    """All of the contract but networks, which columns are not."""

    samples = 300

    @pytest.fixture(scope="class")
    def space(self) -> Space:
        rng = random.Random(5)
        names = ("first", "second", "third", "fourth")
        every = list(itertools.product("abcdefgh", range(1, 17), (0.5, 1.0, 2.5), (True, False), "xyz"))
        rows = rng.sample(every, 1800)
        columns = dict(zip((*names, "fifth"), map(list, zip(*rows, strict=True)), strict=True))
        return FlatSpace("made-up", columns, {})

    @pytest.fixture(scope="class")
    def signatures(self) -> list[Signature]:
        return [Signature(input_shape=(1,), n_outputs=1)]

    def _is_refused(self, space: Space, members: list[Genotype], signatures: list[Signature]) -> None:
        for method in (space.build, space.draw, space.source):
            with pytest.raises(UserError, match="columns of a table"):
                method(members[0], signatures[0])

    test_pictures = test_networks_run_and_learn = test_exported_source_is_the_same_network = _is_refused
    test_networks_are_built_on_the_meta_device = test_equal_seeds_give_equal_weights = _is_refused
    test_wrong_rank_is_a_proposal_error = _is_refused

    def test_exported_source_runs_alone(self) -> None:
        """No network, no source."""

    def test_baselines(self, space: Space) -> None:  # type: ignore[override]
        assert space.baselines() == {}

    def test_lists_its_members(self, space: Space) -> None:
        assert isinstance(space, Enumerable) and isinstance(space, FlatSpace)
        assert space.size == 1800 == len(space.members())
        assert [space.row_of(genotype) for genotype in space.members()] == list(range(1800))

    def test_edits_change_one_gene_where_a_row_allows(self, space: Space, members: list[Genotype]) -> None:
        assert isinstance(space, FlatSpace)
        rng = random.Random(3)
        for genotype in members[:100]:
            near = space.neighbours(genotype)
            child, _ = space.mutate(genotype, rng)
            assert all(sum(other[g] != genotype[g] for g in genotype) == 1 for other in near)
            assert child in near or not near


def test_ordered_genes_take_small_steps() -> None:
    sizes = list(range(1, 65))
    space = FlatSpace("sizes", {"size": sizes, "kind": ["a"] * 64}, {})
    rng = random.Random(0)
    steps = [abs(space.mutate({"size": 32, "kind": "a"}, rng)[0]["size"] - 32) for _ in range(300)]
    assert 0.7 < sum(step == 1 for step in steps) / 300 < 0.95
    assert space.features({"size": 32, "kind": "a"}) == {"size": 5.0, "kind=a": 1.0}


def test_a_row_without_neighbours_leads_to_the_nearest() -> None:
    space = FlatSpace("far", {"a": [0, 1, 5], "b": [0, 1, 5], "c": ["x", "x", "y"]}, {})
    assert space.neighbours({"a": 0, "b": 0, "c": "x"}) == []
    assert space.mutate({"a": 0, "b": 0, "c": "x"}, random.Random(0))[0] == {"a": 1, "b": 1, "c": "x"}


def test_combinations_without_a_row_are_refused(tmp_path: Path) -> None:
    space = flat_benchmark(tmp_path).space
    member = {"op0": "conv", "op1": "conv", "op2": "conv", "width": 64, "link": "[0, 1]"}
    assert space.validate(member) == member
    known = {tuple(genotype.values()) for genotype in space.members()}
    missing = next(
        member | {"op0": a, "op1": b, "op2": c, "width": w}
        for a, b, c, w in itertools.product(WORTH, WORTH, WORTH, (8, 16))
        if (a, b, c, w, "[0, 1]") not in known
    )
    with pytest.raises(ProposalError, match="the table has no row with op0="):
        space.validate(missing)
    with pytest.raises(ProposalError, match="width: '7' is not one of 8, 16, 32, 64"):
        space.validate(member | {"width": 7})
