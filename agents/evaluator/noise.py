"""How much of a difference is chance: trainings repeated with fresh seeds, and the noise that they show.

The spread of one network's scores over seeds is pooled over all networks that were repeated at a rung. A
network's own spread over two or three seeds says little; that seeds scatter networks of one task alike, if
they are trained for as long, is the assumption of every pooled t-test. The pooled value has an uncertainty of
its own, from the chi-square distribution. At a rung where little was repeated all rungs are pooled, which
overstates the noise of longer trainings.

A score that got a candidate chosen is the best of many draws and flatters it. So of a champion only fresh
seeds count, in its mean and in the pooled spread.
"""

from __future__ import annotations

import hashlib
import math
import statistics
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict

from cambrian.agents.evaluator.ranking import rank_key
from cambrian.agents.population.model import Candidate, Evaluation
from cambrian.agents.population.store import RunRecord
from cambrian.agents.wording import is_ratio, show_score

LEVEL = 0.95
"""Coverage of intervals; two means are tied unless a two-sided t-test at 1 - LEVEL tells them apart."""
LEAST_DEGREES = 3
"""Degrees of freedom from which on the repeats of one rung stand for themselves."""


def fresh_seed(seed: int, number: int) -> int:
    """The seed of repeat `number` (from 1) in a run with `seed`; the same for all candidates."""
    digest = hashlib.blake2b(f"{seed}/repeat/{number}".encode(), digest_size=4).digest()
    found = int.from_bytes(digest, "big") % 1_000_000 + 1
    return found if found != seed else found + 1


@dataclass(frozen=True)
class Repeats:
    """A candidate's scores with fresh seeds at one rung.

    Attributes:
        scores: the task's metric on the validation split, by number of the repeat.
        test_scores: the same on the test split.
        failed: repeats that gave no score.
    """

    candidate_id: str
    rung: int
    scores: tuple[float, ...]
    test_scores: tuple[float, ...]
    failed: int = 0

    @property
    def mean(self) -> float | None:
        """Of the scores; None without any."""
        return statistics.fmean(self.scores) if self.scores else None

    @property
    def test_mean(self) -> float | None:
        """Of the scores on the test split; None without any."""
        return statistics.fmean(self.test_scores) if self.test_scores else None

    @property
    def std(self) -> float | None:
        """Standard deviation of the scores; None with fewer than two."""
        return statistics.stdev(self.scores) if len(self.scores) > 1 else None


def repeats_by_candidate(
    evaluations: Iterable[Evaluation], *, metric: str, seed: int
) -> dict[tuple[str, int], Repeats]:
    """All repeats, by candidate and rung: evaluations with another seed than the run's."""
    found: dict[tuple[str, int], list[Evaluation]] = {}
    for evaluation in evaluations:
        if evaluation.seed != seed:
            found.setdefault((evaluation.candidate_id, evaluation.rung), []).append(evaluation)
    return {
        (cid, rung): Repeats(
            candidate_id=cid,
            rung=rung,
            scores=tuple(e.metrics[metric] for e in made if e.metrics),
            test_scores=tuple(e.test_metrics[metric] for e in made if e.test_metrics),
            failed=sum(not e.metrics for e in made),
        )
        for (cid, rung), made in found.items()
    }


