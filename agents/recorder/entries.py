"""What MLflow shows of a candidate and of a run: names, parameters, metrics, tags. No MLflow in here."""

from __future__ import annotations

import getpass
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from cambrian.agents.evaluator.noise import repeats_by_candidate
from cambrian.agents.evaluator.ranking import RankKey, rank_key
from cambrian.agents.evaluator.savings import savings
from cambrian.agents.planner.endpoint import without_credentials
from cambrian.agents.population.model import CONTROL_ARM, Candidate, CandidateState, Evaluation
from cambrian.agents.population.store import RunRecord
from cambrian.agents.recorder.tracking import MetricPoint
from cambrian.agents.sections import Constraint
from cambrian.agents.wording import flatten_config, flatten_genes, one_line, show_reproduced, show_score

TAG_CANDIDATE = "cambrian.candidate"
TAG_RUN = "cambrian.run"
TAG_ROLE = "cambrian.role"
TAG_NOTE_HASH = "cambrian.note"
TAG_REVIEW = "review"
TAG_REASON = "review.reason"
NOTE = "mlflow.note.content"
PENDING = "pending"

_MLFLOW_STATUS = {
    CandidateState.PROPOSED: "RUNNING",
    CandidateState.PARKED: "SCHEDULED",
    CandidateState.TRAINING: "RUNNING",
    CandidateState.EVALUATED: "FINISHED",
    CandidateState.FAILED: "FAILED",
}
_PARENT_STATUS = {"running": "RUNNING", "finished": "FINISHED", "stopped": "KILLED"}


@dataclass(frozen=True)
class Entry:
    """One MLflow run as it should be; times in seconds since the epoch, `end` None while it goes on."""

    name: str
    status: str
    start: float
    end: float | None = None
    params: dict[str, str] = field(default_factory=dict)
    metrics: tuple[MetricPoint, ...] = ()
    tags: dict[str, str] = field(default_factory=dict)


def candidate_entry(
    candidate: Candidate, evaluations: Sequence[Evaluation], run: RunRecord, champion: bool = False
) -> Entry:
    """The child run of a candidate; `champion`: it was chosen to be trained again with fresh seeds.

    Equal candidates give equal entries, times of metrics included, so that a repeated delivery adds nothing.
    """
    state, arm = candidate.state, candidate.proposal.arm
    start = candidate.created_s or run.created
    ended = state.ended
    return Entry(
        name=candidate_name(candidate, run.metric),
        status=_MLFLOW_STATUS.get(state, "KILLED"),
        start=start,
        end=(candidate.ended_s or start) if ended else None,
        params=_params(candidate),
        metrics=tuple(_metrics(candidate, evaluations, run, champion)),
        tags=_drop_empty(
            {
                TAG_CANDIDATE: candidate.id,
                TAG_RUN: run.run_id,
                "state": state.value,
                "reason": one_line(candidate.reason, 500),
                "arm": arm,
                "identity": candidate.identity or "",
                "duplicate_of": candidate.duplicate_of or "",
                "nearest": candidate.nearest.id if candidate.nearest is not None else "",
                "exchange": candidate.proposal.exchange or "",
                "model": candidate.proposal.model,
                "operator": candidate.proposal.operator,
                "idea": candidate.proposal.idea,
                "verdict": candidate.lesson.verdict.value if candidate.lesson is not None else "",
                "feasible": "" if candidate.score is None else "yes" if candidate.feasible else "no",
                "reproduced": show_reproduced(candidate.reproduced),
                **_isolation(evaluations),
                **_source(),
            }
        ),
    )


def candidate_name(candidate: Candidate, metric: str) -> str:
    """`c-0012 mutation 97.13 %`, or the state where there is no score."""
    if candidate.state is CandidateState.DUPLICATE and candidate.duplicate_of:
        ending = f"same as {candidate.duplicate_of}"
    elif candidate.state is CandidateState.EVALUATED:
        ending = show_score(metric, candidate.score)
    else:
        ending = candidate.state.value
    return f"{candidate.id} {candidate.proposal.arm} {ending}"


