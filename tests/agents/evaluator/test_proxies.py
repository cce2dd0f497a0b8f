from __future__ import annotations

import random

import numpy as np
import pytest

from cambrian.agents.evaluator.proxies import ProxyTrust, RankRecord, rank_record, tau_bound

Observations = list[tuple[dict[str, float], float]]


def observations(n: int, seed: int = 0, **weights: float) -> Observations:
    """Candidates whose score is a sum of proxies by their weights, and noise."""
    rng = random.Random(seed)
    found = []
    for _ in range(n):
        proxies = {name: rng.gauss(0, 1) for name in weights}
        score = sum(weights[name] * value for name, value in proxies.items()) + 0.3 * rng.gauss(0, 1)
        found.append((proxies, score))
    return found


def trust(seen: Observations, *, maximize: bool = True, min_tau: float = 0.3) -> ProxyTrust:
    made = ProxyTrust(maximize=maximize, min_tau=min_tau)
    made.rebuild(seen)
    return made


def roles(made: ProxyTrust) -> dict[str, str | None]:
    return {record.name: record.role for record in made.summary()}


class TestBound:
    @pytest.mark.parametrize("tau", [0.0, 0.4])
    def test_covers_the_truth(self, tau: float) -> None:
        """Of normally distributed pairs with this tau, one bound in a hundred or so is above it."""
        rng = np.random.default_rng(0)
        slope = np.sin(np.pi * tau / 2)
        above = 0
        for _ in range(200):
            x = rng.standard_normal(25)
            y = slope * x + np.sqrt(1 - slope**2) * rng.standard_normal(25)
            record = rank_record("x", x.tolist(), y.tolist())
            assert record.tau is not None
            above += record.low > tau
        # for a tau of 0, both sides can fail
        assert above <= (10 if tau == 0 else 6)

    def test_rises_with_evidence(self) -> None:
        bounds = [tau_bound(0.5, n) for n in (4, 10, 20, 50, 500)]
        assert bounds == sorted(bounds) and bounds[0] == 0 and 0.4 < bounds[-1] < 0.5
        assert tau_bound(-0.5, 50) == tau_bound(0.5, 50)
        assert 0 < tau_bound(1.0, 6) < 1

    def test_nothing_is_known_without_variation(self) -> None:
        for estimates, scores in (
            ([], []),
            ([1.0], [2.0]),
            ([1.0, 1.0], [1.0, 2.0]),
            ([1.0, 2.0], [1.0, 1.0]),
        ):
            assert rank_record("x", estimates, scores) == RankRecord(name="x", n=len(scores))


class TestTrust:
    def test_proves_itself_by_rank_correlation(self) -> None:
        made = trust(observations(60, good=1.0, useless=0.0))
        assert roles(made) == {"good": "filters", "useless": "advice"}
        records = {record.name: record for record in made.summary()}
        tau, rho = records["good"].tau, records["good"].rho
        assert tau is not None and rho is not None and 0.3 < records["good"].low < tau < rho
        assert records["good"].n == 60

    def test_chance_does_not_pass(self) -> None:
        proved = [
            trust(observations(n, seed, useless=0.0), min_tau=0.0).summary()[0].role == "filters"
            for seed in range(60)
            for n in (20, 40)
        ]
        assert sum(proved) <= 6  # two sides of one in a hundred, twice

    def test_advises_before_enough_evaluations(self) -> None:
        seen = observations(20, good=1.0)
        assert roles(trust(seen[:19])) == {"good": "advice"}
        assert roles(trust(seen)) == {"good": "filters"}
        assert trust(seen[:19]).verdict({"good": -100.0}).keep

    def test_advises_below_the_wanted_correlation(self) -> None:
        assert roles(trust(observations(60, good=1.0), min_tau=0.9)) == {"good": "advice"}

    def test_drops_the_lowest_only(self) -> None:
        made = trust(observations(200, good=1.0))
        fresh = observations(300, seed=1, good=1.0)
        dropped = [(p, s) for p, s in fresh if not made.verdict(p).keep]
        assert 0 < len(dropped) <= 0.15 * len(fresh)
        assert max(p["good"] for p, _ in dropped) <= min(p["good"] for p, _ in fresh if made.verdict(p).keep)
        assert max(s for _, s in dropped) < np.median([s for _, s in fresh])
        reason = made.verdict(dropped[0][0]).reason
        assert "good" in reason and "below" in reason and "\n" not in reason

    def test_spares_what_is_no_worse_than_a_good_candidate(self) -> None:
        seen = observations(60, good=1.0)
        assert not trust(seen).verdict({"good": -4.0}).keep
        outlier = ({"good": -5.0}, 100.0)
        assert roles(trust([*seen, outlier])) == {"good": "filters"}
        assert trust([*seen, outlier]).verdict({"good": -4.0}).keep

    def test_a_negative_correlation_filters_from_above(self) -> None:
        made = trust(observations(60, size=-1.0))
        assert made.summary()[0].tau is not None and made.summary()[0].tau < 0
        assert made.verdict({"size": -100.0}).keep
        assert "above" in made.verdict({"size": 100.0}).reason

    def test_of_errors_lower_is_better(self) -> None:
        seen = [(proxies, -score) for proxies, score in observations(60, good=1.0)]
        made = trust(seen, maximize=False)
        assert made.summary() == trust(observations(60, good=1.0)).summary()
        assert not made.verdict({"good": -100.0}).keep

    def test_missing_proxies_tell_nothing(self) -> None:
        seen: Observations = [
            (proxies if at % 2 else {}, score)
            for at, (proxies, score) in enumerate(observations(60, good=1.0))
        ]
        made = trust([*seen, ({"good": float("nan")}, 1.0)])
        assert made.summary()[0].n == 30
        assert made.verdict({}).keep and made.verdict({"never seen": 1.0}).keep

    def test_can_be_rebuilt_at_any_moment(self) -> None:
        seen, fresh = observations(80, good=1.0, weak=0.3), observations(50, seed=1, good=1.0, weak=0.3)
        running = ProxyTrust(maximize=True)
        for at, (proxies, score) in enumerate(seen):
            running.observe(proxies, score)
            running.verdict(proxies)
            if at % 20 == 19:
                again = trust(seen[: at + 1])
                assert again.summary() == running.summary()
                assert [again.verdict(p) for p, _ in fresh] == [running.verdict(p) for p, _ in fresh]

    def test_lines(self) -> None:
        assert ProxyTrust(maximize=True).lines() == []
        (line,) = trust(observations(60, good=1.0, useless=0.0)).lines()
        assert line.startswith("proxies: good tau 0.") and line.endswith("on 60, advice")
        (line,) = trust(observations(60, **dict.fromkeys("abcdefg", 0.1))).lines()
        assert line.count("tau") == 4 and line.endswith("; 3 more")
