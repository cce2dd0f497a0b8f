"""Search spaces and tasks: what can be proposed, and what it is judged on."""

from cambrian.search_spaces.errors import (
    CambrianError,
    MissingDataError,
    ProposalError,
    UnknownNameError,
    UserError,
)
from cambrian.search_spaces.finding import SpaceRegistry
from cambrian.search_spaces.registry import Registry, near_names
from cambrian.search_spaces.space import Enumerable, Genotype, HasOperators, Signature, Space
from cambrian.search_spaces.tasks import (
    TASKS,
    Loss,
    Recipe,
    Rung,
    Splits,
    TableRow,
    TabularTask,
    Task,
)

SPACES = SpaceRegistry("space", "cambrian.spaces", {})
"""Spaces by name: folders and factories without arguments; `finding` tells where they are looked for."""

__all__ = [
    "SPACES",
    "TASKS",
    "CambrianError",
    "Enumerable",
    "Genotype",
    "HasOperators",
    "Loss",
    "MissingDataError",
    "ProposalError",
    "Recipe",
    "Registry",
    "Rung",
    "Signature",
    "Space",
    "SpaceRegistry",
    "Splits",
    "TableRow",
    "TabularTask",
    "Task",
    "UnknownNameError",
    "UserError",
    "near_names",
]
