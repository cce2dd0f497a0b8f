"""What every predictor must do. A test class inherits `PredictorContract` and gives the fixture `make`."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from cambrian.agents.evaluator.predictor import Predictor, kendall_tau

Make = Callable[[], Predictor]
Rows = list[dict[str, float]]


def landscape(n: int, seed: int = 0, noise: float = 0.02) -> tuple[Rows, list[float]]:
    """Features, and a score that depends on three of five of them, with a little noise."""
    rng = np.random.default_rng(seed)
    points = rng.random((n, 5))
    scores = points[:, 0] + points[:, 1] * points[:, 2] + noise * rng.standard_normal(n)
    return [dict(zip("abcde", map(float, point), strict=True)) for point in points], list(map(float, scores))


class PredictorContract:
    """The suite.

    Fixtures to give:
        make: a factory of fresh, equal predictors.
    """

    @pytest.fixture
    def make(self) -> Make:
        raise NotImplementedError

    def test_is_a_predictor(self, make: Make) -> None:
        assert isinstance(make(), Predictor)

    def test_has_no_trust_before_it_is_fitted(self, make: Make) -> None:
        assert make().trust is None

    def test_refuses_to_predict_before_it_is_fitted(self, make: Make) -> None:
        with pytest.raises(ValueError, match="fitted"):
            make().predict([{"a": 1.0}])

    def test_ranks_unseen_points(self, make: Make) -> None:
        predictor = make()
        predictor.fit(*landscape(80))
        rows, scores = landscape(60, seed=1, noise=0)
        mean, std = predictor.predict(rows)
        assert mean.shape == std.shape == (60,)
        assert np.isfinite(mean).all() and (std >= 0).all()
        tau = kendall_tau(mean, scores)
        assert tau is not None and tau > 0.5

    def test_trust_is_high_where_there_is_something_to_learn(self, make: Make) -> None:
        predictor = make()
        predictor.fit(*landscape(80))
        assert predictor.trust is not None and 0.5 < predictor.trust <= 1

    def test_trust_is_low_where_there_is_not(self, make: Make) -> None:
        trusts = []
        for seed in range(4):
            rows, scores = landscape(60, seed)
            predictor = make()
            predictor.fit(rows, list(np.random.default_rng(seed + 50).permutation(scores)))
            trusts.append(predictor.trust or 0.0)
        assert abs(float(np.mean(trusts))) < 0.2

    def test_trust_is_none_when_scores_do_not_differ(self, make: Make) -> None:
        predictor = make()
        predictor.fit(landscape(20)[0], [0.5] * 20)
        assert predictor.trust is None
        assert predictor.predict(landscape(3, 1)[0])[0] == pytest.approx([0.5] * 3)

    def test_equal_data_give_equal_predictions(self, make: Make) -> None:
        rows = landscape(9, seed=2)[0]
        first, second = make(), make()
        first.fit(*landscape(30, seed=7))  # what it was fitted on before does not matter
        for predictor in (first, second):
            predictor.fit(*landscape(40))
        assert first.trust == second.trust
        for one, other in zip(first.predict(rows), second.predict(rows), strict=True):
            assert one.tolist() == other.tolist()

    def test_the_order_of_keys_does_not_matter(self, make: Make) -> None:
        predictor = make()
        predictor.fit(*landscape(40))
        row = landscape(1, seed=3)[0][0]
        turned = dict(reversed(row.items()))
        assert predictor.predict([row])[0] == predictor.predict([turned])[0]

    def test_predicts_from_one_point(self, make: Make) -> None:
        predictor = make()
        predictor.fit([{"a": 1.0}], [0.25])
        assert predictor.trust is None
        assert predictor.predict([{"a": 2.0}])[0] == pytest.approx([0.25])

    @pytest.mark.parametrize(
        ("rows", "scores"),
        [
            ([], []),
            ([{"a": 1.0}], [0.1, 0.2]),
            ([{"a": 1.0}, {"b": 1.0}], [0.1, 0.2]),
            ([{"a": 1.0}, {"a": 2.0}], [0.1, float("nan")]),
            ([{"a": 1.0}, {"a": float("inf")}], [0.1, 0.2]),
        ],
    )
    def test_refuses_data_that_are_no_data(self, make: Make, rows: Rows, scores: list[float]) -> None:
        with pytest.raises(ValueError):
            make().fit(rows, scores)

    def test_refuses_other_features_than_it_learned(self, make: Make) -> None:
        predictor = make()
        predictor.fit(*landscape(10))
        with pytest.raises(ValueError, match="z"):
            predictor.predict([{"z": 1.0}])
