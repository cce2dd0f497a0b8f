"""What every predictor must do. A test class inherits `PredictorContract` and gives the fixture `make`."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import pytest

from cambrian.agents.evaluator.encoding import Encoding
from cambrian.agents.evaluator.predictors.protocol import Predictor, kendall_tau

Make = Callable[[], Predictor]
Rows = list[Encoding]


def encodings(rows: list[dict[str, float]]) -> Rows:
    """Numbers without motifs."""
    return [Encoding(row) for row in rows]


def landscape(n: int, seed: int = 0, noise: float = 0.02) -> tuple[Rows, list[float]]:
    """Numbers, and a score that depends on three of five of them, with a little noise."""
    rng = np.random.default_rng(seed)
    points = rng.random((n, 5))
    scores = points[:, 0] + points[:, 1] * points[:, 2] + noise * rng.standard_normal(n)
    rows = [dict(zip("abcde", map(float, point), strict=True)) for point in points]
    return encodings(rows), list(map(float, scores))


def structures(n: int, seed: int = 0) -> tuple[Rows, list[float]]:
    """Motifs, and a score that two of eight decide; one member in twelve failed and is far below."""
    rng = np.random.default_rng(seed)
    counts = rng.poisson(1.0, (n, 8))
    scores = 2.0 * np.log1p(counts[:, 0]) - np.log1p(counts[:, 1]) + 0.05 * rng.standard_normal(n)
    scores[::12] -= 500.0
    rows = []
    for i, row in enumerate(counts):
        motifs: Mapping[str, float] = {f"0|op{j}": float(c) for j, c in enumerate(row) if c}
        rows.append(Encoding({"size": float(row.sum()), "broken": float(i % 12 == 0)}, motifs))
    return rows, list(map(float, scores))


def _reversed(given: Mapping[str, float]) -> dict[str, float]:
    return dict(reversed(list(given.items())))


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
        assert make().what_matters() == []

    def test_refuses_to_predict_before_it_is_fitted(self, make: Make) -> None:
        with pytest.raises(ValueError, match="fitted"):
            make().predict(encodings([{"a": 1.0}]))

    def test_ranks_unseen_points(self, make: Make) -> None:
        predictor = make()
        predictor.fit(*landscape(80))
        assert predictor.trust is not None and 0.5 < predictor.trust <= 1
        rows, scores = landscape(60, seed=1, noise=0)
        mean, std = predictor.predict(rows)
        assert mean.shape == std.shape == (60,)
        assert np.isfinite(mean).all() and (std >= 0).all()
        tau = kendall_tau(mean, scores)
        assert tau is not None and tau > 0.5

    def test_learns_from_motifs_and_bears_failures(self, make: Make) -> None:
        predictor = make()
        predictor.fit(*structures(96))
        rows, scores = structures(96, seed=1)
        sound = [i for i in range(96) if i % 12]
        mean, _ = predictor.predict([rows[i] for i in sound])
        tau = kendall_tau(mean, [scores[i] for i in sound])
        assert tau is not None and tau > 0.5
        told = dict(predictor.what_matters(4))
        assert told["0|op0"] > 0

    def test_motifs_that_it_never_saw_do_no_harm(self, make: Make) -> None:
        rows, scores = structures(40)
        predictor = make()
        predictor.fit(rows, scores)
        known = Encoding(rows[1].numbers, rows[1].motifs)
        strange = Encoding(rows[1].numbers, {**rows[1].motifs, "0|never seen": 3.0})
        assert predictor.predict([strange])[0] == pytest.approx(predictor.predict([known])[0])

    def test_tells_what_it_expected_of_each_point_unseen(self, make: Make) -> None:
        rows, scores = landscape(60)
        predictor = make()
        predictor.fit(rows, scores)
        assert predictor.unseen.shape == predictor.unseen_std.shape == (60,)
        assert kendall_tau(scores, predictor.unseen) == pytest.approx(predictor.trust)
        seen = np.abs(predictor.predict(rows)[0] - scores).mean()
        assert seen < np.abs(predictor.unseen - scores).mean()

    def test_trust_is_low_where_there_is_nothing_to_learn(self, make: Make) -> None:
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
        rows, scores = structures(30)
        turned = [Encoding(_reversed(r.numbers), _reversed(r.motifs)) for r in rows]
        first, second = make(), make()
        first.fit(rows, scores)
        second.fit(turned, scores)
        assert first.predict(rows)[0].tolist() == second.predict(turned)[0].tolist()

    def test_predicts_from_one_point(self, make: Make) -> None:
        predictor = make()
        predictor.fit(encodings([{"a": 1.0}]), [0.25])
        assert predictor.trust is None
        assert predictor.predict(encodings([{"a": 2.0}]))[0] == pytest.approx([0.25])

    def test_equal_candidates_are_no_trouble(self, make: Make) -> None:
        predictor = make()
        predictor.fit(encodings([{"a": 1.0}] * 8), [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8])
        mean, std = predictor.predict(encodings([{"a": 1.0}, {"a": 2.0}]))
        assert mean[0] == mean[1] and 0.2 < mean[0] < 0.7 and np.isfinite(std).all()

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
    def test_refuses_data_that_are_no_data(
        self, make: Make, rows: list[dict[str, float]], scores: list[float]
    ) -> None:
        with pytest.raises(ValueError):
            make().fit(encodings(rows), scores)

    def test_refuses_other_numbers_than_it_learned(self, make: Make) -> None:
        predictor = make()
        predictor.fit(*landscape(10))
        with pytest.raises(ValueError, match="z"):
            predictor.predict(encodings([{"z": 1.0}]))
