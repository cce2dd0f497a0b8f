"""What each arm of a run proposed, what became of it, and what it gained over the control arm."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from pydantic import BaseModel, ConfigDict

from cambrian.agents.evaluator.gain import Gain, gain_over_control
from cambrian.agents.evaluator.spending import ANALYST, UNREADABLE, ModelUse
from cambrian.agents.population.model import (
    BASELINE_ARM,
    CONTROL_ARM,
    FACTORIAL_ARM,
    Candidate,
    CandidateState,
    Evaluation,
)
from cambrian.agents.population.store import RunRecord
from cambrian.agents.wording import escape_markdown, show_score

_YARDSTICKS = (BASELINE_ARM, FACTORIAL_ARM)
"""Belong to neither side of a gain."""


class Brought(BaseModel):
    """What the candidates of one author brought.

    Attributes:
        proposals: candidates that it proposed, whatever became of them.
        failed: those that were no members of the space, or that no score could be got out of.
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

    proposals: int
    duplicates: int
    failed: int = 0
    evaluated: int
    best: float | None = None
    gain: float | None = None
    low: float | None = None
    high: float | None = None
    cost_s: float
    asked: ModelUse | None = None

    @property
    def gain_text(self) -> str:
        """Such as `+1.20 % (+0.30 to +2.10)`; empty for None."""
        if self.gain is None or self.low is None or self.high is None:
            return ""
        return f"{self.gain:+.2f} % ({self.low:+.2f} to {self.high:+.2f})"


class ArmRow(Brought):
    """One arm, or who else asked models: `ANALYST`, `UNREADABLE`."""

    arm: str


class ModelRow(Brought):
    """One model; what it cost holds its repairs and analyses too."""

    model: str


def run_gain(run: RunRecord, candidates: Sequence[Candidate]) -> Gain | None:
    """The gain of all guided arms together over the control arm; None when that was off.

    Compares what the run ranks by at rung 0, which all arms' candidates have. All have one recipe, or choose
    theirs from the same genes: then the gain is of both together.
    """
    control = [c for c in candidates if c.proposal.arm == CONTROL_ARM]
    if not control:
        return None
    others = _worth(run, (c for c in candidates if c.proposal.arm != CONTROL_ARM))
    return gain_over_control(others, _worth(run, control), maximize=run.maximize)


def arm_table(
    run: RunRecord,
    candidates: Sequence[Candidate],
    evaluations: Sequence[Evaluation],
    asked: Mapping[str, ModelUse] | None = None,
) -> tuple[ArmRow, ...]:
    """One row for each arm that proposed or asked anything: the known networks and the control arm first.

    What else was asked of models stands in rows of its own at the end, so that all rows add up.

    Args:
        run: whose arms they are.
        candidates: of the run.
        evaluations: of the run.
        asked: what questions to models cost, by arm; see `Spending.arms`.
    """
    asked = asked or {}
    found = _rows(run, candidates, evaluations, asked, lambda c: c.proposal.arm)
    order = {BASELINE_ARM: 0, CONTROL_ARM: 1, ANALYST: 3, UNREADABLE: 4}
    names = sorted(found, key=lambda name: (order.get(name, 2), name))
    return tuple(ArmRow(arm=name, **found[name]) for name in names)


def model_table(
    run: RunRecord,
    candidates: Sequence[Candidate],
    evaluations: Sequence[Evaluation],
    asked: Mapping[str, ModelUse] | None = None,
) -> tuple[ModelRow, ...]:
    """One row for each model that proposed or was asked anything, by name.

    Args:
        run: whose models they are.
        candidates: of the run.
        evaluations: of the run.
        asked: what questions to models cost, by model; see `Spending.models`.
    """
    found = _rows(run, candidates, evaluations, asked or {}, lambda c: c.proposal.model)
    names = sorted(found.keys() - {""}, key=lambda name: (name == UNREADABLE, name))
    return tuple(ModelRow(model=name, **found[name]) for name in names)


