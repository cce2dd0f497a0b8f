"""Small tables that ship with scikit-learn: nothing to download."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from cambrian.search_spaces.space import Signature
from cambrian.search_spaces.tasks.base import standardised
from cambrian.search_spaces.tasks.classification import ClassificationTask, held_out
from cambrian.search_spaces.tasks.regression import RegressionTask
from cambrian.search_spaces.tasks.task import Array, Recipe, Rung, Splits

_PREPROCESSING = (
    "columns standardised with mean and deviation of the training rows, as float32 of shape (n, {})"
)


def _split(x: Array, y: Array, strata: Array, share: float) -> Splits:
    """A part of this share for validation, as much for testing, columns standardised."""
    size = round(share * len(y))
    val, test, train = held_out(strata, (size, size), seed=0)
    x_train, x_val, x_test = standardised(x[train], x[val], x[test])
    return Splits(x_train, y[train], x_val, y[val], x_test, y[test])


class _Classes(ClassificationTask):
    """A table of scikit-learn with a class for every row, split 60 / 20 / 20.

    Args:
        metric: accuracy, balanced_accuracy, macro_f1 or nll.
        recipe: single fields of the recipe by name.
        rungs: mappings with `epochs` and `promote`.
        train_samples: use only this many training samples.
    """

    _table: str
    """What follows `load_` in the name of scikit-learn's function, and the task's name."""
    _columns: int
    _classes: int
    _batch_size: int
    _about: str

    def __init__(
        self,
        *,
        metric: str = "accuracy",
        recipe: Mapping[str, Any] | None = None,
        rungs: Sequence[Mapping[str, Any]] | None = None,
        train_samples: int | None = None,
    ) -> None:
        super().__init__(
            name=self._table.replace("_", "-"),
            version="1",
            signature=Signature(input_shape=(self._columns,), n_outputs=self._classes),
            defaults=Recipe(batch_size=self._batch_size, learning_rate=6e-3),
            default_rungs=(Rung(epochs=10), Rung(epochs=30)),
            metric=metric,
            recipe=recipe,
            rungs=rungs,
            train_samples=train_samples,
        )

    def _read(self) -> Splits:
        from sklearn import datasets

        data = getattr(datasets, f"load_{self._table}")()
        labels = data.target.astype(np.int64)
        return _split(data.data, labels, labels, 0.2)

    def preprocessing(self) -> str:
        """See `Task.preprocessing`."""
        return _PREPROCESSING.format(self._columns)

    def _subject(self) -> str:
        return self._about


class BreastCancer(_Classes):
    """Breast tumours, malignant or benign, by 30 measures of cell nuclei: 341 / 114 / 114 rows."""

    _table, _columns, _classes, _batch_size = "breast_cancer", 30, 2, 32
    _about = "breast tumours, malignant or benign, by 30 measures of their cell nuclei (a table)."


class Wine(_Classes):
    """Wines of three growers by 13 measures of a chemist: 106 / 36 / 36 rows."""

    _table, _columns, _classes, _batch_size = "wine", 13, 3, 16
    _about = "wines of three growers by 13 measures of a chemist (a table)."


class Diabetes(RegressionTask):
    """How far diabetes went in a year, by 10 measures of a patient (Efron et al. 2004): 266 / 88 / 88 rows.

    Args:
        metric: r2, rmse or mae.
        recipe: single fields of the recipe by name.
        rungs: mappings with `epochs` and `promote`.
        train_samples: use only this many training samples.
    """

    def __init__(
        self,
        *,
        metric: str = "r2",
        recipe: Mapping[str, Any] | None = None,
        rungs: Sequence[Mapping[str, Any]] | None = None,
        train_samples: int | None = None,
    ) -> None:
        super().__init__(
            name="diabetes",
            version="1",
            signature=Signature(input_shape=(10,), n_outputs=1),
            # a perceptron overfits beyond 20 epochs, and sooner at higher rates
            defaults=Recipe(batch_size=64, learning_rate=2e-3, weight_decay=1.0),
            default_rungs=(Rung(epochs=10), Rung(epochs=20)),
            metric=metric,
            recipe=recipe,
            rungs=rungs,
            train_samples=train_samples,
        )

    def _read(self) -> Splits:
        from sklearn.datasets import load_diabetes

        data = load_diabetes()
        targets = data.target.astype(np.float64)
        # fifths of the range stand in for classes, so that all splits hold mild and severe cases
        strata = np.searchsorted(np.quantile(targets, (0.2, 0.4, 0.6, 0.8)), targets)
        return _split(data.data, targets[:, None], strata, 0.2)

    def preprocessing(self) -> str:
        """See `Task.preprocessing`."""
        return f"{_PREPROCESSING.format(10)}; {self._units()}"

    def _subject(self) -> str:
        return "how far diabetes went in a year, by 10 measures of a patient (a table)."
