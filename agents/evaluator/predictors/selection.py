"""Several predictors at once: the one that ranks best what it had not seen is asked."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from cambrian.agents.evaluator.encoding import Encoding
from cambrian.agents.evaluator.predictors.protocol import Predictor

Floats = NDArray[np.float64]

MARGIN = 0.4
"""By how much, over the square root of the points, a later predictor must beat the first: less is chance."""
_INSIDE = 0.683
"""Share of a normal distribution within one standard deviation."""
_FACTORS = (0.25, 4.0)


class SelectedPredictor:
    """The best of some predictors by cross-validated Kendall tau, chosen anew at each fit.

    Its standard deviations are those of the chosen one times a factor that puts 68 % of the held-out
    residuals within them: split conformal prediction with normalised residuals (Lei et al. 2018).

    Args:
        models: by name, the favourite first.
    """

    def __init__(self, models: Mapping[str, Predictor]) -> None:
        if not models:
            raise ValueError("nothing to choose from")
        self._models = dict(models)
        self.trust: float | None = None
        self.unseen: Floats = np.zeros(0)
        self.unseen_std: Floats = np.zeros(0)
        self.chosen = next(iter(self._models))
        """Name of the one that is asked."""
        self.taus: dict[str, float | None] = dict.fromkeys(self._models)
        """Cross-validated Kendall tau of each as last fitted."""
        self.factor = 1.0
        """What the standard deviations are multiplied by."""

    def fit(self, encodings: Sequence[Encoding], targets: Sequence[float]) -> None:
        """See `Predictor.fit`; costs what all of them cost."""
        for name, model in self._models.items():
            model.fit(encodings, targets)
            self.taus[name] = model.trust
        first = next(iter(self._models))
        best = max(self._models, key=lambda name: (_known(self.taus[name]), name == first))
        beaten = _known(self.taus[best]) > _known(self.taus[first]) + MARGIN / math.sqrt(len(targets))
        self.chosen = best if beaten else first
        model = self._models[self.chosen]
        self.factor = _factor(model, np.asarray(targets, dtype=np.float64))
        self.trust, self.unseen = model.trust, model.unseen
        self.unseen_std = model.unseen_std * self.factor

    def predict(self, encodings: Sequence[Encoding]) -> tuple[Floats, Floats]:
        """See `Predictor.predict`."""
        mean, std = self._models[self.chosen].predict(encodings)
        return mean, std * self.factor

    def what_matters(self, k: int = 5) -> list[tuple[str, float]]:
        """See `Predictor.what_matters`: of the chosen one."""
        return self._models[self.chosen].what_matters(k)


def _known(tau: float | None) -> float:
    return -1.0 if tau is None else tau


def _factor(model: Predictor, scores: Floats) -> float:
    """What makes 68 % of the held-out residuals fit."""
    if model.trust is None:
        return 1.0
    ratios = np.sort(np.abs(scores - model.unseen) / np.maximum(model.unseen_std, 1e-12))
    place = min(math.ceil((len(ratios) + 1) * _INSIDE), len(ratios))
    return float(np.clip(ratios[place - 1], *_FACTORS))