def run_entry(run: RunRecord) -> Entry:
    """The parent run of a discovery run; its metrics come with the pictures."""
    params = flatten_config(public_config(run.config))
    if constraints := read_constraints(run.config):
        params["constraints"] = ", ".join(str(constraint) for constraint in constraints)
    return Entry(
        name=run.run_id,
        status=_PARENT_STATUS[run.status],
        start=run.created,
        params=params,
        tags=_drop_empty(
            {
                TAG_RUN: run.run_id,
                TAG_ROLE: "run",
                "state": run.status,
                "reason": one_line(run.stop_reason, 500),
                "sandbox": run.sandbox,
                **_source(),
            }
        ),
    )


def public_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """A resolved configuration without what may hold a secret: user and password in addresses of models.

    Keys of models are read from the environment and never stand in it.
    """
    shown = dict(config)
    llm = shown.get("llm")
    if isinstance(llm, Mapping):
        models = [_public_address(each) for each in llm.get("models") or ()]
        shown["llm"] = _public_address(llm) | ({"models": models} if models else {})
    return shown


def _public_address(section: Mapping[str, Any]) -> dict[str, Any]:
    address = section.get("base_url")
    return dict(section) | ({"base_url": without_credentials(address)} if isinstance(address, str) else {})


def seed_of(run: RunRecord) -> int:
    """The run's own seed; evaluations with another one are repeats."""
    return int(run.config.get("seed", 0))


def read_constraints(config: Mapping[str, Any]) -> tuple[Constraint, ...]:
    """The hard limits in a resolved configuration."""
    return tuple(Constraint.model_validate(item) for item in config.get("constraints") or ())


def run_metrics(
    run: RunRecord,
    candidates: Sequence[Candidate],
    evaluations: Sequence[Evaluation],
    best: Candidate | None,
) -> tuple[MetricPoint, ...]:
    """What the parent run shows: the champion's numbers, and how the best score rose, of all and of control.

    The best is the leaderboard's first at that moment: where the first candidate of a higher rung takes over,
    its score may be less than the one before. Only changes are points of a curve, so that it stays short
    however long the run is.

    Args:
        run: what the score means.
        candidates: all of them.
        evaluations: all of them in order; those that `candidates` do not know yet are passed over.
        best: the champion.
    """
    scored = [c for c in candidates if c.state is CandidateState.EVALUATED and c.score is not None]
    at = max([c.ended_s or 0.0 for c in candidates], default=0.0) or run.created
    saved = savings(candidates, evaluations)
    points = [
        MetricPoint("candidates", float(len(candidates)), at, len(candidates)),
        MetricPoint("evaluated", float(len(scored)), at, len(candidates)),
        MetricPoint("duplicates", float(sum(saved.duplicates.values())), at, len(candidates)),
        MetricPoint("saved_s", saved.seconds, at, len(candidates)),
    ]
    control = [c for c in scored if c.proposal.arm == CONTROL_ARM]
    for key, group in ((f"best_{run.metric}", scored), (f"random_best_{run.metric}", control)):
        points += _best_so_far(key, run, group, evaluations, at)
    if best is not None:
        own = {"score": best.score, run.metric: best.score, f"test_{run.metric}": best.test_score}
        own |= {key: value for key, value in best.values().items() if key != "score"}
        points += [MetricPoint(k, v, at, len(scored)) for k, v in own.items() if v is not None]
    return tuple(point for point in points if math.isfinite(point.value))


def moments(
    run: RunRecord, group: Sequence[Candidate], evaluations: Sequence[Evaluation], now: float
) -> list[float]:
    """When each evaluation ended, about, for MLflow's curves; those of others than `group` take no time.

    The curves are append-only, so that a time is reckoned from what the store will never change.
    """
    by_id = {c.id: c for c in group}
    spent: dict[str, float] = {}
    at, found = run.created, []
    for evaluation in evaluations:
        candidate = by_id.get(evaluation.candidate_id)
        if candidate is not None:
            spent[candidate.id] = spent.get(candidate.id, 0.0) + evaluation.wall_s
            at = min(now, max(at, candidate.created_s + spent[candidate.id]))
        found.append(at)
    return found


