import numpy as np
import pytest

from cambrian.agents.evaluator.encoding import Encoding
from cambrian.agents.evaluator.predictors import PREDICTORS, open_predictor
from cambrian.agents.evaluator.predictors.gp import GaussianProcess
from cambrian.agents.evaluator.predictors.selection import SelectedPredictor
from cambrian.agents.evaluator.predictors.trees import TreePredictor
from cambrian.agents.evaluator.predictors.warping import Warp
from cambrian.search_spaces import UnknownNameError
from tests.contracts.predictor import Make, PredictorContract, Rows, landscape


class TestSelectedPredictor(PredictorContract):
    @pytest.fixture
    def make(self) -> Make:
        return lambda: SelectedPredictor({"gp": GaussianProcess(), "trees": TreePredictor(trees=20)})


def steps(n: int, seed: int = 0) -> tuple[Rows, list[float]]:
    """Parity of halves in two of forty numbers: trees find it, a smooth process with one scale does not."""
    rng = np.random.default_rng(seed)
    points = rng.random((n, 40))
    scores = 2.0 * (points[:, 0] > 0.5) + (points[:, 1] > 0.7) + 0.01 * rng.standard_normal(n)
    return [Encoding({f"n{i:02}": float(v) for i, v in enumerate(p)}) for p in points], scores.tolist()


def test_asks_the_one_that_ranks_best_and_chooses_anew_at_each_fit() -> None:
    predictor = open_predictor("auto")
    assert isinstance(predictor, SelectedPredictor)
    predictor.fit(*steps(150))
    assert predictor.chosen in ("trees", "boosting")
    assert predictor.trust == predictor.taus[predictor.chosen]
    predictor.fit(*landscape(80))
    assert predictor.chosen == "gp"
    assert set(predictor.taus) == {"gp", "trees", "boosting"}


def test_about_two_thirds_of_new_scores_lie_within_one_standard_deviation() -> None:
    inside = []
    for seed in range(4):
        predictor = open_predictor("gp")
        predictor.fit(*landscape(60, seed, noise=0.1))
        rows, scores = landscape(200, seed + 10, noise=0.1)
        mean, std = predictor.predict(rows)
        inside.append(float((np.abs(mean - scores) <= std).mean()))
    assert 0.5 < float(np.mean(inside)) < 0.85


def test_a_predictor_is_opened_by_name() -> None:
    assert {"gp", "trees", "boosting"} <= set(PREDICTORS.names())
    with pytest.raises(UnknownNameError, match="gpp"):
        open_predictor("gpp")


class TestWarp:
    def test_keeps_the_order_and_tames_outliers(self) -> None:
        warp = Warp(np.array([90.0, 10.0, 91.0, 92.0, 93.0]))
        assert np.argsort(warp.targets).tolist() == [1, 0, 2, 3, 4]
        assert abs(warp.targets).max() < 1.5

    def test_leads_back(self) -> None:
        scores = np.array([90.0, 10.0, 91.0, 92.0, 93.0])
        warp = Warp(scores)
        assert warp.back(warp.targets) == pytest.approx(scores)

    def test_goes_on_beyond_the_best(self) -> None:
        warp = Warp(np.array([1.0, 2.0, 3.0]))
        assert warp.back(np.array([2.0]))[0] > 3.0
        assert warp.spread(np.zeros(1), np.ones(1))[0] > 0

    def test_equal_scores_are_one(self) -> None:
        warp = Warp(np.array([0.5, 0.5]))
        assert warp.back(np.array([-1.0, 3.0])).tolist() == [0.5, 0.5]
