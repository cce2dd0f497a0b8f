import numpy as np
import pytest

from cambrian.agents.evaluator.predictors.boosting import BoostingPredictor
from cambrian.agents.evaluator.predictors.protocol import kendall_tau, kept_points
from cambrian.agents.evaluator.predictors.trees import TreePredictor
from tests.contracts.predictor import Make, PredictorContract, landscape


class TestTreePredictor(PredictorContract):
    @pytest.fixture
    def make(self) -> Make:
        return TreePredictor

    def test_uncertainty_is_larger_away_from_the_data(self) -> None:
        rows, scores = landscape(80)
        near = [row for row in rows if row.numbers["a"] < 0.5]
        predictor = TreePredictor()
        predictor.fit(near, [s for row, s in zip(rows, scores, strict=True) if row.numbers["a"] < 0.5])
        assert predictor.predict(landscape(50, 4)[0])[1].mean() > predictor.predict(near)[1].mean()

    def test_points_beyond_the_cap_do_not_matter(self) -> None:
        rows, scores = landscape(60)
        kept = kept_points(np.array(scores), 20, True)
        capped, small = TreePredictor(max_points=20), TreePredictor(max_points=20)
        capped.fit(rows, scores)
        small.fit([rows[i] for i in kept], [scores[i] for i in kept])
        assert capped.predict(rows)[0].tolist() == small.predict(rows)[0].tolist()
        assert len(capped.unseen) == 60

    def test_other_seeds_give_other_trees(self) -> None:
        rows, scores = landscape(40)
        predictions = []
        for seed in (0, 1):
            predictor = TreePredictor(seed=seed)
            predictor.fit(rows, scores)
            predictions.append(predictor.predict(landscape(9, 3)[0])[0].tolist())
        assert predictions[0] != predictions[1]


class TestBoostingPredictor(PredictorContract):
    @pytest.fixture
    def make(self) -> Make:
        return lambda: BoostingPredictor(trees=60)


@pytest.mark.parametrize("maximize", [True, False])
def test_above_the_cap_the_newest_and_the_best_are_kept(maximize: bool) -> None:
    sign = 1.0 if maximize else -1.0
    scores = np.array([sign * score for score in (9.0, 1.0, 8.0, 2.0, 3.0, 4.0, 5.0, 0.0)])
    assert kept_points(scores, 5, maximize).tolist() == [0, 2, 5, 6, 7]


class TestKendallTau:
    def test_orders(self) -> None:
        assert kendall_tau([1, 2, 3, 4], [10, 20, 30, 40]) == pytest.approx(1)
        assert kendall_tau([1, 2, 3, 4], [4, 3, 2, 1]) == pytest.approx(-1)
        assert kendall_tau([1, 2, 3], [1, 3, 2]) == pytest.approx(1 / 3)

    @pytest.mark.parametrize("pair", [([], []), ([1.0], [2.0]), ([1.0, 1.0], [1.0, 2.0])])
    def test_is_none_where_undefined(self, pair: tuple[list[float], list[float]]) -> None:
        assert kendall_tau(*pair) is None
