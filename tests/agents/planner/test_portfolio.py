from __future__ import annotations

import random
from collections import Counter
from collections.abc import Collection

import pytest

from cambrian.agents.planner import Arm, PopulationView, ProposalContext
from cambrian.agents.planner.credit import FLOOR, merits
from cambrian.agents.planner.portfolio import Portfolio, build_arms
from cambrian.agents.population.model import Proposal
from cambrian.agents.population.view import Population
from tests.agents.planner.world import TinySpace, candidate, config, evaluated

EMPTY = Population(True)
WEIGHTS = {"random": 0.25, "mutation": 0.45, "crossover": 0.1, "llm": 0.2}


class PlainArm:
    """An arm that is ready when it is told so."""

    cheap = True

    def __init__(self, name: str) -> None:
        self.name = name
        self.control = name == "random"
        self.is_ready = True

    def ready(self, population: PopulationView) -> bool:
        return self.is_ready

    async def propose(self, context: ProposalContext, n: int) -> list[Proposal]:
        return [Proposal(arm=self.name, genotype={})]

    async def close(self) -> None:
        return


class Bench:
    """A portfolio and the counts that its choices add up to."""

    def __init__(self, weights: dict[str, float] | None = None, warmup: int = 0) -> None:
        weights = weights or WEIGHTS
        self.now = 0.0
        self.arms = {name: PlainArm(name) for name in weights}
        arms: dict[str, Arm] = {**self.arms}
        self.portfolio = Portfolio(config(arms=weights, warmup=warmup), arms, clock=lambda: self.now)
        self.spent: Counter[str] = Counter()
        self.order: list[str] = []

    def choose(self, exclude: Collection[str] = ()) -> str | None:
        rng = random.Random(f"0/{len(self.order)}")
        arm = self.portfolio.choose(self.spent, EMPTY, rng, exclude=exclude)
        return None if arm is None else arm.name

    def go(self, n: int) -> Counter[str]:
        """The next `n` places; returns who got them."""
        start = len(self.order)
        for _ in range(n):
            name = self.choose()
            assert name is not None
            self.spent[name] += 1
            self.order.append(name)
        return Counter(self.order[start:])


def test_every_prefix_keeps_to_the_weights() -> None:
    bench = Bench()
    for n in range(1, 301):
        bench.go(1)
        for name, weight in WEIGHTS.items():
            assert abs(bench.spent[name] - weight * n) <= 1.5, (n, name)


def test_weights_need_not_add_up_to_one() -> None:
    assert Bench({"random": 1, "mutation": 3}).go(40) == {"random": 10, "mutation": 30}


def test_warmup_is_random_and_counts_as_its_share() -> None:
    bench = Bench(warmup=10)
    assert bench.go(10) == {"random": 10}
    assert bench.go(30)["random"] == 0
    bench.go(60)
    assert bench.spent["random"] == pytest.approx(25, abs=1)


def test_the_share_of_an_absent_arm_goes_to_the_guided_ones_only() -> None:
    bench = Bench()
    bench.arms["llm"].is_ready = False
    got = bench.go(200)
    assert got["random"] == pytest.approx(50, abs=1)
    assert got["mutation"] == pytest.approx(150 * 0.45 / 0.55, abs=1)
    assert got["crossover"] == pytest.approx(150 * 0.10 / 0.55, abs=1)


def test_random_takes_over_only_when_nothing_else_is_ready() -> None:
    bench = Bench()
    for name in ("mutation", "crossover", "llm"):
        bench.arms[name].is_ready = False
    assert bench.go(10) == {"random": 10}
    bench.arms["mutation"].is_ready = True
    # random is ahead of its share now, so mutation goes first until it is not
    got = bench.go(30)
    assert got["random"] == 0 and got["mutation"] == 30


def test_random_catches_up_at_once_because_its_share_is_reserved() -> None:
    bench = Bench()
    bench.spent.update(mutation=30, crossover=6, llm=14)
    assert bench.go(10) == {"random": 10}


def test_an_arm_that_returns_does_not_take_every_place() -> None:
    bench = Bench()
    bench.arms["llm"].is_ready = False
    bench.go(100)
    bench.arms["llm"].is_ready = True
    back = bench.go(50)
    assert 10 < back["llm"] < 30, "more than its share of 10, but not everything"
    bench.go(400)
    assert bench.spent["llm"] == pytest.approx(0.2 * 550, abs=2), "in the end it has its share"


def test_the_choice_follows_from_the_counts_alone() -> None:
    bench = Bench(warmup=3)
    bench.go(60)
    resumed = Bench(warmup=3)
    resumed.spent.update(bench.spent)
    resumed.order = list(bench.order)
    assert [bench.go(1) for _ in range(40)] == [resumed.go(1) for _ in range(40)]


