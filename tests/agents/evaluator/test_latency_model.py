import numpy as np
import pytest
from numpy.typing import NDArray

from cambrian.agents.evaluator.encoding import Encoding
from cambrian.agents.evaluator.latency_devices import KnownDevice, Table, known_devices
from cambrian.agents.evaluator.latency_model import LatencyModel

Floats = NDArray[np.float64]


def cells(n: int, seed: int = 0) -> list[Encoding]:
    """Networks of three kinds of operation, known by how many of each they have, and by their pairs."""
    counts = np.random.default_rng(seed).integers(0, 5, (n, 3))
    return [
        Encoding(
            {"conv": float(a), "pool": float(b), "skip": float(c)},
            {"conv>pool": float(min(a, b))} if b else {},
        )
        for a, b, c in counts
    ]


def latency(encodings: list[Encoding], conv: float, pool: float, start: float, seed: int = 0) -> list[float]:
    """Of a device where each convolution and each pooling takes so many ms, measured to 2 %."""
    noise = np.random.default_rng(seed).normal(0, 0.02, len(encodings))
    exact = [start + conv * e.numbers["conv"] + pool * e.numbers["pool"] for e in encodings]
    return [float(ms * np.exp(z)) for ms, z in zip(exact, noise, strict=True)]


DEVICES = {"a": (1.0, 0.3, 1.0), "b": (0.2, 0.25, 2.0), "c": (4.0, 0.5, 0.5), "d": (2.0, 1.4, 3.0)}


def tables(n: int = 60) -> dict[str, Table]:
    """Four devices, each of which measured other candidates."""
    return {
        name: (cells(n, seed), latency(cells(n, seed), *costs, seed=seed))
        for seed, (name, costs) in enumerate(DEVICES.items(), 10)
    }


def mape(model: LatencyModel, encodings: list[Encoding], truth: list[float]) -> float:
    mean, _ = model.predict(encodings)
    return float(np.mean(np.abs(mean - truth) / truth))


NEW = (3.0, 0.9, 2.0)
TEST = cells(200, 99)
TRUTH = latency(TEST, *NEW, seed=99)


class TestTransfer:
    def test_other_devices_make_few_samples_enough(self) -> None:
        few = cells(10, 1)
        errors = {}
        for known in (True, False):
            model = LatencyModel(known_devices(tables()) if known else ())
            model.fit(few, latency(few, *NEW, seed=1))
            errors[known] = mape(model, TEST, TRUTH)
        assert errors[True] < 0.06
        assert errors[True] < errors[False]

    def test_a_device_unlike_all_others_is_learnt_from_its_own_samples(self) -> None:
        """Time that grows with what no other device spends any on."""
        own = cells(40, 1)
        ms = [1.0 + 2.0 * e.numbers["skip"] for e in own]
        model = LatencyModel(known_devices(tables()))
        model.fit(own, ms)
        assert mape(model, TEST, [1.0 + 2.0 * e.numbers["skip"] for e in TEST]) < 0.1

    def test_many_measurements_of_another_device_are_learnt_by_boosting(self) -> None:
        own = cells(300, 3)
        (device,) = known_devices({"a": (own, latency(own, *DEVICES["a"]))})
        exact = np.array([1.0 + e.numbers["conv"] + 0.3 * e.numbers["pool"] for e in TEST])
        shape = device.shape(device.columns(TEST))
        assert np.corrcoef(shape, exact)[0, 1] > 0.99
        assert shape.mean() == pytest.approx(1.0, abs=0.1)

    def test_devices_hardly_measured_are_left_out(self) -> None:
        assert known_devices({"a": (cells(1), [1.0])}) == []

    def test_devices_of_other_columns_do_not_mix(self) -> None:
        first, second = known_devices({"a": tables()["a"]}), known_devices({"b": tables()["b"]})
        with pytest.raises(ValueError, match="different columns"):
            LatencyModel([*first, *second])


