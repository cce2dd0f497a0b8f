"""The portfolio: which arm proposes the next candidate.

The budget is shared by weight times merit: what an arm's candidates brought for what it spent, see
`agents.planner.credit`. So arms that pay are asked more often, and none is left out for good.
Each place goes to the arm that lies farthest behind its share of what has been spent so far, so the choice is
a function of the population alone and survives a resume. The control arm's share is reserved: it takes no
part in the competition, nor in the redistribution when another arm cannot propose.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Collection, Mapping, Sequence

from cambrian.agents.planner import ARMS
from cambrian.agents.planner.arm import Arm, PopulationView
from cambrian.agents.planner.credit import merits
from cambrian.agents.planner.models import Models
from cambrian.agents.runfile import RunConfig

DEBT = 2.0
"""Places behind its share from which an arm counts as returning from an absence."""
CATCH_UP = 2.0
"""How many times its share a returning arm gets at most, so that it does not fill all slots at once."""
LONGEST_REST = 64
"""Choices for which an arm that keeps failing is passed over, at most."""


def build_arms(config: RunConfig, models: Models | None) -> dict[str, Arm]:
    """All arms with a weight, and the random control in any case: someone must be able to begin."""
    names = [name for name, section in config.arms.items() if section.weight > 0]
    return {
        name: ARMS.create(name, config=config, models=models) for name in dict.fromkeys([*names, "random"])
    }


class Portfolio:
    """Shares the places in the population among the arms.

    Args:
        config: weights (`arms`) and `warmup`.
        arms: by name; one that has no weight proposes only when nothing else is ready.
        clock: seconds, monotonic; pauses end by it.

    Attributes:
        weights: of the arms, adding up to 1; 0 for one that has none.
    """

    def __init__(
        self, config: RunConfig, arms: Mapping[str, Arm], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.arms = dict(arms)
        self.warmup = config.warmup
        weights = {name: config.arms[name].weight if name in config.arms else 0.0 for name in self.arms}
        total = sum(weights.values()) or 1.0
        self.weights = {name: weight / total for name, weight in weights.items()}
        self._clock = clock
        self._retired: dict[str, str] = {}
        self._paused: dict[str, tuple[float, str]] = {}
        self._failures: dict[str, tuple[int, str]] = {}
        self._resting: dict[str, int] = {}

    def choose(
        self,
        spent: Mapping[str, float],
        population: PopulationView,
        rng: random.Random,
        exclude: Collection[str] = (),
    ) -> Arm | None:
        """The arm that proposes the next candidate; None when no arm can.

        Args:
            spent: what each arm has used of the common budget so far, in evaluations, those still under way
                included; other names (baselines, say) are ignored.
            population: what arms look at to say whether they are ready.
            rng: the next candidate's generator.
            exclude: arms that have failed for this very place.
        """
        taken = {name: spent.get(name, 0) for name in self.arms}
        total = sum(taken.values()) + 1
        ready = [name for name in self.arms if name not in exclude and self._available(name, population)]
        control = next((name for name in ready if self.arms[name].control), None)
        if control is not None and total <= self.warmup:
            return self.arms[control]
        shares = self.shares(ready, merits(spent, population.credits()))
        if not shares:
            return None
        if control is not None and shares.get(control, 0.0) * total - taken[control] >= 1:
            return self.arms[control]  # others may be far behind shares that have just grown: it comes first
        order = sorted(shares, key=lambda name: (taken[name] - shares[name] * total, name))
        first = order[0]
        returning = shares[first] * total - taken[first] > DEBT and not self.arms[first].control
        if returning and len(order) > 1 and rng.random() > CATCH_UP * shares[first]:
            first = order[1]
        return self.arms[first]

    def pause(self, name: str, reason: str, seconds: float = 60.0) -> None:
        """Pass over an arm for some seconds: its model does not answer."""
        self._paused[name] = (self._clock() + seconds, reason)

    def retire(self, name: str, reason: str) -> None:
        """Never ask an arm again in this process: its budget is spent, or its key is refused."""
        self._retired[name] = reason

    def failed(self, name: str, reason: str) -> None:
        """Note that an arm could make no valid draft: it rests for the next 1, 2, 4, ... choices."""
        count = self._failures.get(name, (0, ""))[0] + 1
        self._failures[name] = (count, reason)
        self._resting[name] = min(2 ** (count - 1), LONGEST_REST)

    def succeeded(self, name: str) -> None:
        """Note that an arm has made a valid draft: its next failure is counted as the first."""
        self._failures.pop(name, None)
        self._resting.pop(name, None)

    def status(self) -> dict[str, str]:
        """One phrase for each arm: `active`, or why it does not propose."""
        now = self._clock()
        found: dict[str, str] = {}
        for name in self.arms:
            until, why = self._paused.get(name, (now, ""))
            if name in self._retired:
                found[name] = f"retired: {self._retired[name]}"
            elif until > now:
                found[name] = f"paused for {until - now:.0f} s: {why}"
            elif self._resting.get(name):
                found[name] = f"resting: {self._failures[name][1]}"
            else:
                found[name] = "active"
        return found

    def _available(self, name: str, population: PopulationView) -> bool:
        if name in self._retired:
            return False
        if name in self._paused:
            if self._clock() < self._paused[name][0]:
                return False
            del self._paused[name]
        if not self.arms[name].ready(population):
            return False
        if self._resting.get(name):
            self._resting[name] -= 1
            return False
        return True

    def shares(self, ready: Sequence[str], merit: Mapping[str, float]) -> dict[str, float]:
        """Shares of those who are ready: the control keeps its own, the others split the rest."""
        reserved = {name: self.weights[name] for name in ready if self.arms[name].control}
        guided = {
            name: self.weights[name] * merit.get(name, 1.0) for name in ready if not self.arms[name].control
        }
        weight = sum(guided.values())
        if weight <= 0:
            return dict.fromkeys(reserved or guided, 1.0 / max(1, len(reserved or guided)))
        rest = 1.0 - sum(reserved.values())
        shares = {name: share / weight * rest for name, share in guided.items() if share > 0}
        return shares | {name: share for name, share in reserved.items() if share > 0}
