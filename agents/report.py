"""What a run says at its end, in ten lines or fewer, and what `run` and `show` print as tables."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from pydantic import BaseModel, ConfigDict

from cambrian.agents.analyst.verdicts import hypotheses, hypotheses_text
from cambrian.agents.budget import clock_text
from cambrian.agents.champions import CHAMPIONS_KEY, ChampionsPlan, read_champions
from cambrian.agents.evaluator.arms import ArmRow, ModelRow, arm_table, model_table, run_gain
from cambrian.agents.evaluator.estimators import LATENCY, PREDICTOR, estimator_records
from cambrian.agents.evaluator.gain import Gain
from cambrian.agents.evaluator.hypervolume import HYPERVOLUME_KEY, Hypervolume, hypervolume_of_run
from cambrian.agents.evaluator.leaderboard import Standing, rank_run
from cambrian.agents.evaluator.noise import NoiseFloor
from cambrian.agents.evaluator.parts import GainParts
from cambrian.agents.evaluator.proxies import RankRecord, rank_lines
from cambrian.agents.evaluator.savings import Savings, savings
from cambrian.agents.evaluator.spending import ModelUse, Spending
from cambrian.agents.factorial import FACTORIAL_KEY, read_parts
from cambrian.agents.planner.exchange import ExchangeLog
from cambrian.agents.population.model import (
    BASELINE_ARM,
    CandidateState,
    Verdict,
)
from cambrian.agents.population.store import PopulationStore, RunRecord
from cambrian.agents.wording import plural, show_isolation
from cambrian.sandbox import Isolation

LINES = 10
"""Of a report for people, at most."""
COVERAGE_KEY = "coverage"
"""Under this key the store keeps what a run said of its archive at its end."""
PREDICTOR_KEY = "predictor"
"""Under this key the store keeps what a run said of its predictor at its end."""


class _Data(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Ledger(_Data):
    """What the run cost.

    Attributes:
        train_s: seconds inside sandboxes, over all slots.
        calls: requests to models.
        tokens: of their prompts and answers.
        money: US dollars for them; None where a price is not known.
        models: the same by model.
        roles: the same by role: `propose`, `repair`, `analyse`.
        saved: evaluations that were not paid for, by reason.
        identity: who proposed duplicates, and what they did not cost.
    """

    evaluations: int
    wall_s: float
    train_s: float
    calls: int
    tokens: int
    money: float | None = 0.0
    models: dict[str, ModelUse] = {}
    roles: dict[str, ModelUse] = {}
    candidates: int
    saved: dict[str, int]
    by_arm: dict[str, int]
    identity: Savings = Savings()

    def told(self, state: str) -> str:
        """In brackets the arms of duplicates and what they saved; empty for other states."""
        if state != CandidateState.DUPLICATE or not self.identity.duplicates:
            return ""
        arms = [f"{n} of {self.by_arm.get(arm, n)} by {arm}" for arm, n in self.identity.duplicates.items()]
        return f" ({', '.join(arms)}; saved {clock_text(self.identity.seconds)})"

    def asked(self) -> str:
        """What was asked of models, with the roles or models that shared in it."""
        total = ModelUse(calls=self.calls, tokens=self.tokens, money=self.money)
        parts = [f"{name} {use.tokens}" for name, use in self.roles.items() if use.calls]
        shared = [f"{name} {use.in_words()}" for name, use in self.models.items() if use.calls]
        said = shared if len(shared) > 1 else parts if len(parts) > 1 else []
        return total.in_words() + (f" ({', '.join(said)})" if said else "")


class IsolationUse(_Data):
    """How many evaluations had one isolation."""

    isolation: Isolation
    evaluations: int


class EndReport(_Data):
    """A run in short.

    Attributes:
        objective: what candidates are ranked by.
        noise: what two scores may differ by without meaning anything.
        champions: who was trained again with fresh seeds, and how far that came; empty when nobody was to be.
        hypervolume: of score and cost over the run; None while nobody feasible has both.
        coverage: how many cells of cost by family hold somebody, in words; empty before the end.
        arms: what each arm proposed, gained and cost; what was asked of models for no arm stands last.
        models: the same by model.
        isolation: what the evaluations ran in, the most frequent first.
        lost: candidates that lost their score, as it could not be reproduced.
        metric: name of the score.
        gain: of the arms over the random control arm, None when the control arm was off.
        parts: what architecture and recipe each brought, None for a run without recipe genes.
        baselines: the known networks' scores by name.
        predictor: how far the predictor could be trusted, in words; may be empty.
        estimators: how every estimator ranked the candidates that it had not seen.
        hypotheses: of the LLM arm's about score and cost, how many were borne out, refuted, or within
            the noise.
    """

    run_id: str
    status: str
    stop_reason: str
    metric: str
    maximize: bool
    objective: str = "pareto"
    leaderboard: tuple[Standing, ...]
    noise: NoiseFloor = NoiseFloor()
    champions: str = ""
    hypervolume: Hypervolume | None = None
    coverage: str = ""
    arms: tuple[ArmRow, ...] = ()
    models: tuple[ModelRow, ...] = ()
    isolation: tuple[IsolationUse, ...] = ()
    lost: tuple[str, ...] = ()
    gain: Gain | None
    parts: GainParts | None = None
    baselines: dict[str, float]
    ledger: Ledger
    predictor: str
    estimators: tuple[RankRecord, ...] = ()
    hypotheses: dict[Verdict, int] = {}
    next: str

    def lines(self, top: int = 3) -> list[str]:
        """The report for people: ten lines or fewer, with the `top` of the leaderboard."""
        head = f"{self.run_id}: {self.status}" + (f", {self.stop_reason}" if self.stop_reason else "")
        out = []
        if not self.leaderboard:
            out.append("no candidate was evaluated within the limits")
        else:
            out.append(
                ranking_text(
                    *(self.objective, self.champions, self.noise, self.hypervolume, self.metric),
                    coverage=self.coverage,
                )
            )
        if self.baselines:
            known = ", ".join(
                f"{name} {_score(value, self.metric)}" for name, value in self.baselines.items()
            )
            out.append(f"baselines: {known}")
        if self.gain is not None:
            out.append(self.gain.verdict)
        elif self.leaderboard:
            out.append("gain over random unknown: the random arm was off")
        if self.parts is not None:
            out.append(self.parts.verdict)
        told = hypotheses_text(self.hypotheses)
        if said := "; ".join(filter(None, [self._predictor(), *self._proxies(), told])):
            out.append(said)
        if said := "; ".join(filter(None, [self._reproduced(), self._isolation()])):
            out.append(said)
        cost = self.ledger
        spent = ", ".join(f"{n} {state}{cost.told(state)}" for state, n in cost.saved.items() if n) or "none"
        out.append(
            f"cost: {plural(cost.evaluations, 'evaluation')}, {clock_text(cost.wall_s)} of wall time, "
            f"{clock_text(cost.train_s)} in the sandbox, {cost.asked()}; "
            f"not paid for: {spent}"
        )
        out.append(f"next: {self.next}")
        top = min(top, max(1, LINES - 1 - len(out)))
        return [head, *(row_text(row, self.metric) for row in self.leaderboard[:top]), *out]

    def _predictor(self) -> str:
        return f"predictor: {self.predictor}" if self.predictor else ""

    def _proxies(self) -> list[str]:
        """How the zero-cost proxies ranked; the predictor and the latency model have words of their own."""
        return rank_lines(r for r in self.estimators if r.name not in {PREDICTOR, LATENCY})

    def _reproduced(self) -> str:
        """How much of the leaderboard came out of its weights again."""
        if not self.leaderboard and not self.lost:
            return ""
        done = sum(row.reproduced is True for row in self.leaderboard)
        said = f"reproduced from their weights: {done} of the first {len(self.leaderboard)}"
        return said + (
            f", {len(self.lost)} lost their score ({', '.join(self.lost[:3])})" if self.lost else ""
        )

    def _isolation(self) -> str:
        used = [f"{show_isolation(use.isolation)} ({use.evaluations})" for use in self.isolation]
        return f"isolation: {', '.join(used)}" if used else ""


def ranking_text(
    objective: str,
    champions: str,
    noise: NoiseFloor,
    volume: Hypervolume | None,
    metric: str,
    coverage: str = "",
) -> str:
    """By what the leaderboard is ordered, what may be chance, how far the front came, and how wide."""
    by = "score weighed by latency" if objective == "soft-latency" else "score"
    said = [f"ranked by {by}, {champions or 'single trainings'}", noise.in_words(metric)]
    if volume is not None:
        said.append(f"front of {volume.front}, {volume.verdict}")
    if coverage:
        said.append(f"archive: {coverage}")
    return "; ".join(said)


def row_text(row: Standing, metric: str) -> str:
    """One line of the leaderboard for people."""
    parts = [f"{row.place:>2}. {row.id}", f"{metric} {score_text(row, metric)}"]
    test = row.test_mean if row.champion else row.test_score
    if test is not None:
        parts.append(f"(test {_score(test, metric)})")
    if row.latency_ms is not None:
        parts.append(f"{row.latency_ms:.2f} ms")
    if row.parameters is not None:
        parts.append(f"{count_text(row.parameters)} params")
    tie = ", tied with the first" if row.tied else ""
    if not row.reproduced:
        tie += ", not reproduced yet"
    return " ".join(parts) + f"{tie}, {row.arm}: {row.summary}"


def score_text(row: Standing, metric: str) -> str:
    """A score; of a champion its mean over fresh seeds, and the score that got it chosen."""
    if not row.champion or row.mean is None:
        return _score(row.score, metric)
    mean, seeds = _score(row.mean, metric), f"{row.seeds} fresh seed{'s' if row.seeds > 1 else ''}"
    if row.half_width is not None:
        mean = f"{mean.removesuffix(' %')} ± {_score(row.half_width, metric)}"
    return f"{mean} over {seeds} ({_score(row.score, metric)} when chosen)"


def count_text(n: float) -> str:
    """`940`, `41.2k`, `1.3M`."""
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if n >= size:
            return f"{n / size:.3g}{unit}"
    return f"{n:.0f}"


def end_report(
    store: PopulationStore, exchanges: ExchangeLog | None = None, *, predictor: str = "", k: int = 10
) -> EndReport:
    """Build the report of a run from its store.

    Args:
        store: open for reading at least.
        exchanges: what was asked of models; None is nothing.
        predictor: one line on how far the predictor could be trusted; may be empty.
        k: rows of the leaderboard.
    """
    run, candidates = store.run, store.candidates()
    evaluations = store.evaluations()
    asked = Spending() if exchanges is None else Spending.of(exchanges, candidates)
    tried = {e.candidate_id for e in evaluations}
    states = Counter(c.state for c in candidates if c.id not in tried)
    unpaid = (
        CandidateState.DUPLICATE,
        CandidateState.INFEASIBLE,
        CandidateState.SCREENED,
        CandidateState.INVALID,
        CandidateState.REJECTED,
    )
    plan = read_champions(store.get_meta(CHAMPIONS_KEY), run.config.get("budget", {}))
    ranked = rank_run(run, candidates, evaluations, plan.ids() if plan is not None else ())
    board, noise = ranked.board[:k], ranked.noise
    best = board[0].id if board else None
    return EndReport(
        run_id=run.run_id,
        status=run.status,
        stop_reason=run.stop_reason,
        metric=run.metric,
        maximize=run.maximize,
        objective=objective_of(run),
        leaderboard=board,
        noise=noise,
        champions=champions_text(plan, ranked.board),
        hypervolume=hypervolume_of_run(run, candidates, evaluations, store.get_meta(HYPERVOLUME_KEY)),
        coverage=store.get_meta(COVERAGE_KEY) or "",
        arms=arm_table(run, candidates, evaluations, asked.arms),
        models=model_table(run, candidates, evaluations, asked.models),
        isolation=tuple(
            IsolationUse(isolation=isolation, evaluations=n)
            for isolation, n in Counter(e.isolation for e in evaluations).most_common()
        ),
        lost=tuple(c.id for c in candidates if c.reproduced is False),
        gain=run_gain(run, candidates),
        parts=read_parts(store.get_meta(FACTORIAL_KEY), run, candidates, evaluations, noise.error),
        baselines={
            c.proposal.edit: c.score
            for c in candidates
            if c.proposal.arm == BASELINE_ARM and c.score is not None
        },
        ledger=Ledger(
            evaluations=len(evaluations),
            wall_s=run.elapsed_s,
            train_s=sum(e.wall_s for e in evaluations) + sum(c.examined_s for c in candidates),
            calls=asked.total.calls,
            tokens=asked.total.tokens,
            money=asked.total.money,
            models=asked.models,
            roles=asked.roles,
            candidates=len(candidates),
            saved={state.value: states[state] for state in unpaid if states[state]},
            by_arm=dict(Counter(c.proposal.arm for c in candidates)),
            identity=savings(candidates, evaluations),
        ),
        predictor=predictor,
        estimators=estimator_records(run, candidates),
        hypotheses=hypotheses(candidates, run.cost),
        next=f"`cambrian ui`, `cambrian show {run.run_id}`"
        + (f", `cambrian export {run.run_id}/{best}`" if best else ""),
    )


def objective_of(run: RunRecord) -> str:
    """What a run ranks by."""
    return str((run.config.get("objective") or {}).get("kind", "pareto"))


def leader_of(store: PopulationStore) -> Standing | None:
    """The first of a run's leaderboard; None while nobody ranks."""
    run = store.run
    plan = read_champions(store.get_meta(CHAMPIONS_KEY), run.config.get("budget", {}))
    evaluations = store.evaluations() if plan is not None else []
    board = rank_run(run, store.candidates(), evaluations, plan.ids() if plan is not None else ()).board
    return board[0] if board else None


def champions_text(plan: ChampionsPlan | None, board: Sequence[Standing]) -> str:
    """What ranks the first places, in words; empty when nobody was to be trained again."""
    if plan is None or not plan.orders:
        return ""
    ids = plan.ids()
    made = sum(row.seeds for row in board if row.id in ids)
    wanted = sum(order.seeds for order in plan.orders)
    who = "the first" if len(plan.orders) == 1 else f"the first {len(plan.orders)}"
    said = f"{who} by the mean over {plan.orders[0].seeds} fresh seeds"
    return said + (f" ({made} of {wanted} trainings gave a score)" if made < wanted else "")


def _score(value: float, metric: str) -> str:
    return f"{100 * value:.2f} %" if "accuracy" in metric else f"{value:.4g}"
