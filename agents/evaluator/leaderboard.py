"""The leaderboard of a run: champions by their means over fresh seeds, then the others; and who is tied."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict

from cambrian.agents.evaluator.noise import (
    NoiseFloor,
    Repeats,
    groups_of,
    noise_at,
    repeats_by_candidate,
    sampling_noise,
)
from cambrian.agents.evaluator.ranking import ParetoFront, RankKey, rank_key
from cambrian.agents.population.model import Candidate, Evaluation
from cambrian.agents.population.store import RunRecord


class Standing(BaseModel):
    """One line of a leaderboard.

    Attributes:
        place: from 1.
        score: the task's metric at `rung`, the highest rung that the candidate reached, with the run's seed.
            Of a champion it is what got it chosen, so that it flatters it, and it ranks by `mean` instead.
        mean: over fresh seeds at `rung`; None without any.
        std: its standard deviation; None with fewer than two.
        half_width: half of the 95 % interval of `mean`, by the pooled noise of the run.
        seeds: fresh seeds that gave a score.
        test_mean: mean of the test split's scores over the same seeds.
        champion: whether `mean` decides its place.
        reward: what it is ranked by where the run's objective is the soft latency; else None.
        on_front: whether no other candidate of the board's population beats it in score and cost at once.
        tied: whether it differs from the leader by no more than the noise, at the same rung.
        reproduced: whether its predictions came out of its weights again; None while nobody has tried.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    place: int
    id: str
    arm: str
    summary: str
    score: float
    test_score: float | None
    mean: float | None = None
    std: float | None = None
    half_width: float | None = None
    seeds: int = 0
    test_mean: float | None = None
    champion: bool = False
    reward: float | None = None
    rung: int
    cost: float | None
    latency_ms: float | None
    parameters: int | None
    on_front: bool
    tied: bool
    reproduced: bool | None = None


@dataclass(frozen=True)
class Ranked:
    """A run's candidates in order.

    Attributes:
        board: all that rank.
        noise: at the leader's rung.
    """

    board: tuple[Standing, ...]
    noise: NoiseFloor


@dataclass(frozen=True)
class _Place:
    """A candidate with what decides its place: a mean over fresh seeds, or the score."""

    candidate: Candidate
    key: tuple[int, bool, float, float, int]
    value: float
    worth: float
    seeds: int
    repeats: Repeats | None
    champion: bool

    @property
    def weight(self) -> float:
        """What the run's objective multiplies the value with."""
        return abs(self.worth / self.value) if self.value else 1.0


def rank_run(
    run: RunRecord,
    candidates: Sequence[Candidate],
    evaluations: Sequence[Evaluation],
    champions: Collection[str] = (),
) -> Ranked:
    """The leaderboard of a run and the noise behind its ties.

    Args:
        run: its record.
        candidates: all of them.
        evaluations: all of them, repeats included.
        champions: ids of those that the run chose to train again with fresh seeds.
    """
    repeats = repeats_by_candidate(evaluations, metric=run.metric, seed=run.config.get("seed", 0))
    scored = [c for c in candidates if c.score is not None]
    known = {c.id for c in scored}
    told = {place: made for place, made in repeats.items() if place[0] in known}
    groups, sampling = groups_of(scored, told, champions), sampling_noise(candidates, run)
    floors = {rung: noise_at(rung, groups, sampling=sampling) for rung in {0, *(c.rung for c in scored)}}
    board = leaderboard(candidates, maximize=run.maximize, noise=floors, repeats=told, champions=champions)
    return Ranked(board, floors[board[0].rung if board else 0])


def leaderboard(
    candidates: Iterable[Candidate],
    *,
    maximize: bool = True,
    noise: Mapping[int, NoiseFloor] | None = None,
    repeats: Mapping[tuple[str, int], Repeats] | None = None,
    champions: Collection[str] = (),
) -> tuple[Standing, ...]:
    """The feasible, evaluated candidates, best first.

    Within a rung champions stand first, ordered by their means over fresh seeds: nobody else's score was
    verified. The others follow by `rank_key`. Two are tied when a pooled t-test on their means does not tell
    them apart, see `NoiseFloor.difference`.

    Args:
        candidates: the population, in any order.
        maximize: whether a higher score is better.
        noise: what may be chance, by rung; without it only exact ties are marked.
        repeats: scores with fresh seeds, by candidate and rung.
        champions: ids of those whose repeats decide their places.
    """
    noise, repeats = noise or {}, repeats or {}
    ranked = [(key, each) for each in candidates if (key := rank_key(each, maximize)) is not None]
    front = ParetoFront(maximize=maximize)
    for _, each in sorted(ranked, key=lambda entry: entry[1].index):
        if each.score is not None and each.cost is not None and math.isfinite(each.cost):
            front.add(each.id, each.score, each.cost)
    on_front = {point.id for point in front.points()}
    places = [
        _placed(key, each, repeats.get((each.id, each.rung)), each.id in champions, maximize)
        for key, each in ranked
    ]
    places.sort(key=lambda place: place.key)
    return tuple(
        _standing(number, place, places[0], noise.get(place.candidate.rung, NoiseFloor()), on_front)
        for number, place in enumerate(places, start=1)
    )


def _placed(
    key: RankKey, candidate: Candidate, repeats: Repeats | None, chosen: bool, maximize: bool
) -> _Place:
    rung, _, cost, index = key
    mean = repeats.mean if repeats is not None else None
    champion = chosen and mean is not None
    value = mean if champion else candidate.score
    assert value is not None  # only candidates with a score rank
    worth = candidate.reward(value, maximize)
    place = (rung, not champion, -worth if maximize else worth, cost, index)
    seeds = len(repeats.scores) if champion and repeats is not None else 1
    return _Place(candidate, place, value, worth, seeds, repeats, champion)


def _standing(
    number: int, place: _Place, leader: _Place, noise: NoiseFloor, on_front: Collection[str]
) -> Standing:
    each, repeats = place.candidate, place.repeats
    score = each.score
    assert score is not None
    bound = noise.difference(leader.seeds, place.seeds, (leader.weight, place.weight))
    close = place.key[0] == leader.key[0] and place.key[2] - leader.key[2] <= bound
    return Standing(
        place=number,
        id=each.id,
        arm=each.proposal.arm,
        summary=each.summary,
        score=score,
        test_score=each.test_score,
        mean=repeats.mean if repeats is not None else None,
        std=repeats.std if repeats is not None else None,
        half_width=noise.half_width(len(repeats.scores)) if repeats is not None else None,
        seeds=len(repeats.scores) if repeats is not None else 0,
        test_mean=repeats.test_mean if repeats is not None else None,
        champion=place.champion,
        reward=place.worth if each.latency_factor != 1.0 else None,
        rung=each.rung,
        cost=each.cost,
        latency_ms=each.latency_ms,
        parameters=None if each.static is None else each.static.parameters,
        on_front=each.id in on_front,
        tied=number > 1 and close,
        reproduced=each.reproduced,
    )
