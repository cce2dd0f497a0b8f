"""Whether one version of a prompt template did better than another: rates over runs, with their intervals.

A rate of a few questions says little, so that each comes with its count and its Wilson score interval (Wilson
1927), and two versions are told apart only where the interval of their difference, by Newcombe's hybrid score
method (Newcombe 1998, method 10), leaves out 0. Versions are compared within one space, task and model. They
were not drawn at random: what else changed between the runs, other templates above all, is said beside.
"""

from __future__ import annotations

import math
import statistics
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

from cambrian.agents.evaluator.prompt_questions import Question
from cambrian.agents.evaluator.prompt_rows import GOOD, Comparison, Gain, PromptsReport, VersionRow
from cambrian.agents.evaluator.shares import Rate, Z, newcombe
from cambrian.agents.planner.exchange import Exchange
from cambrian.agents.population.model import CONTROL_ARM, Candidate, CandidateState, Verdict

LEAST = 3
"""Scores on each side from which on a gain is told."""


@dataclass
class RunPrompts:
    """What one run tells of its prompts.

    Attributes:
        maximize: whether a higher score is better.
        cost: what the run ranks by beside the score; hypotheses about other numbers are not counted.
        candidates: all of the run.
        improved: ids of those better than their first parent beyond the noise; those that are worse or tied.
        compared: ids of those that could be compared with their first parent.
        origins: whose each version was, by template and version.
        exchanges: all of the run.
    """

    run: str
    space: str
    task: str
    maximize: bool
    questions: Sequence[Question]
    candidates: Sequence[Candidate]
    exchanges: Sequence[Exchange]
    improved: frozenset[str] = frozenset()
    compared: frozenset[str] = frozenset()
    origins: dict[tuple[str, str], str] = field(default_factory=dict)
    cost: str = "latency_ms"


@dataclass(frozen=True)
class _Used:
    """One question, or one turn, that a version had a part in."""

    run: RunPrompts
    question: Question | None
    exchange: Exchange


def prompts_report(runs: Iterable[RunPrompts]) -> PromptsReport:
    """All versions of all templates, compared.

    Args:
        runs: oldest first.
    """
    found: dict[tuple[str, str, str, str], dict[str, list[_Used]]] = defaultdict(dict)
    for run in runs:
        for used in _uses(run):
            for template, version in used.exchange.templates.items():
                if _speaks(template, used.exchange):
                    key = (run.space, run.task, used.exchange.model, template)
                    found[key].setdefault(version, []).append(used)
    rows: list[VersionRow] = []
    comparisons: list[Comparison] = []
    for key in sorted(found):
        versions = found[key]
        made = [_row(key, version, uses) for version, uses in versions.items()]
        rows += made
        newest = made[-1]
        for older in made[:-1]:
            changed = _changed(key[3], versions[older.version], versions[newest.version])
            comparisons += _compared(older, newest, changed)
    return PromptsReport(rows=tuple(rows), comparisons=tuple(comparisons))


def _uses(run: RunPrompts) -> Iterator[_Used]:
    for question in run.questions:
        for turn in question.turns:
            yield _Used(run, question, turn)
    asked = {turn.id for question in run.questions for turn in question.turns}
    for exchange in run.exchanges:
        if exchange.id not in asked:
            yield _Used(run, None, exchange)


def _speaks(template: str, exchange: Exchange) -> bool:
    """Whether what came of an exchange is told of this template: a repair's is the mended answer."""
    return (exchange.role == "repair") == (template == "repair.j2")


def _row(key: tuple[str, str, str, str], version: str, uses: Sequence[_Used]) -> VersionRow:
    space, task, model, template = key
    repairs = template == "repair.j2"
    questions = list({id(u.question): u.question for u in uses if u.question is not None}.values())
    answered = [u for u in uses if u.exchange.response is not None]
    if repairs:
        usable = [u for u in answered if u.question is not None and _was_usable(u.question, u.exchange)]
        first = after = len(usable)
    else:
        turns = [u.question.usable_turn for u in answered if u.question is not None]
        first, after = sum(turn == 1 for turn in turns), sum(turn is not None for turn in turns)
    asked = len([u for u in answered if u.question is not None])
    own = _candidates(uses, repairs)
    ids = {(run.run, c.id) for run, c in own}
    judged = [v for run, c in own if (v := c.counted_verdict(run.cost)) is not None]
    evaluated = [(run, c) for run, c in own if c.score is not None]
    compared = {
        (run.run, cid) for run in {id(u.run): u.run for u in uses}.values() for cid in run.compared
    } & ids
    improved = {
        (run.run, cid) for run in {id(u.run): u.run for u in uses}.values() for cid in run.improved
    } & ids
    turns_paid = _paid(uses, questions, repairs)
    tokens = sum(turn.usage.tokens for turn in turns_paid)
    prices = [turn.money for turn in turns_paid if turn.usage.tokens]
    money = None if any(price is None for price in prices) else math.fsum(p for p in prices if p is not None)
    n = len(evaluated)
    return VersionRow(
        space=space,
        task=task,
        model=model,
        template=template,
        version=version,
        origin=next((o for u in uses if (o := u.run.origins.get((template, version)))), ""),
        runs=tuple(dict.fromkeys(u.run.run for u in uses)),
        questions=len(uses),
        calls=sum(turn.calls for turn in turns_paid),
        valid_first=Rate.of(first, asked),
        valid=Rate.of(after, asked),
        duplicates=Rate.of(sum(c.state is CandidateState.DUPLICATE for _, c in own), len(own)),
        improved=Rate.of(len(improved & compared), len(compared)),
        borne_out=Rate.of(sum(v is Verdict.BORNE_OUT for v in judged), len(judged)),
        gain=_gain(evaluated),
        evaluated=n,
        tokens=tokens,
        money=money,
        tokens_per_evaluated=tokens / n if n else None,
        money_per_evaluated=money / n if n and money is not None else None,
    )


