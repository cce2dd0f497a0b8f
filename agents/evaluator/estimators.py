"""How every estimator ranked candidates that it had not seen, as the population's records tell it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from cambrian.agents.evaluator.proxies import ProxyTrust, RankRecord, rank_record
from cambrian.agents.population.model import Candidate
from cambrian.agents.sections import ChecksSection

PREDICTOR = "predictor"


def proxy_records(
    candidates: Sequence[Candidate], config: Mapping[str, Any], *, maximize: bool
) -> tuple[RankRecord, ...]:
    """Every proxy's record on the scores of rung 0, by name.

    Args:
        candidates: of the run.
        config: the run's resolved configuration.
        maximize: whether a higher score is better.
    """
    checks = ChecksSection.model_construct(**config.get("checks", {}))
    trust = ProxyTrust(maximize=maximize, min_tau=checks.proxy_min_tau)
    trust.rebuild((c.proxies, c.rung_scores[0]) for c in candidates if c.rung_scores)
    return trust.summary()


def predictor_record(candidates: Sequence[Candidate]) -> RankRecord:
    """The predictor's record: what it expected of each candidate before training, beside the score of rung 0.

    Its `role` is not known from the records, and left at advice.
    """
    pairs = [(c.prediction, c.rung_scores[0]) for c in candidates if c.rung_scores]
    told = [(expected, score) for expected, score in pairs if expected is not None]
    return rank_record(PREDICTOR, [e for e, _ in told], [s for _, s in told])
