from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest

from cambrian.agents.errors import ProposalError
from cambrian.agents.evaluator.encoding import Encoding
from cambrian.agents.planner import ARMS, Arm
from cambrian.agents.planner.evolution import fingerprint
from cambrian.agents.planner.guided import LEAST, GuidedArm
from cambrian.agents.planner.surrogate import Columns, Posterior, expected_improvement, learn, log_regret
from cambrian.agents.population.model import Candidate, CandidateState
from cambrian.sandbox.examination.static import check
from cambrian.search_spaces import Enumerable, Genotype
from tests.agents.benching.tables import flat_benchmark
from tests.agents.planner.world import candidate, config, context, convnet, evaluated
from tests.contracts.arm import ArmContract, Settings


class TestGuidedArm(ArmContract):
    """On a space that cannot list its members."""

    @pytest.fixture
    def arm(self, tmp_path: Path) -> Arm:
        return ARMS.create("guided", config=config(), models=None)

    @pytest.fixture
    def settings(self) -> Settings:
        space = convnet()
        population = evaluated(space, 12)
        return lambda seed: context(space, population, seed=seed)

    async def test_it_waits_for_scores(self, arm: Arm) -> None:
        few = context(convnet(), evaluated(convnet(), LEAST - 1))
        assert not arm.ready(few.population)
        with pytest.raises(ProposalError, match=str(LEAST)):
            await arm.propose(few, 1)

    async def test_it_proposes_better_than_random_members(self, arm: Arm) -> None:
        space, rng = convnet(), random.Random(5)

        def worth(genotype: Genotype) -> float:
            return space.features(genotype)["log_params"]

        seen = [candidate(i, g, score=worth(g)) for i, g in enumerate(space.sample(rng) for _ in range(30))]
        proposed = [(await arm.propose(context(space, seen, seed=s), 1))[0].genotype for s in range(5)]
        drawn = [worth(space.sample(rng)) for _ in range(50)]
        assert np.mean([worth(g) for g in proposed]) > np.quantile(drawn, 0.9)

    async def test_caches_change_nothing(self, settings: Settings) -> None:
        used = GuidedArm(config())
        for seed in range(3):
            again = await used.propose(settings(seed), 2)
            assert again == await GuidedArm(config()).propose(settings(seed), 2)


class TestListedMembers:
    """On a space that lists its members: all of them are weighed."""

    @pytest.fixture(scope="class")
    @staticmethod
    def table(tmp_path_factory: pytest.TempPathFactory):  # type: ignore[no-untyped-def]
        return flat_benchmark(tmp_path_factory.mktemp("tables"), report="test")

    def seen(self, table, rows: range) -> list[Candidate]:  # type: ignore[no-untyped-def]
        members = table.space.members()
        order = random.Random(1).sample(range(table.space.size), table.space.size)
        return [candidate(i, dict(members[order[i]]), score=float(table.metric[order[i]])) for i in rows]

    async def test_it_goes_on_as_if_it_had_never_stopped(self, table) -> None:  # type: ignore[no-untyped-def]
        assert isinstance(table.space, Enumerable)
        unbroken = GuidedArm(config())
        for n in range(8, 30, 3):
            now = context(table.space, self.seen(table, range(n)), seed=n)
            proposed = await unbroken.propose(now, 3)
            fresh = context(table.space, self.seen(table, range(n)), seed=n)
            assert proposed == await GuidedArm(config()).propose(fresh, 3)

    async def test_it_never_proposes_what_is_known(self, table) -> None:  # type: ignore[no-untyped-def]
        seen = self.seen(table, range(table.space.size - 2))
        left = await GuidedArm(config()).propose(context(table.space, seen), 5)
        known = {fingerprint(c.genotype) for c in seen}
        assert len(left) == 2 and not known & {fingerprint(p.genotype) for p in left}
        with pytest.raises(ProposalError, match="nothing is left"):
            everything = self.seen(table, range(table.space.size))
            await GuidedArm(config()).propose(context(table.space, everything), 1)

    async def test_slots_do_not_ask_for_the_same_or_what_is_near_it(self, table) -> None:  # type: ignore[no-untyped-def]
        seen = self.seen(table, range(12))
        first = (await GuidedArm(config()).propose(context(table.space, seen), 1))[0]
        waiting = candidate(12, first.genotype, state=CandidateState.TRAINING)
        second = (await GuidedArm(config()).propose(context(table.space, [*seen, waiting]), 1))[0]
        assert second.genotype != first.genotype

    async def test_who_breaks_the_limits_is_avoided(self, table) -> None:  # type: ignore[no-untyped-def]
        seen = self.seen(table, range(40))
        gene, value = next(iter(seen[0].genotype.items()))
        marked = [
            c.model_copy(update={"feasible": c.genotype[gene] != value, "score": c.score}) for c in seen
        ]
        proposed = await GuidedArm(config()).propose(context(table.space, marked), 8)
        broken = sum(p.genotype[gene] == value for p in proposed)
        free = await GuidedArm(config()).propose(context(table.space, seen), 8)
        assert broken <= sum(p.genotype[gene] == value for p in free)
        assert broken < len(proposed) / 2


