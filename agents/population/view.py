"""The population as arms and ranking read it: kept in memory, updated change by change, never rescanned."""

from __future__ import annotations

import bisect
import contextlib
from collections import Counter, defaultdict, deque
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import get_args

from cambrian.agents.evaluator.ranking import ParetoFront, RankKey, rank_key
from cambrian.agents.population.model import (
    BASELINE_ARM,
    CONTROL_ARM,
    FACTORIAL_ARM,
    Author,
    Candidate,
    CandidateState,
)

AUTHORS: tuple[Author, ...] = get_args(Author)

_UNPAID = frozenset(
    {
        CandidateState.INVALID,
        CandidateState.DUPLICATE,
        CandidateState.INFEASIBLE,
        CandidateState.SCREENED,
        CandidateState.REJECTED,
    }
)
UNPAID_WEIGHT = 0.25
"""What a proposal that cost no training counts in its arm's share: not nothing, or an arm that offers only
duplicates would be asked for ever."""


class Population:
    """An in-memory index over the store's candidates; implements `PopulationView`.

    Each update costs O(log n) plus the length of the front, whatever the size of the population.

    Args:
        maximize: whether a higher score is better.
        candidates: those of a resumed run, by index.
        pareto: whether cost is an objective of its own; without it there is no front.
        timed: whether authors pay for the seconds that their candidates' trainings took, in mean trainings,
            since time is what limits the run; else each training counts alike.
    """

    def __init__(
        self,
        maximize: bool,
        candidates: Iterable[Candidate] = (),
        *,
        pareto: bool = True,
        timed: bool = False,
    ) -> None:
        self._pareto, self._timed = pareto, timed
        self._sign = -1.0 if maximize else 1.0
        self._all: dict[str, Candidate] = {}
        self._maximize = maximize
        self._ranked: list[tuple[RankKey, str]] = []
        self._front = ParetoFront(maximize=maximize)
        self._recent: deque[str] = deque(maxlen=64)
        self._setbacks: deque[str] = deque(maxlen=64)
        self._states: Counter[str] = Counter()
        self._parked: set[str] = set()
        self._proposed: Counter[str] = Counter()
        self._spent: dict[Author, defaultdict[str, float]] = {by: defaultdict(float) for by in AUTHORS}
        self._trainings: dict[Author, defaultdict[str, int]] = {by: defaultdict(int) for by in AUTHORS}
        self._train_ms: dict[Author, defaultdict[str, int]] = {by: defaultdict(int) for by in AUTHORS}
        self._rungs: dict[tuple[str, int], list[tuple[float, int, str]]] = {}
        self._last_order = 0
        self._scored: dict[str, None] = {}
        self._landed: list[float] = []
        self._credits: dict[Author, defaultdict[str, float]] = {by: defaultdict(float) for by in AUTHORS}
        # `ended_order` is 0 for those that have not ended, and in runs that are older than it.
        for candidate in sorted(
            candidates, key=lambda c: (c.ended_order, c.ended_s or float("inf"), c.index)
        ):
            self.update(candidate)

    def __len__(self) -> int:
        return len(self._all)

    def get(self, candidate_id: str) -> Candidate:
        """The candidate. KeyError when there is none."""
        return self._all[candidate_id]

    def elite(self, k: int) -> Sequence[Candidate]:
        """The `k` best feasible evaluated candidates by `rank_key`, best first."""
        return [self._all[cid] for _, cid in self._ranked[:k]]

    def place(self, candidate: Candidate) -> int | None:
        """How many others would rank before `candidate` if it were as given; None if it would not rank."""
        key = self._key(candidate)
        if key is None:
            return None
        before = bisect.bisect_left(self._ranked, (key, candidate.id))
        known = self._all.get(candidate.id)
        own = None if known is None else self._key(known)
        return before - (own is not None and own < key)

    def next_order(self) -> int:
        """The `ended_order` of the next candidate that ends."""
        return self._last_order + 1

    def front(self) -> Sequence[Candidate]:
        """The Pareto front of score and cost among the feasible evaluated, best score first.

        Empty where the run's objective is one number.
        """
        if not self._pareto:
            return []
        return [self._all[point.id] for point in self._front.points()]

    def recent(self, k: int) -> Sequence[Candidate]:
        """The `k` evaluated candidates that ended last, newest first (at most 64)."""
        return [self._all[cid] for cid in list(self._recent)[: -k - 1 : -1]]

    def setbacks(self, k: int) -> Sequence[Candidate]:
        """The `k` newest that ended without a score, newest first (at most 64)."""
        return [self._all[cid] for cid in list(self._setbacks)[: -k - 1 : -1]]

    def scored(self) -> Sequence[Candidate]:
        """All that have a score at the lowest rung, in the order in which they got it."""
        return [self._all[cid] for cid in self._scored]

    def known(self) -> Collection[Candidate]:
        """All candidates, whatever their state, oldest first."""
        return self._all.values()

    def credits(self, by: Author = "arm") -> Mapping[str, float]:
        """By author, the sum of its candidates' shares of earlier ones that each was better than.

        Only the upper half counts, from 0 at the median to 1 at the top: nobody is paid for mediocrity.
        Candidates that break a limit bring nothing. They are compared when they land.
        """
        return dict(self._credits[by])

    def counts(self) -> Mapping[str, int]:
        """Number of candidates by state."""
        return {state: n for state, n in self._states.items() if n}

    def spent(self, by: Author = "arm") -> Mapping[str, float]:
        """What each author has used of the common budget, in evaluations; see `UNPAID_WEIGHT`.

        Where authors pay for seconds, a training that took twice the mean of all counts as two.
        """
        spent = dict(self._spent[by])
        trainings, total_ms = sum(self._trainings["arm"].values()), sum(self._train_ms["arm"].values())
        if self._timed and total_ms:
            for author, count in self._trainings[by].items():
                spent[author] += self._train_ms[by][author] * trainings / total_ms - count
        return spent

    def parked(self) -> list[str]:
        """Ids of those that wait for a reviewer, oldest first."""
        return sorted(self._parked)

    def proposed(self, arm: str) -> int:
        """Number of candidates that `arm` has proposed, whatever became of them."""
        return self._proposed[arm]

    def promotable(self, rung: int, share: float, excluding: Collection[str] = ()) -> str | None:
        """The best candidate of `rung` that asynchronous successive halving would promote, if any.

        It is among the best `share` of its league that were scored at `rung`, and has not been tried above it
        (Li et al., A System for Massively Parallel Hyperparameter Tuning, arXiv 1810.05934). Baselines, the
        control arm and the other arms are leagues of their own: yardsticks must climb as high as what is
        measured against them. Every baseline is promoted, and nobody of the arm `factorial`, whose candidates
        are trained at their rung at once.
        """
        for league in (BASELINE_ARM, "", CONTROL_ARM):
            scored = self._rungs.get((league, rung), [])
            places = len(scored) if league == BASELINE_ARM else int(len(scored) * share)
            for _, _, cid in islice(scored, places):
                candidate = self._all[cid]
                if candidate.tried_rung == rung and candidate.feasible and cid not in excluding:
                    return cid
        return None

    def update(self, candidate: Candidate) -> None:
        """Take in a new or changed candidate."""
        before = self._all.get(candidate.id)
        self._all[candidate.id] = candidate
        if before is None:
            self._proposed[candidate.proposal.arm] += 1
        else:
            self._states[before.state] -= 1
            self._charge(before, -1)
        self._states[candidate.state] += 1
        if candidate.state is CandidateState.PARKED:
            self._parked.add(candidate.id)
        else:
            self._parked.discard(candidate.id)
        self._charge(candidate, 1)
        self._last_order = max(self._last_order, candidate.ended_order)
        if before is not None and before.state is CandidateState.EVALUATED is not candidate.state:
            with contextlib.suppress(ValueError):  # too long ago
                self._recent.remove(candidate.id)
        if before is None or before.state != candidate.state:
            if candidate.state is CandidateState.EVALUATED:
                self._recent.append(candidate.id)
            elif candidate.state.ended:
                self._setbacks.append(candidate.id)
        self._land(candidate)
        self._rank(before, candidate)

    def _charge(self, candidate: Candidate, sign: int) -> None:
        # who broke a limit in the sandbox has cost an evaluation
        paid = candidate.state not in _UNPAID or candidate.tried_rung >= 0
        for by, author in _authors(candidate):
            self._spent[by][author] += sign * (1.0 if paid else UNPAID_WEIGHT)
            if paid and candidate.train_s:
                self._trainings[by][author] += sign
                # whole numbers: a view that is rebuilt adds up to exactly the same
                self._train_ms[by][author] += sign * round(1000 * candidate.train_s)

    def _land(self, candidate: Candidate) -> None:
        if candidate.state is CandidateState.EVALUATED and candidate.rung_scores:
            if candidate.id not in self._scored:
                self._scored[candidate.id] = None
                self._credit(candidate)
        elif candidate.id in self._scored:  # not believed any more: as if it had never landed
            del self._scored[candidate.id]
            self._landed.clear()
            for credits in self._credits.values():
                credits.clear()
            for cid in self._scored:
                self._credit(self._all[cid])

    def _credit(self, candidate: Candidate) -> None:
        """Note how a candidate that has got its first score compares with those before it."""
        value = -self._sign * candidate.reward(candidate.rung_scores[0], self._maximize)
        below, n = bisect.bisect_left(self._landed, value), len(self._landed)
        bisect.insort(self._landed, value)
        if n and candidate.feasible:
            for by, author in _authors(candidate):
                self._credits[by][author] += max(0.0, 2 * below / n - 1)

    def _rank(self, before: Candidate | None, candidate: Candidate) -> None:
        old = None if before is None else self._key(before)
        new = self._key(candidate)
        league = arm if (arm := candidate.proposal.arm) in {BASELINE_ARM, CONTROL_ARM, FACTORIAL_ARM} else ""
        had, has = ([] if c is None else self._entries(c) for c in (before, candidate))
        for rung, entry in enumerate(had):
            if rung >= len(has) or has[rung] != entry:
                self._rungs[league, rung].remove(entry)
        for rung, entry in enumerate(has):
            if rung >= len(had) or had[rung] != entry:
                bisect.insort(self._rungs.setdefault((league, rung), []), entry)
        if old == new:
            return
        if old is not None:
            self._ranked.pop(bisect.bisect_left(self._ranked, (old, candidate.id)))
        if new is not None:
            bisect.insort(self._ranked, (new, candidate.id))
            if candidate.score is not None and candidate.cost is not None:
                self._front.add(candidate.id, candidate.score, candidate.cost)
        else:
            self._front.remove(candidate.id)

    def _entries(self, candidate: Candidate) -> list[tuple[float, int, str]]:
        """Where the candidate stands among those of its league, by rung."""
        scores = (candidate.reward(score, self._maximize) for score in candidate.rung_scores)
        return [(self._sign * score, candidate.index, candidate.id) for score in scores]

    def _key(self, candidate: Candidate) -> RankKey | None:
        return rank_key(candidate, self._maximize)


def _authors(candidate: Candidate) -> Iterator[tuple[Author, str]]:
    """Who made it, by each kind of author; arms without a model have none of some kinds."""
    proposal = candidate.proposal
    for by, author in zip(
        AUTHORS, (proposal.arm, proposal.operator, proposal.model, proposal.idea), strict=True
    ):
        if author:
            yield by, author