class NoiseFloor(BaseModel):
    """What two scores of a task may differ by without meaning anything.

    Attributes:
        std: pooled standard deviation of a single training's score over seeds; None without repeats.
        low: lower end of its interval, by the chi-square distribution.
        high: its upper end.
        rung: where the trainings were; None when those of all rungs are pooled.
        degrees: degrees of freedom of `std`.
        networks: how many were repeated.
        trainings: how many scores went into it.
        sampling: standard error of the difference of two scores that comes from the finite validation sample
            alone; 0 where it is not known. Seeds add to it, so that it is a bound from below.
        factor: quantile of t by which standard errors are multiplied.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    std: float | None = None
    low: float | None = None
    high: float | None = None
    rung: int | None = None
    degrees: int = 0
    networks: int = 0
    trainings: int = 0
    sampling: float = 0.0
    factor: float = 0.0

    @property
    def error(self) -> float:
        """Standard error of the difference of two single scores."""
        return max(self.sampling, math.sqrt(2) * (self.std or 0.0))

    def difference(self, first: int = 1, second: int = 1, weights: tuple[float, float] = (1.0, 1.0)) -> float:
        """The largest difference of two means that may be chance.

        The larger of two bounds: that of a two-sided pooled t-test over seeds, and one standard error of the
        finite sample, which all candidates share.

        Args:
            first: scores behind the first mean.
            second: scores behind the second one.
            weights: what each mean is multiplied by.
        """
        if self.std is None:
            return self.sampling
        one, two = weights
        return max(self.sampling, self.factor * self.std * math.sqrt(one * one / first + two * two / second))

    def in_words(self, metric: str) -> str:
        """One plain phrase."""
        if self.std is not None and self.low is not None and self.high is not None:
            low, high = show_score(metric, self.low), show_score(metric, self.high)
            where = "" if self.rung is None else f" at rung {self.rung}"
            sample = (
                f"{self.trainings} trainings of {self.networks} network{'s' if self.networks > 1 else ''}"
            )
            std = show_score(metric, self.std)
            return f"noise over seeds{where}: std {std} (95 % interval {low} to {high}, {sample})"
        if not self.sampling:
            return "noise not measured"
        bound = f"{100 * self.sampling:.2f} points" if is_ratio(metric) else f"{self.sampling:.3g}"
        return f"noise not measured: the validation sample alone makes {bound} of difference"

    def half_width(self, n: int) -> float | None:
        """Half of the interval of a mean of `n` scores; None without repeats."""
        return None if self.std is None or n < 1 else self.factor * self.std / math.sqrt(n)


def sampling_noise(candidates: Iterable[Candidate], run: RunRecord) -> float:
    """Standard error of the difference of two accuracies near the best one, each read from a finite sample.

    A lower bound of the real noise, which different seeds add to; 0 for metrics that are no shares.
    """
    ranked = (c for c in candidates if rank_key(c, run.maximize) is not None)
    scores = [c.score for c in ranked if c.score is not None]
    if "accuracy" not in run.metric or not run.validation_samples or not scores:
        return 0.0
    best = max(scores)
    return math.sqrt(2 * best * (1 - best) / run.validation_samples)


def noise_floor(groups: Iterable[Sequence[float]], *, sampling: float = 0.0) -> NoiseFloor:
    """The noise that groups of scores show, each of one network at one rung with different seeds.

    Args:
        groups: scores by network; those with fewer than two say nothing.
        sampling: see `NoiseFloor`.
    """
    told = [group for group in groups if len(group) > 1]
    degrees = sum(len(group) - 1 for group in told)
    if not degrees:
        return NoiseFloor(sampling=sampling)
    from scipy.special import chdtri, stdtrit  # of scipy.stats, what imports quickly

    squares = sum((len(group) - 1) * statistics.variance(group) for group in told)
    tail = (1 - LEVEL) / 2
    return NoiseFloor(
        std=math.sqrt(squares / degrees),
        low=math.sqrt(squares / float(chdtri(degrees, tail))),
        high=math.sqrt(squares / float(chdtri(degrees, 1 - tail))),
        degrees=degrees,
        networks=len(told),
        trainings=sum(len(group) for group in told),
        sampling=sampling,
        factor=float(stdtrit(degrees, 1 - tail)),
    )


def noise_at(
    rung: int, groups: Mapping[tuple[str, int], Sequence[float]], *, sampling: float = 0.0
) -> NoiseFloor:
    """The noise at a rung: of the repeats there, or of all where they have too few degrees of freedom.

    Args:
        rung: where scores are compared.
        groups: scores by network and rung, as `groups_of` finds them.
        sampling: see `NoiseFloor`.
    """
    own = [group for (_, at), group in groups.items() if at == rung]
    if sum(max(len(group) - 1, 0) for group in own) >= LEAST_DEGREES:
        return noise_floor(own, sampling=sampling).model_copy(update={"rung": rung})
    return noise_floor(groups.values(), sampling=sampling)


def groups_of(
    candidates: Iterable[Candidate],
    repeats: Mapping[tuple[str, int], Repeats],
    champions: Collection[str],
) -> dict[tuple[str, int], tuple[float, ...]]:
    """Scores by network and rung for `noise_at`, those that chose a champion left out."""
    by_id = {c.id: c for c in candidates}
    found = {}
    for (cid, rung), made in repeats.items():
        candidate = by_id.get(cid)
        first: tuple[float, ...] = ()
        if candidate is not None and cid not in champions and rung < len(candidate.rung_scores):
            first = (candidate.rung_scores[rung],)
        found[cid, rung] = (*first, *made.scores)
    return found
