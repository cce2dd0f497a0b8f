"""What the pictures show: a population at one moment, with the few questions that all of them ask of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from cambrian.agents.evaluator.ranking import rank_key
from cambrian.agents.population.model import BASELINE_ARM, CONTROL_ARM, Candidate, CandidateState
from cambrian.agents.population.store import RunRecord
from cambrian.agents.recorder.entries import read_constraints
from cambrian.agents.runfile import Constraint


@dataclass(frozen=True)
class Scene:
    """A run's population as it is drawn.

    Attributes:
        candidates: all of them, by index.
    """

    run: RunRecord
    candidates: tuple[Candidate, ...]

    @cached_property
    def scored(self) -> tuple[Candidate, ...]:
        """Candidates with a score, in the order in which they ended."""
        found = [c for c in self.candidates if c.state is CandidateState.EVALUATED and c.score is not None]
        return tuple(sorted(found, key=lambda c: (c.ended_s or 0.0, c.index)))

    @cached_property
    def ranking(self) -> tuple[Candidate, ...]:
        """The feasible among the scored, best first, in the order of the leaderboard."""
        ranked = [(key, c) for c in self.scored if (key := rank_key(c, self.run.maximize)) is not None]
        return tuple(c for _, c in sorted(ranked, key=lambda entry: entry[0]))

    @property
    def best(self) -> Candidate | None:
        """The champion, None while there is none."""
        return self.ranking[0] if self.ranking else None

    @cached_property
    def front(self) -> tuple[Candidate, ...]:
        """The Pareto front of score and cost among the feasible, cheapest first."""
        found: list[Candidate] = []
        lowest = float("inf")
        for candidate in sorted(self.ranking, key=lambda c: (-self.worth(c), c.cost or 0.0)):
            if candidate.cost is not None and candidate.cost < lowest:
                lowest = candidate.cost
                found.append(candidate)
        return tuple(reversed(found))

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
        """The improvements among `candidates`, each with its place (from 1) in the order of evaluation."""
        wanted = {c.id for c in candidates if c.feasible}
        found: list[tuple[int, Candidate]] = []
        for place, candidate in enumerate(self.scored, start=1):
            if candidate.id in wanted and (not found or self.worth(candidate) > self.worth(found[-1][1])):
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
