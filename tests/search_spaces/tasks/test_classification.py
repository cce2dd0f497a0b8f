"""Metrics against scikit-learn, stratified choice, splits."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn import metrics

from cambrian.search_spaces.tasks.classification import METRICS, classification_metrics, held_out, stratified


def test_metrics_agree_with_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    for n_classes in (2, 5):
        labels = rng.integers(0, n_classes, 300)
        outputs = rng.normal(size=(300, n_classes)) + 1.5 * np.eye(n_classes)[labels]
        chances = np.exp(outputs) / np.exp(outputs).sum(axis=1, keepdims=True)
        predicted = outputs.argmax(axis=1)
        found = classification_metrics(outputs.astype(np.float32), labels)
        assert set(found) == set(METRICS)
        assert found["accuracy"] == pytest.approx(metrics.accuracy_score(labels, predicted))
        assert found["balanced_accuracy"] == pytest.approx(metrics.balanced_accuracy_score(labels, predicted))
        assert found["macro_f1"] == pytest.approx(metrics.f1_score(labels, predicted, average="macro"))
        assert found["nll"] == pytest.approx(metrics.log_loss(labels, chances), abs=1e-5)


def test_huge_logits_do_not_overflow() -> None:
    outputs = np.array([[1e30, -1e30], [-1e30, 1e30]], dtype=np.float32)
    found = classification_metrics(outputs, np.array([0, 1]))
    assert found["accuracy"] == 1.0 and found["nll"] == 0.0
    assert np.isfinite(classification_metrics(outputs, np.array([1, 0]))["nll"])


def test_classes_that_never_occur_do_not_count() -> None:
    outputs = np.eye(4)[[0, 1, 1]]
    found = classification_metrics(outputs, np.array([0, 0, 1]))
    assert found["balanced_accuracy"] == pytest.approx((0.5 + 1.0) / 2)
    assert found["macro_f1"] == pytest.approx(2 / 3)


def test_a_stratified_choice_keeps_shares() -> None:
    labels = np.repeat([0, 1, 2], [700, 200, 100])
    chosen = stratified(labels, 100, seed=0)
    assert np.bincount(labels[chosen]).tolist() == [70, 20, 10]
    assert len(set(chosen)) == 100 and (np.diff(chosen) > 0).all()
    assert np.array_equal(chosen, stratified(labels, 100, seed=0))
    assert not np.array_equal(chosen, stratified(labels, 100, seed=1))


@pytest.mark.parametrize("n", [1, 7, 33, 99])
def test_a_stratified_choice_has_the_size_asked_for(n: int) -> None:
    assert len(stratified(np.arange(100) % 7, n, seed=0)) == n


def test_held_out_parts_are_disjoint_and_complete() -> None:
    labels = np.arange(200) % 10
    val, test, train = held_out(labels, (30, 50), seed=0)
    assert (len(val), len(test), len(train)) == (30, 50, 120)
    assert sorted([*val, *test, *train]) == list(range(200))
