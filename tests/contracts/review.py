"""What every review desk must do. A test class inherits it and gives `desk` and `decide`."""

from __future__ import annotations

from typing import Literal, Protocol

import pytest

from cambrian.agents.review import Decision, ReviewDesk


class Decide(Protocol):
    """How a reviewer decides on this kind of desk."""

    def __call__(
        self, candidate_id: str, verdict: Literal["approve", "reject"], reason: str = ""
    ) -> None: ...


PARKED = ("c-0001", "c-0002", "c-0003")


class ReviewDeskContract:
    """The suite.

    Fixtures to give:
        desk: the desk of a run in which the candidates `PARKED` wait, all undecided.
        decide: decides as a reviewer does, not through `desk`.
    """

    @pytest.fixture
    def desk(self) -> ReviewDesk:
        raise NotImplementedError

    @pytest.fixture
    def decide(self) -> Decide:
        raise NotImplementedError

    def test_is_a_review_desk(self, desk: ReviewDesk) -> None:
        assert isinstance(desk, ReviewDesk)

    def test_has_no_decisions_before_anybody_decided(self, desk: ReviewDesk) -> None:
        assert desk.poll(PARKED) == []
        assert desk.poll([]) == []

    def test_tells_a_decision_and_its_reason(self, desk: ReviewDesk, decide: Decide) -> None:
        decide("c-0002", "reject", "too wide for the budget")
        (decision,) = desk.poll(PARKED)
        assert (decision.candidate_id, decision.verdict) == ("c-0002", "reject")
        assert decision.reason == "too wide for the budget"

    def test_needs_no_reason(self, desk: ReviewDesk, decide: Decide) -> None:
        decide("c-0001", "approve")
        (decision,) = desk.poll(PARKED)
        assert (decision.verdict, decision.reason) == ("approve", "")

    def test_tells_all_decisions_in_the_order_asked_for(self, desk: ReviewDesk, decide: Decide) -> None:
        for cid in PARKED:
            decide(cid, "approve")
        found = desk.poll(["c-0003", "c-0001", "c-0002"])
        assert [decision.candidate_id for decision in found] == ["c-0003", "c-0001", "c-0002"]

    def test_tells_of_those_it_is_asked_about_only(self, desk: ReviewDesk, decide: Decide) -> None:
        decide("c-0001", "approve")
        decide("c-0003", "reject")
        assert [decision.candidate_id for decision in desk.poll(["c-0003"])] == ["c-0003"]

    def test_repeats_a_decision_until_it_is_acted_upon(self, desk: ReviewDesk, decide: Decide) -> None:
        decide("c-0001", "approve", "go")
        assert desk.poll(PARKED) == desk.poll(PARKED) != []

    def test_a_later_decision_replaces_an_earlier_one(self, desk: ReviewDesk, decide: Decide) -> None:
        decide("c-0001", "approve", "go")
        decide("c-0001", "reject", "on second thoughts")
        (decision,) = desk.poll(PARKED)
        assert (decision.verdict, decision.reason) == ("reject", "on second thoughts")

    def test_what_a_reviewer_writes_is_bounded_and_harmless(self, desk: ReviewDesk, decide: Decide) -> None:
        decide("c-0001", "reject", "a\x1b[31m\x00b\u202ec" + "x" * 5000)
        (decision,) = desk.poll(PARKED)
        assert decision.reason.startswith("a[31mbcxxx")
        assert len(decision.reason) <= 2000

    def test_can_be_closed_twice(self, desk: ReviewDesk) -> None:
        desk.close()
        desk.close()


def only(decisions: list[Decision]) -> Decision:
    """The one decision that there is."""
    (decision,) = decisions
    return decision
