import numpy as np
import pytest

from cambrian.agents.evaluator.gain import Gain, gain_over_control


def scores(mean: float, n: int, seed: int, spread: float = 0.02) -> list[float]:
    return list(map(float, np.random.default_rng(seed).normal(mean, spread, n)))


def test_a_clear_gain() -> None:
    found = gain_over_control(scores(0.9, 40, 0), scores(0.8, 20, 1))
    assert found.relative_mean == pytest.approx(12.5, abs=2)
    assert found.low is not None and found.high is not None
    assert 0 < found.low < found.relative_mean < found.high
    assert (found.n, found.n_control, found.matched) == (40, 20, 20)
    assert "over random" in found.verdict and found.verdict.startswith("+")


def test_no_gain_is_said_plainly() -> None:
    found = gain_over_control(scores(0.8, 40, 0), scores(0.8, 20, 1))
    assert found.low is not None and found.high is not None
    assert found.low < 0 < found.high
    assert "no gain over random" in found.verdict and "includes 0" in found.verdict


def test_a_loss_is_said_plainly() -> None:
    assert "worse than random" in gain_over_control(scores(0.7, 40, 0), scores(0.8, 20, 1)).verdict


def test_the_sign_turns_for_metrics_that_are_minimised() -> None:
    ours, control = scores(0.4, 30, 0), scores(0.5, 30, 1)
    found = gain_over_control(ours, control, maximize=False)
    assert found.relative_mean is not None and found.relative_mean > 10
    assert found.best == min(ours) and found.best_control == min(control)
    assert found.relative_best is not None and found.relative_best > 0


def test_negative_scores_have_the_right_sign() -> None:
    found = gain_over_control([-1.0, -1.1, -0.9], [-2.0, -2.1, -1.9])
    assert found.relative_mean == pytest.approx(50)


def test_bests_are_compared_at_equal_numbers_of_evaluations() -> None:
    """A thousand draws have a better best than ten of the same kind: that alone is no gain."""
    naive, matched = [], []
    for seed in range(40):
        found = gain_over_control(scores(0.8, 1000, seed), scores(0.8, 10, 100 + seed), resamples=10)
        assert found.best is not None and found.best_control is not None and found.relative_best is not None
        assert found.matched == 10
        naive.append(100 * (found.best - found.best_control) / found.best_control)
        matched.append(found.relative_best)
    assert np.mean(naive) > 3
    assert abs(np.mean(matched)) < 0.5


def test_the_expected_best_is_exact() -> None:
    # best of 3 of {1, 2, 3, 4} without replacement: 4 in three of four draws, else 3
    found = gain_over_control([1.0, 2.0, 3.0, 4.0], [1.0, 1.0, 1.0])
    assert found.relative_best == pytest.approx(100 * (3.75 - 1))


def test_intervals_cover_the_truth() -> None:
    """About 95 of 100 intervals hold the true gain of 10 %; a percentile bootstrap of 20 is a bit short."""
    held = 0
    for seed in range(100):
        found = gain_over_control(
            scores(0.55, 20, seed, 0.05), scores(0.5, 20, 1000 + seed, 0.05), resamples=400
        )
        assert found.low is not None and found.high is not None
        held += found.low <= 10 <= found.high
    assert 86 <= held <= 99


def test_equal_arguments_give_equal_results() -> None:
    arguments = scores(0.9, 12, 0), scores(0.8, 9, 1)
    assert gain_over_control(*arguments) == gain_over_control(*arguments)
    assert gain_over_control(*arguments, seed=1) != gain_over_control(*arguments)


@pytest.mark.parametrize(
    ("ours", "control", "names"),
    [
        ([0.5] * 9, [0.5, 0.6], ["2 evaluated of the random arm"]),
        ([0.5], [0.5] * 9, ["1 evaluated of the other arms"]),
        ([], [], ["0 evaluated of the random arm", "0 evaluated of the other arms"]),
    ],
)
def test_too_few_scores(ours: list[float], control: list[float], names: list[str]) -> None:
    found = gain_over_control(ours, control)
    assert found.relative_mean is None and found.low is None and found.relative_best is None
    assert "not enough data" in found.verdict
    assert all(name in found.verdict for name in names)


def test_a_control_of_zeros_has_no_relative_gain() -> None:
    found = gain_over_control([0.5, 0.6, 0.7], [0.0, 0.0, 0.0])
    assert found.relative_mean is None and "no relative gain" in found.verdict


def test_refuses_what_is_not_finite() -> None:
    with pytest.raises(ValueError, match="finite"):
        gain_over_control([0.5, float("nan"), 0.4], [0.1, 0.2, 0.3])


def test_a_record_survives_json() -> None:
    found = gain_over_control(scores(0.9, 12, 0), scores(0.8, 9, 1))
    assert Gain.model_validate_json(found.model_dump_json()) == found
