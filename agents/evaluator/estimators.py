"""How every estimator ranked candidates that it had not seen, as the population's records tell it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from cambrian.agents.evaluator.latency_screen import latency_limit
from cambrian.agents.evaluator.proxies import ProxyTrust, RankRecord, rank_record
from cambrian.agents.population.model import Candidate
from cambrian.agents.population.store import RunRecord
from cambrian.agents.sections import ChecksSection, Constraint

PREDICTOR, LATENCY = "predictor", "latency"
"""Names of the records of the two models that are fitted; a proxy's is its own."""


def estimator_records(run: RunRecord, candidates: Sequence[Candidate]) -> tuple[RankRecord, ...]:
    """Of the predictor and of the latency model, where they have foretold anything, then of the proxies."""
    fitted = (predictor_record(candidates), latency_record(run, candidates))
    return (*(record for record in fitted if record.n), *proxy_records(run, candidates))


def proxy_records(run: RunRecord, candidates: Sequence[Candidate]) -> tuple[RankRecord, ...]:
    """Every proxy's record on the scores of rung 0, by name."""
    # not validated: a proxy of somebody's own may be gone by the time when its run is looked at
    checks = ChecksSection.model_construct(**run.config.get("checks", {}))
    trust = ProxyTrust(maximize=run.maximize, min_tau=checks.proxy_min_tau)
    trust.rebuild((c.proxies, c.rung_scores[0]) for c in candidates if c.rung_scores)
    return trust.summary()


def predictor_record(candidates: Sequence[Candidate]) -> RankRecord:
    """What the predictor expected of each candidate before training, beside the score of rung 0.

    Whether it may screen is not in the records.
    """
    pairs = [(c.prediction, c.rung_scores[0] if c.rung_scores else None) for c in candidates]
    return _of_pairs(PREDICTOR, pairs)


def latency_record(run: RunRecord, candidates: Sequence[Candidate]) -> RankRecord:
    """What the latency model expected of each candidate, beside what was measured; likewise."""
    limit = latency_limit(Constraint.model_validate(c) for c in run.config.get("constraints") or ())
    ratio = limit is not None and limit.name == "latency_ratio"
    pairs = [(c.predicted_latency, c.latency_ratio if ratio else c.latency_ms) for c in candidates]
    return _of_pairs(LATENCY, pairs)


def _of_pairs(name: str, pairs: Iterable[tuple[float | None, float | None]]) -> RankRecord:
    known = [(told, found) for told, found in pairs if told is not None and found is not None]
    return rank_record(name, [told for told, _ in known], [found for _, found in known])
