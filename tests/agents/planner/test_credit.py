from __future__ import annotations

import random
from collections import Counter

import pytest

from cambrian.agents.planner.credit import FLOOR, choose_model, operator_weights, relative_merits
from cambrian.agents.population.view import Population
from tests.agents.planner.world import candidate


def population(by: str, brings: dict[str, float], n: int = 120) -> Population:
    """Candidates of each author in turn; a better author's scores are higher."""
    found = Population(True)
    names = list(brings)
    for at in range(n):
        name = names[at % len(names)]
        found.update(candidate(at, {"n": at}, score=brings[name] + at / 10_000, **{by: name}))
    return found


def test_merit_is_relative_to_what_all_bring() -> None:
    spent, brought = {"a": 50.0, "b": 50.0}, {"a": 40.0, "b": 40.0}
    assert relative_merits(spent, brought, ["a", "b"]) == pytest.approx({"a": 1.0, "b": 1.0}, abs=0.1)
    found = relative_merits(spent, {"a": 40.0, "b": 1.0}, ["a", "b", "new"])
    assert found["a"] > 1.5 and found["new"] == pytest.approx(1.0) and found["b"] == FLOOR


def test_the_model_that_pays_is_asked_more_and_the_other_still() -> None:
    paid = population("model", {"good": 0.9, "poor": 0.1})
    drawn = Counter(choose_model(paid, ["good", "poor"], random.Random(n)) for n in range(300))
    assert drawn["good"] > 3 * drawn["poor"] > 0


def test_models_that_nothing_is_known_of_are_asked_alike() -> None:
    drawn = Counter(choose_model(Population(True), ["a", "b"], random.Random(n)) for n in range(400))
    assert drawn["a"] == pytest.approx(200, abs=40)


def test_the_choice_of_a_model_can_be_repeated_and_one_model_costs_no_random_number() -> None:
    paid, rng = population("model", {"a": 0.9, "b": 0.1}), random.Random(3)
    first = [choose_model(paid, ["a", "b"], random.Random(7)) for _ in range(3)]
    assert len(set(first)) == 1
    assert choose_model(paid, ["only"], rng) == "only" and rng.random() == random.Random(3).random()
    with pytest.raises(ValueError, match="no model"):
        choose_model(paid, [], rng)


def test_operators_keep_their_usual_weights_until_they_are_told_apart() -> None:
    usual = {"step": 6.0, "redraw": 2.0}
    assert operator_weights(Population(True), usual) == usual
    paid = population("operator", {"step": 0.1, "redraw": 0.9})
    found = operator_weights(paid, usual)
    assert found["redraw"] > 2.0 and found["step"] == pytest.approx(FLOOR * 6.0, abs=1.0)


def test_of_two_models_that_bring_the_same_the_cheaper_is_asked_more_often() -> None:
    population = Population(True, [])
    drawn = Counter(
        choose_model(population, ["dear", "cheap"], random.Random(seed), {"dear": 40.0, "cheap": 1.0})
        for seed in range(200)
    )
    assert drawn["cheap"] > 2 * drawn["dear"] > 0, "nobody is left out for good"