def test_fractional_spending_and_foreign_names_are_taken() -> None:
    bench = Bench()
    spent = {"random": 0.25, "mutation": 3.0, "baseline": 40.0}
    arm = bench.portfolio.choose(spent, EMPTY, random.Random(0))
    assert arm is not None and arm.name == "llm"


def test_paused_arms_come_back_and_retired_ones_do_not() -> None:
    bench = Bench()
    bench.portfolio.pause("llm", "no answer", 30)
    bench.portfolio.retire("crossover", "budget of 5 calls is spent")
    assert set(bench.go(40)) == {"random", "mutation"}
    assert bench.portfolio.status() == {
        "random": "active",
        "mutation": "active",
        "crossover": "retired: budget of 5 calls is spent",
        "llm": "paused for 30 s: no answer",
    }
    bench.now = 31
    got = bench.go(40)
    assert got["llm"] > 0 and got["crossover"] == 0
    assert bench.portfolio.status()["llm"] == "active"


def test_an_arm_that_fails_rests_ever_longer_until_it_succeeds() -> None:
    bench = Bench({"random": 0.1, "llm": 0.9})
    rests = []
    for _ in range(9):
        assert bench.choose() == "llm", "it is behind its share whenever it does not rest"
        bench.portfolio.failed("llm", "no usable answer")
        assert bench.portfolio.status()["llm"] == "resting: no usable answer"
        rest = 0
        while bench.choose() == "random":
            rest += 1
        rests.append(rest)
    assert rests == [1, 2, 4, 8, 16, 32, 64, 64, 64]
    bench.portfolio.succeeded("llm")
    bench.portfolio.failed("llm", "again")
    assert bench.choose() == "random" and bench.choose() == "llm"


def test_excluded_arms_are_passed_over_until_none_is_left() -> None:
    bench = Bench()
    tried: list[str] = []
    while (name := bench.choose(exclude=tried)) is not None:
        tried.append(name)
    assert sorted(tried) == sorted(WEIGHTS)


def test_an_arm_without_weight_is_the_last_resort() -> None:
    bench = Bench({"random": 0.0, "mutation": 1.0})
    assert bench.go(20) == {"mutation": 20}
    bench.arms["mutation"].is_ready = False
    assert bench.go(3) == {"random": 3}


def test_all_arms_with_a_weight_are_built_and_random_always() -> None:
    arms = build_arms(config(arms={"mutation": 1, "crossover": 0}), None)
    assert list(arms) == ["mutation", "random"]
    portfolio = Portfolio(config(arms={"mutation": 1}, warmup=0), arms)
    first = portfolio.choose({}, EMPTY, random.Random(0))
    assert first is not None and first.name == "random", "someone must begin"
    later = portfolio.choose({"random": 3}, Population(True, evaluated(TinySpace(), 3)), random.Random(0))
    assert later is not None and later.name == "mutation"


class TestMerit:
    def test_nobody_is_judged_before_somebody_has_landed(self) -> None:
        assert merits({"a": 3.0}, {}) == {}

    def test_who_brings_more_for_the_same_is_asked_more_and_nobody_never(self) -> None:
        found = merits({"good": 30.0, "poor": 30.0, "new": 0.0}, {"good": 25.0, "poor": 0.0})
        assert found["new"] == pytest.approx(1.0)
        assert found["good"] > 1.5 and found["poor"] == FLOOR

    def test_luck_at_the_start_decides_little(self) -> None:
        lucky = merits({"a": 1.0, "b": 1.0}, {"a": 1.0})
        assert 1 < lucky["a"] / lucky["b"] < 2.5

    def test_shares_follow_merit_and_the_control_keeps_its_own(self) -> None:
        weights = {"random": 0.2, "mutation": 0.4, "crossover": 0.4}
        arms: dict[str, Arm] = {name: PlainArm(name) for name in weights}
        portfolio = Portfolio(config(arms=weights, warmup=0), arms)
        population, spent = Population(True), Counter[str]()
        for n in range(200):
            arm = portfolio.choose(spent, population, random.Random(n))
            assert arm is not None
            score = {"random": 0.3, "mutation": 0.9, "crossover": 0.1}[arm.name] + n / 10_000
            population.update(candidate(n, {"n": n}, score=score, arm=arm.name))
            spent[arm.name] += 1
        assert spent["random"] == pytest.approx(40, abs=2)
        assert spent["mutation"] > 4 * spent["crossover"] > 0
