"""Latency of a device on which few candidates were measured, from other devices' measurements and the graph.

A Gaussian process whose mean and covariance over candidates are those of the other devices, with a covariance
over graph features for what none of them shows. How much each counts, how noisy measurements are, and whether
effects add or multiply, is averaged over a grid (`latency_prior.SETTINGS`): its prior weights are what fits
the other devices when each is treated as the new one (empirical Bayes by expectation maximisation), its
posterior weights what fits the new one's few measurements as well.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cambrian.agents.evaluator.encoding import Encoding
from cambrian.agents.evaluator.latency_devices import Columns, Floats, KnownDevice, Points, checked, scales_of
from cambrian.agents.evaluator.latency_prior import (
    SETTINGS,
    Parts,
    Setting,
    forward,
    log_evidence,
    noise_of,
    own_variances,
    with_noise,
)

MIN_SAMPLES = 10
"""Measurements below which no error can be shown."""
_FOLDS = 10
_SIZES = (10, 20, 50)
"""Numbers of samples for which the settings' prior weights are learnt."""
_TASKS = 3
"""How often each known device is treated as the new one."""
_ROUNDS = 30
_NEGLIGIBLE = 0.01
_BEYOND = 10.0
"""No candidate is predicted so many times below the smallest, or above the largest measurement."""


@dataclass(frozen=True)
class LatencyError:
    """The error on candidates that the model had not seen.

    Attributes:
        mape: mean of |predicted - measured| / measured.
        spearman: rank correlation of predicted and measured; 0 where either does not vary.
        z: root mean square of (predicted - measured) / std: above 1 the model was too sure of itself.
        rms: root mean square of (predicted - measured) / predicted.
        samples: candidates.
    """

    mape: float
    spearman: float
    z: float
    rms: float
    samples: int

    def __str__(self) -> str:
        return f"{100 * self.mape:.0f} % mean error, Spearman {self.spearman:.2f}"


def error_of(predicted: Floats, std: Floats, measured: Floats) -> LatencyError:
    """The error of predictions that were made without the measurements, all of shape `(n,)`."""
    from scipy.stats import spearmanr

    varies = len(measured) > 1 and np.ptp(predicted) > 0 and np.ptp(measured) > 0
    return LatencyError(
        mape=float(np.mean(np.abs(predicted - measured) / measured)),
        spearman=float(spearmanr(predicted, measured).statistic) if varies else 0.0,
        z=float(np.sqrt(np.mean(((predicted - measured) / std) ** 2))),
        rms=float(np.sqrt(np.mean(((predicted - measured) / predicted) ** 2))),
        samples=len(measured),
    )


@dataclass(frozen=True)
class _Fitted:
    """What one fit leaves: the points, their targets by their mean, and each setting with its weight."""

    points: Points
    relative: Floats
    level: float
    settings: tuple[tuple[Setting, float, float], ...]  # setting, weight, variance


