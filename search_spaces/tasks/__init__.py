"""Tasks: what candidates are trained on and judged by."""

from cambrian.search_spaces.registry import Registry
from cambrian.search_spaces.tasks.task import (
    Array,
    Loss,
    Recipe,
    Rung,
    SplitName,
    Splits,
    TableRow,
    TabularTask,
    Task,
    extent,
    validation_samples,
)

TASKS: Registry[Task] = Registry(
    "task",
    "cambrian.tasks",
    {
        "breast-cancer": "cambrian.search_spaces.tasks.tables:BreastCancer",
        "cora": "cambrian.search_spaces.tasks.cora:Cora",
        "diabetes": "cambrian.search_spaces.tasks.tables:Diabetes",
        "digits": "cambrian.search_spaces.tasks.digits:Digits",
        "fashion-mnist": "cambrian.search_spaces.tasks.fashion_mnist:FashionMnist",
        "functions": "cambrian.search_spaces.tasks.functions:Functions",
        "nasbench201": "cambrian.search_spaces.tasks.nasbench201:NasBench201",
        "npz": "cambrian.search_spaces.tasks.npz:NpzTask",
        "shakespeare": "cambrian.search_spaces.tasks.shakespeare:Shakespeare",
        "wine": "cambrian.search_spaces.tasks.tables:Wine",
    },
)
"""Factories take keyword arguments: the entries of the run file's `task` mapping other than `name`."""

__all__ = [
    "TASKS",
    "Array",
    "Loss",
    "Recipe",
    "Rung",
    "SplitName",
    "Splits",
    "TableRow",
    "TabularTask",
    "Task",
    "extent",
    "validation_samples",
]