def _rows(
    run: RunRecord,
    candidates: Sequence[Candidate],
    evaluations: Sequence[Evaluation],
    asked: Mapping[str, ModelUse],
    author: Callable[[Candidate], str],
) -> dict[str, dict[str, Any]]:
    """The fields of `Brought` by author."""
    own: defaultdict[str, list[Candidate]] = defaultdict(list)
    for candidate in candidates:
        own[author(candidate)].append(candidate)
    author_of = {c.id: name for name, theirs in own.items() for c in theirs}
    cost: defaultdict[str, float] = defaultdict(float)
    for evaluation in evaluations:
        cost[author_of.get(evaluation.candidate_id, "")] += evaluation.wall_s
    control = _worth(run, [c for c in candidates if c.proposal.arm == CONTROL_ARM])
    found = {}
    for name in {*own, *asked}:
        theirs = own[name]
        states = Counter(c.state for c in theirs)
        scores = [c.score for c in theirs if c.score is not None and c.feasible]
        guided = any(c.proposal.arm not in (*_YARDSTICKS, CONTROL_ARM) for c in theirs)
        gain = gain_over_control(_worth(run, theirs), control, maximize=run.maximize) if guided else None
        found[name] = {
            "proposals": len(theirs),
            "duplicates": states[CandidateState.DUPLICATE],
            "failed": states[CandidateState.FAILED] + states[CandidateState.INVALID],
            "evaluated": sum(c.score is not None for c in theirs),
            "best": (max if run.maximize else min)(scores) if scores else None,
            "gain": gain.relative_mean if gain is not None else None,
            "low": gain.low if gain is not None else None,
            "high": gain.high if gain is not None else None,
            "cost_s": round(float(cost[name]), 3),
            "asked": asked.get(name),
        }
    return found


def brought_markdown(what: str, rows: Mapping[str, Brought], metric: str) -> str:
    """A table of arms or models for MLflow; empty without rows.

    Args:
        what: the rows are, such as `arm`.
        rows: by name.
        metric: name of the score.
    """
    if not rows:
        return ""
    asks = any(row.asked is not None for row in rows.values())
    lines = [
        f"| {what} | proposals | duplicates | failed | evaluated | best | gain over random (95 %) | seconds |"
        + (" calls | tokens | money |" if asks else ""),
        "|---|---:|---:|---:|---:|---:|---:|---:|" + ("---:|---:|---:|" if asks else ""),
    ]
    for name, row in rows.items():
        counts = f"{row.proposals} | {row.duplicates} | {row.failed} | {row.evaluated}"
        best, gain = show_score(metric, row.best), row.gain_text or "-"
        line = f"| {escape_markdown(name)} | {counts} | {best} | {gain} | {row.cost_s:.0f} |"
        lines.append(line + (_asked_cells(row.asked) if asks else ""))
    return "\n".join(lines) + "\n"


def arm_markdown(rows: Sequence[ArmRow], metric: str) -> str:
    """The table of arms for MLflow; empty without rows."""
    return brought_markdown("arm", {row.arm: row for row in rows}, metric)


def model_markdown(rows: Sequence[ModelRow], metric: str) -> str:
    """The table of models for MLflow; empty for fewer than two, as an arm's row says it all then."""
    return brought_markdown("model", {row.model: row for row in rows}, metric) if len(rows) > 1 else ""


def _asked_cells(asked: ModelUse | None) -> str:
    return f" {' | '.join(('-', '-', '-') if asked is None else asked.cells)} |"


def _worth(run: RunRecord, candidates: Iterable[Candidate]) -> list[float]:
    """What candidates are worth at rung 0 by what the run ranks by, those of the yardsticks left out."""
    return [
        c.reward(c.rung_scores[0], run.maximize)
        for c in candidates
        if c.rung_scores and c.feasible and c.proposal.arm not in _YARDSTICKS
    ]