class LatencyModel:
    """Predicts latencies in ms on one device.

    Args:
        others: other devices, see `known_devices`; may be empty.
        reference: encodings that show how the features vary over the space, for a model without `others`;
            None takes the candidates of each `fit`.
        max_mape: the largest cross-validated error at which it may be trusted.
        min_spearman: the lowest cross-validated rank correlation at which it may be trusted.
    """

    def __init__(
        self,
        others: Sequence[KnownDevice] = (),
        *,
        reference: Sequence[Encoding] | None = None,
        max_mape: float = 0.25,
        min_spearman: float = 0.7,
    ) -> None:
        self.error: LatencyError | None = None
        """Cross-validated on the measurements of the last fit; None before, and below `MIN_SAMPLES`."""
        self.max_mape, self.min_spearman = max_mape, min_spearman
        self._devices = tuple(others)
        if len({id(device.columns) for device in others}) > 1:
            raise ValueError("the other devices have been made with different columns")
        self._columns = others[0].columns if others else Columns(reference) if reference else None
        self._fixed = self._columns is not None
        # the same rows whatever is asked later: the first device's stand for the space
        self._scales = scales_of(self._shapes(others[0].rows[:500])) if others else (1.0, 1.0)
        self._priors: dict[int, Floats] = {}
        self._fitted: _Fitted | None = None

    @property
    def trusted(self) -> bool:
        """Whether its error on held-out measurements is small enough for it to rank or to filter."""
        found = self.error
        return found is not None and found.mape <= self.max_mape and found.spearman >= self.min_spearman

    def prepare(self, encodings: Sequence[Encoding]) -> Points:
        """The candidates as `fit` and `predict` need them, for who asks about the same ones often."""
        if self._columns is None:
            raise ValueError("nothing was given to learn the columns from")
        rows = self._columns(encodings)
        return Points(rows, self._shapes(rows), self._scales)

    def fit(
        self,
        candidates: Sequence[Encoding] | Points,
        milliseconds: Sequence[float] | Floats,
        *,
        judge: bool = True,
    ) -> None:
        """Learn from scratch from the measurements on the device, and find the cross-validated error.

        Args:
            candidates: encodings, or what `prepare` made of them.
            milliseconds: their latencies, positive.
            judge: False leaves out the cross-validation, which takes most of the time: no trust without it.

        Raises:
            ValueError: no candidates, as many latencies as there are not, or one that is not positive.
        """
        values = checked(candidates, milliseconds)
        if not isinstance(candidates, Points):
            if not self._fixed:
                self._columns = Columns(candidates)
            candidates = self.prepare(candidates)
        self.error = None
        self._fitted = self._learn(candidates, values)
        if judge and len(values) >= MIN_SAMPLES:
            self.error = self._cross_validated(candidates, values)

    def predict(self, candidates: Sequence[Encoding] | Points) -> tuple[Floats, Floats]:
        """Mean and standard deviation of a measurement in ms, each of shape `(len(candidates),)`.

        The deviation is widened by what cross-validation found it to be too small by.

        Raises:
            ValueError: not fitted.
        """
        mean, std = _predicted(self._known(), self._points(candidates))
        return mean, std * (max(self.error.z, 1.0) if self.error is not None else 1.0)

    def mean(self, candidates: Sequence[Encoding] | Points) -> Floats:
        """The mean of `predict` alone, in a fraction of the time when there are many candidates.

        Raises:
            ValueError: not fitted.
        """
        return _mean(self._known(), self._points(candidates))

    def lower_bounds(self, mean: Floats, std: Floats, seen: float = 0.0) -> Floats:
        """What latencies predicted so are hardly below, in ms, of the same shape.

        Three standard deviations, and three typical errors of cross-validation; 0 without that.

        Args:
            mean: as predicted.
            std: as predicted.
            seen: typical error of predictions since then (`LatencyError.rms`), which counts if it is larger.
        """
        error = max(self.error.rms, seen) if self.error is not None else np.inf
        bounds: Floats = np.maximum(np.minimum(mean - 3.0 * std, mean * max(1.0 - 3.0 * error, 0.0)), 0.0)
        return bounds

    # -- inside -------------------------------------------------------------------------------------

    def _known(self) -> _Fitted:
        if self._fitted is None:
            raise ValueError("the latency model is not fitted")
        return self._fitted

    def _points(self, candidates: Sequence[Encoding] | Points) -> Points:
        return candidates if isinstance(candidates, Points) else self.prepare(candidates)

    def _learn(self, points: Points, values: Floats) -> _Fitted:
        level = float(values.mean())
        relative = values / level
        evidence, variances = log_evidence(points, relative)
        weights = self._prior(len(values)) * np.exp(evidence - evidence.max())
        weights /= weights.sum()
        kept = np.flatnonzero(weights >= min(_NEGLIGIBLE, float(weights.max())))
        total = float(weights[kept].sum())
        settings = tuple((SETTINGS[i], float(weights[i]) / total, float(variances[i])) for i in kept)
        return _Fitted(points, relative, level, settings)

    def _cross_validated(self, points: Points, values: Floats) -> LatencyError:
        n = len(values)
        folds = _FOLDS if n < 50 else _FOLDS // 2
        fold_of = np.random.default_rng(0).permutation(n) % folds
        mean, std = np.empty(n), np.empty(n)
        for fold in range(folds):
            known, held = np.flatnonzero(fold_of != fold), np.flatnonzero(fold_of == fold)
            fitted = self._learn(points.take(known), values[known])
            mean[held], std[held] = _predicted(fitted, points.take(held))
        return error_of(mean, std, values)

    def _shapes(self, rows: Floats) -> Floats:
        shapes = [device.shape(rows) for device in self._devices]
        return np.stack(shapes, axis=1) if shapes else np.zeros((len(rows), 0))

    def _prior(self, samples: int) -> Floats:
        """Weights of the settings before anything is measured on the device, for about so many samples."""
        size = max((size for size in _SIZES if size <= samples), default=_SIZES[0])
        found = self._priors.get(size)
        if found is None:
            found = self._priors[size] = self._learnt_prior(size)
        return found

    def _learnt_prior(self, samples: int) -> Floats:
        even = np.full(len(SETTINGS), 1.0 / len(SETTINGS))
        if len(self._devices) < 3:
            return even
        rng = np.random.default_rng(0)
        likely = []
        for place, device in enumerate(self._devices):
            order = rng.permutation(len(device.rows))[: _TASKS * samples]
            rows, relative = device.rows[order], device.relative[order]
            points = Points(rows, self._shapes(rows), self._scales).without(place)
            for task in range(_TASKS):
                taken = (task * samples + np.arange(min(samples, len(order)))) % len(order)
                evidence, _ = log_evidence(points.take(taken), relative[taken] / relative[taken].mean())
                likely.append(np.exp(evidence - evidence.max()))
        tasks, weights = np.array(likely), even
        for _ in range(_ROUNDS):
            shares = tasks * weights
            shares /= shares.sum(axis=1, keepdims=True)
            weights = (shares.sum(axis=0) + 0.5 * even) / (len(tasks) + 0.5)
        return weights


