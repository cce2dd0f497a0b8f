"""When predictions count as the same, and times as confirmed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from cambrian.sandbox import Latency
from cambrian.sandbox.outputs import Outputs
from cambrian.sandbox.reproduction import WARM_UP, differences

N_VAL, N_TEST = 1000, 600
RNG = np.random.default_rng(0)
VAL = RNG.normal(size=(N_VAL, 10)).astype(np.float32)
TEST = RNG.normal(size=(N_TEST, 10)).astype(np.float32)
ORDERS = {"val": RNG.permutation(N_VAL), "test": RNG.permutation(N_TEST)}
NONE = np.empty((0, N_VAL), np.int16)
CLAIMED = Latency(
    device="cpu", threads=1, batch=1, warmup=1, repeats=20, median_ms=1.0, q1_ms=0.9, q3_ms=1.1
)  # fmt: skip


def compare(
    val: NDArray[np.float32] = VAL,
    test: NDArray[np.float32] = TEST,
    answers: dict[str, NDArray[np.float32]] | None = None,
    answers_s: tuple[float, ...] = (),
    claimed: Latency | None = CLAIMED,
) -> str:
    """`val` and `test` as the fresh network predicts them, before they are put in its order."""
    again = Outputs(val[ORDERS["val"]], test[ORDERS["test"]], NONE)
    asked = {"val": VAL[ORDERS["val"]][:32], "test": TEST[ORDERS["test"]][:32]} | (answers or {})
    return differences(Outputs(VAL, TEST, NONE), again, ORDERS, asked, claimed, answers_s)


def test_rounding_is_no_difference() -> None:
    noise = RNG.normal(size=VAL.shape).astype(np.float32) * 1e-5
    assert compare(val=VAL + noise, answers_s=(0.0012,) * 32) == ""


def test_a_few_steep_places_are_no_difference() -> None:
    val = VAL.copy()
    val[:4] += 0.1
    assert compare(val=val) == ""


@pytest.mark.parametrize("split", ["val", "test"])
def test_other_predictions_are_a_difference(split: str) -> None:
    changed: Any = {split: {"val": VAL, "test": TEST}[split].copy()}
    changed[split][:60] += 0.1
    share = "6.0%" if split == "val" else "10.0%"
    assert compare(**changed) == (
        f"a fresh network with the same weights makes other predictions for {share} of the {split} samples"
    )


@pytest.mark.parametrize(("split", "inputs"), [("val", VAL), ("test", TEST)])
def test_another_answer_to_a_single_sample_is_a_difference(split: str, inputs: NDArray[np.float32]) -> None:
    asked = {split: inputs[ORDERS[split]][:32] + np.float32(0.2)}
    assert f"other single predictions for 100.0% of the {split} samples" in compare(answers=asked)


def test_time_is_believed_when_a_clock_outside_confirms_it() -> None:
    warm_up = (0.5,) * WARM_UP
    assert compare(answers_s=(*warm_up, *(0.0015,) * 20)) == ""
    assert compare(answers_s=(*warm_up, *(0.0090,) * 20)) == (
        "a prediction took 9 ms by a clock outside; 1 ms were claimed"
    )
    assert compare(answers_s=(*warm_up, *(0.0090,) * 20), claimed=None) == ""
    assert compare(answers_s=(*warm_up, *(0.0015,) * 12, *(0.05,) * 8)) == "", "a busy machine only adds time"


def test_constant_predictions_can_be_reproduced() -> None:
    flat = np.zeros_like(VAL)
    original = Outputs(flat, np.zeros_like(TEST), NONE)
    assert differences(original, original, ORDERS, {"val": flat[:32]}, None, ()) == ""
