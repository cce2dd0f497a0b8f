"""What is known of a device's latency before much is measured on it, as covariances between candidates.

A device is a function over candidates. Those of other devices give a mean function and an empirical
covariance between any two candidates (Minka and Picard 1997, Learning how to learn is learning with point
sets); what none of them shows is left to a covariance over the features of the graph.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np

from cambrian.agents.evaluator.latency_devices import Floats, Points


@dataclass(frozen=True)
class Setting:
    """One way to weigh what is known against what is new.

    Attributes:
        log: latencies are modelled by their logarithm, where effects multiply; else in ms, where they add.
        devices: share of the variance that is like the differences between the known devices.
        smooth: share of the rest that may be any smooth function of the features, not a linear one.
        noise: variance of the measurements by that of all else.
    """

    log: bool
    devices: float
    smooth: float
    noise: float


_NOISES = (1e-3, 1e-2, 5e-2, 0.2, 0.6)
SETTINGS = tuple(
    Setting(*each) for each in itertools.product((False, True), (0.0, 0.5, 0.9, 0.98), (0.0, 0.4), _NOISES)
)
_VAGUE = 100.0
"""Variance of what nothing is assumed of: the device's level, and how far it follows the others' mean."""
_SHAPE, _RATE = 1.0, 0.01
"""Of the inverse gamma prior of the variance, in units of the squared mean latency."""
_REACH = 1.0
"""Distance of two rows at which smooth functions begin to differ; theirs is sqrt(2) on average."""


def forward(relative: Floats, log: bool) -> Floats:
    """Latency by a mean, as a setting models it: near 0 for a candidate of that mean."""
    return np.log(relative) if log else relative - 1.0


class Parts:
    """The covariances between two lists of candidates, ready to be weighed by any setting.

    Args:
        first: candidates, `n` of them.
        second: candidates, `m` of them.
        log: whether logarithms are modelled.
    """

    def __init__(self, first: Points, second: Points, log: bool) -> None:
        linear = first.rows @ second.rows.T
        lengths = np.sum(first.rows**2, axis=1)[:, None] + np.sum(second.rows**2, axis=1)[None, :]
        self.linear: Floats = linear
        self.smooth: Floats = np.exp(-np.maximum(lengths - 2 * linear, 0.0) / (2 * _REACH**2))
        means, deviations = zip(*(_centred(points, log) for points in (first, second)), strict=True)
        self.devices: Floats | None = None
        self.vague: Floats = np.full(linear.shape, _VAGUE)
        if first.shapes.shape[1]:
            self.vague = self.vague * (1.0 + np.outer(*means))
        if first.shapes.shape[1] > 1:
            self.devices = deviations[0] @ deviations[1].T / first.shapes.shape[1] / first.scales[log]

    def weigh(self, setting: Setting) -> Floats:
        """The covariance in this setting, shape `(n, m)`, without noise."""
        share = setting.devices if self.devices is not None else 0.0
        found = (1.0 - share) * (1.0 - setting.smooth) * self.linear
        found += self.vague
        if setting.smooth:
            found += (1.0 - share) * setting.smooth * self.smooth
        if self.devices is not None and share:
            found += share * self.devices
        return found

    def times(self, setting: Setting, weights: Floats) -> Floats:
        """`weigh(setting) @ weights` for weights of shape `(m,)`, without building the covariance."""
        share = setting.devices if self.devices is not None else 0.0
        found = self.vague @ weights + (1.0 - share) * (1.0 - setting.smooth) * (self.linear @ weights)
        if setting.smooth:
            found = found + (1.0 - share) * setting.smooth * (self.smooth @ weights)
        if self.devices is not None and share:
            found = found + share * (self.devices @ weights)
        return np.asarray(found, dtype=np.float64)


def _centred(points: Points, log: bool) -> tuple[Floats, Floats]:
    """Mean over the known devices, and how each of them deviates."""
    if not points.shapes.shape[1]:
        return np.zeros(len(points)), points.shapes
    values = np.log(points.shapes) if log else points.shapes
    mean = values.mean(axis=1)
    return mean, values - mean[:, None]


def own_variances(points: Points, setting: Setting) -> Floats:
    """The variance of each candidate before anything is measured, without noise: `Parts.weigh`'s diagonal."""
    mean, deviations = _centred(points, setting.log)
    devices = points.shapes.shape[1]
    share = setting.devices if devices > 1 else 0.0
    own = (1.0 - setting.smooth) * np.sum(points.rows**2, axis=1) + setting.smooth
    found = _VAGUE * (1.0 + (mean**2 if devices else 0.0)) + (1.0 - share) * own
    if share:
        found = found + share * np.sum(deviations**2, axis=1) / devices / points.scales[setting.log]
    return np.asarray(found, dtype=np.float64)


def noise_of(points: Points, setting: Setting) -> Floats:
    """Variance of each measurement: it grows with the latency unless logarithms are modelled."""
    if setting.log or not points.shapes.shape[1]:
        return np.full(len(points), setting.noise)
    grown: Floats = setting.noise * np.maximum(points.shapes.mean(axis=1), 0.1) ** 2
    return grown


def log_evidence(points: Points, relative: Floats) -> tuple[Floats, Floats]:
    """How likely the measurements are in each setting when their variance is not known (Student's t).

    Args:
        points: the measured candidates.
        relative: their latencies by their mean.

    Returns:
        Log evidence and the variance found, both of shape `(len(SETTINGS),)`.
    """
    evidence, variances = np.empty(len(SETTINGS)), np.empty(len(SETTINGS))
    shape = _SHAPE + len(relative) / 2
    # densities of logarithms are made densities of latencies, or they could not be compared
    jacobian = float(np.log(relative).sum())
    weighed: dict[bool, Parts] = {log: Parts(points, points, log) for log in (False, True)}
    for first in range(0, len(SETTINGS), len(_NOISES)):  # settings that differ in their noise only
        group, log = slice(first, first + len(_NOISES)), SETTINGS[first].log
        covariance = weighed[log].weigh(SETTINGS[first])
        factors = np.linalg.cholesky(
            np.stack([with_noise(covariance, points, setting) for setting in SETTINGS[group]])
        )
        targets = np.broadcast_to(forward(relative, log)[:, None], (len(factors), len(relative), 1))
        rates = _RATE + 0.5 * np.sum(np.linalg.solve(factors, targets)[..., 0] ** 2, axis=1)
        halves = np.log(np.diagonal(factors, axis1=1, axis2=2)).sum(axis=1)
        evidence[group] = -halves - shape * np.log(rates) - (jacobian if log else 0.0)
        variances[group] = rates / shape
    return evidence, variances


def with_noise(covariance: Floats, points: Points, setting: Setting) -> Floats:
    """The covariance of measurements of these candidates."""
    found: Floats = covariance + np.diag(noise_of(points, setting))
    return found
