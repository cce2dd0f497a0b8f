from __future__ import annotations

import math

from cambrian.agents.population.archive import STEP, Archive, cost_bin, diverse, families
from cambrian.agents.population.model import Candidate
from cambrian.agents.population.view import Population
from tests.agents.planner.world import candidate, convnet, evaluated


def member(index: int, score: float, cost: float, **motifs: float) -> Candidate:
    """A candidate of generated code: what it consists of was found in the sandbox."""
    made = candidate(index, {"n": index}, score=score, latency=cost)
    found = {f"0|{name.replace('_', ' ')}": count for name, count in motifs.items()} | {"0|linear": 1.0}
    return made.model_copy(update={"motifs": found})


MEMBERS = [
    member(0, 0.9, 1.0, attention_heads_4=3, conv_kernel_3=1),
    member(1, 0.8, 1.1, attention_heads_2=2, conv_kernel_3=1),
    member(2, 0.7, 8.0, attention_heads_4=3),
    member(3, 0.6, 1.05, conv_relu_kernel_3=4),
    member(4, 0.5, 8.1, conv_silu_kernel_3=5),
]


def test_a_cell_holds_its_best() -> None:
    archive = Archive.of(Population(True, MEMBERS))
    assert [c.id for c in archive.elites.values()] == ["c-0001", "c-0003", "c-0004", "c-0005"]
    assert (archive.families, archive.bins, archive.coverage) == (2, 2, 1.0)
    assert archive.in_words() == "4 of 4 cells, 2 families by 2 bins of cost"


def test_a_family_is_what_a_network_mostly_consists_of_without_its_settings() -> None:
    assert families(MEMBERS) == ["attention"] * 3 + ["conv kernel 3"] * 2
    assert families([candidate(0, {}, score=0.5)]) == [""]
    only = member(0, 0.5, 1.0)
    assert families([only]) == ["linear"], "what serves others is all that there is"


def test_the_families_of_a_space_come_from_its_structure() -> None:
    space = convnet()
    found = families(evaluated(space, 60), space)
    assert 5 < len(set(found)) < 40 and all(found)
    assert any("attention" in family for family in found)


def test_diverse_ones_are_of_other_cells_than_those_that_are_shown() -> None:
    population = Population(True, MEMBERS)
    assert [c.id for c in diverse(population, 1, exclude={"c-0001"})] == ["c-0005"]
    assert [c.id for c in diverse(population, 9, exclude={"c-0001"})] == ["c-0005", "c-0003", "c-0004"]
    assert diverse(Population(True), 3) == [] and Archive.of(Population(True)).in_words() == ""


def test_bins_grow_by_a_factor_and_parameters_stand_in_for_an_unknown_cost() -> None:
    cheap, dear = member(0, 0.5, 3.0), member(1, 0.5, 3.0 * STEP**4)
    assert cost_bin(dear) - cost_bin(cheap) == 4
    assert cost_bin(candidate(0, {}, score=0.5)) == math.floor(math.log(1000, STEP))
