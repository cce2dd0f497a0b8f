from __future__ import annotations

import json
import random
from collections import Counter
from pathlib import Path

import pytest

from cambrian.agents.errors import ProposalError
from cambrian.agents.planner import ARMS, Arm
from cambrian.agents.planner.evolution import (
    CrossoverArm,
    LocalArm,
    MutationArm,
    Parents,
    RandomArm,
    crowding_distances,
    fingerprint,
)
from cambrian.agents.population.view import Population
from tests.agents.planner.world import TinySpace, candidate, config, context, convnet, evaluated
from tests.contracts.arm import ArmContract, Settings


class EvolutionContract(ArmContract):
    name: str

    @pytest.fixture
    def arm(self, tmp_path: Path) -> Arm:
        return ARMS.create(self.name, config=config(), models=None)

    @pytest.fixture
    def settings(self) -> Settings:
        space = convnet()
        population = evaluated(space, 12)
        return lambda seed: context(space, population, seed=seed)


class TestRandomArm(EvolutionContract):
    name = "random"


class TestMutationArm(EvolutionContract):
    name = "mutation"


class TestCrossoverArm(EvolutionContract):
    name = "crossover"


class TestLocalArm(EvolutionContract):
    name = "local"

    async def test_it_climbs_from_the_best_until_its_neighbours_are_known(self, arm: Arm) -> None:
        space = TinySpace()
        rng = random.Random(3)
        seen = [candidate(0, space.sample(rng), score=0.9), candidate(1, space.sample(rng), score=0.1)]
        best = seen[0].id
        parents = []
        for index in range(2, 60):
            (proposal,) = await arm.propose(context(space, seen, seed=index), 1)
            parents.append(proposal.parents[0])
            if fingerprint(proposal.genotype) in {fingerprint(c.genotype) for c in seen}:
                break
            seen.append(candidate(index, proposal.genotype, score=0.1 + index / 1000))
        assert parents[0] == best
        assert any(parent != best for parent in parents)
        first_other = next(i for i, parent in enumerate(parents) if parent != best)
        assert first_other > 2


def test_only_random_is_the_control_and_all_are_cheap() -> None:
    arms = [RandomArm(), MutationArm(), CrossoverArm()]
    assert [arm.control for arm in arms] == [True, False, False]
    assert all(arm.cheap for arm in arms)


@pytest.mark.parametrize(("arm", "needed"), [(RandomArm(), 0), (MutationArm(), 1), (CrossoverArm(), 2)])
def test_arms_are_ready_from_the_parents_they_need(arm: Arm, needed: int) -> None:
    space = TinySpace()
    for n in range(4):
        assert arm.ready(Population(True, evaluated(space, n))) is (n >= needed)


async def test_without_parents_a_proposal_error_says_so() -> None:
    with pytest.raises(ProposalError, match="needs 2 evaluated"):
        await CrossoverArm().propose(context(TinySpace(), evaluated(TinySpace(), 1)), 1)


async def test_the_random_arm_samples_as_the_space_does() -> None:
    space = convnet()
    arm_context, rng = context(space, seed=5), random.Random(5)
    drafts = await RandomArm().propose(arm_context, 4)
    assert [draft.genotype for draft in drafts] == [space.sample(rng) for _ in range(4)]


async def test_a_mutant_differs_from_its_parent() -> None:
    space = TinySpace()
    population = evaluated(space, 2)
    for seed in range(50):
        (child,) = await MutationArm().propose(context(space, population, seed=seed), 1)
        parent = next(c for c in population if c.id == child.parents[0])
        assert child.genotype != parent.genotype


async def test_most_mutants_have_one_edit_and_none_more_than_three() -> None:
    space = convnet()
    population = evaluated(space, 6)
    edits: Counter[int] = Counter()
    for seed in range(150):
        for draft in await MutationArm().propose(context(space, population, seed=seed), 1):
            edits[draft.edit.count(";") + 1] += 1
    assert edits[1] > edits[2] > edits[3] > 0
    assert set(edits) <= {1, 2, 3}


async def test_drafts_come_from_different_parents() -> None:
    space = convnet()
    drafts = await MutationArm().propose(context(space, evaluated(space, 20)), 8)
    assert len(drafts) == 8
    assert len({draft.parents for draft in drafts}) > 1


async def test_known_genotypes_are_avoided_while_others_are_left() -> None:
    space = TinySpace()
    everyone = [{"width": w, "depth": d} for w in (8, 16, 32) for d in (1, 2, 3)]
    known = [candidate(i, genotype, score=0.5) for i, genotype in enumerate(everyone[:-2])]
    hits = 0
    for seed in range(20):
        for arm in (RandomArm(), MutationArm()):
            drafts = await arm.propose(context(space, known, seed=seed), 4)
            fresh = [draft for draft in drafts if draft.genotype in everyone[-2:]]
            # at most the one draft that is better than none may be a known one
            assert len(drafts) - len(fresh) <= (0 if len(drafts) > 1 else 1)
            hits += bool(fresh)
    assert hits >= 32


