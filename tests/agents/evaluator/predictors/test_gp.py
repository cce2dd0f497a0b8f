import time

import numpy as np
import pytest

from cambrian.agents.evaluator.encoding import Encoding
from cambrian.agents.evaluator.predictors import kernel
from cambrian.agents.evaluator.predictors.gp import GaussianProcess
from cambrian.agents.evaluator.predictors.protocol import kendall_tau
from tests.contracts.predictor import Make, PredictorContract, landscape, structures


class TestGaussianProcess(PredictorContract):
    @pytest.fixture
    def make(self) -> Make:
        return GaussianProcess


def test_the_gradient_of_the_loss_is_the_loss_s() -> None:
    rng = np.random.default_rng(0)
    distances = [np.abs(np.subtract.outer(x, x)) for x in rng.standard_normal((2, 12))]
    z, theta = rng.standard_normal(12), rng.normal(0, 0.3, 5)
    _, gradient = kernel.loss(theta, distances, z)
    for i in range(5):
        step = np.eye(5)[i] * 1e-5
        up, down = kernel.loss(theta + step, distances, z)[0], kernel.loss(theta - step, distances, z)[0]
        assert (up - down) / 2e-5 == pytest.approx(gradient[i], rel=1e-3, abs=1e-5)


def test_goes_through_clean_data_and_knows_where_it_knows_nothing() -> None:
    xs = np.linspace(0, 1, 25)
    rows, scores = [Encoding({"x": float(x)}) for x in xs], [float(np.sin(6 * x)) for x in xs]
    predictor = GaussianProcess()
    predictor.fit(rows, scores)
    mean, near = predictor.predict(rows)
    assert mean == pytest.approx(scores, abs=0.1)
    far = predictor.predict([Encoding({"x": 3.0})])[1]
    assert far[0] > 5 * near.mean()


def test_a_group_that_tells_is_found_among_one_that_does_not() -> None:
    """Twenty numbers of noise beside the two motifs that decide cost little."""
    rng = np.random.default_rng(5)
    taus = []
    for noisy in (False, True):
        sets = []
        for seed in (0, 1):
            rows, scores = structures(80, seed)
            extra = [{f"n{j}": float(v) for j, v in enumerate(rng.standard_normal(20))} for _ in rows]
            rows = [
                Encoding({**r.numbers, **e} if noisy else r.numbers, r.motifs)
                for r, e in zip(rows, extra, strict=True)
            ]
            sets.append((rows, scores))
        predictor = GaussianProcess()
        predictor.fit(*sets[0])
        taus.append(kendall_tau(predictor.predict(sets[1][0])[0], sets[1][1]) or 0.0)
    assert taus[1] > taus[0] - 0.15 and taus[1] > 0.6


def test_a_number_with_outliers_still_tells() -> None:
    """As proxies of degenerate networks have: one value in ten is a thousand times the others."""
    rows, scores = landscape(80, noise=0)
    wild = [Encoding({**r.numbers, "a": -1e6 if i % 10 == 0 else r.numbers["a"]}) for i, r in enumerate(rows)]
    predictor = GaussianProcess()
    predictor.fit(wild, scores)
    test, truth = landscape(60, 1, noise=0)
    assert (kendall_tau(predictor.predict(test)[0], truth) or 0) > 0.6


def test_points_beyond_the_cap_are_predicted_only() -> None:
    rows, scores = landscape(60)
    capped = GaussianProcess(max_points=30)
    capped.fit(rows, scores)
    assert len(capped.unseen) == 60 and len(capped._weights) == 30


def test_is_quick_enough_to_be_asked_often() -> None:
    rows, scores = structures(100)
    predictor = GaussianProcess()
    predictor.fit(rows, scores)
    started = time.thread_time()
    predictor.fit(rows, scores)
    assert time.thread_time() - started < 0.6  # 0.1 s measured
    pool = structures(2000, 1)[0]
    started = time.thread_time()
    predictor.predict(pool)
    assert time.thread_time() - started < 0.3  # 0.03 s measured
