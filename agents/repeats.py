"""Trainings repeated with fresh seeds: which are made at the start to measure the noise, and how one is made.

The network that is repeated is the first known one of the run file that was evaluated, else the first
candidate that was; it is trained at rung 0. Which one, and how often, is decided once and kept in the store.
What is missing follows from the evaluations that the store holds, so that a run that is killed here and
resumed does the rest: an evaluation is known by its candidate, rung and seed; seeds follow from the run's.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict

from cambrian.agents.evaluator.noise import fresh_seed
from cambrian.agents.population.model import Candidate, CandidateState, Evaluation, candidate_id
from cambrian.agents.wording import show_score
from cambrian.sandbox import JobState
from cambrian.search_spaces import TabularTask

if TYPE_CHECKING:
    from cambrian.agents.lifecycle import Services

NOISE_KEY = "noise"
"""Under this key the store keeps what is repeated at the start."""


class Order(BaseModel):
    """A candidate to be trained again.

    Attributes:
        candidate: its id.
        rung: at which.
        seeds: how many fresh seeds it shall have been trained with there.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    candidate: str
    rung: int
    seeds: int


class Repeat(BaseModel):
    """One training with a fresh seed.

    Attributes:
        believed: its score will rank the candidate, so that it has to be reproduced.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    candidate: str
    rung: int
    seed: int
    believed: bool


def missing(
    orders: Iterable[Order], evaluations: Iterable[Evaluation], seed: int, *, believed: bool
) -> list[Repeat]:
    """The repeats that were not made yet: the first seed of everybody, then the second, and so on."""
    made = {(e.candidate_id, e.rung, e.seed) for e in evaluations}
    found = [
        (number, Repeat(candidate=o.candidate, rung=o.rung, seed=fresh_seed(seed, number), believed=believed))
        for o in orders
        for number in range(1, o.seeds + 1)
    ]
    found.sort(key=lambda entry: entry[0])
    return [r for _, r in found if (r.candidate, r.rung, r.seed) not in made]


async def make(do: Services, repeat: Repeat) -> str:
    """Carry out one repeat; any number of times without harm. Returns what came of it, for people.

    A champion whose weights do not predict the same again, or generated code that this time had to be
    contained, has no score any more.

    Raises:
        InfrastructureError: as `Trials.run`.
    """
    candidate = do.population.get(repeat.candidate)
    do.activity(candidate.id, f"training again with a fresh seed (rung {repeat.rung})")
    evaluation = await do.trials.repeat(candidate, repeat.rung, repeat.seed)
    ended, problem = JobState(evaluation.state), evaluation.reason
    if repeat.believed and evaluation.metrics:
        problem = await do.trials.reproduce(candidate, repeat.rung, repeat.seed)
        if problem:
            ended = JobState.NOT_REPRODUCED
            evaluation = evaluation.struck(ended, problem)
    contained = do.space.kind == "code" and ended is not JobState.TRAINED
    if repeat.believed and (contained or ended is JobState.NOT_REPRODUCED):
        candidate = do.discredit(candidate, ended, problem)  # first: who dies now has still lost it
    do.store.add_evaluation(evaluation, do.with_lesson(candidate))
    metric = do.task.metric
    came = show_score(metric, evaluation.metrics.get(metric)) if evaluation.metrics else f"{ended}: {problem}"
    return f"{candidate.id} again with a fresh seed: {metric} {came}"


class NoiseRepeats:
    """The repeats by which a run measures its noise at the start.

    Args:
        services: of the run.
    """

    def __init__(self, services: Services) -> None:
        self._do = services
        kept = services.store.get_meta(NOISE_KEY)
        self.order = None if kept is None else Order.model_validate_json(kept)
        self._done = False

    def step(self, expected: float, busy: Collection[str]) -> Repeat | None:
        """The next repeat to make; None when there is none, or none just now.

        Args:
            expected: evaluations that the run will make, about.
            busy: candidates that somebody works on.
        """
        if self._done:
            return None
        self._decide(expected)
        order = self.order
        if order is None or order.candidate in busy:
            return None
        made = self._do.store.evaluations(order.candidate)
        left = missing([order], made, self._do.config.seed, believed=False)
        self._done = not left or self._do.population.get(order.candidate).score is None
        return None if self._done else left[0]

    def _decide(self, expected: float) -> None:
        if self.order is not None:
            return
        section = self._do.config.noise
        if section.repeats is None and isinstance(self._do.task, TabularTask):
            return  # what is looked up again is the same again
        seeds = section.count(expected)
        candidate = self._whom() if seeds else None
        if candidate is not None:
            self.order = Order(candidate=candidate.id, rung=0, seeds=seeds)
            self._do.store.set_meta(NOISE_KEY, self.order.model_dump_json())

    def _whom(self) -> Candidate | None:
        population = self._do.population
        for index in range(len(self._do.config.baselines)):
            known = population.get(candidate_id(index)) if index < len(population) else None
            if known is None or not known.state.ended:
                return None  # it may still come to be evaluated
            if _is_repeatable(known):
                return known
        ended = [c for c in population.recent(64) if _is_repeatable(c)]
        return min(ended, key=lambda c: c.ended_order, default=None)


def _is_repeatable(candidate: Candidate) -> bool:
    return candidate.state is CandidateState.EVALUATED and bool(candidate.rung_scores)