class TestSurrogate:
    def encodings(self, n: int) -> list[Encoding]:
        rng = np.random.default_rng(0)
        return [Encoding({"a": float(a), "b": float(b)}, {"m": float(c)}) for a, b, c in rng.random((n, 3))]

    def test_one_by_one_is_the_same_as_the_textbook(self) -> None:
        encodings = self.encodings(40)
        rows = Columns(encodings)(encodings)
        targets = np.sin(np.arange(12.0))
        theta = learn([each[:12] for each in rows], targets)
        posterior = Posterior(rows, theta)
        for row in range(12):
            posterior.observe(row)
        mean, std = posterior.at(targets)

        full = np.zeros((40, 40))
        for i, each in enumerate(rows):
            d = np.sqrt(((each[:, None] - each[None]) ** 2).sum(-1)) * np.sqrt(5) / np.exp(theta[2 * i + 1])
            full += np.exp(theta[2 * i]) * (1 + d + d * d / 3) * np.exp(-d)
        noisy = full[:12, :12] + (np.exp(theta[-1]) + 1e-6) * np.eye(12)
        solved = np.linalg.solve(noisy, full[:12])
        np.testing.assert_allclose(mean, targets @ solved, atol=2e-3)
        variance = np.diag(full) - np.einsum("ij,ij->j", full[:12], solved)
        np.testing.assert_allclose(std**2, np.maximum(variance, 1e-6), atol=5e-3)

    def test_what_is_believed_is_certain_and_the_rest_less_uncertain(self) -> None:
        encodings = self.encodings(30)
        rows = Columns(encodings)(encodings)
        posterior = Posterior(rows, learn([each[:6] for each in rows], np.arange(6.0) - 2.5))
        for row in range(6):
            posterior.observe(row)
        before = posterior.believing([])
        after = posterior.believing([20])
        assert after[20] < before[20] and (after <= before + 1e-6).all()
        assert posterior.rows == tuple(range(6))
        assert (posterior.believing([]) == before).all()

    def test_targets_tell_the_best_apart_and_not_the_worst(self) -> None:
        targets = log_regret(np.array([10.0, 70.0, 90.0, 91.0, 91.5]))
        assert (np.diff(targets) > 0).all()
        per_point = np.diff(targets) / [60.0, 20.0, 1.0, 0.5]
        assert (np.diff(per_point) > 0).all()
        assert np.isfinite(log_regret(np.full(5, 0.3))).all()

    def test_expected_improvement_of_a_sure_thing_is_its_lead(self) -> None:
        merit = expected_improvement(np.array([2.0, 0.0]), np.array([1e-6, 1e-6]), 1.0)
        assert merit == pytest.approx([1.0, 0.0])


async def test_it_hopes_for_nothing_that_the_run_s_limits_forbid() -> None:
    space, rng = convnet(), random.Random(4)
    members = [space.sample(rng) for _ in range(80)]
    sizes = [10 ** space.features(member)["log_params"] for member in members]
    small = [m for m, size in sorted(zip(members, sizes, strict=True), key=lambda e: e[1])[:20]]
    # the larger the better: all that is wanted lies beyond the limit
    seen = [candidate(i, m, score=space.features(m)["log_params"]) for i, m in enumerate(small)]
    limited = context(space, seen, constraints=["params <= 20k"])
    proposals = await GuidedArm(config()).propose(limited, 3)
    for proposal in proposals:
        assert check(space, proposal.genotype, limited.signature, 32).parameters <= 20_000
    with pytest.raises(ProposalError, match="limits"):
        await GuidedArm(config()).propose(context(space, seen, constraints=["params <= 10"]), 1)