def _best_so_far(
    key: str, run: RunRecord, group: Sequence[Candidate], evaluations: Sequence[Evaluation], now: float
) -> list[MetricPoint]:
    """The best of `group` over the evaluations, up to now.

    A step is an evaluation, which stays what it was when its candidate climbs on.
    """
    by_id = {c.id: c for c in group}
    top: RankKey | None = None
    points: list[MetricPoint] = []
    times = moments(run, group, evaluations, now)
    for step, (at, evaluation) in enumerate(zip(times, evaluations, strict=True), start=1):
        candidate = by_id.get(evaluation.candidate_id)
        if candidate is None or evaluation.seed != seed_of(run):
            continue
        if evaluation.rung >= len(candidate.rung_scores):
            continue  # gave no score
        score = candidate.rung_scores[evaluation.rung]
        then = candidate.model_copy(update={"rung": evaluation.rung, "score": score})
        place = rank_key(then, run.maximize)
        if place is not None and (top is None or place[:2] < top[:2]):
            top = place
            points.append(MetricPoint(key, score, at, step))
    if points:
        points.append(MetricPoint(key, points[-1].value, now, len(evaluations)))
    return points


def standing(candidate: Candidate, maximize: bool, mean: float | None = None) -> float | None:
    """The leaderboard's order as one number, by which a table of MLflow's can be sorted; more is better.

    Its whole part is the rung; the fraction rises with the score, and of a champion, above one half, with the
    mean over fresh seeds. Equal scores are equal here, where the leaderboard goes on to compare costs. -1 for
    those that break a limit, -2 for those that lost their score as it could not be reproduced, None without a
    score.

    Args:
        candidate: to be placed.
        maximize: whether a higher score is better.
        mean: over fresh seeds, of a champion; None for all others.
    """
    if candidate.reproduced is False:
        return -2.0
    if candidate.state is not CandidateState.EVALUATED or candidate.score is None:
        return None
    told = candidate if mean is None else candidate.model_copy(update={"score": mean})
    key = rank_key(told, maximize)
    if key is None:
        return -1.0
    share = 0.5 - math.atan(key[1]) / math.pi
    return -key[0] + share / 2 + (0.5 if mean is not None else 0.0)


def _params(candidate: Candidate) -> dict[str, str]:
    """Never changed once written: the genes wait until the space has made them canonical."""
    proposal = candidate.proposal
    params = {
        "arm": proposal.arm,
        "parents": ", ".join(proposal.parents),
        "edit": one_line(proposal.edit, 300),
    }
    if candidate.state not in {CandidateState.PROPOSED, CandidateState.INVALID}:
        params["architecture"] = one_line(candidate.summary, 200)
        params |= {f"gene.{_key(k)}": v for k, v in flatten_genes(candidate.genotype).items()}
    return _drop_empty(params)


