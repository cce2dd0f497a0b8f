from __future__ import annotations

import random
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from cambrian.agents.benching.benchmark import Benchmark, Limit
from cambrian.agents.benching.loop import Trace
from cambrian.agents.benching.plot import check_plot, plot_regret
from cambrian.agents.benching.searchers import parse_arms
from cambrian.agents.benching.study import Plan, run_study
from cambrian.agents.benching.summary import Study, summarise
from cambrian.agents.errors import UserError
from tests.agents.benching.tables import flat_benchmark


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Benchmark:
    return flat_benchmark(tmp_path_factory.mktemp("tables"), report="test")


def traces(bench: Benchmark, evaluations: int, seeds: int, found_by: int | None) -> list[Trace]:
    """Searches that look at random rows, and at the best one after `found_by` + seed evaluations."""
    best = min(bench.best_rows)
    found = []
    for seed in range(seeds):
        rows = random.Random(seed).sample([r for r in range(bench.space.size) if r != best], evaluations)
        if found_by is not None and found_by + seed <= evaluations:
            rows[found_by + seed - 1] = best
        found.append(Trace(rows=rows, arms=["random"] * evaluations, proposals=evaluations))
    return found


def study_of(bench: Benchmark, arms: str, *found_by: int | None, seeds: int = 8) -> Study:
    plan = Plan(tuple(parse_arms(arms)), seeds, 30)
    return summarise(bench, plan, [traces(bench, 30, seeds, found) for found in found_by])


def test_evaluations_to_best_count_those_that_did_not_find_it(bench: Benchmark) -> None:
    study = study_of(bench, "random,mutation,crossover", 5, 27, None)
    first, late, never = study.lines
    assert (first.found, first.median, first.q1) == (8, 8.5, 6.75)
    assert (late.found, late.q1, late.median) == (4, 28.75, None)
    assert (never.found, never.q1, never.median, never.q3) == (0, None, None, None)
    assert first.incumbents[-1].regret == pytest.approx(bench.best_report - first.incumbents[-1].mean)


def test_curves_are_incumbents(bench: Benchmark) -> None:
    curve = study_of(bench, "random", 5).lines[0].curves[0]
    rows = traces(bench, 30, 1, 5)[0].rows
    for at in (1, 3, 5, 30):
        best = max(rows[:at], key=lambda row: bench.metric[row])
        assert curve.metric[at - 1] == bench.metric[best] and curve.report[at - 1] == bench.report[best]
    assert curve.found_at == 5 and curve.by_arm == {"random": 30}


def test_a_portfolio_that_is_worse_than_one_of_its_arms_is_told(bench: Benchmark) -> None:
    arms = "mutation+crossover,mutation,crossover"
    worse = study_of(bench, arms, None, 3, None)
    assert worse.verdict.startswith("mutation+crossover is significantly worse than its best single arm in")
    to_best = worse.comparisons[-1]
    assert (to_best.measure, to_best.against, to_best.worse) == ("evaluations to best", "mutation", True)
    assert to_best.difference == pytest.approx(np.mean([31 - (3 + seed) for seed in range(8)]) * -1)
    assert to_best.high < 0 and to_best.p < 0.05
    equal = study_of(bench, arms, 5, 5, None)
    assert equal.verdict.startswith("mutation+crossover is never significantly worse")
    assert equal.comparisons[-1].p == 1.0 and equal.comparisons[-1].difference == 0
    better = study_of(bench, arms, 3, None, None)
    assert "never significantly worse" in better.verdict and better.comparisons[-1].low > 0


def test_without_singles_there_is_nothing_to_compare(bench: Benchmark) -> None:
    assert study_of(bench, "mutation+crossover,local-search", 3, None).verdict == ""


def test_incumbents_keep_the_limits(tmp_path: Path) -> None:
    bench = flat_benchmark(tmp_path, constraints=(Limit.parse("ms <= 8"),))
    order = np.argsort(-bench.metric)  # the best come first, and are beyond the limit
    trace = Trace(rows=order[:60].tolist(), arms=["random"] * 60)
    study = summarise(bench, Plan(tuple(parse_arms("random")), 1, 60), [[trace]])
    curve, inside = study.lines[0].curves[0], bench.feasible[order[:60]]
    first = int(np.argmax(inside))
    assert first > 0 and curve.metric[:first] == [None] * first
    assert curve.metric[-1] == bench.metric[bench.feasible].max() == study.best_metric
    assert curve.found_at == first + 1


def test_processes_change_nothing(bench: Benchmark) -> None:
    plan = Plan(tuple(parse_arms("mutation,local-search")), 3, 20, predictor=False)
    told: list[tuple[str, int]] = []
    alone = run_study(bench, plan, 1)
    shared = run_study(bench, plan, 2, lambda name, seed: told.append((name, seed)))
    assert [[t.rows for t in line] for line in alone] == [[t.rows for t in line] for line in shared]
    assert sorted(told) == [(name, seed) for name in ("local-search", "mutation") for seed in range(3)]


def test_pictures(bench: Benchmark, tmp_path: Path) -> None:
    study = study_of(bench, "mutation,local-search", 5, None)
    for name in ("a.svg", "a.png"):
        plot_regret(study, tmp_path / name)
    assert ElementTree.parse(tmp_path / "a.svg").getroot().tag.endswith("svg")
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(UserError, match=r"neither in \.png nor in \.svg"):
        check_plot(tmp_path / "a.pdf")
    with pytest.raises(UserError, match="no folder"):
        check_plot(tmp_path / "none" / "a.png")


def test_a_model_that_makes_a_portfolio_worse_is_told(bench: Benchmark) -> None:
    plan = Plan(tuple(parse_arms("mutation+llm", ["rubbish"])), 8, 30)

    def study(without: int | None, with_model: int | None) -> Study:
        return summarise(bench, plan, [traces(bench, 30, 8, found) for found in (without, with_model)])

    worse = study(3, None)
    assert worse.verdict.startswith("mutation+llm is significantly worse than mutation without a model in")
    assert {(each.against, each.model) for each in worse.comparisons} == {("mutation", "rubbish")}
    equal = study(3, 3)
    assert equal.verdict == (
        "mutation+llm is not significantly worse than mutation without a model "
        "(3 comparisons, paired over 8 seeds)"
    )
