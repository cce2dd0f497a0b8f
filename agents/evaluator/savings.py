"""What identity has saved a run: who proposed what was known already, and what that would have cost."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from pydantic import BaseModel, ConfigDict

from cambrian.agents.budget import clock_text
from cambrian.agents.population.model import Candidate, CandidateState, Evaluation
from cambrian.agents.wording import plural


class Savings(BaseModel):
    """What was not trained, as an equal candidate was there.

    Attributes:
        proposals: made in the run.
        duplicates: how many of them computed what an earlier one does, by arm, the most first.
        evaluations: trainings at rung 0 that would have repeated one that was made or is under way. Equals of
            a candidate that never was trained save none.
        seconds: in the sandbox that these would have taken: each what its original took, or the run's mean
            where that is still under way.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    proposals: int = 0
    duplicates: dict[str, int] = {}
    evaluations: int = 0
    seconds: float = 0.0

    @property
    def sentence(self) -> str:
        """All of it for people; empty without duplicates."""
        if not self.duplicates:
            return ""
        arms = ", ".join(f"{n} by {arm}" for arm, n in self.duplicates.items())
        n = sum(self.duplicates.values())
        return (
            f"{n} of {plural(self.proposals, 'proposal')} computed what an earlier one does ({arms}): "
            f"{plural(self.evaluations, 'training')}, about {clock_text(self.seconds)}, "
            f"{'was' if self.evaluations == 1 else 'were'} not made twice"
        )


def savings(candidates: Sequence[Candidate], evaluations: Sequence[Evaluation]) -> Savings:
    """Add up what duplicates did not cost."""
    took: dict[str, float] = {}
    for evaluation in evaluations:
        if evaluation.rung == 0:
            took.setdefault(evaluation.candidate_id, evaluation.wall_s)
    mean = sum(took.values()) / len(took) if took else 0.0
    by_id = {candidate.id: candidate for candidate in candidates}
    duplicates = [candidate for candidate in candidates if candidate.state is CandidateState.DUPLICATE]
    saved = []
    for duplicate in duplicates:
        original = by_id.get(duplicate.duplicate_of or "")
        if original is not None and (original.id in took or not original.state.ended):
            saved.append(took.get(original.id, mean))
    return Savings(
        proposals=len(candidates),
        duplicates=dict(Counter(duplicate.proposal.arm for duplicate in duplicates).most_common()),
        evaluations=len(saved),
        seconds=sum(saved),
    )
