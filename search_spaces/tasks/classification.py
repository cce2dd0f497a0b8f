"""What all classification tasks share: options, splits, scores."""

from __future__ import annotations

import functools
import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
from pydantic import BaseModel, ValidationError

from cambrian.search_spaces.errors import UserError
from cambrian.search_spaces.registry import near_names
from cambrian.search_spaces.space import Signature
from cambrian.search_spaces.tasks.task import Array, Loss, Recipe, Rung, SplitName, Splits

METRICS = {"accuracy": True, "balanced_accuracy": True, "macro_f1": True, "nll": False}
"""Every number in `score`, and whether more of it is better."""

_Model = TypeVar("_Model", bound=BaseModel)


class ClassificationTask(ABC):
    """A task whose networks give one logit a class; subclasses read the arrays and say what they are.

    Args:
        name: of the task.
        version: of its data and splits; options that change scores are added to it.
        signature: what networks take and give.
        defaults: the recipe that `recipe` overrides.
        default_rungs: the rungs that `rungs` replaces.
        metric: one of `METRICS`.
        recipe: single fields of the recipe by name.
        rungs: mappings with `epochs` and `promote`.
        train_samples: use only this many training samples, stratified, for quick runs.

    Raises:
        UserError: an option is not what it should be; the message names it.
    """

    def __init__(
        self,
        *,
        name: str,
        version: str,
        signature: Signature,
        defaults: Recipe,
        default_rungs: Sequence[Rung],
        metric: str = "accuracy",
        recipe: Mapping[str, Any] | None = None,
        rungs: Sequence[Mapping[str, Any]] | None = None,
        train_samples: int | None = None,
    ) -> None:
        if metric not in METRICS:
            raise UserError(f"task {name}: unknown metric {metric!r}", hint=near_names(metric, list(METRICS)))
        if train_samples is not None and (
            isinstance(train_samples, bool)
            or not isinstance(train_samples, int)
            or train_samples < signature.n_outputs
        ):
            raise UserError(
                f"task {name}: train_samples: {train_samples!r} is not a number of samples",
                hint=f"at least one a class, {signature.n_outputs}",
            )
        self.name = name
        self.signature = signature
        self.loss: Loss = "cross-entropy"
        self.metric = metric
        self.maximize = METRICS[metric]
        self.recipe = _overridden(name, defaults, recipe)
        self.rungs = tuple(default_rungs) if rungs is None else _rungs(name, rungs)
        self._train_samples = train_samples
        self.version = version
        if self.recipe != defaults or self.rungs != tuple(default_rungs) or train_samples is not None:
            changed = [
                self.recipe.model_dump(),
                [rung.epochs for rung in self.rungs],
                train_samples,
            ]
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
        """What the samples show and what the classes are, in a sentence or two."""

    def load(self) -> Splits:
        """See `Task.load`."""
        return self._splits

    @functools.cached_property
    def _splits(self) -> Splits:
        splits = self._read()
        if self._train_samples is None or self._train_samples >= len(splits.y_train):
            return splits
        kept = stratified(splits.y_train, self._train_samples, seed=0)
        return Splits(
            splits.x_train[kept],
            splits.y_train[kept],
            splits.x_val,
            splits.y_val,
            splits.x_test,
            splits.y_test,
        )

    def score(self, outputs: Array, split: SplitName) -> dict[str, float]:
        """Accuracy, balanced accuracy, macro F1 and mean negative log-likelihood (nats); see `Task.score`."""
        splits = self.load()
        labels = splits.y_val if split == "val" else splits.y_test
        expected = (len(labels), self.signature.n_outputs)
        if outputs.shape != expected:
            raise ValueError(f"outputs on {split} have shape {outputs.shape}, not {expected}")
        if not np.isfinite(outputs).all():
            raise ValueError(f"outputs on {split} are not all finite")
        return classification_metrics(outputs, labels)

    def describe(self) -> str:
        """See `Task.describe`."""
        splits = self.load()
        recipe = self.recipe
        augment = " and ".join(recipe.augment) or "no"
        epochs = ", then ".join(str(rung.epochs) for rung in self.rungs)
        shape = "x".join(str(side) for side in self.signature.input_shape)
        return (
            f"{self.name}: {self._subject()} Inputs {shape}, normalised; {self.signature.n_outputs} classes; "
            f"{len(splits.y_train)} training, {len(splits.y_val)} validation, {len(splits.y_test)} test "
            f"samples. "
            f"Candidates are ranked by validation {self.metric} "
            f"({'higher' if self.maximize else 'lower'} is better). "
            f"All are trained alike: {epochs} epochs, batches of {recipe.batch_size}, {recipe.optimizer} at "
            f"a peak rate of {recipe.learning_rate:g} ({recipe.schedule}), weight decay "
            f"{recipe.weight_decay:g}, label smoothing {recipe.label_smoothing:g}, {augment} augmentation."
        )


