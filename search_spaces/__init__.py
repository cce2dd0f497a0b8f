"""Search spaces and tasks: what can be proposed, and what it is judged on."""

from cambrian.search_spaces.errors import (
    CambrianError,
    MissingDataError,
    ProposalError,
    UnknownNameError,
    UserError,
)
from cambrian.search_spaces.registry import Registry, near_names
from cambrian.search_spaces.space import Genotype, Signature, Space
from cambrian.search_spaces.tasks import TASKS, Loss, Recipe, Rung, Splits, Task

SPACES: Registry[Space] = Registry(
    "space", "cambrian.spaces", {"convnet": "cambrian.search_spaces.convnet:ConvNetSpace"}
)
"""Factories take no arguments."""

__all__ = [
    "SPACES",
    "TASKS",
    "CambrianError",
    "Genotype",
    "Loss",
    "MissingDataError",
    "ProposalError",
    "Recipe",
    "Registry",
    "Rung",
    "Signature",
    "Space",
    "Splits",
    "Task",
    "UnknownNameError",
    "UserError",
    "near_names",
]
