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


class BreastCancer(ClassificationTask):
    """Breast tumours, malignant or benign, by 30 measures of cell nuclei: 341 / 114 / 114 rows.

    Args:
        metric: accuracy, balanced_accuracy, macro_f1 or nll.
        recipe: single fields of the recipe by name.
        rungs: mappings with `epochs` and `promote`.
        train_samples: use only this many training samples.
    """

    def __init__(
        self,
        *,
        metric: str = "accuracy",
        recipe: Mapping[str, Any] | None = None,
        rungs: Sequence[Mapping[str, Any]] | None = None,
        train_samples: int | None = None,
    ) -> None:
        super().__init__(
            name="breast-cancer",
            version="1",
            signature=Signature(input_shape=(30,), n_outputs=2),
            defaults=Recipe(batch_size=32, learning_rate=6e-3),
            default_rungs=(Rung(epochs=10), Rung(epochs=30)),
            metric=metric,
            recipe=recipe,
            rungs=rungs,
            train_samples=train_samples,
        )

    def _read(self) -> Splits:
        from sklearn.datasets import load_breast_cancer

        data = load_breast_cancer()
        labels = data.target.astype(np.int64)
        return _split(data.data, labels, labels, 0.2)

    def preprocessing(self) -> str:
        """See `Task.preprocessing`."""
        return _PREPROCESSING.format(30)

    def _subject(self) -> str:
        return "breast tumours, malignant or benign, by 30 measures of their cell nuclei (a table)."


class Wine(ClassificationTask):
    """Wines of three growers by 13 measures of a chemist: 106 / 36 / 36 rows.

    Args:
        metric: accuracy, balanced_accuracy, macro_f1 or nll.
        recipe: single fields of the recipe by name.
        rungs: mappings with `epochs` and `promote`.
        train_samples: use only this many training samples.
    """

    def __init__(
        self,
        *,
        metric: str = "accuracy",
        recipe: Mapping[str, Any] | None = None,
        rungs: Sequence[Mapping[str, Any]] | None = None,
        train_samples: int | None = None,
    ) -> None:
        super().__init__(
            name="wine",
            version="1",
            signature=Signature(input_shape=(13,), n_outputs=3),
            defaults=Recipe(batch_size=16, learning_rate=6e-3),
            default_rungs=(Rung(epochs=10), Rung(epochs=30)),
            metric=metric,
            recipe=recipe,
            rungs=rungs,
            train_samples=train_samples,
        )

    def _read(self) -> Splits:
        from sklearn.datasets import load_wine

        data = load_wine()
        labels = data.target.astype(np.int64)
        return _split(data.data, labels, labels, 0.2)

    def preprocessing(self) -> str:
        """See `Task.preprocessing`."""
        return _PREPROCESSING.format(13)

    def _subject(self) -> str:
        return "wines of three growers by 13 measures of a chemist (a table)."


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
