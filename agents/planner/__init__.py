"""The planner: arms that propose, and the portfolio that shares the budget among them."""

from cambrian.agents.planner.arm import Arm, PopulationView, ProposalContext
from cambrian.search_spaces import Registry

ARMS: Registry[Arm] = Registry(
    "arm",
    "cambrian.arms",
    {
        "random": "cambrian.agents.planner.evolution:RandomArm",
        "mutation": "cambrian.agents.planner.evolution:MutationArm",
        "crossover": "cambrian.agents.planner.evolution:CrossoverArm",
        "guided": "cambrian.agents.planner.guided:GuidedArm",
        "local": "cambrian.agents.planner.evolution:LocalArm",
        "llm": "cambrian.agents.planner.llm:LLMArm",
    },
)

__all__ = ["ARMS", "Arm", "PopulationView", "ProposalContext"]