def _metrics(
    candidate: Candidate, evaluations: Sequence[Evaluation], run: RunRecord, champion: bool
) -> list[MetricPoint]:
    at = candidate.ended_s or candidate.created_s or run.created
    step = max(candidate.rung, 0)
    if candidate.reproduced is False:
        step = max(candidate.tried_rung, 0)  # after everything that was written before it lost its score
    values: dict[str, float | None] = dict(candidate.values())
    values["predicted"] = candidate.prediction
    values["predicted_latency"] = candidate.predicted_latency
    values |= {f"proxy.{name}": value for name, value in candidate.proxies.items()}
    values["similarity"] = candidate.nearest.similarity if candidate.nearest is not None else None
    values[run.metric] = candidate.score
    values[f"test_{run.metric}"] = candidate.test_score
    again = repeats_by_candidate(evaluations, metric=run.metric, seed=seed_of(run))
    repeats = again.get((candidate.id, candidate.rung))
    if repeats is not None:
        values |= {"fresh_seeds": float(len(repeats.scores)), f"mean_{run.metric}": repeats.mean}
        values |= {f"std_{run.metric}": repeats.std, f"mean_test_{run.metric}": repeats.test_mean}
    values["standing"] = standing(
        candidate, run.maximize, repeats.mean if champion and repeats is not None else None
    )
    if candidate.latency_factor != 1.0 and candidate.score is not None:
        values["reward"] = candidate.reward(candidate.score, run.maximize)
    if candidate.static is not None:
        values["depth"] = float(candidate.static.depth)
    own = [e for e in evaluations if e.seed == seed_of(run)]
    if own:
        last = own[-1]
        values |= {k: v for k, v in last.metrics.items() if k not in values}
        values |= {f"test_{k}": v for k, v in last.test_metrics.items() if f"test_{k}" not in values}
        values["peak_memory_mb"] = last.peak_memory_mb or None
        values["train_s"] = sum(e.train_s for e in evaluations)
        values["wall_s"] = sum(e.wall_s for e in evaluations)
        values["epochs"] = next((float(e.epochs) for e in evaluations if e.rung == candidate.rung), None)
        timed = next((e.latency for e in reversed(evaluations) if e.latency is not None), None)
        if timed is not None:
            values |= {"latency_q1_ms": timed.q1_ms, "latency_q3_ms": timed.q3_ms}
            values |= {"latency_reference_ms": timed.reference_ms, "latency_memory_mb": timed.memory_mb}
            if timed.repeats > 1:
                values["latency_iqr_ms"] = timed.q3_ms - timed.q1_ms
            values.setdefault("latency_ms", timed.median_ms)
    points = [MetricPoint(_key(k), v, at, step) for k, v in values.items() if v is not None]
    for evaluation, prefix in zip(evaluations, curve_prefixes(evaluations), strict=True):
        curves: Mapping[str, Sequence[float]] = {
            f"{prefix}/val_{run.metric}": evaluation.val_curve,
            f"{prefix}/train_loss": evaluation.train_loss,
        }
        points += [
            MetricPoint(_key(key), value, at, epoch)
            for key, curve in curves.items()
            for epoch, value in enumerate(curve, start=1)
        ]
    points = [point for point in points if math.isfinite(point.value)]
    if candidate.reproduced is False:  # MLflow forgets no metric, but shows the newest value of each
        gone = ("score", run.metric, f"test_{run.metric}")
        points += [MetricPoint(_key(key), math.nan, at, step) for key in gone]
    return points


def curve_prefixes(evaluations: Sequence[Evaluation]) -> list[str]:
    """Where each evaluation's curves go: `rung0` for the first at a rung, `rung0-repeat1` for a repeat.

    MLflow draws all metrics that share what stands before the slash in one section.
    """
    seen: dict[int, int] = {}
    prefixes = []
    for evaluation in evaluations:
        n = seen[evaluation.rung] = seen.get(evaluation.rung, -1) + 1
        prefixes.append(f"rung{evaluation.rung}" + (f"-repeat{n}" if n else ""))
    return prefixes


def _isolation(evaluations: Sequence[Evaluation]) -> dict[str, str]:
    if not evaluations:
        return {}
    isolation = evaluations[-1].isolation
    tags = {"isolation": isolation.level, "not_enforced": "; ".join(isolation.not_enforced)}
    timed = next((e for e in reversed(evaluations) if e.latency is not None), None)
    if timed is not None and (latency := timed.latency) is not None:
        tags |= {"device": latency.place, "device_name": timed.device_name}
        if latency.repeats > 1:  # else it was looked up
            tags["latency_noisy"] = "yes" if latency.noisy else "no"
            tags["latency_alone"] = "yes" if latency.alone else "no"
            tags["latency_reference"] = latency.reference
    return tags


def _source() -> dict[str, str]:
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a uid without a name, as in many containers
        user = "unknown"
    return {"mlflow.source.name": "cambrian", "mlflow.source.type": "LOCAL", "mlflow.user": user}


def _key(text: str) -> str:
    """A name as MLflow takes it."""
    return "".join(ch if ch.isascii() and (ch.isalnum() or ch in "_-./ ") else "_" for ch in text)[:250]


def _drop_empty(values: Mapping[str, Any]) -> dict[str, str]:
    return {key: str(value) for key, value in values.items() if value not in {"", None}}
