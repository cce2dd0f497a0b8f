import pytest

from cambrian.agents.budget import Account, clock_text
from cambrian.agents.errors import LimitReached
from cambrian.agents.sections import BudgetSection


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_slots_together_cannot_overshoot() -> None:
    account = Account(BudgetSection(evaluations=2))
    assert account.reserve() and account.reserve()
    assert not account.reserve(), "both places are taken, but either may yet turn out to be a duplicate"
    account.settle(0)
    assert account.reserve()
    account.settle(1)
    account.settle(1)
    with pytest.raises(LimitReached) as caught:
        account.reserve()
    assert (caught.value.kind, caught.value.limit, caught.value.used) == ("evaluations", 2, 2)
    assert caught.value.exit_code == 3


def test_time_counts_over_all_resumes() -> None:
    clock = Clock()
    account = Account(BudgetSection(wall_s=60), elapsed_s=50, clock=clock)
    assert account.reserve()
    clock.now += 11
    assert account.elapsed_s == 61
    with pytest.raises(LimitReached, match="wall_s"):
        account.reserve()
    assert account.reserve(force=True), "what was started within the limits may land"


def test_what_is_left_is_that_of_the_kind_nearest_to_its_end() -> None:
    clock = Clock()
    account = Account(BudgetSection(wall_s=100, evaluations=10), evaluations=2, clock=clock)
    clock.now += 75
    assert account.left() == pytest.approx(0.25)
    assert account.describe() == "2/10 evaluations, 1:15/1:40"
    clock.now += 1000
    assert account.left() == 0


@pytest.mark.parametrize(("seconds", "text"), [(0.9, "0:00"), (61, "1:01"), (3725, "1:02:05")])
def test_clock_text(seconds: float, text: str) -> None:
    assert clock_text(seconds) == text
