"""What all regression tasks share: standardised targets, and scores."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import numpy as np

from cambrian.search_spaces.space import Signature
from cambrian.search_spaces.tasks.base import SplitTask, standardised
from cambrian.search_spaces.tasks.task import Array, Loss, Splits

METRICS = {"r2": True, "rmse": False, "mae": False}
"""Every number in `score`, and whether more of it is better."""


class RegressionTask(SplitTask):
    """A task whose networks give numbers; `_read` gives targets `(n, n_outputs)` in their own units.

    Scores are the coefficient of determination, the root of the mean squared error and the mean absolute
    error; errors are in standard deviations of the training targets.
    """

    loss: Loss = "squared-error"
    metrics: ClassVar[dict[str, bool]] = METRICS

    def _prepared(self, splits: Splits) -> Splits:
        self._centre = splits.y_train.mean(axis=0, dtype=np.float64)
        self._scale = splits.y_train.std(axis=0, dtype=np.float64)
        y_train, y_val, y_test = standardised(splits.y_train, splits.y_val, splits.y_test)
        return dataclasses.replace(splits, y_train=y_train, y_val=y_val, y_test=y_test)

    def _units(self) -> str:
        """How outputs become targets in their own units."""
        self.load()
        numbers = [", ".join(f"{number:.6g}" for number in part) for part in (self._scale, self._centre)]
        return f"outputs times {numbers[0]} plus {numbers[1]} are targets in their own units"

    def _measure(self, outputs: Array, targets: Array) -> dict[str, float]:
        return regression_metrics(outputs, targets)

    def _few(self, targets: Array, n: int) -> Array:
        return np.sort(np.random.default_rng(0).permutation(len(targets))[:n])

    def _fewest(self, signature: Signature) -> int:
        return 2

    def _targets(self) -> str:
        n = self.signature.n_outputs
        return f"{n} number{'s' if n > 1 else ''} to predict, standardised"


def regression_metrics(outputs: Array, targets: Array) -> dict[str, float]:
    """The numbers of `METRICS` for finite outputs and targets `(n, n_outputs)`; means over the outputs."""
    error = outputs.astype(np.float64) - targets
    squared = np.square(error).mean(axis=0)
    spread = np.maximum(targets.var(axis=0, dtype=np.float64), 1e-12)
    return {
        "r2": float((1.0 - squared / spread).mean()),
        "rmse": float(np.sqrt(squared).mean()),
        "mae": float(np.abs(error).mean()),
    }
