"""What two candidates measure differently, and how much of that may be chance.

Scores are compared after equal training, at the highest rung that both have a score of; where a network was
trained again with fresh seeds the mean counts, of a champion the mean over fresh seeds alone. What may be
chance is what the leaderboard and the prompts call a tie (`NoiseFloor.difference`): no two of them may speak
differently of one pair. So it is with tables, too: a score that is looked up again is the same again, but it
was read from a finite sample. Of a score that is no share and was never repeated, nothing is known of its
noise, and no difference counts as real.

Latency is compared in milliseconds. Two medians differ for real where the boxes of their quartiles do not
meet after what the reference network, timed beside each, says of the machine's own drift between the two.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cambrian.agents.evaluator.noise import (
    NoiseFloor,
    groups_of,
    noise_at,
    repeats_by_candidate,
    sampling_noise,
)
from cambrian.agents.population.model import Candidate, Evaluation, Measure
from cambrian.agents.repeats import NOISE_KEY, Order
from cambrian.sandbox import Latency

if TYPE_CHECKING:
    from cambrian.agents.lifecycle import Services

_BEST = 32
"""How many of the best the noise of a finite sample is read from."""


@dataclass(frozen=True)
class Mean:
    """A score at one rung, and how many trainings are behind it."""

    value: float
    trainings: int = 1


@dataclass(frozen=True)
class Difference:
    """One number of two candidates.

    Attributes:
        measure: which.
        ours: of the candidate that is looked at.
        theirs: of the one that it is compared with.
        bound: the largest difference that may be chance, in the unit of the numbers; 0 for what is exact,
            None where nothing is known of it.
        rung: where both scores are from; None for other measures.
    """

    measure: Measure
    ours: float
    theirs: float
    bound: float | None
    rung: int | None = None

    @property
    def change(self) -> float:
        """By how much ours is higher."""
        return self.ours - self.theirs

    @property
    def is_real(self) -> bool:
        """Whether the change is more than chance makes."""
        return self.bound is not None and abs(self.change) > self.bound

    def percent(self, value: float) -> float | None:
        """`value` in per cent of theirs; None where theirs is 0."""
        return 100 * value / abs(self.theirs) if self.theirs else None


class Readings:
    """What a run's store tells of measurements.

    Args:
        services: of the run.
    """

    def __init__(self, services: Services) -> None:
        self._do = services
        self._run = services.store.run
        self._latency: dict[str, Latency | None] = {}
        self.refresh()

    def refresh(self) -> None:
        """Read anew who was trained again with fresh seeds, and what came of that."""
        store, population = self._do.store, self._do.population
        order, seed = store.get_meta(NOISE_KEY), self._do.config.seed
        repeated = store.repeated(seed)
        # all others were chosen by a score, which flatters them
        unchosen = {Order.model_validate_json(order).candidate} if order is not None else set()
        self._champions = frozenset(repeated) - unchosen
        made = [e for cid in repeated for e in store.evaluations(cid)]
        found = repeats_by_candidate(made, metric=self._run.metric, seed=seed)
        self._repeats = {place: each for place, each in found.items() if each.scores}
        known = [population.get(cid) for cid in {cid for cid, _ in self._repeats}]
        scored = [c for c in known if c.score is not None]
        ids = {c.id for c in scored}
        told = {place: each for place, each in self._repeats.items() if place[0] in ids}
        self._groups = groups_of(scored, told, self._champions)
        self._floors: dict[int, NoiseFloor] = {}

    def learn(self, evaluations: Iterable[Evaluation]) -> None:
        """Take in evaluations that were read anyway, so that each is not looked up by itself."""
        for evaluation in evaluations:
            if evaluation.latency is not None:
                self._latency[evaluation.candidate_id] = evaluation.latency
            else:
                self._latency.setdefault(evaluation.candidate_id, None)

    def forget(self, candidate_id: str) -> None:
        """Something of the candidate was measured since."""
        self._latency.pop(candidate_id, None)

    def noise(self, rung: int) -> NoiseFloor:
        """How much of a difference of scores at `rung` is chance."""
        if rung not in self._floors:
            sampling = sampling_noise(self._do.population.elite(_BEST), self._run)
            self._floors[rung] = noise_at(rung, self._groups, sampling=sampling)
        return self._floors[rung]

    def bound(self, rung: int, ours: Mean, theirs: Mean) -> float | None:
        """The largest difference of two scores at `rung` that may be chance; None where it is not known."""
        floor = self.noise(rung)
        if floor.std is None and not floor.sampling:
            return None
        return floor.difference(ours.trainings, theirs.trainings)

    def scores(self, candidate: Candidate) -> Mapping[int, Mean]:
        """Scores by rung; none of who has lost them."""
        if candidate.score is None:
            return {}
        found = {rung: Mean(score) for rung, score in enumerate(candidate.rung_scores)}
        found.setdefault(candidate.rung, Mean(candidate.score))
        for rung in list(found):
            repeats = self._repeats.get((candidate.id, rung))
            if repeats is not None:
                own = () if candidate.id in self._champions else (found[rung].value,)
                values = (*own, *repeats.scores)
                found[rung] = Mean(sum(values) / len(values), len(values))
        return found

    def latency(self, candidate: Candidate) -> Latency | None:
        """Its latest measurement with its spread."""
        if candidate.latency_ms is None:
            return None
        if candidate.id not in self._latency:
            self._latency[candidate.id] = None
            self.learn(self._do.store.evaluations(candidate.id))
        return self._latency[candidate.id]

    def difference(self, measure: Measure, ours: Candidate, theirs: Candidate) -> Difference | None:
        """How `ours` differs from `theirs`; None where one has no such number, or none that compares."""
        if measure == "score":
            return self._of_scores(ours, theirs)
        if measure == "latency_ms":
            return self._of_latency(ours, theirs)
        mine, other = ours.values().get(measure), theirs.values().get(measure)
        return None if mine is None or other is None else Difference(measure, mine, other, 0.0)

    def _of_scores(self, ours: Candidate, theirs: Candidate) -> Difference | None:
        mine, other = self.scores(ours), self.scores(theirs)
        rung = max(mine.keys() & other.keys(), default=None)
        if rung is None:
            return None
        bound = self.bound(rung, mine[rung], other[rung])
        return Difference("score", mine[rung].value, other[rung].value, bound, rung)

    def _of_latency(self, ours: Candidate, theirs: Candidate) -> Difference | None:
        mine, other = self.latency(ours), self.latency(theirs)
        if mine is None or other is None or _place(mine) != _place(other):
            return None
        return Difference("latency_ms", mine.median_ms, other.median_ms, latency_bound(mine, other))


def latency_bound(ours: Latency, theirs: Latency) -> float:
    """The largest difference of two medians that may be chance, in milliseconds.

    The halves of both boxes that face each other, and what the machine drifted by between both measurements
    as the reference network tells that was timed beside each.
    """
    low, high = sorted((ours, theirs), key=lambda each: each.median_ms)
    facing = (low.q3_ms - low.median_ms) + (high.median_ms - high.q1_ms)
    drift = 0.0
    if ours.reference == theirs.reference and ours.reference_ms and theirs.reference_ms:
        drift = abs(ours.reference_ms / theirs.reference_ms - 1) * theirs.median_ms
    return max(facing, 0.0) + drift


def _place(latency: Latency) -> tuple[str, int, int]:
    return latency.device, latency.threads, latency.batch
