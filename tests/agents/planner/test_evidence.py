"""What the run has measured of single genes."""

from __future__ import annotations

from typing import Any

import pytest

from cambrian.agents.planner.changes import genes
from cambrian.agents.planner.evidence import Weighed, weighed
from cambrian.agents.population.model import Candidate, CandidateState
from cambrian.agents.population.view import Population
from cambrian.search_spaces import SPACES
from tests.agents.planner.world import TinySpace, candidate, convnet, evaluated


def of(
    candidates: list[Candidate], parent: Candidate, maximize: bool = True, space: Any = None
) -> list[Weighed]:
    space = space or TinySpace()
    found = genes(space, parent.genotype)
    return weighed(Population(maximize, candidates), parent, found, maximize)


def tiny(index: int, width: int, depth: int, score: float | None, **more: Any) -> Candidate:
    return candidate(index, {"width": width, "depth": depth}, score=score, **more)


def test_the_value_that_went_with_good_scores_comes_first() -> None:
    parent = tiny(0, 8, 1, 0.5)
    run = [parent, tiny(1, 16, 2, 0.6), tiny(2, 16, 3, 0.7), tiny(3, 32, 2, 0.9), tiny(4, 32, 3, 0.8)]
    width, depth = of(run, parent)
    assert (width.gene.path, depth.gene.path) == ("width", "depth")
    assert [went.value for went in width.others] == [32, 16]
    best = width.others[0]
    assert (best.networks, best.median) == (2, pytest.approx(0.85)) and best.tried is None
    assert width.now.networks == 1 and width.now.rank < 0.5 < best.rank
    assert width.promise == pytest.approx(best.rank - width.now.rank) and width.promise > depth.promise
    worst_first = of(run, parent, maximize=False)
    by_path = {each.gene.path: each for each in worst_first}
    assert [went.value for went in by_path["width"].others] == [16, 32] and by_path["width"].promise < 0


def test_what_this_very_change_gave_is_told_and_comes_last() -> None:
    parent = tiny(0, 8, 1, 0.5)
    better = tiny(1, 32, 1, 0.95)
    refused = tiny(2, 8, 2, None, state=CandidateState.REJECTED, reason="no")
    width, depth = sorted(of([parent, better, refused], parent), key=lambda each: each.gene.path)[::-1]
    assert [went.value for went in width.others] == [16, 32]
    assert width.others[-1].tried == better
    assert depth.others[-1].value == 2 and depth.others[-1].tried == refused
    assert width.promise < width.others[-1].rank - width.now.rank, "it promises nothing that was tried"


def test_few_networks_tell_less_than_many() -> None:
    run = [tiny(i, 16, 1 + i % 3, 0.8 + i / 100) for i in range(6)]
    once = tiny(6, 32, 3, 0.9)
    parent = tiny(7, 8, 1, 0.5)
    others = {
        went.value: went for each in of([*run, once, parent], parent) for went in each.others
        if each.gene.path == "width"
    }  # fmt: skip
    assert others[32].rank < 0.7 and others[32].networks == 1, "one network at the top proves little"


def test_scores_are_compared_after_equal_training() -> None:
    parent = tiny(0, 8, 1, 0.5)
    longer = tiny(1, 16, 2, 0.99).model_copy(update={"rung": 1, "rung_scores": (0.4, 0.99)})
    width = next(each for each in of([parent, longer], parent) if each.gene.path == "width")
    assert next(went.median for went in width.others if went.value == 16) == 0.4


def test_a_parent_that_is_all_there_is() -> None:
    parent = tiny(0, 8, 1, 0.5)
    for run in ([parent], []):
        for each in of(run, parent):
            assert each.now.rank == 0.5 and each.promise == 0
            assert all(went.networks == 0 and went.median is None for went in each.others)


def test_entries_of_lists_have_no_scores_of_their_own() -> None:
    space = convnet()
    run = evaluated(space, 30)
    for each in of(run, run[0], space=space):
        if isinstance(each.gene.now, dict):
            assert all(went.networks == 0 for went in each.others), each.gene.path


def test_it_is_a_function_of_the_population_alone() -> None:
    space = SPACES.create("cell")
    run = evaluated(space, 40)
    assert of(run, run[3], space=space) == of(run, run[3], space=space)
