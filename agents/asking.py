"""What an arm is told when it is asked for a proposal."""

from __future__ import annotations

import random

from cambrian.agents.lifecycle import Services
from cambrian.agents.planner.arm import ProposalContext


def proposal_context(do: Services, draw: int, arm: str, left: float) -> ProposalContext:
    """What `arm` may base the proposals of one draw on: a function of the population as it is now.

    Args:
        do: services of the run.
        draw: number of the draw, from 0; with the run's seed it decides the random numbers.
        arm: name of the arm.
        left: share of the budget that is left, 0 to 1.
    """
    return ProposalContext(
        index=draw,
        rng=random.Random(f"{do.config.seed}/{draw}/{arm}"),
        space=do.space,
        task=do.task,
        signature=do.task.signature,
        population=do.population,
        constraints=do.config.constraints,
        cost=do.config.cost,
        budget_left=left,
        notes=do.notes,
        noise=do.noise(),
        objection=do.admission.objection,
        predictor_view=do.admission.screen.what_matters,
    )
