"""What came out of a study: evaluations to the best row, incumbents, and whether differences are chance."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from cambrian.agents.benching.benchmark import Benchmark
from cambrian.agents.benching.loop import Trace
from cambrian.agents.benching.searchers import DEFAULT, Searcher, singles_of, twin_of

if TYPE_CHECKING:
    from cambrian.agents.benching.study import Plan

Floats = NDArray[np.float64]
CHECKPOINTS = (20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000)
LEVEL = 0.95
RESAMPLES = 2000
LEAST_SEEDS = 6
"""Pairs below which the signed-rank test cannot reach its level, whatever they are."""


class _Data(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Curve(_Data):
    """One search. Lists have one entry an evaluation; the incumbent is the best feasible row so far.

    Attributes:
        found_at: evaluation by which a best row was found; None if it was not.
        metric: of the incumbent; None before there was a feasible row.
        report: of the incumbent.
        by_arm: evaluations by the arm that proposed them.
        duplicates: free proposals of what was known, by arm.
        barren: times that an arm was asked and had nothing usable, by arm.
        calls: requests to a model.
        tokens: of its prompts and answers.
        ended: why it ended early; empty when all evaluations were spent.
    """

    seed: int
    found_at: int | None
    metric: list[float | None]
    report: list[float | None]
    by_arm: dict[str, int]
    proposals: int
    duplicates: dict[str, int]
    screened: int
    refused: int
    barren: dict[str, int] = {}
    calls: int = 0
    tokens: int = 0
    seconds: float
    ended: str


class Incumbents(_Data):
    """The incumbents of all seeds after so many evaluations.

    Attributes:
        mean: of their report values; None while a seed has no feasible row.
        std: sample standard deviation; 0 with one seed.
        regret: mean distance of their report values from the table's best one, never negative.
        median_regret: the same, median.
    """

    evaluations: int
    mean: float | None
    std: float | None
    regret: float | None
    median_regret: float | None


class Line(_Data):
    """One searcher.

    Attributes:
        weights: by arm; empty for a peer.
        found: seeds that found a best row.
        median: evaluations until then, over all seeds; None where more than a search may make.
        q1: lower quartile; None as above.
        q3: upper quartile; None as above.
        ms_per_evaluation: of processor time.
    """

    name: str
    weights: dict[str, float]
    found: int
    median: float | None
    q1: float | None
    q3: float | None
    incumbents: list[Incumbents]
    ms_per_evaluation: float
    curves: list[Curve]


class Comparison(_Data):
    """A searcher against its best single arm, or against what it is without a model; in one measure.

    Searches are paired by seed.

    Attributes:
        measure: `report after 100`, or `evaluations to best` (a search that did not find it counts as one
            more than it may make).
        against: the single arm with the best mean in this measure, or what the searcher is without a model.
        model: that the searcher asks; empty without one.
        difference: mean advantage of the searcher over it; positive is better.
        low: lower end of the paired bootstrap interval of `difference` (95 %).
        high: its upper end.
        p: of Wilcoxon's signed-rank test, two-sided; 1 where there is no difference.
        worse: the interval lies below 0 and p is under 5 %.
    """

    searcher: str
    measure: str
    against: str
    model: str = ""
    difference: float
    low: float
    high: float
    p: float
    worse: bool


class Study(_Data):
    """All of it.

    Attributes:
        report: column that incumbents are judged by.
        best_metric: of the best row.
        best_report: the best report value of any feasible row.
        notes: what was left out of the table or filled in.
        verdict: one line on the default portfolio, and one on each searcher that asks a model; empty where
            there was nothing to compare.
    """

    table: str
    space: str
    members: int
    metric: str
    report: str
    maximize: bool
    constraints: list[str]
    identity: str
    seeds: int
    evaluations: int
    best_metric: float
    best_report: float
    best_rows: int
    notes: list[str]
    lines: list[Line]
    comparisons: list[Comparison]
    verdict: str


def summarise(benchmark: Benchmark, plan: Plan, traces: Sequence[Sequence[Trace]]) -> Study:
    """Figures of a study."""
    most = min(plan.evaluations, benchmark.space.size)
    lines = [
        _line(benchmark, searcher, found, most, plan.first_seed)
        for searcher, found in zip(plan.searchers, traces, strict=True)
    ]
    comparisons = _comparisons(plan.searchers, lines, benchmark.sign, most)
    best = next(iter(benchmark.best_rows))
    options = benchmark.options
    return Study(
        table=benchmark.task.name,
        space=benchmark.space.name,
        members=benchmark.space.size,
        metric=options.metric,
        report=options.report or options.metric,
        maximize=benchmark.maximize,
        constraints=[str(limit) for limit in options.constraints],
        identity=options.identity,
        seeds=plan.seeds,
        evaluations=most,
        best_metric=float(benchmark.metric[best]),
        best_report=benchmark.best_report,
        best_rows=len(benchmark.best_rows),
        notes=list(benchmark.notes),
        lines=lines,
        comparisons=comparisons,
        verdict=_verdict(comparisons, plan.seeds, plan.searchers),
    )


def _line(
    benchmark: Benchmark, searcher: Searcher, traces: Sequence[Trace], most: int, first_seed: int
) -> Line:
    curves = [_curve(benchmark, trace, most, first_seed + at) for at, trace in enumerate(traces)]
    to_best = _to_best(curves, most)
    q1, median, q3 = (None if q > most else float(q) for q in np.quantile(to_best, [0.25, 0.5, 0.75]))
    reports = _reports(curves)
    incumbents = []
    for at in checkpoints(most):
        values = reports[:, at - 1]
        known = not np.isnan(values).any()
        regrets = benchmark.sign * (benchmark.best_report - values)
        incumbents.append(
            Incumbents(
                evaluations=at,
                mean=float(values.mean()) if known else None,
                std=(float(values.std(ddof=1)) if len(values) > 1 else 0.0) if known else None,
                regret=float(regrets.mean()) if known else None,
                median_regret=float(np.median(regrets)) if known else None,
            )
        )
    paid = sum(len(trace.rows) for trace in traces)
    return Line(
        name=searcher.name,
        weights=dict(searcher.weights),
        found=sum(curve.found_at is not None for curve in curves),
        median=median,
        q1=q1,
        q3=q3,
        incumbents=incumbents,
        ms_per_evaluation=1000 * sum(trace.seconds for trace in traces) / max(1, paid),
        curves=curves,
    )


def _curve(benchmark: Benchmark, trace: Trace, most: int, seed: int) -> Curve:
    """The incumbent after each evaluation; a search that ended early keeps its last one."""
    metric: list[float | None] = []
    report: list[float | None] = []
    best: int | None = None
    found_at = None
    for at, row in enumerate(trace.rows, start=1):
        better = best is None or benchmark.sign * (benchmark.metric[row] - benchmark.metric[best]) > 0
        if benchmark.feasible[row] and better:
            best = row
        if found_at is None and benchmark.identity(row) in benchmark.best_identities:
            found_at = at
        metric.append(None if best is None else float(benchmark.metric[best]))
        report.append(None if best is None else float(benchmark.report[best]))
    for values in (metric, report):
        values.extend([values[-1] if values else None] * (most - len(values)))
    return Curve(
        seed=seed,
        found_at=found_at,
        metric=metric,
        report=report,
        by_arm={arm: trace.arms.count(arm) for arm in dict.fromkeys(trace.arms)},
        proposals=trace.proposals,
        duplicates=dict(trace.duplicates),
        screened=trace.screened,
        refused=trace.refused,
        barren=dict(trace.barren),
        calls=trace.calls,
        tokens=trace.tokens,
        seconds=round(trace.seconds, 4),
        ended=trace.ended,
    )


def checkpoints(most: int) -> list[int]:
    """Numbers of evaluations that incumbents are shown at; the last is `most`."""
    return [*(at for at in CHECKPOINTS if at < most), most]


def _to_best(curves: Sequence[Curve], most: int) -> Floats:
    """Evaluations to a best row; those that did not find one count as `most + 1`."""
    return np.array([most + 1 if c.found_at is None else c.found_at for c in curves], dtype=np.float64)


def _reports(curves: Sequence[Curve]) -> Floats:
    """Report values of incumbents, `(seeds, evaluations)`; NaN before there was one."""
    return np.array([c.report for c in curves], dtype=np.float64)


def _comparisons(
    searchers: Sequence[Searcher], lines: Sequence[Line], sign: float, most: int
) -> list[Comparison]:
    """Each portfolio against the best of its single arms; one that asks a model against itself without."""
    by_name = {line.name: line for line in lines}
    found = []
    for searcher in searchers:
        twin = twin_of(searchers, searcher)
        singles = [by_name[each.name] for each in ([twin] if twin else singles_of(searchers, searcher))]
        alone = searcher.single or (searcher.model and not twin)
        if not singles or alone or len(by_name[searcher.name].curves) < 2:
            continue
        own = by_name[searcher.name].curves
        reports = {line.name: sign * _reports(line.curves) for line in singles}
        for at in checkpoints(most):
            ours, theirs = sign * _reports(own)[:, at - 1], {n: r[:, at - 1] for n, r in reports.items()}
            if not (np.isnan(ours).any() or any(np.isnan(each).any() for each in theirs.values())):
                found.append(_comparison(searcher, f"report after {at}", ours, theirs))
        theirs = {line.name: -_to_best(line.curves, most) for line in singles}
        found.append(_comparison(searcher, "evaluations to best", -_to_best(own, most), theirs))
    return found


def _comparison(searcher: Searcher, measure: str, ours: Floats, singles: dict[str, Floats]) -> Comparison:
    """All higher is better, one value a seed."""
    best = max(singles, key=lambda single: float(singles[single].mean()))
    differences = ours - singles[best]
    rng = np.random.default_rng(0)
    drawn = rng.integers(0, len(differences), size=(RESAMPLES, len(differences)))
    tail = 50 * (1 - LEVEL)
    low, high = np.percentile(differences[drawn].mean(axis=1), [tail, 100 - tail])
    p = 1.0
    if differences.any():
        from scipy.stats import wilcoxon

        p = float(wilcoxon(differences, zero_method="zsplit").pvalue)
    return Comparison(
        searcher=searcher.name,
        measure=measure,
        against=best,
        model=searcher.model,
        difference=float(differences.mean()),
        low=float(low),
        high=float(high),
        p=p,
        worse=bool(high < 0 and p < 1 - LEVEL),
    )


def _verdict(comparisons: Sequence[Comparison], seeds: int, searchers: Sequence[Searcher]) -> str:
    """One line on the first portfolio that was compared, `default` where it took part; and on models."""
    asking = dict.fromkeys(each.searcher for each in comparisons if each.model)
    told = [_verdict_on_model([each for each in comparisons if each.searcher == n], seeds) for n in asking]
    names = list(dict.fromkeys(each.searcher for each in comparisons if not each.model))
    if names:
        told.insert(0, _verdict_on_portfolio(names, comparisons, seeds, searchers))
    return "\n".join(told)


def _verdict_on_model(own: Sequence[Comparison], seeds: int) -> str:
    name, against = own[0].searcher, own[0].against
    if worse := [f"{each.measure} (p = {each.p:.2g})" for each in own if each.worse]:
        return f"{name} is significantly worse than {against} without a model in: {'; '.join(worse)}"
    if seeds < LEAST_SEEDS:
        return f"{name} against {against}: {seeds} seeds can show no difference, {LEAST_SEEDS} may"
    return (
        f"{name} is not significantly worse than {against} without a model "
        f"({len(own)} comparisons, paired over {seeds} seeds)"
    )


def _verdict_on_portfolio(
    names: Sequence[str], comparisons: Sequence[Comparison], seeds: int, searchers: Sequence[Searcher]
) -> str:
    name = DEFAULT if DEFAULT in names else names[0]
    own = [each for each in comparisons if each.searcher == name]
    worse = [f"{each.measure} ({each.against}, p = {each.p:.2g})" for each in own if each.worse]
    if worse:
        return f"{name} is significantly worse than its best single arm in: {'; '.join(worse)}"
    if seeds < LEAST_SEEDS:
        return f"{name} against its single arms: {seeds} seeds can show no difference, {LEAST_SEEDS} may"
    portfolio = next(each for each in searchers if each.name == name)
    against = ", ".join(each.name for each in singles_of(searchers, portfolio))
    return (
        f"{name} is never significantly worse than the best of its single arms that took part, {against} "
        f"({len(own)} comparisons, paired over {seeds} seeds)"
    )
