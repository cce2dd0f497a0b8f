"""What each arm of a run proposed, what became of it, and what it gained over the control arm."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

from pydantic import BaseModel, ConfigDict

from cambrian.agents.evaluator.gain import Gain, gain_over_control
from cambrian.agents.evaluator.spending import ModelUse, money_text
from cambrian.agents.population.model import (
    BASELINE_ARM,
    CONTROL_ARM,
    FACTORIAL_ARM,
    Candidate,
    CandidateState,
    Evaluation,
)
from cambrian.agents.population.store import RunRecord
from cambrian.agents.wording import show_score

_YARDSTICKS = (BASELINE_ARM, FACTORIAL_ARM)
"""Belong to neither side of a gain."""


class ArmRow(BaseModel):
    """One arm.

    Attributes:
        proposals: candidates that it proposed, whatever became of them.
        evaluated: those with a score.
        best: its best score among the feasible, with the run's seed.
        gain: relative improvement of its mean over that of the control arm, in per cent; None for yardsticks
            and with too little data.
        low: lower end of the bootstrap interval of `gain`.
        high: its upper end.
        cost_s: seconds that its candidates spent in sandboxes, repeats included.
        asked: what its questions to models cost; None for an arm that asks none.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    arm: str
    proposals: int
    duplicates: int
    evaluated: int
    best: float | None = None
    gain: float | None = None
    low: float | None = None
    high: float | None = None
    cost_s: float
    asked: ModelUse | None = None


def run_gain(run: RunRecord, candidates: Sequence[Candidate]) -> Gain | None:
    """The gain of all guided arms together over the control arm; None when that was off.

    Compares what the run ranks by at rung 0, which all arms' candidates have. All have one recipe, or choose
    theirs from the same genes: then the gain is of both together.
    """
    worth = _worth_by_arm(run, candidates)
    if not worth[CONTROL_ARM] and not any(c.proposal.arm == CONTROL_ARM for c in candidates):
        return None
    others = [value for arm, values in worth.items() if arm != CONTROL_ARM for value in values]
    return gain_over_control(others, worth[CONTROL_ARM], maximize=run.maximize)


def arm_table(
    run: RunRecord,
    candidates: Sequence[Candidate],
    evaluations: Sequence[Evaluation],
    asked: Mapping[str, ModelUse] | None = None,
) -> tuple[ArmRow, ...]:
    """One row for each arm that proposed or asked anything: the known networks and the control arm first.

    Args:
        run: whose arms they are.
        candidates: of the run.
        evaluations: of the run.
        asked: what questions to models cost, by arm; see `Spending.arms`.
    """
    asked = asked or {}
    worth = _worth_by_arm(run, candidates)
    arm_of = {c.id: c.proposal.arm for c in candidates}
    cost: defaultdict[str, float] = defaultdict(float)
    for evaluation in evaluations:
        cost[arm_of.get(evaluation.candidate_id, "")] += evaluation.wall_s
    order = {BASELINE_ARM: 0, CONTROL_ARM: 1}
    rows = []
    for arm in sorted({*arm_of.values(), *asked}, key=lambda name: (order.get(name, 2), name)):
        own = [c for c in candidates if c.proposal.arm == arm]
        scores = [c.score for c in own if c.score is not None and c.feasible]
        guided = arm not in _YARDSTICKS and arm != CONTROL_ARM
        gain = gain_over_control(worth[arm], worth[CONTROL_ARM], maximize=run.maximize) if guided else None
        rows.append(
            ArmRow(
                arm=arm,
                proposals=len(own),
                duplicates=sum(c.state is CandidateState.DUPLICATE for c in own),
                evaluated=sum(c.score is not None for c in own),
                best=(max if run.maximize else min)(scores) if scores else None,
                gain=gain.relative_mean if gain is not None else None,
                low=gain.low if gain is not None else None,
                high=gain.high if gain is not None else None,
                cost_s=round(float(cost[arm]), 3),
                asked=asked.get(arm),
            )
        )
    return tuple(rows)


def arm_markdown(rows: Sequence[ArmRow], metric: str) -> str:
    """The table for MLflow; empty without rows."""
    if not rows:
        return ""
    asks = any(row.asked is not None for row in rows)
    lines = [
        "| arm | proposals | duplicates | evaluated | best | gain over random (95 %) | seconds |"
        + (" calls | tokens | money |" if asks else ""),
        "|---|---:|---:|---:|---:|---:|---:|" + ("---:|---:|---:|" if asks else ""),
    ]
    for row in rows:
        best = show_score(metric, row.best)
        gain = "-"
        if row.gain is not None and row.low is not None and row.high is not None:
            gain = f"{row.gain:+.2f} % ({row.low:+.2f} to {row.high:+.2f})"
        counts = f"{row.proposals} | {row.duplicates} | {row.evaluated}"
        line = f"| {row.arm} | {counts} | {best} | {gain} | {row.cost_s:.0f} |"
        lines.append(line + (_asked_cells(row.asked) if asks else ""))
    return "\n".join(lines) + "\n"


def _asked_cells(asked: ModelUse | None) -> str:
    if asked is None:
        return " - | - | - |"
    money = "unknown" if asked.money is None else money_text(asked.money)
    return f" {asked.calls} | {asked.tokens} | {money} |"


def _worth_by_arm(run: RunRecord, candidates: Sequence[Candidate]) -> defaultdict[str, list[float]]:
    found: defaultdict[str, list[float]] = defaultdict(list)
    for c in candidates:
        if c.rung_scores and c.feasible and c.proposal.arm not in _YARDSTICKS:
            found[c.proposal.arm].append(c.reward(c.rung_scores[0], run.maximize))
    return found
