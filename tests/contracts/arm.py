"""What every arm must do. A test class inherits `ArmContract` and gives the fixtures `arm` and `settings`."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from dataclasses import replace

import pytest

from cambrian.agents.planner import ARMS, Arm, ProposalContext
from cambrian.agents.population.model import Proposal

Settings = Callable[[int], ProposalContext]


def shape(proposal: Proposal, context: ProposalContext) -> str:
    return json.dumps(context.space.validate(proposal.genotype), sort_keys=True)


class ArmContract:
    """The suite.

    Fixtures to give:
        arm: the arm, ready to propose in `settings(0)`.
        settings: from a seed to a context whose population holds evaluated candidates; equal seeds give
            equal contexts, each with a fresh generator.
    """

    replayable = True
    """Whether equal contexts give equal proposals; a live model does not."""

    @pytest.fixture
    def arm(self) -> Arm:
        raise NotImplementedError

    @pytest.fixture
    def settings(self) -> Settings:
        raise NotImplementedError

    def test_it_is_an_arm(self, arm: Arm) -> None:
        assert isinstance(arm, Arm)
        assert arm.name and isinstance(arm.control, bool) and isinstance(arm.cheap, bool)

    def test_it_is_registered_under_its_name(self, arm: Arm) -> None:
        assert isinstance(arm, ARMS.get(arm.name))  # type: ignore[arg-type]

    def test_it_is_ready(self, arm: Arm, settings: Settings) -> None:
        assert arm.ready(settings(0).population)

    @pytest.mark.parametrize("n", [1, 5])
    async def test_it_proposes_members_of_the_space(self, arm: Arm, settings: Settings, n: int) -> None:
        for seed in range(5):
            context = settings(seed)
            drafts = await arm.propose(context, n)
            assert 1 <= len(drafts) <= n
            for draft in drafts:
                assert draft.arm == arm.name
                context.space.validate(draft.genotype)

    async def test_drafts_of_one_call_differ(self, arm: Arm, settings: Settings) -> None:
        for seed in range(5):
            context = settings(seed)
            drafts = await arm.propose(context, 6)
            assert len({shape(draft, context) for draft in drafts}) == len(drafts)

    async def test_parents_are_in_the_population(self, arm: Arm, settings: Settings) -> None:
        for seed in range(10):
            context = settings(seed)
            for draft in await arm.propose(context, 3):
                for parent in draft.parents:
                    assert context.population.get(parent).id == parent

    async def test_it_says_what_it_changed(self, arm: Arm, settings: Settings) -> None:
        for draft in await arm.propose(settings(1), 3):
            assert draft.edit.strip()

    async def test_equal_contexts_give_equal_proposals(self, arm: Arm, settings: Settings) -> None:
        if not self.replayable:
            pytest.skip("a live model answers differently each time")
        assert await arm.propose(settings(3), 4) == await arm.propose(settings(3), 4)

    async def test_it_uses_no_randomness_but_the_contexts(self, arm: Arm, settings: Settings) -> None:
        """Whatever the state of the global generator, which libraries may use for names."""
        if not self.replayable:
            pytest.skip("a live model answers differently each time")
        drawn = []
        for seed in (99, 7):
            random.seed(seed)
            made = await arm.propose(replace(settings(2), rng=random.Random(11)), 3)
            drawn.append([proposal.model_copy(update={"exchange": None}) for proposal in made])
        assert drawn[0] == drawn[1]

    async def test_it_can_be_closed_twice(self, arm: Arm) -> None:
        await arm.close()
        await arm.close()
