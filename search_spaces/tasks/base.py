"""What all tasks with data of their own share: options, splits, description."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, TypeVar

import numpy as np
from pydantic import BaseModel, ValidationError

from cambrian.search_spaces.errors import UserError
from cambrian.search_spaces.registry import near_names
from cambrian.search_spaces.space import Signature
from cambrian.search_spaces.tasks.task import Array, Loss, Recipe, Rung, SplitName, Splits

_Model = TypeVar("_Model", bound=BaseModel)


class SplitTask(ABC):
    """A task with three splits of data; `ClassificationTask` and `RegressionTask` say what targets are.

    Args:
        name: of the task.
        version: of its data and splits; options that change scores are added to it.
        signature: what networks take and give.
        defaults: the recipe that `recipe` overrides.
        default_rungs: the rungs that `rungs` replaces.
        metric: one of the kind's metrics; None takes the first.
        recipe: single fields of the recipe by name.
        rungs: mappings with `epochs` and `promote`.
        train_samples: use only this many training samples, for quick runs.

    Raises:
        UserError: an option is not what it should be; the message names it.
    """

    loss: Loss
    metrics: ClassVar[Mapping[str, bool]]
    """Every number in `score`, and whether more of it is better."""

    def __init__(
        self,
        *,
        name: str,
        version: str,
        signature: Signature,
        defaults: Recipe,
        default_rungs: Sequence[Rung],
        metric: str | None = None,
        recipe: Mapping[str, Any] | None = None,
        rungs: Sequence[Mapping[str, Any]] | None = None,
        train_samples: int | None = None,
    ) -> None:
        metric = metric if metric is not None else next(iter(self.metrics))
        if metric not in self.metrics:
            raise UserError(
                f"task {name}: unknown metric {metric!r}", hint=near_names(str(metric), list(self.metrics))
            )
        if train_samples is not None and (
            isinstance(train_samples, bool)
            or not isinstance(train_samples, int)
            or train_samples < self._fewest(signature)
        ):
            raise UserError(
                f"task {name}: train_samples: {train_samples!r} is not a number of samples",
                hint=f"at least {self._fewest(signature)}",
            )
        self.name = name
        self.signature = signature
        self.metric = metric
        self.maximize = self.metrics[metric]
        self.recipe = _overridden(name, defaults, recipe)
        self.rungs = tuple(default_rungs) if rungs is None else chosen_rungs(name, rungs)
        self._train_samples = train_samples
        self.version = version
        if self.recipe != defaults or self.rungs != tuple(default_rungs) or train_samples is not None:
            changed = [_facts(self.recipe), [rung.epochs for rung in self.rungs], train_samples]
            self.version += "+" + hashlib.sha256(json.dumps(changed).encode()).hexdigest()[:8]

    @abstractmethod
    def _read(self) -> Splits:
        """Read the data, without regard to `train_samples`.

        Raises:
            MissingDataError: files are not there or not readable.
        """

    @abstractmethod
    def preprocessing(self) -> str:
        """See `Task.preprocessing`."""

    @abstractmethod
    def _subject(self) -> str:
        """What the samples show and what the targets are, in a sentence or two."""

    @abstractmethod
    def _measure(self, outputs: Array, targets: Array) -> dict[str, float]:
        """The numbers of `metrics` for finite outputs `(n, n_outputs)`."""

    @abstractmethod
    def _few(self, targets: Array, n: int) -> Array:
        """Indices, ascending, of `n` training samples that stand for all."""

    @abstractmethod
    def _fewest(self, signature: Signature) -> int:
        """The least number of training samples that makes sense."""

    @abstractmethod
    def _targets(self) -> str:
        """What a network gives, in a few words."""

    def load(self) -> Splits:
        """See `Task.load`."""
        return self._splits

    @functools.cached_property
    def _splits(self) -> Splits:
        splits = self._prepared(self._read())
        if self._train_samples is None or self._train_samples >= len(splits.y_train):
            return splits
        kept = self._few(splits.y_train, self._train_samples)
        return dataclasses.replace(splits, x_train=splits.x_train[kept], y_train=splits.y_train[kept])

    def _prepared(self, splits: Splits) -> Splits:
        """What is done to all data as they were read."""
        return splits

    def score(self, outputs: Array, split: SplitName) -> dict[str, float]:
        """The numbers of `metrics`; see `Task.score`."""
        splits = self.load()
        targets = splits.y_val if split == "val" else splits.y_test
        expected = (len(targets), self.signature.n_outputs)
        if outputs.shape != expected:
            raise ValueError(f"outputs on {split} have shape {outputs.shape}, not {expected}")
        if not np.isfinite(outputs).all():
            raise ValueError(f"outputs on {split} are not all finite")
        return self._measure(outputs, targets)

    def describe(self) -> str:
        """See `Task.describe`."""
        splits = self.load()
        recipe = self.recipe
        augment = " and ".join(recipe.augment) or "no"
        epochs = ", then ".join(str(rung.epochs) for rung in self.rungs)
        smoothing = f" label smoothing {recipe.label_smoothing:g}," if self.loss == "cross-entropy" else ""
        precision = f", in {recipe.precision}" if recipe.precision != "float32" else ""
        return (
            f"{self.name}: {self._subject()} Inputs {_inputs(self.signature)}; {self._targets()}; "
            f"{len(splits.y_train)} training, {len(splits.y_val)} validation, {len(splits.y_test)} test "
            f"samples. "
            f"Candidates are ranked by validation {self.metric} "
            f"({'higher' if self.maximize else 'lower'} is better). "
            f"All are trained alike: {epochs} epochs, batches of {recipe.batch_size}, {recipe.optimizer} at "
            f"a peak rate of {recipe.learning_rate:g} ({recipe.schedule}), weight decay "
            f"{recipe.weight_decay:g},{smoothing} {augment} augmentation{precision}."
        )


def _inputs(signature: Signature) -> str:
    """What a network is given, in a few words."""
    graph = signature.graph
    if graph is not None:
        return (
            f"are ids of the {graph.nodes} nodes of one graph, with {graph.features} features each and "
            f"{graph.edges} directed edges"
        )
    shape = "x".join(str(side) for side in signature.input_shape)
    if signature.vocabulary is not None:
        return f"{shape} ids from 0 to {signature.vocabulary - 1}"
    return f"{shape}{' values' if len(signature.input_shape) == 1 else ''}, normalised"


def standardised(train: Array, *others: Array) -> list[Array]:
    """All arrays `(n, ...)` as float32, by mean and deviation of the columns of the first."""
    mean = train.mean(axis=0, keepdims=True, dtype=np.float64)
    std = train.std(axis=0, keepdims=True, dtype=np.float64)
    std[std < 1e-6 * (1 + np.abs(mean))] = 1.0
    return [((array - mean) / std).astype(np.float32) for array in (train, *others)]


def _facts(recipe: Recipe) -> dict[str, Any]:
    """The fields of a recipe that versions are made of; later ones only where they are not the default."""
    fields = recipe.model_dump()
    if recipe.precision == "float32":
        del fields["precision"]
    return fields


def _overridden(task: str, defaults: Recipe, changes: Mapping[str, Any] | None) -> Recipe:
    if changes is None:
        return defaults
    if not isinstance(changes, Mapping):
        raise UserError(
            f"task {task}: recipe: {changes!r} is not a mapping", hint="such as {learning_rate: 0.001}"
        )
    return _validated(Recipe, {**defaults.model_dump(), **changes}, f"task {task}: recipe")


def chosen_rungs(task: str, given: Sequence[Mapping[str, Any]]) -> tuple[Rung, ...]:
    """The rungs that a user wrote.

    Raises:
        UserError: not a list of rungs; the message names the entry.
    """
    if isinstance(given, str) or not isinstance(given, Sequence) or not given:
        raise UserError(
            f"task {task}: rungs: {given!r} is not a list of rungs", hint="such as [{epochs: 3}, {epochs: 9}]"
        )
    return tuple(_validated(Rung, entry, f"task {task}: rungs[{index}]") for index, entry in enumerate(given))


def _validated(model: type[_Model], data: object, where: str) -> _Model:
    if isinstance(data, model):
        return data
    try:
        return model.model_validate(data)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        path = "".join(f".{part}" for part in first["loc"])
        if first["type"] == "extra_forbidden":
            name = str(first["loc"][-1])
            raise UserError(
                f"{where}{path}: no such field", hint=near_names(name, list(model.model_fields))
            ) from None
        raise UserError(f"{where}{path}: {first['msg']}, not {first['input']!r}") from None
