from __future__ import annotations

import asyncio
from pathlib import Path

import numpy as np
import pytest

from cambrian.agents.benching.benchmark import Benchmark, Limit
from cambrian.agents.benching.loop import Trace
from cambrian.agents.benching.searchers import PEERS, Searcher, parse_arms, run_config, search
from tests.agents.benching.tables import flat_benchmark

EVOLUTION = Searcher("evolution", {"random": 0.3, "mutation": 0.5, "crossover": 0.2})


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Benchmark:
    return flat_benchmark(tmp_path_factory.mktemp("tables"), report="test", cost="ms")


def run(
    bench: Benchmark, searcher: Searcher, *, seed: int = 0, evaluations: int = 60, predictor: bool = False
) -> Trace:
    config = run_config(searcher, seed, evaluations, warmup=None, predictor=predictor)
    return asyncio.run(search(bench, searcher, config))


@pytest.mark.parametrize("searcher", [EVOLUTION, *parse_arms(f"random,mutation,{','.join(PEERS)}")])
def test_nothing_is_paid_twice(bench: Benchmark, searcher: Searcher) -> None:
    trace = run(bench, searcher)
    assert len(trace.rows) == len(set(trace.rows)) == 60 == len(trace.arms)
    assert trace.proposals == 60 + sum(trace.duplicates.values()) + trace.refused
    assert trace.ended == ""


@pytest.mark.parametrize("searcher", [EVOLUTION, *parse_arms(",".join(PEERS))])
def test_equal_seeds_search_alike(bench: Benchmark, searcher: Searcher) -> None:
    first, second, other = (run(bench, searcher, seed=seed).rows for seed in (3, 3, 4))
    assert first == second != other


def test_a_portfolio_shares_after_the_warm_up(bench: Benchmark) -> None:
    trace = run(bench, EVOLUTION, evaluations=120)
    assert trace.arms[:6] == ["random"] * 6
    assert 30 <= trace.arms.count("random") <= 48, "the control's share is reserved"
    assert trace.arms.count("mutation") > 12 and trace.arms.count("crossover") > 4


def test_the_predictor_of_real_runs_takes_part(bench: Benchmark) -> None:
    plain = run(bench, EVOLUTION, evaluations=24)
    guided = run(bench, EVOLUTION, evaluations=24, predictor=True)
    assert guided.rows[:11] == plain.rows[:11], "it abstains at first"
    assert guided.rows != plain.rows


def test_the_default_portfolio_runs(bench: Benchmark) -> None:
    (default,) = parse_arms("default")
    trace = run(bench, default, evaluations=16)
    assert len(trace.rows) == 16 and {"random", *trace.arms} <= {*default.weights}
    assert set(trace.arms) > {"random"}


def test_the_control_is_never_refused(bench: Benchmark) -> None:
    trace = run(bench, Searcher("random", {"random": 1.0}), evaluations=80, predictor=True)
    assert trace.screened == 0 and trace.proposals == 80 + trace.duplicates.get("random", 0)
    assert trace.rows == run(bench, Searcher("random", {"random": 1.0}), evaluations=80).rows


def test_guided_searches_find_the_best(bench: Benchmark) -> None:
    for searcher in (EVOLUTION, *parse_arms(",".join(PEERS))):
        found = [
            bool(bench.best_rows & {*run(bench, searcher, seed=s, evaluations=150).rows}) for s in range(4)
        ]
        assert sum(found) >= 3, searcher.name


def test_rows_beyond_a_limit_cost_but_lead_nowhere(tmp_path: Path) -> None:
    limit = (Limit.parse("ms <= 8"),)
    measured = flat_benchmark(tmp_path, constraints=limit)
    traces = [run(measured, EVOLUTION, evaluations=100, seed=seed) for seed in range(4)]
    outside = np.array([~measured.feasible[trace.rows[30:]] for trace in traces])
    assert 0 < outside.mean() < 0.7 * (~measured.feasible).mean()
    known = flat_benchmark(tmp_path, constraints=limit, features=("ms",))
    for searcher in (EVOLUTION, *parse_arms(",".join(PEERS))):
        trace = run(known, searcher, evaluations=50)
        assert trace.refused > 0 and all(known.feasible[row] for row in trace.rows)


def test_a_table_can_be_used_up(tmp_path: Path) -> None:
    bench = flat_benchmark(tmp_path, genotype_columns=("op0", "op1", "width"))
    assert bench.space.size == 100
    for searcher in (EVOLUTION, *parse_arms("random,local-search")):
        trace = run(bench, searcher, evaluations=10_000)
        assert sorted(trace.rows) == list(range(100)) or "led to no evaluation" in trace.ended