def classification_metrics(outputs: Array, labels: Array) -> dict[str, float]:
    """The numbers of `METRICS` for finite logits `(n, classes)`; ties go to the first class.

    Balanced accuracy is a mean over the classes that occur in `labels`, macro F1 over those that occur in
    `labels` or predictions.
    """
    logits = outputs.astype(np.float64)
    predicted = logits.argmax(axis=1)
    n_classes = logits.shape[1]
    confusion = np.zeros((n_classes, n_classes))
    np.add.at(confusion, (labels, predicted), 1)
    hits, actual, guessed = np.diag(confusion), confusion.sum(axis=1), confusion.sum(axis=0)
    seen, named = actual > 0, actual + guessed > 0
    shifted = logits - logits.max(axis=1, keepdims=True)
    log_total = np.log(np.exp(shifted).sum(axis=1))
    return {
        "accuracy": float(hits.sum() / len(labels)),
        "balanced_accuracy": float((hits[seen] / actual[seen]).mean()),
        "macro_f1": float((2 * hits[named] / (actual + guessed)[named]).mean()),
        "nll": float((log_total - shifted[np.arange(len(labels)), labels]).mean()),
    }


def stratified(labels: Array, n: int, *, seed: int) -> Array:
    """Indices, ascending, of `n` samples whose classes have the shares they have in `labels` `(m,)`.

    Shares are rounded by largest remainder; equal seeds give equal choices on every machine.
    """
    rng = np.random.default_rng(seed)
    classes, counts = np.unique(labels, return_counts=True)
    exact = counts * (n / len(labels))
    take = np.floor(exact).astype(int)
    for index in np.argsort(take - exact, kind="stable")[: n - take.sum()]:
        take[index] += 1
    chosen = [
        rng.permutation(np.flatnonzero(labels == label))[:quota]
        for label, quota in zip(classes, take, strict=True)
    ]
    return np.sort(np.concatenate(chosen))


def held_out(labels: Array, sizes: Sequence[int], *, seed: int) -> list[Array]:
    """Stratified disjoint index sets of the given sizes, then what is left, each ascending."""
    left = np.arange(len(labels))
    parts = []
    for number, size in enumerate(sizes):
        chosen = left[stratified(labels[left], size, seed=seed + number)]
        parts.append(chosen)
        left = np.setdiff1d(left, chosen, assume_unique=True)
    return [*parts, left]


def _overridden(task: str, defaults: Recipe, changes: Mapping[str, Any] | None) -> Recipe:
    if changes is None:
        return defaults
    if not isinstance(changes, Mapping):
        raise UserError(
            f"task {task}: recipe: {changes!r} is not a mapping", hint="such as {learning_rate: 0.001}"
        )
    return _validated(Recipe, {**defaults.model_dump(), **changes}, f"task {task}: recipe")


def _rungs(task: str, given: Sequence[Mapping[str, Any]]) -> tuple[Rung, ...]:
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
