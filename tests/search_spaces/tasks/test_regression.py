"""Regression metrics against scikit-learn, standardised targets, functions of known form."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn import datasets, metrics

from cambrian.search_spaces import UserError
from cambrian.search_spaces.tasks.functions import FUNCTIONS, Functions
from cambrian.search_spaces.tasks.regression import METRICS, regression_metrics
from cambrian.search_spaces.tasks.tables import Diabetes


@pytest.mark.parametrize("n_outputs", [1, 3])
def test_metrics_agree_with_scikit_learn(n_outputs: int) -> None:
    rng = np.random.default_rng(0)
    targets = rng.normal(2, 3, (200, n_outputs)).astype(np.float32)
    outputs = (targets + rng.normal(size=targets.shape)).astype(np.float32)
    found = regression_metrics(outputs, targets)
    assert set(found) == set(METRICS)
    assert found["r2"] == pytest.approx(metrics.r2_score(targets, outputs))
    assert found["rmse"] == pytest.approx(metrics.root_mean_squared_error(targets, outputs), rel=1e-5)
    assert found["mae"] == pytest.approx(metrics.mean_absolute_error(targets, outputs), rel=1e-5)


def test_the_mean_has_a_score_of_nought_and_constant_targets_do_not_break() -> None:
    targets = np.array([[1.0], [3.0]], dtype=np.float32)
    assert regression_metrics(np.full((2, 1), 2.0), targets)["r2"] == 0.0
    assert np.isfinite(regression_metrics(targets, np.ones((2, 1)))["r2"])


def test_outputs_can_be_turned_into_the_units_of_the_targets() -> None:
    task = Diabetes()
    words = task.preprocessing().split("outputs times ")[1].split()
    scale, centre = float(words[0]), float(words[2])
    raw = np.sort(datasets.load_diabetes().target)
    splits = task.load()
    ours = np.concatenate([splits.y_train, splits.y_val, splits.y_test]).ravel() * scale + centre
    assert np.allclose(np.sort(ours), raw, atol=1e-2)


def test_metrics_to_minimise_are_minimised() -> None:
    assert Diabetes().maximize and not Diabetes(metric="rmse").maximize


@pytest.mark.parametrize(("name", "arguments"), [("friedman1", 10), ("friedman2", 4), ("friedman3", 4)])
def test_friedmans_functions_are_scikit_learns(name: str, arguments: int) -> None:
    x, y = getattr(datasets, f"make_{name}")(n_samples=300, random_state=0)
    function = FUNCTIONS[name]
    assert len(function.ranges) == x.shape[1] == arguments
    assert np.allclose(function.compute(x), y)
    low, high = np.array(function.ranges).T
    assert (x >= low).all() and (x <= high).all()
    assert np.allclose(x.min(0), low, atol=0.05 * (high - low))
    assert np.allclose(x.max(0), high, atol=0.05 * (high - low))


@pytest.mark.parametrize(
    ("name", "point", "value"),
    [
        ("exp-sin", (0.5, 1.0), np.e**2),
        ("product", (0.5, -0.5), -0.25),
        ("bessel", (0.0,), 1.0),
        ("waves", (0.0, 0.0, 0.0, 0.0), 1.0),
        ("gaussian", (1.0, 1.0), np.exp(-0.5) / np.sqrt(2 * np.pi)),
        ("distance", (1.0, 2.0, 4.0, 6.0), 5.0),
        ("velocities", (1.0, 1.0, 1.0), 1.0),
    ],
)
def test_formulas_at_known_points(name: str, point: tuple[float, ...], value: float) -> None:
    assert FUNCTIONS[name].compute(np.array([point]))[0] == pytest.approx(value)


def test_noise_is_on_the_training_targets_only() -> None:
    clean, noisy = Functions(function="product").load(), Functions(function="product", noise=0.5).load()
    assert np.array_equal(clean.x_train, noisy.x_train)
    assert np.corrcoef(clean.y_train.ravel(), noisy.y_train.ravel())[0, 1] == pytest.approx(0.89, abs=0.03)
    assert np.corrcoef(clean.y_val.ravel(), noisy.y_val.ravel())[0, 1] == pytest.approx(1.0)


def test_what_changes_the_data_changes_the_version() -> None:
    options: list[dict[str, object]] = [
        {}, {"function": "product"}, {"noise": 0.1}, {"seed": 1}, {"train_samples": 50},
    ]  # fmt: skip
    assert len({Functions(**each).version for each in options}) == len(options)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"function": "fridman1"}, "friedman1"),
        ({"noise": -1}, "noise"),
        ({"noise": True}, "noise"),
        ({"seed": -1}, "seed"),
        ({"metric": "accuracy"}, "metric"),
    ],
)
def test_bad_options_are_named(options: dict[str, object], words: str) -> None:
    with pytest.raises(UserError, match=words):
        Functions(**options)  # type: ignore[arg-type]
