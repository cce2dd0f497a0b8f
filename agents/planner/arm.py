"""The `Arm` protocol: a source of proposals. All arms compete for one budget behind this interface."""

from __future__ import annotations

import random
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from cambrian.agents.evaluator.encoding import Encoding
from cambrian.agents.evaluator.noise import NoiseFloor
from cambrian.agents.population.model import Author, Candidate, Proposal
from cambrian.agents.sections import Constraint
from cambrian.search_spaces import Genotype, Signature, Space, Task


class PopulationView(Protocol):
    """What arms may read of the population. Answers cost far less than a full scan but where that is said."""

    def __len__(self) -> int:
        """All candidates, whatever their state."""
        ...

    def get(self, candidate_id: str) -> Candidate:
        """The candidate. KeyError when there is none."""
        ...

    def elite(self, k: int) -> Sequence[Candidate]:
        """The `k` best feasible evaluated candidates by score, best first; older ones first in ties."""
        ...

    def front(self) -> Sequence[Candidate]:
        """The Pareto front of score and cost among the feasible evaluated, best score first."""
        ...

    def recent(self, k: int) -> Sequence[Candidate]:
        """The `k` evaluated candidates that ended last, newest first."""
        ...

    def setbacks(self, k: int) -> Sequence[Candidate]:
        """The `k` newest that ended without a score (invalid, duplicate, rejected, ...), newest first."""
        ...

    def scored(self) -> Sequence[Candidate]:
        """All that have a score at the lowest rung, in the order in which they got it. A full scan."""
        ...

    def known(self) -> Collection[Candidate]:
        """All candidates, whatever their state. A full scan."""
        ...

    def credits(self, by: Author = "arm") -> Mapping[str, float]:
        """What each author's candidates brought, 0 to 1 each, by how many earlier ones each was better."""
        ...

    def spent(self, by: Author = "arm") -> Mapping[str, float]:
        """What each author used of the common budget, in evaluations."""
        ...

    def counts(self) -> Mapping[str, int]:
        """Number of candidates by state."""
        ...


@dataclass(frozen=True)
class ProposalContext:
    """All that an arm may base a proposal on.

    Attributes:
        index: number of the candidate that the proposal will become.
        rng: seeded by run and index; an arm that uses no other randomness can be replayed.
        notes: tells what the run has learned so far, the best supported first; few arms ask.
        noise: what two scores of one network differ by; None while nothing is known of it.
        budget_left: share of the budget not yet spent, 0 to 1.
        encode: what a predictor sees of a canonical genotype, where more is known of it than its space tells
            (zero-cost proxies, say); None leaves the space's own encoding.
        objection: what the mechanical checks say against a genotype of the space (its shapes, the run's hard
            limits, a candidate that computes the same), in words for its author; empty when nothing. It
            builds the network: to be called in a thread.
        predictor_view: tells what a trusted predictor's expectations depend on most, one line each; else
            nothing. A function, because few arms ask and the answer costs a fraction of a second.
    """

    index: int
    rng: random.Random
    space: Space
    task: Task
    signature: Signature
    population: PopulationView
    constraints: Sequence[Constraint] = ()
    cost: str = "latency_ms"
    budget_left: float = 1.0
    notes: Callable[[], Sequence[str]] = tuple
    noise: NoiseFloor | None = None
    encode: Callable[[Genotype], Encoding] | None = None
    objection: Callable[[Genotype], str] = lambda _genotype: ""
    predictor_view: Callable[[], Sequence[str]] = tuple


@runtime_checkable
class Arm(Protocol):
    """A source of proposals. It keeps no state that a resumed run would miss: all it knows is the context.

    Attributes:
        name: registered name.
        control: True for the arm that the others are measured against: never guided, never screened.
        cheap: True when several drafts cost next to nothing, so that a predictor may choose among them.
    """

    name: str
    control: bool
    cheap: bool

    def ready(self, population: PopulationView) -> bool:
        """Whether it can propose now: crossover needs two parents, the LLM arm an endpoint that answers."""
        ...

    async def propose(self, context: ProposalContext, n: int) -> list[Proposal]:
        """Between 1 and `n` drafts for one place in the population, the arm's favourite first.

        Raises:
            ProposalError: no valid draft could be made; the place goes to another arm.
            ModelUnavailable: the arm's model is down; the arm pauses, the run goes on.
            LimitReached: the arm's own budget is spent; it is not asked again.
        """
        ...

    async def close(self) -> None:
        """Release what it holds. Safe to call twice."""
        ...
