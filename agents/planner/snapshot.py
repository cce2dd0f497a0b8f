"""What a guided proposal looks at of the population, at one moment: then it may think in a thread."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cambrian.agents.planner.arm import PopulationView
from cambrian.agents.planner.evolution import fingerprint
from cambrian.agents.population.model import Candidate, CandidateState

MOST_JUDGED = 400
"""Candidates that the chance of keeping the limits is learned from, the newest."""


@dataclass(frozen=True)
class Snapshot:
    """The population at one moment.

    Attributes:
        scored: those with a score at the lowest rung, in the order in which they got it.
        judged: those that are known to keep or to break the limits; empty where all keep them.
        kept: 1 for each of `judged` that keeps them, else 0; shape `(len(judged),)`.
        underway: proposed, and with neither a score nor an end; what an arm wrote need be no member.
        parents: the best, best first.
        shapes: fingerprints of all genotypes, each once.
    """

    scored: Sequence[Candidate]
    judged: Sequence[Candidate]
    kept: NDArray[np.float64]
    underway: Sequence[Candidate]
    parents: Sequence[Candidate]
    shapes: frozenset[str]


class Camera:
    """Takes snapshots; what candidates that have ended look like is worked out once.

    Args:
        parents: how many of the best.
    """

    def __init__(self, parents: int) -> None:
        self._parents = parents
        self._ended: dict[str, str] = {}

    def take(self, population: PopulationView) -> Snapshot:
        """The population as it is now."""
        scored = list(population.scored())
        judged, underway, shapes = [], [], set()
        for candidate in population.known():
            shape = self._ended.get(candidate.id)
            if shape is None:
                shape = fingerprint(candidate.genotype)
                if candidate.state.ended:
                    self._ended[candidate.id] = shape
            shapes.add(shape)
            if candidate.state is CandidateState.INFEASIBLE or (
                candidate.state is CandidateState.EVALUATED and candidate.rung_scores
            ):
                judged.append(candidate)
            elif not candidate.state.ended and not candidate.rung_scores:
                underway.append(candidate)
        judged = [] if all(c.feasible for c in judged) else judged[-MOST_JUDGED:]
        return Snapshot(
            scored=scored,
            judged=judged,
            kept=np.array([float(c.feasible) for c in judged]),
            underway=underway,
            parents=list(population.elite(self._parents)) or scored[: self._parents],
            shapes=frozenset(shapes),
        )