def _was_usable(question: Question, exchange: Exchange) -> bool:
    turn = question.usable_turn
    return turn is not None and question.turns[turn - 1].id == exchange.id


def _candidates(uses: Sequence[_Used], repairs: bool) -> list[tuple[RunPrompts, Candidate]]:
    """What came of the questions; of a repair template, of its own turns."""
    found = {}
    for use in uses:
        for candidate in use.question.candidates if use.question is not None else ():
            if not repairs or candidate.proposal.exchange == use.exchange.id:
                found[use.run.run, candidate.id] = (use.run, candidate)
    return list(found.values())


def _paid(uses: Sequence[_Used], questions: Sequence[Question], repairs: bool) -> list[Exchange]:
    """What was paid for: a question with its repair turns, or a turn by itself."""
    if repairs or not questions:
        return [u.exchange for u in uses]
    return [turn for question in questions for turn in question.turns]


def _gain(evaluated: Sequence[tuple[RunPrompts, Candidate]]) -> Gain:
    """Mean over candidates of the gain over their own run's control arm.

    The interval takes in the scatter of the candidates and that of each control mean, which all candidates of
    a run share (first order of Taylor, normal approximation).
    """
    by_run: defaultdict[str, list[float]] = defaultdict(list)
    runs = {run.run: run for run, _ in evaluated}
    for run, c in evaluated:
        if c.rung_scores and c.feasible:
            by_run[run.run].append(c.reward(c.rung_scores[0], run.maximize))
    gains: list[float] = []
    shared: list[tuple[int, float]] = []
    for name, worth in by_run.items():
        control = _control(runs[name])
        if len(control) < LEAST or not (mean := statistics.fmean(control)):
            continue
        sign = 1 if runs[name].maximize else -1
        gains += [100 * sign * (value - mean) / abs(mean) for value in worth]
        error = 100 * statistics.stdev(control) / abs(mean) / math.sqrt(len(control))
        shared.append((len(worth), error))
    n = len(gains)
    if n < LEAST:
        return Gain(n=n)
    variance = statistics.variance(gains) / n + math.fsum((k / n * error) ** 2 for k, error in shared)
    mean, half = statistics.fmean(gains), Z * math.sqrt(variance)
    return Gain(n=n, mean=mean, low=mean - half, high=mean + half)


def _control(run: RunPrompts) -> list[float]:
    own = [c for c in run.candidates if c.proposal.arm == CONTROL_ARM and c.rung_scores and c.feasible]
    return [c.reward(c.rung_scores[0], run.maximize) for c in own]


def _changed(template: str, older: Sequence[_Used], newer: Sequence[_Used]) -> tuple[str, ...]:
    """Other templates that were not the same in both."""
    versions: list[dict[str, set[str]]] = []
    for uses in (older, newer):
        seen: defaultdict[str, set[str]] = defaultdict(set)
        for use in uses:
            for name, version in use.exchange.templates.items():
                seen[name].add(version)
        versions.append(seen)
    names = sorted(versions[0].keys() | versions[1].keys())
    return tuple(n for n in names if n != template and versions[0].get(n) != versions[1].get(n))


def _compared(older: VersionRow, newer: VersionRow, changed: tuple[str, ...]) -> Iterator[Comparison]:
    for name, more_is_better in GOOD.items():
        before, after = getattr(older, name), getattr(newer, name)
        if not before.n or not after.n:
            continue
        low, high = newcombe(after, before)
        verdict: Literal["better", "worse", "no difference beyond chance"] = "no difference beyond chance"
        if low > 0 or high < 0:
            verdict = "better" if (low > 0) == more_is_better else "worse"
        yield Comparison(
            space=newer.space,
            task=newer.task,
            model=newer.model,
            template=newer.template,
            older=older.version,
            newer=newer.version,
            rate=name,
            difference=(after.share or 0.0) - (before.share or 0.0),
            low=low,
            high=high,
            verdict=verdict,
            together_with=changed,
        )
