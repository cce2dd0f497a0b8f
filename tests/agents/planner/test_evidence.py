"""Which changes of a parent the run's measurements speak for."""

from __future__ import annotations

from typing import Any

import pytest

from cambrian.agents.planner.changes import Gene, genes
from cambrian.agents.planner.evidence import Offer, offered, offers
from cambrian.agents.population.model import Candidate, CandidateState
from cambrian.agents.population.view import Population
from cambrian.search_spaces import SPACES
from tests.agents.planner.world import TinySpace, candidate, convnet, evaluated


def of(
    candidates: list[Candidate],
    *parents: Candidate,
    most: int = 99,
    maximize: bool = True,
    space: Any = None,
    explore: bool = False,
) -> list[Offer]:
    found = genes(space or TinySpace(), parents[0].genotype)
    return offers(Population(maximize, candidates), found, parents, most, maximize, explore)


def tiny(index: int, width: int, depth: int, score: float | None, **more: Any) -> Candidate:
    return candidate(index, {"width": width, "depth": depth}, score=score, **more)


def told(found: list[Offer]) -> list[tuple[str, Any]]:
    return [(offer.gene.path, offer.to.value if offer.to is not None else None) for offer in found]


def test_the_value_that_went_with_good_scores_comes_first() -> None:
    parent = tiny(0, 8, 1, 0.5)
    run = [parent, tiny(1, 16, 2, 0.6), tiny(2, 16, 3, 0.7), tiny(3, 32, 2, 0.9), tiny(4, 32, 3, 0.8)]
    first, *_ = found = of(run, parent)
    assert told(found)[0] == ("width", 32) and first.to is not None
    assert (first.to.networks, first.to.median) == (2, pytest.approx(0.85))
    assert first.now.networks == 1 and first.now.rank < 0.5 < first.to.rank
    assert [offer.promise for offer in found] == sorted((o.promise for o in found), reverse=True)
    assert told(of(run, parent, most=1)) == [("width", 32)]
    assert told(of(run, parent, maximize=False))[-1] == ("width", 32)


def test_what_was_made_of_the_parent_before_is_not_offered_again() -> None:
    parent = tiny(0, 8, 1, 0.5)
    better = tiny(1, 32, 1, 0.95)
    refused = tiny(2, 8, 2, None, state=CandidateState.REJECTED, reason="no")
    assert set(told(of([parent, better, refused], parent))) == {("width", 16), ("depth", 3)}
    every = [tiny(1 + i, w, d, 0.9) for i, (w, d) in enumerate([(16, 1), (32, 1), (8, 2), (8, 3)])]
    found = of([parent, *every], parent)
    assert len(found) == 4, "all were made: two of them together may still be new"
    assert {o.to.tried.id for o in found if o.to is not None and o.to.tried} == {c.id for c in every}


def test_who_explores_is_offered_first_what_few_networks_tell_of() -> None:
    parent = tiny(0, 8, 1, 0.1)
    run = [parent, *(tiny(1 + i, 16, 2, 0.5 + i / 100) for i in range(10)), tiny(11, 8, 3, 0.545)]
    known = [("depth", 2), ("width", 16)]
    assert told(of(run, parent)) == [*known, ("width", 32)]
    assert told(of(run, parent, explore=True)) == [("width", 32), *known], "nobody has it: it could be best"


def test_another_parent_gives_its_values() -> None:
    parent, other = tiny(0, 8, 1, 0.9), tiny(1, 32, 3, 0.8)
    run = [parent, other, tiny(2, 16, 2, 0.7)]
    assert set(told(of(run, parent, other))) == {("width", 32), ("depth", 3)}
    child = tiny(3, 32, 1, 0.85)
    assert told(of([*run, child], parent, other)) == [("depth", 3)], "the other change was made before"
    twin = tiny(4, 32, 1, 0.85)
    assert set(told(of([*run, twin], parent, twin))) == {("width", 16), ("depth", 2), ("depth", 3)}


def test_few_networks_tell_less_than_many() -> None:
    run = [tiny(i, 16, 1 + i % 3, 0.8 + i / 100) for i in range(6)]
    once = tiny(6, 32, 3, 0.9)
    parent = tiny(7, 8, 1, 0.5)
    of_width = {o.to.value: o.to for o in of([*run, once, parent], parent) if o.to and o.gene.path == "width"}
    assert of_width[32].networks == 1 and of_width[32].rank < 0.7, "one network at the top proves little"
    many = [*run, once, *(tiny(8 + i, 32, 2, 0.91 + i / 100) for i in range(4)), parent]
    later = {o.to.value: o.to for o in of(many, parent) if o.to and o.gene.path == "width"}
    assert later[32].rank > of_width[32].rank


