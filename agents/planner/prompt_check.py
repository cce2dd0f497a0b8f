"""Whether a run's prompts can be rendered at all, before it begins."""

from __future__ import annotations

import random

from cambrian.agents.planner.arm import ProposalContext
from cambrian.agents.planner.questions import Questions
from cambrian.agents.planner.templates import Templates
from cambrian.agents.population.model import Candidate, CandidateState, Proposal, candidate_id
from cambrian.agents.population.view import Population
from cambrian.agents.runfile import RunConfig
from cambrian.search_spaces import Space, Task


def check_prompts(config: RunConfig, space: Space, task: Task) -> None:
    """Render every prompt once with made-up measurements, so that a slip in one is told before a run begins.

    Raises:
        UserError: a template is missing, cannot be parsed or uses what is not defined.
    """
    genotype = space.sample(random.Random(0))
    ends = {
        CandidateState.EVALUATED: 0.5,
        CandidateState.REJECTED: None,
        CandidateState.INVALID: None,
    }
    candidates = [
        Candidate(
            id=candidate_id(index),
            index=index,
            proposal=Proposal(arm="llm", genotype=genotype, parents=(candidate_id(0),), edit="an edit"),
            genotype=genotype,
            state=state,
            reason="a reason",
            score=score,
            latency_ms=score,
            cost=score,
            ended_s=float(index),
        )
        for index, (state, score) in enumerate(ends.items())
    ]
    for population in (Population(task.maximize), Population(task.maximize, candidates)):
        context = ProposalContext(
            index=0,
            rng=random.Random(0),
            space=space,
            task=task,
            signature=task.signature,
            population=population,
            constraints=config.constraints,
            cost=config.cost,
            notes=("a note",),
        )
        prompts = Questions(Templates.of(space), context)
        prompts.repair(prompts.question(), "an answer", "a problem")
