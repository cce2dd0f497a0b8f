"""What all classification tasks share: scores, and splits by class."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from cambrian.search_spaces.space import Signature
from cambrian.search_spaces.tasks.base import SplitTask
from cambrian.search_spaces.tasks.task import Array, Loss

METRICS = {"accuracy": True, "balanced_accuracy": True, "macro_f1": True, "nll": False}
"""Every number in `score`, and whether more of it is better."""


class ClassificationTask(SplitTask):
    """A task whose networks give one logit a class; `train_samples` keeps the shares of the classes.

    Scores are accuracy, balanced accuracy, macro F1 and mean negative log-likelihood (nats).
    """

    loss: Loss = "cross-entropy"
    metrics: ClassVar[dict[str, bool]] = METRICS

    def _measure(self, outputs: Array, targets: Array) -> dict[str, float]:
        return classification_metrics(outputs, targets)

    def _few(self, targets: Array, n: int) -> Array:
        return stratified(targets, n, seed=0)

    def _fewest(self, signature: Signature) -> int:
        return signature.n_outputs

    def _targets(self) -> str:
        return f"{self.signature.n_outputs} classes"


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
