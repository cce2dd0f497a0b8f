"""A small world for arms to propose in: populations of made-up measurements, a task, a tiny space."""

from __future__ import annotations

import itertools
import random
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from torch import nn

from cambrian.agents.planner import ProposalContext
from cambrian.agents.population.model import (
    Candidate,
    CandidateState,
    Proposal,
    candidate_id,
)
from cambrian.agents.population.view import Population
from cambrian.agents.runfile import RunConfig
from cambrian.agents.sections import Constraint
from cambrian.sandbox.examination.report import StaticFacts
from cambrian.search_spaces import SPACES, ProposalError, Recipe, Rung, Signature, Space, Splits

SIGNATURE = Signature(input_shape=(1, 8, 8), n_outputs=10)


class TinySpace:
    """A space of 3 x 3 members: small enough to be used up."""

    name = "tiny"
    version = "1"
    kind: Literal["declarative", "code"] = "declarative"
    genes: Mapping[str, tuple[int, ...]] = {"width": (8, 16, 32), "depth": (1, 2, 3)}

    def schema(self) -> dict[str, Any]:
        return {
            "type": "object",
            "properties": {gene: {"type": "integer", "enum": [*v]} for gene, v in self.genes.items()},
            "required": [*self.genes],
            "additionalProperties": False,
        }

    def validate(self, data: object) -> dict[str, Any]:
        if not isinstance(data, Mapping) or set(data) != set(self.genes):
            raise ProposalError("a genotype has exactly the genes width and depth")
        for gene, allowed in self.genes.items():
            if data[gene] not in allowed:
                raise ProposalError(f"{gene}: {data[gene]!r} is not allowed; allowed: {allowed}")
        return {gene: data[gene] for gene in self.genes}

    def sample(self, rng: random.Random) -> dict[str, Any]:
        return {gene: rng.choice(values) for gene, values in self.genes.items()}

    def mutate(self, genotype: dict[str, Any], rng: random.Random) -> tuple[dict[str, Any], str]:
        gene = rng.choice(sorted(self.genes))
        value = rng.choice([v for v in self.genes[gene] if v != genotype[gene]])
        return genotype | {gene: value}, f"{gene} {genotype[gene]} to {value}"

    def crossover(
        self, first: dict[str, Any], second: dict[str, Any], rng: random.Random
    ) -> tuple[dict[str, Any], str]:
        return {"width": first["width"], "depth": second["depth"]}, "width of the first, depth of the second"

    def build(self, genotype: dict[str, Any], signature: Signature) -> nn.Module:
        sizes = [64, *[genotype["width"]] * genotype["depth"], signature.n_outputs]
        return nn.Sequential(nn.Flatten(), *(nn.Linear(a, b) for a, b in itertools.pairwise(sizes)))

    def features(self, genotype: dict[str, Any]) -> dict[str, float]:
        return {gene: float(value) for gene, value in genotype.items()}

    def describe(self) -> str:
        return "Perceptrons: width is 8, 16 or 32, depth is 1, 2 or 3."

    def summarise(self, genotype: dict[str, Any]) -> str:
        return f"{genotype['width']}x{genotype['depth']}"

    def draw(self, genotype: dict[str, Any], signature: Signature) -> str:
        return "<svg xmlns='http://www.w3.org/2000/svg'/>"

    def source(self, genotype: dict[str, Any], signature: Signature) -> str:
        return "from torch import nn\n\n\ndef build():\n    return nn.Identity()\n"

    def baselines(self) -> Mapping[str, dict[str, Any]]:
        return {"plain": {"width": 16, "depth": 1}}


class ToyTask:
    """Nothing is trained here: arms read a task's words and direction only."""

    name = "toy"
    version = "1"
    signature = SIGNATURE
    metric = "accuracy"
    recipe = Recipe()
    rungs: tuple[Rung, ...] = (Rung(epochs=1),)

    def __init__(self, maximize: bool = True) -> None:
        self.maximize = maximize

    def load(self) -> Splits:
        raise AssertionError("an arm has no business with the data")

    def score(self, outputs: Any, split: Literal["val", "test"]) -> dict[str, float]:
        raise AssertionError("an arm has no business with the labels")

    def describe(self) -> str:
        return "Tell ten shapes apart."


def config(**more: Any) -> RunConfig:
    """A run file's content, with `more` over it."""
    return RunConfig.model_validate(
        {"name": "test", "space": "convnet", "task": "digits", "budget": {"evaluations": 100}} | more
    )


def convnet() -> Space:
    return SPACES.create("convnet")


def candidate(
    index: int,
    genotype: dict[str, Any],
    *,
    score: float | None = None,
    latency: float | None = None,
    state: CandidateState | None = None,
    reason: str = "",
    feasible: bool = True,
    **proposal: Any,
) -> Candidate:
    """A candidate that has ended: evaluated when it has a score."""
    return Candidate(
        id=candidate_id(index),
        index=index,
        proposal=Proposal(genotype=genotype, **{"arm": "random"} | proposal),
        genotype=genotype,
        state=state or CandidateState.EVALUATED,
        reason=reason,
        summary=f"network {index}",
        score=score,
        rung=0 if score is not None else -1,
        tried_rung=0 if score is not None else -1,
        rung_scores=(score,) if score is not None else (),
        latency_ms=latency,
        cost=latency,
        static=StaticFacts(parameters=1000 + index, flops=1, peak_memory_mb=1.0, depth=2),
        feasible=feasible,
        ended_s=float(index),
    )


def evaluated(space: Space, n: int, seed: int = 0) -> list[Candidate]:
    """`n` evaluated random members; a higher score costs more latency, give or take."""
    rng = random.Random(seed)
    found = []
    for index in range(n):
        score = rng.uniform(0.5, 0.9)
        found.append(candidate(index, space.sample(rng), score=score, latency=score * rng.uniform(1.0, 2.0)))
    return found


def context(
    space: Space,
    candidates: Sequence[Candidate] = (),
    *,
    seed: int = 0,
    index: int | None = None,
    maximize: bool = True,
    constraints: Sequence[str] = (),
    budget_left: float = 0.7,
    notes: Sequence[str] = (),
    predictor_view: Sequence[str] = (),
) -> ProposalContext:
    return ProposalContext(
        index=len(candidates) if index is None else index,
        rng=random.Random(seed),
        space=space,
        task=ToyTask(maximize),
        signature=SIGNATURE,
        population=Population(maximize, candidates),
        constraints=[Constraint.parse(text) for text in constraints],
        budget_left=budget_left,
        notes=lambda: notes,
        predictor_view=lambda: predictor_view,
    )
