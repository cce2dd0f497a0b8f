"""Fitting functions of known form: from Friedman's regressions to formulas of physics."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from cambrian.search_spaces.errors import UserError
from cambrian.search_spaces.registry import near_names
from cambrian.search_spaces.space import Signature
from cambrian.search_spaces.tasks.base import standardised
from cambrian.search_spaces.tasks.regression import RegressionTask
from cambrian.search_spaces.tasks.task import Array, Recipe, Rung, Splits

TRAIN, VAL, TEST = 1000, 500, 500


@dataclass(frozen=True)
class Function:
    """A function of several numbers, each uniform in its range.

    Attributes:
        formula: as people write it.
        ranges: lower and upper end for each argument.
        compute: from `(n, arguments)` to `(n,)`.
    """

    formula: str
    ranges: tuple[tuple[float, float], ...]
    compute: Callable[[Array], Array]


def _friedman1(x: Array) -> Array:
    smooth = 10 * np.sin(np.pi * x[:, 0] * x[:, 1]) + 20 * (x[:, 2] - 0.5) ** 2
    return np.asarray(smooth + 10 * x[:, 3] + 5 * x[:, 4])


def _reactance(x: Array) -> Array:
    return np.asarray(x[:, 1] * x[:, 2] - 1 / (x[:, 1] * x[:, 3]))


def _bessel(x: Array) -> Array:
    from scipy.special import j0

    return np.asarray(j0(20 * x[:, 0]))


def _waves(x: Array) -> Array:
    pairs = np.sin(np.pi * (x[:, 0] ** 2 + x[:, 1] ** 2)) + np.sin(np.pi * (x[:, 2] ** 2 + x[:, 3] ** 2))
    return np.asarray(np.exp(pairs / 2))


_UNIT, _SYMMETRIC, _FEYNMAN = (0.0, 1.0), (-1.0, 1.0), (1.0, 5.0)
_CIRCUIT = ((0.0, 100.0), (40 * np.pi, 560 * np.pi), (0.0, 1.0), (1.0, 11.0))

FUNCTIONS: dict[str, Function] = {
    "friedman1": Function(
        "10 sin(pi a b) + 20 (c - 0.5)^2 + 10 d + 5 e, and five arguments that do not matter",
        (_UNIT,) * 10,
        _friedman1,
    ),
    "friedman2": Function(
        "sqrt(a^2 + (b c - 1 / (b d))^2)", _CIRCUIT, lambda x: np.hypot(x[:, 0], _reactance(x))
    ),
    "friedman3": Function(
        "arctan((b c - 1 / (b d)) / a)", _CIRCUIT, lambda x: np.arctan(_reactance(x) / x[:, 0])
    ),
    "exp-sin": Function(
        "exp(sin(pi x) + y^2)", (_SYMMETRIC,) * 2, lambda x: np.exp(np.sin(np.pi * x[:, 0]) + x[:, 1] ** 2)
    ),
    "product": Function("x y", (_SYMMETRIC,) * 2, lambda x: x[:, 0] * x[:, 1]),
    "bessel": Function("J0(20 x)", (_UNIT,), _bessel),
    "waves": Function("exp((sin(pi (a^2 + b^2)) + sin(pi (c^2 + d^2))) / 2)", (_SYMMETRIC,) * 4, _waves),
    "gaussian": Function(
        "exp(-(t / s)^2 / 2) / (s sqrt(2 pi))",
        ((1.0, 3.0),) * 2,
        lambda x: np.exp(-((x[:, 0] / x[:, 1]) ** 2) / 2) / (x[:, 1] * np.sqrt(2 * np.pi)),
    ),
    "distance": Function(
        "sqrt((c - a)^2 + (d - b)^2)",
        (_FEYNMAN,) * 4,
        lambda x: np.hypot(x[:, 2] - x[:, 0], x[:, 3] - x[:, 1]),
    ),
    "velocities": Function(
        "(u + v) / (1 + u v / c^2)",
        (_FEYNMAN,) * 3,
        lambda x: (x[:, 0] + x[:, 1]) / (1 + x[:, 0] * x[:, 1] / x[:, 2] ** 2),
    ),
}
"""Friedman (1991); the examples of Kolmogorov-Arnold networks (Liu et al., arXiv:2404.19756); of the Feynman
set (Udrescu and Tegmark, arXiv:1905.11481) I.6.2, I.8.14 and I.16.6."""


class Functions(RegressionTask):
    """1,000 / 500 / 500 points of a function of known form.

    Args:
        function: one of `FUNCTIONS`.
        noise: normal noise on the training targets, in standard deviations of the function. Held-out targets
            are exact, so that scores say how well the function itself was found.
        seed: of points and noise.
        metric: r2, rmse or mae.
        recipe: single fields of the recipe by name.
        rungs: mappings with `epochs` and `promote`.
        train_samples: use only this many training samples.
    """

    def __init__(
        self,
        *,
        function: str = "friedman1",
        noise: float = 0.0,
        seed: int = 0,
        metric: str = "r2",
        recipe: Mapping[str, Any] | None = None,
        rungs: Sequence[Mapping[str, Any]] | None = None,
        train_samples: int | None = None,
    ) -> None:
        if function not in FUNCTIONS:
            raise UserError(
                f"task functions: function: unknown function {function!r}",
                hint=near_names(str(function), list(FUNCTIONS)),
            )
        if isinstance(noise, bool) or not isinstance(noise, int | float) or not 0 <= noise < 10:
            raise UserError(
                f"task functions: noise: {noise!r} is not a number from 0",
                hint="in standard deviations of the function, such as 0.1",
            )
        if isinstance(seed, bool) or not isinstance(seed, int) or seed < 0:
            raise UserError(f"task functions: seed: {seed!r} is not a whole number from 0")
        self._function, self._noise, self._seed = FUNCTIONS[function], float(noise), seed
        super().__init__(
            name="functions",
            version=f"1-{function}-{self._noise:g}-{seed}",
            signature=Signature(input_shape=(len(self._function.ranges),), n_outputs=1),
            defaults=Recipe(batch_size=50, learning_rate=1e-2, weight_decay=0.0),
            default_rungs=(Rung(epochs=20), Rung(epochs=80)),
            metric=metric,
            recipe=recipe,
            rungs=rungs,
            train_samples=train_samples,
        )

    def _read(self) -> Splits:
        rng = np.random.default_rng(self._seed)
        low, high = np.array(self._function.ranges).T
        x = rng.uniform(low, high, (TRAIN + VAL + TEST, len(low)))
        y = self._function.compute(x)[:, None]
        y[:TRAIN] += self._noise * y[:TRAIN].std() * rng.normal(size=(TRAIN, 1))
        parts = np.split(np.arange(len(x)), (TRAIN, TRAIN + VAL))
        x_train, x_val, x_test = standardised(*(x[part] for part in parts))
        y_train, y_val, y_test = (y[part] for part in parts)
        return Splits(x_train, y_train, x_val, y_val, x_test, y_test)

    def preprocessing(self) -> str:
        """See `Task.preprocessing`."""
        return (
            "arguments standardised with mean and deviation of the training points, as float32 of shape "
            f"(n, {len(self._function.ranges)}); {self._units()}"
        )

    def _subject(self) -> str:
        ranges = ", ".join(dict.fromkeys(f"{low:g} to {high:g}" for low, high in self._function.ranges))
        noise = f"with noise of {self._noise:g} standard deviations" if self._noise else "without noise"
        return f"points of the function {self._function.formula}, arguments from {ranges}, {noise}."
