"""Tasks: what candidates are trained on and judged by."""

from cambrian.search_spaces.registry import Registry
from cambrian.search_spaces.tasks.task import Array, Loss, Recipe, Rung, SplitName, Splits, Task

TASKS: Registry[Task] = Registry(
    "task",
    "cambrian.tasks",
    {
        "digits": "cambrian.search_spaces.tasks.digits:Digits",
        "fashion-mnist": "cambrian.search_spaces.tasks.fashion_mnist:FashionMnist",
        "npz": "cambrian.search_spaces.tasks.npz:NpzTask",
    },
)
"""Factories take keyword arguments: the entries of the run file's `task` mapping other than `name`."""

__all__ = ["TASKS", "Array", "Loss", "Recipe", "Rung", "SplitName", "Splits", "Task"]
