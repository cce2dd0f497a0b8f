"""What the pictures show: a population at one moment, with the few questions that all of them ask of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from cambrian.agents.evaluator.hypervolume import Hypervolume, hypervolume_of_run
from cambrian.agents.evaluator.leaderboard import Ranked, Standing, rank_run
from cambrian.agents.evaluator.ranking import RankKey, rank_key
from cambrian.agents.population.model import BASELINE_ARM, CONTROL_ARM, Candidate, CandidateState, Evaluation
from cambrian.agents.population.store import RunRecord
from cambrian.agents.recorder.entries import read_constraints
from cambrian.agents.sections import Constraint


@dataclass(frozen=True)
class Scene:
    """A run's population as it is drawn.

    Attributes:
        candidates: all of them, by index.
        evaluations: theirs, as far as known; pictures tell from them how long who was trained.
        champions: ids of those that were trained again with fresh seeds at the end.
        reference: the reference point of the hypervolume as the store keeps it; None takes a provisional one.
    """

    run: RunRecord
    candidates: tuple[Candidate, ...]
    evaluations: tuple[Evaluation, ...] = ()
    champions: frozenset[str] = frozenset()
    reference: str | None = None

    @cached_property
    def scored(self) -> tuple[Candidate, ...]:
        """Candidates with a score, in the order in which they ended."""
        found = [c for c in self.candidates if c.state is CandidateState.EVALUATED and c.score is not None]
        return tuple(sorted(found, key=lambda c: (c.ended_order, c.ended_s or 0.0, c.index)))

    @cached_property
    def ranking(self) -> tuple[Candidate, ...]:
        """The feasible among the scored, best first, in the order of the leaderboard."""
        by_id = {c.id: c for c in self.scored}
        return tuple(by_id[cid] for cid in self.standings)

    @cached_property
    def standings(self) -> Mapping[str, Standing]:
        """The whole leaderboard by candidate id, best first."""
        return {row.id: row for row in self.ranked.board}

    @cached_property
    def ranked(self) -> Ranked:
        """The leaderboard, and the noise behind its ties."""
        return rank_run(self.run, self.candidates, self.evaluations, self.champions)

    @cached_property
    def hypervolume(self) -> Hypervolume | None:
        """Of score and cost over the evaluations."""
        return hypervolume_of_run(self.run, self.candidates, self.evaluations, self.reference)

    def hypervolume_of(self, arm: str) -> Hypervolume | None:
        """What the candidates of one arm alone dominate, below the same reference point."""
        whole = self.hypervolume
        own = [c for c in self.candidates if c.proposal.arm == arm]
        if whole is None or not own or len(own) == len(self.candidates):
            return None
        kept = whole.reference.model_dump_json()
        return hypervolume_of_run(self.run, own, self.evaluations, kept)

    @cached_property
    def epochs(self) -> Mapping[str, int]:
        """How many epochs a candidate's score comes from, by id, as far as evaluations are known."""
        by_id = {c.id: c.rung for c in self.scored}
        return {e.candidate_id: e.epochs for e in self.evaluations if by_id.get(e.candidate_id) == e.rung}

    @property
    def best(self) -> Candidate | None:
        """The champion, None while there is none."""
        return self.ranking[0] if self.ranking else None

    @cached_property
    def front(self) -> tuple[Candidate, ...]:
        """The Pareto front of score and cost among the feasible, cheapest first."""
        found = [c for c in self.ranking if self.standings[c.id].on_front]
        return tuple(sorted(found, key=lambda c: c.cost or 0.0))

    @property
    def arms(self) -> list[str]:
        """Arms that have a scored candidate: baselines and the control first, then by name."""
        order = {BASELINE_ARM: 0, CONTROL_ARM: 1}
        return sorted({c.proposal.arm for c in self.scored}, key=lambda arm: (order.get(arm, 2), arm))

    @cached_property
    def constraints(self) -> tuple[Constraint, ...]:
        """The run's hard limits."""
        return read_constraints(self.run.config)

    @cached_property
    def counts(self) -> dict[str, int]:
        """Candidates by state."""
        return dict(Counter(c.state.value for c in self.candidates))

    def worth(self, candidate: Candidate) -> float:
        """The score, turned so that higher is better."""
        score = candidate.score if candidate.score is not None else float("-inf")
        return score if self.run.maximize else -score

    def best_of(self, arm: str) -> Candidate | None:
        """The best feasible candidate of one arm."""
        return next((c for c in self.ranking if c.proposal.arm == arm), None)

    def best_so_far(self, candidates: Sequence[Candidate]) -> list[tuple[int, Candidate]]:
        """The improvements among `candidates`, each with its place (from 1) in the order of evaluation.

        Better is what ranks higher: a score after more epochs may be less than the one it replaces.
        """
        wanted = {c.id for c in candidates}
        found: list[tuple[int, Candidate]] = []
        top: RankKey | None = None
        for place, candidate in enumerate(self.scored, start=1):
            key = rank_key(candidate, self.run.maximize) if candidate.id in wanted else None
            if key is not None and (top is None or key[:2] < top[:2]):
                top = key
                found.append((place, candidate))
        return found

    def ancestry(self, candidate: Candidate) -> set[str]:
        """Ids of the candidate and of all that it descends from."""
        by_id = {c.id: c for c in self.candidates}
        found: set[str] = set()
        waiting = [candidate.id]
        while waiting:
            current = by_id.get(waiting.pop())
            if current is not None and current.id not in found:
                found.add(current.id)
                waiting.extend(current.proposal.parents)
        return found

    def baseline_name(self, candidate: Candidate) -> str:
        """What a baseline is called."""
        return candidate.proposal.edit or candidate.summary or candidate.id