@pytest.mark.parametrize("known", [True, False])
class TestAnyModel:
    @pytest.fixture
    def model(self, known: bool) -> LatencyModel:
        return LatencyModel(known_devices(tables()) if known else ())

    def test_is_a_function_of_its_arguments(self, model: LatencyModel, known: bool) -> None:
        few = cells(14, 1)
        model.fit(few, latency(few, *NEW))
        first, error = model.predict(TEST), model.error
        model.fit(cells(20, 2), latency(cells(20, 2), *DEVICES["a"]))  # forgotten by the next fit
        model.fit(few, latency(few, *NEW))
        assert model.error == error
        assert all(np.array_equal(a, b) for a, b in zip(first, model.predict(TEST), strict=True))
        assert np.allclose(model.mean(TEST), first[0], rtol=1e-6)

    def test_deviations_are_honest(self, model: LatencyModel, known: bool) -> None:
        few = cells(20, 1)
        model.fit(few, latency(few, *NEW, seed=1))
        mean, std = model.predict(TEST)
        inside = np.mean(np.abs(mean - TRUTH) <= 2 * std)
        assert inside > 0.8
        assert np.median(std / TRUTH) < 0.3
        bounds = model.lower_bounds(mean, std)
        assert np.mean(np.array(TRUTH) < bounds) < 0.03
        assert (0.4 * mean < bounds).any() and (bounds <= mean).all() and (mean > 0).all()

    def test_knows_less_of_what_is_far_from_its_samples(self, model: LatencyModel, known: bool) -> None:
        few = cells(20, 1)
        model.fit(few, latency(few, *NEW))
        far = Encoding({"conv": 40.0, "pool": 4.0, "skip": 2.0})
        _, std = model.predict([far, few[0]])
        assert std[0] > 3 * std[1]

    def test_unit_of_time_does_not_matter(self, model: LatencyModel, known: bool) -> None:
        few = cells(12, 1)
        ms = latency(few, *NEW)
        model.fit(few, ms)
        mean, std = model.predict(TEST[:20])
        model.fit(few, [1000 * value for value in ms])
        for before, after in zip((mean, std), model.predict(TEST[:20]), strict=True):
            assert np.allclose(1000 * before, after, rtol=1e-6)

    def test_error_told_is_about_the_error_made(self, model: LatencyModel, known: bool) -> None:
        few = cells(30, 1)
        model.fit(few, latency(few, *NEW, seed=1))
        assert model.error is not None and model.error.samples == 30
        assert 0.4 < mape(model, TEST, TRUTH) / model.error.mape < 2.5
        assert model.trusted

    def test_is_not_trusted_with_latencies_that_are_chance(self, model: LatencyModel, known: bool) -> None:
        ms = np.random.default_rng(0).uniform(1, 9, 30)
        model.fit(cells(30, 1), ms)
        assert model.error is not None and model.error.spearman < 0.5
        assert not model.trusted

    def test_is_not_trusted_before_an_error_can_be_shown(self, model: LatencyModel, known: bool) -> None:
        few = cells(9, 1)
        model.fit(few, latency(few, *NEW))
        assert model.error is None and not model.trusted
        few = cells(20, 1)
        model.fit(few, latency(few, *NEW), judge=False)
        assert model.error is None and not model.trusted

    @pytest.mark.parametrize("n", [1, 2])
    def test_one_sample_is_a_start(self, model: LatencyModel, known: bool, n: int) -> None:
        few = cells(n, 1)
        model.fit(few, [4.0] * n)
        mean, std = model.predict(TEST[:5])
        assert np.isfinite(mean).all() and (mean > 0).all() and (std > 0).all()

    @pytest.mark.parametrize(
        "ms",
        [[], [1.0], [1.0, 0.0, 2.0], [1.0, -1.0, 2.0], [1.0, float("nan"), 2.0], [1.0, float("inf"), 2.0]],
    )
    def test_wrong_latencies_are_refused(self, model: LatencyModel, known: bool, ms: list[float]) -> None:
        with pytest.raises(ValueError, match="latencies"):
            model.fit(cells(3), ms)

    def test_must_be_fitted_first(self, model: LatencyModel, known: bool) -> None:
        with pytest.raises(ValueError, match="not fitted"):
            model.predict(TEST[:1])

    def test_other_numbers_are_refused(self, model: LatencyModel, known: bool) -> None:
        model.fit(cells(3), [1.0, 2.0, 3.0])
        for numbers in ({"conv": 1.0}, {"conv": 1.0, "pool": 1.0, "other": 1.0}):
            with pytest.raises(ValueError, match="number"):
                model.predict([Encoding(numbers)])


def test_a_device_needs_two_measurements() -> None:
    columns = known_devices(tables())[0].columns
    with pytest.raises(ValueError, match="'x' has 1 measurements"):
        KnownDevice("x", cells(1), [1.0], columns)
