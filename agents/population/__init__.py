"""The population: its records, its store (the one truth) and the view that arms read."""

from cambrian.agents.population.model import (
    Candidate,
    CandidateState,
    Evaluation,
    Proposal,
    candidate_id,
)

__all__ = ["Candidate", "CandidateState", "Evaluation", "Proposal", "candidate_id"]