def test_scores_are_compared_after_equal_training() -> None:
    parent = tiny(0, 8, 1, 0.5)
    longer = tiny(1, 16, 2, 0.99).model_copy(update={"rung": 1, "rung_scores": (0.4, 0.99)})
    medians = {told([o])[0]: o.to.median for o in of([parent, longer], parent) if o.to is not None}
    assert medians["width", 16] == 0.4


def test_a_parent_that_is_all_there_is() -> None:
    parent = tiny(0, 8, 1, 0.5)
    for run in ([parent], []):
        found = of(run, parent)
        assert len(found) == 4
        assert all(o.promise == 0 and o.to is not None and o.to.median is None for o in found)


def test_entries_of_lists_have_no_scores_of_their_own() -> None:
    space = convnet()
    run = evaluated(space, 30)
    whole = [o for o in of(run, run[0], space=space, most=999) if isinstance(o.gene.now, dict)]
    assert whole and all(o.to is not None and o.to.networks == 0 for o in whole)


@pytest.mark.parametrize("name", [n for n in SPACES.names() if SPACES.create(n).kind == "declarative"])
def test_offered_genes_can_become_what_is_offered_and_nothing_else(name: str) -> None:
    space = SPACES.create(name)
    run = evaluated(space, 30)
    for parent in run[:15]:
        found = of(run, parent, space=space, most=12)
        listed = offered(found)
        assert {gene.path for gene in listed} == {offer.gene.path for offer in found}
        single = [(gene.path, value) for gene in listed for value in gene.values or ()]
        assert sorted(map(repr, single)) == sorted(repr(each) for each in told(found) if each[1] is not None)
        assert of(run, parent, space=space, most=12) == found, "a function of the population alone"


def test_an_entry_of_a_list_may_be_changed_in_two_ways() -> None:
    class Listed(TinySpace):
        def schema(self) -> dict[str, Any]:
            item = {"type": "integer", "enum": [3, 5, 7]}
            layers = {"type": "array", "items": item, "minItems": 1, "maxItems": 3}
            return {"type": "object", "properties": {"k": layers}, "required": ["k"]}

    parent = candidate(0, {"k": [3, 5]}, score=0.5)
    found = of([parent], parent, space=Listed())
    first = [gene.values for gene in offered(found) if gene.path == "k[0]"]
    assert sorted(map(repr, first)) == ["['remove', 'repeat']", "[5, 7]"]


def test_networks_beyond_the_limits_speak_against_what_they_have() -> None:
    parent = tiny(0, 8, 1, 0.5)
    beyond = [tiny(1 + i, 32, 2 + i % 2, 0.9, feasible=False) for i in range(5)]
    within = [tiny(6, 16, 2, 0.6), tiny(7, 16, 3, 0.55)]
    found = [o for o in of([parent, *beyond, *within], parent) if o.gene.path == "width"]
    assert told(found) == [("width", 16), ("width", 32)]
    assert found[1].to is not None and (found[1].to.networks, found[1].to.median) == (5, None)
    assert found[1].promise < 0


def test_what_the_run_ranks_by_is_what_counts() -> None:
    parent = tiny(0, 8, 1, 0.5)
    slow = tiny(1, 32, 2, 0.9).model_copy(update={"latency_factor": 0.1})
    fast = tiny(2, 16, 2, 0.8)
    assert told(of([parent, slow, fast], parent))[0] == ("width", 16)


def test_what_is_under_way_is_not_offered_either() -> None:
    parent = tiny(0, 8, 1, 0.5)
    waiting = tiny(1, 16, 1, None, state=CandidateState.PROPOSED)
    assert ("width", 16) not in told(of([parent, waiting], parent))
    later = [tiny(2 + i, 32, 2, 0.6) for i in range(100)]
    old = tiny(200, 8, 2, 0.4)
    assert ("depth", 2) not in told(of([parent, old, *later], parent)), "however long ago it was"


def test_of_values_of_several_types_those_stay_that_are_wanted() -> None:
    flags = {"anyOf": [{"type": "boolean", "enum": [False, True]}, {"type": "integer", "enum": [0, 1, 2]}]}
    gene = Gene("x", 2, flags)
    assert gene.only([1, 0]).others == {"type": "integer", "enum": [0, 1]}
    both = gene.only([True, 2]).others["anyOf"]
    assert [case["enum"] for case in both] == [[True], [2]]