def _mean(fitted: _Fitted, points: Points) -> Floats:
    """Mean in ms, averaged over the settings."""
    parts = {log: _parts(fitted, points, log) for log in {setting.log for setting, _, _ in fitted.settings}}
    found = np.zeros(len(points))
    for setting, weight, _ in fitted.settings:
        found += weight * np.log(_mean_of(fitted, setting, *parts[setting.log]))
    return fitted.level * np.exp(found)


def _predicted(fitted: _Fitted, points: Points) -> tuple[Floats, Floats]:
    """Mean and deviation in ms, averaged over the settings.

    The average is that of the logarithms: far from all samples one setting may be wrong by orders of
    magnitude, which must not rule the others.
    """
    parts = {log: _parts(fitted, points, log) for log in {setting.log for setting, _, _ in fitted.settings}}
    first, second = np.zeros(len(points)), np.zeros(len(points))
    for setting, weight, variance in fitted.settings:
        known, new = parts[setting.log]
        mean, across = _mean_of(fitted, setting, known, new), new.weigh(setting)
        solved = np.linalg.solve(with_noise(known.weigh(setting), fitted.points, setting), across.T)
        left = np.maximum(own_variances(points, setting) - np.sum(across.T * solved, axis=0), 0.0)
        spread = np.sqrt(variance * (left + noise_of(points, setting)))
        relative = spread if setting.log else spread / mean
        first += weight * np.log(mean)
        second += weight * (np.log(mean) ** 2 + relative**2)
    mean = fitted.level * np.exp(first)
    return mean, mean * np.sqrt(np.maximum(second - first**2, 1e-18))


def _parts(fitted: _Fitted, points: Points, log: bool) -> tuple[Parts, Parts]:
    """The covariances among the measured candidates, and of all others with them."""
    return Parts(fitted.points, fitted.points, log), Parts(points, fitted.points, log)


def _mean_of(fitted: _Fitted, setting: Setting, known: Parts, new: Parts) -> Floats:
    """Latency by the mean of the measured ones, in one setting."""
    covariance = with_noise(known.weigh(setting), fitted.points, setting)
    weights = np.linalg.solve(covariance, forward(fitted.relative, setting.log))
    said = new.times(setting, weights.astype(np.float64))
    said = np.exp(np.clip(said, -20.0, 20.0)) if setting.log else 1.0 + said
    lowest, highest = float(fitted.relative.min()) / _BEYOND, float(fitted.relative.max()) * _BEYOND
    return np.clip(said, lowest, highest)