async def test_a_space_that_is_used_up_still_gives_one_draft() -> None:
    space = TinySpace()
    everyone = [{"width": w, "depth": d} for w in (8, 16, 32) for d in (1, 2, 3)]
    known = [candidate(i, genotype, score=0.5) for i, genotype in enumerate(everyone)]
    for arm in (RandomArm(), MutationArm(), CrossoverArm()):
        assert len(await arm.propose(context(space, known), 4)) == 1


async def test_a_child_that_equals_a_parent_is_mutated() -> None:
    space = TinySpace()
    twins = [candidate(i, {"width": 8, "depth": 1}, score=0.5 + i / 10) for i in range(2)]
    for seed in range(10):
        (child,) = await CrossoverArm().propose(context(space, twins, seed=seed), 1)
        assert child.genotype != {"width": 8, "depth": 1}
        assert len(set(child.parents)) == 2
        assert " to " in child.edit


def test_parents_are_good_ones() -> None:
    """Half come from a tournament among the best, half from the front: the bad tail is never chosen."""
    space = convnet()
    population = Population(True, evaluated(space, 200))
    parents, rng = Parents.of(population, 1), random.Random(0)
    chosen = [parents.select(rng) for _ in range(400)]
    front = {c.id for c in population.front()}
    best = {c.id for c in population.elite(24)}
    assert all(c.id in front | best for c in chosen)
    assert sum(c.id in front for c in chosen) >= 160
    top = {c.id for c in population.elite(6)}
    from_top = sum(c.id in top for c in chosen)
    assert from_top > 400 * 6 / 24, "a tournament favours the better half of the elite"


def test_infeasible_candidates_are_parents_only_when_nothing_else_is_there() -> None:
    broken = candidate(0, {"width": 8, "depth": 1}, score=0.9, feasible=False)
    fine = candidate(1, {"width": 16, "depth": 1}, score=0.1)
    rng = random.Random(0)
    assert Parents.of(Population(True, [broken]), 1).select(rng).id == broken.id
    both = Parents.of(Population(True, [broken, fine]), 1)
    assert {both.select(rng).id for _ in range(30)} == {fine.id}


def test_crowding_prefers_the_lonely() -> None:
    points = [(0.9, 4.0), (0.8, 3.0), (0.79, 2.9), (0.5, 0.5)]
    front = [candidate(i, {}, score=s, latency=c) for i, (s, c) in enumerate(points)]
    distances = crowding_distances(front)
    assert distances[0] == distances[3] == float("inf")
    # by hand: (0.9-0.79)/0.4 + (4-2.9)/3.5 and (0.8-0.5)/0.4 + (3-0.5)/3.5
    assert distances[1] == pytest.approx(0.275 + 1.1 / 3.5)
    assert distances[2] == pytest.approx(0.75 + 2.5 / 3.5)
    assert crowding_distances([]) == []
    assert crowding_distances(front[:1]) == [float("inf")]


def test_equal_genotypes_have_equal_fingerprints() -> None:
    first = {"a": 1, "b": [{"c": 2.0, "d": "x"}]}
    again = json.loads('{"b": [{"d": "x", "c": 2.0}], "a": 1}')
    assert fingerprint(first) == fingerprint(again)
    assert fingerprint(first) != fingerprint({"a": 2, "b": [{"c": 2.0, "d": "x"}]})


class TestOperators:
    async def test_a_mutation_names_its_kind(self) -> None:
        space = convnet()
        drafts = await MutationArm().propose(context(space, evaluated(space, 10)), 12)
        kinds = {draft.operator for draft in drafts}
        assert "change value" in kinds and kinds <= {*space.operators(), ""}
        assert all(draft.operator for draft in drafts if ";" not in draft.edit)

    async def test_kinds_that_paid_are_tried_more(self) -> None:
        space = convnet()

        async def share(paid: str) -> float:
            tried = [
                candidate(
                    n,
                    made.genotype,
                    score=(0.9 if (n % 2 == 0) == (paid == "redraw") else 0.2) + n / 1000,
                    operator="redraw" if n % 2 == 0 else "change value",
                )
                for n, made in enumerate(evaluated(space, 60))
            ]
            drafts = [(await LocalArm().propose(context(space, tried, seed=n), 1))[0] for n in range(60)]
            return sum(draft.operator == "redraw" for draft in drafts) / len(drafts)

        assert await share("redraw") > 2 * await share("change value")

    async def test_a_space_without_kinds_goes_on_as_before(self) -> None:
        space = TinySpace()
        drafts = await MutationArm().propose(context(space, evaluated(space, 4)), 3)
        assert {draft.operator for draft in drafts} == {""}
