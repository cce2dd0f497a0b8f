"""When predictions count as the same, and times as confirmed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from cambrian.sandbox.outputs import Outputs
from cambrian.sandbox.reproduction import WARM_UP, differences, slower_than_claimed

N_VAL, N_TEST = 1000, 600
RNG = np.random.default_rng(0)
VAL = RNG.normal(size=(N_VAL, 10)).astype(np.float32)
TEST = RNG.normal(size=(N_TEST, 10)).astype(np.float32)
ORDERS = {"val": RNG.permutation(N_VAL), "test": RNG.permutation(N_TEST)}
NONE = np.empty((0, N_VAL), np.int16)


def compare(
    val: NDArray[np.float32] = VAL,
    test: NDArray[np.float32] = TEST,
    answers: dict[str, NDArray[np.float32]] | None = None,
    spread: float | None = None,
    original: Outputs | None = None,
) -> str:
    """`val` and `test` as the fresh network predicts them, before they are put in its order."""
    first = original or Outputs(VAL, TEST, NONE)
    again = Outputs(val[ORDERS["val"]], test[ORDERS["test"]], NONE)
    asked = {"val": first.val[ORDERS["val"]][:32], "test": first.test[ORDERS["test"]][:32]} | (answers or {})
    return differences(first, again, ORDERS, asked, spread)


@pytest.mark.parametrize("spread", [None, 1.0])
def test_rounding_is_no_difference(spread: float | None) -> None:
    noise = RNG.normal(size=VAL.shape).astype(np.float32) * 1e-5
    assert compare(val=VAL + noise, spread=spread) == ""


def test_a_few_steep_places_are_no_difference() -> None:
    val = VAL.copy()
    val[:4, 0] += 1.0
    assert compare(val=val) == ""


@pytest.mark.parametrize("split", ["val", "test"])
@pytest.mark.parametrize("spread", [None, 1.0])
def test_other_predictions_are_a_difference(split: str, spread: float | None) -> None:
    changed: Any = {split: {"val": VAL, "test": TEST}[split].copy()}
    changed[split][:60, 0] += 9.0
    share = "6.0%" if split == "val" else "10.0%"
    assert compare(**changed, spread=spread) == (
        f"a fresh network with the same weights makes other predictions for {share} of the {split} samples"
    )


@pytest.mark.parametrize(("split", "inputs"), [("val", VAL), ("test", TEST)])
@pytest.mark.parametrize("value", [9.0, np.nan, np.inf])
def test_another_answer_to_a_single_sample_is_a_difference(
    split: str, inputs: NDArray[np.float32], value: float
) -> None:
    one = inputs[ORDERS[split]][:32].copy()
    one[:, 0] += np.float32(value)
    assert f"other single predictions for 100.0% of the {split} samples" in compare(answers={split: one})


def test_outputs_cannot_choose_what_counts_as_a_difference() -> None:
    """Offsets that change no class make the outputs spread as far as one likes."""
    offset = np.where(RNG.random((N_VAL, 1)) < 0.5, 1e4, -1e4).astype(np.float32)
    original = Outputs(VAL + offset, TEST, NONE)
    rolled = np.roll(VAL, 1, axis=1) + offset
    assert "other predictions" in compare(val=rolled, original=original)
    assert "other predictions" in compare(val=rolled, original=original, spread=1.0)


def test_of_two_classes_that_tie_either_may_win() -> None:
    tied = VAL.copy()
    tied[:, 1] = tied[:, 0] = 9.0
    other = tied.copy()
    other[:, 1] += np.float32(1e-4)
    assert compare(val=other, original=Outputs(tied, TEST, NONE)) == ""


def test_time_is_believed_when_a_clock_outside_confirms_it() -> None:
    warm_up = (0.5,) * WARM_UP
    assert slower_than_claimed(1.0, (*warm_up, *(0.0015,) * 20)) == ""
    assert slower_than_claimed(1.0, (*warm_up, *(0.0090,) * 20)) == (
        "a prediction took 9 ms by a clock outside; 1 ms were claimed"
    )
    assert slower_than_claimed(1.0, (*warm_up, *(0.0015,) * 12, *(0.05,) * 8)) == "", "typical is what counts"
    assert slower_than_claimed(1.0, (*warm_up, *(0.0001,) * 8, *(0.05,) * 12)) != "", (
        "one fast answer is no proof"
    )
    assert slower_than_claimed(1.0, ()) == ""


def test_constant_predictions_can_be_reproduced() -> None:
    flat = np.zeros_like(VAL)
    original = Outputs(flat, np.zeros_like(TEST), NONE)
    for spread in (None, 1.0):
        assert differences(original, original, ORDERS, {"val": flat[:32]}, spread) == ""
