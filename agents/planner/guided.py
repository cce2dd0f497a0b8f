"""Predictor-guided proposals: Bayesian optimisation with a Gaussian process over what is known of members.

Where the space can list its members, all of them are weighed; elsewhere a fresh pool of random members and of
edits and crossovers of the best. The one with the largest expected improvement is proposed, times the chance
that it keeps the run's limits. What is under way counts as if it had reached what is expected of it, so that
slots do not ask for the same thing (the kriging believer of Ginsbourger et al. 2010).

After BANANAS (White et al. 2021, arXiv 1910.11858) and NAS-BOWL (Ru et al. 2021, arXiv 2006.07556).
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import takewhile

import numpy as np
from numpy.typing import NDArray

from cambrian.agents.errors import ProposalError
from cambrian.agents.evaluator.encoding import Encoding, encode
from cambrian.agents.evaluator.screen import fit_counts
from cambrian.agents.planner.arm import PopulationView, ProposalContext
from cambrian.agents.planner.drafting import TRIES, Draft, fresh_pool, within_limits
from cambrian.agents.planner.evolution import fingerprint
from cambrian.agents.planner.snapshot import Camera, Snapshot
from cambrian.agents.planner.surrogate import (
    Columns,
    Posterior,
    Singles,
    expected_improvement,
    learn,
    log_regret,
)
from cambrian.agents.population.model import Candidate, Proposal
from cambrian.agents.runfile import RunConfig
from cambrian.search_spaces import Enumerable, Genotype, Space

Floats = NDArray[np.float64]

LEAST = 6
"""Scores that it waits for."""
MOST_LISTED = 50_000
"""Members up to which all of a space are weighed."""
MOST_LEARNED = 400
"""Observations that the posterior is conditioned on: the newest half of them, and the best of the others."""
REFERENCE = 192
"""Random members that columns are scaled by where a space cannot list its own."""
PARENTS = 8
GROWTH, MIN_GROWTH = 1.15, 4
"""Hyper-parameters are learned again when there are so many times more observations, or so many more."""
_LEAST_CHANCE = 0.02


@dataclass
class _Listed:
    """All members of a space, as rows."""

    members: Sequence[Genotype]
    row_of: dict[str, int]
    rows: list[Singles]

    def find(self, genotype: Genotype) -> int | None:
        """The row of `genotype`; None when it is no member."""
        return self.row_of.get(fingerprint(genotype))


_LISTED: weakref.WeakKeyDictionary[Space, _Listed] = weakref.WeakKeyDictionary()


class GuidedArm:
    """Proposes what a Gaussian process expects most of; all it keeps are caches."""

    name = "guided"
    control = False
    cheap = False

    def __init__(self, config: RunConfig | None = None, models: object = None) -> None:
        del models
        self._seed = config.seed if config is not None else 0
        self._camera = Camera(PARENTS)
        self._turn = asyncio.Lock()
        self._columns: Columns | None = None
        self._posteriors: dict[str, tuple[tuple[str, ...], Posterior]] = {}
        self._theta: tuple[tuple[str, ...], Floats] | None = None

    def ready(self, population: PopulationView) -> bool:
        """Whether there is enough to learn from."""
        return len(population.scored()) >= LEAST

    async def propose(self, context: ProposalContext, n: int) -> list[Proposal]:
        """Up to `n` members, the largest expected improvement first.

        Raises:
            ProposalError: too little is known, or nothing is left that was not proposed before.
        """
        seen = self._camera.take(context.population)
        if len(seen.scored) < LEAST:
            raise ProposalError(f"arm {self.name!r} needs {LEAST} scores")
        space = context.space
        weigh = self._weigh_pool
        if isinstance(space, Enumerable) and space.size <= MOST_LISTED:
            weigh = self._weigh_all
        async with self._turn:  # the caches are one slot's at a time
            drafts, merit, mean = await asyncio.to_thread(weigh, context, seen)
        if not drafts:
            raise ProposalError(f"arm {self.name!r}: nothing is left that was not proposed before")
        order = np.argsort(-merit, kind="stable").tolist()
        chosen = await asyncio.to_thread(within_limits, context, drafts, order, max(1, n))
        if not chosen:
            raise ProposalError(f"arm {self.name!r}: the {TRIES} best hopes break the run's limits")
        scores = _scores(context, seen.scored)
        return [self._proposal(drafts[i], float(mean[i]), scores) for i in chosen]

    async def close(self) -> None:
        """Forget the caches."""
        self._posteriors.clear()
        self._theta = self._columns = None

    def _proposal(self, draft: Draft, mean: float, scores: Floats) -> Proposal:
        above = float(np.mean(log_regret(scores) < mean))
        return Proposal(
            arm=self.name,
            genotype=draft.genotype,
            parents=draft.parents,
            edit=draft.edit,
            expected_effect=f"a score above {above:.0%} of those so far; the best hope of what was weighed",
        )

    # -- all members --------------------------------------------------------------------------------

    def _weigh_all(self, context: ProposalContext, seen: Snapshot) -> tuple[list[Draft], Floats, Floats]:
        listed = _listed(context)
        first, later = _split(seen.scored, context.task.maximize)
        used = [*first, *later]
        at = [listed.row_of[fingerprint(c.genotype)] for c in first]
        self._learned(context, first, listed.rows, at)
        targets = _targets(context, used)
        posterior = self._conditioned("score", listed, used)
        mean, _ = posterior.at(targets)
        awaited = [row for c in _members(context, seen) if (row := listed.find(c.genotype)) is not None]
        merit = expected_improvement(mean, posterior.believing(awaited), _best(used, targets))
        if seen.judged:
            merit = merit * _chance(self._conditioned("limits", listed, seen.judged), seen.kept)
        merit[[listed.row_of[shape] for shape in seen.shapes if shape in listed.row_of]] = -1
        left = np.flatnonzero(merit >= 0)
        # equal merit, as of members that compute the same, must not always fall to the first in the list
        shuffled = np.random.default_rng(context.rng.getrandbits(64)).permutation(len(merit))
        order = left[np.lexsort((shuffled[left], -merit[left]))][:16]
        drafts = [Draft(dict(listed.members[row]), f"the best of {len(left)} members left") for row in order]
        return drafts, merit[order], mean[order]

    def _learned(
        self, context: ProposalContext, first: Sequence[Candidate], rows: list[Singles], at: Sequence[int]
    ) -> Floats:
        """Hyper-parameters for `first`, whose rows are `at`; learned anew when these are others."""
        key = tuple(c.id for c in first)
        if self._theta is None or self._theta[0] != key:
            self._theta = (key, learn([each[at] for each in rows], _targets(context, first)))
            self._posteriors.clear()
        return self._theta[1]

    def _conditioned(self, of: str, listed: _Listed, observed: Sequence[Candidate]) -> Posterior:
        """The posterior over all members, which grows by what is new since the last time."""
        assert self._theta is not None
        ids = tuple(c.id for c in observed)
        before, posterior = self._posteriors.get(of, ((), None))
        if posterior is None or ids[: len(before)] != before:
            before, posterior = (), Posterior(listed.rows, self._theta[1])
        for candidate in observed[len(before) :]:
            posterior.observe(listed.row_of[fingerprint(candidate.genotype)])
        self._posteriors[of] = (ids, posterior)
        return posterior

    # -- a pool -------------------------------------------------------------------------------------

    def _weigh_pool(self, context: ProposalContext, seen: Snapshot) -> tuple[list[Draft], Floats, Floats]:
        encoder = _encoder(context)
        if self._columns is None:
            rng = random.Random(f"{self._seed}/reference")
            self._columns = Columns([encoder(context.space.sample(rng)) for _ in range(REFERENCE)])
        drafts = fresh_pool(context, seen)
        if not drafts:
            return [], np.zeros(0), np.zeros(0)
        first, later = _split(seen.scored, context.task.maximize)
        used = [*first, *later]
        awaited = _members(context, seen)
        parts = (used, seen.judged, awaited, drafts)
        rows = self._columns([encoder(each.genotype) for part in parts for each in part])
        theta = self._learned(context, first, rows, range(len(first)))
        n, m = len(used), len(used) + len(seen.judged)
        start = m + len(awaited)
        targets = _targets(context, used)
        posterior = _posterior(rows, theta, range(n))
        mean, _ = posterior.at(targets)
        merit = expected_improvement(mean, posterior.believing(range(m, start)), _best(used, targets))
        if seen.judged:
            merit = merit * _chance(_posterior(rows, theta, range(n, m)), seen.kept)
        return drafts, merit[start:], mean[start:]


def _posterior(rows: list[Singles], theta: Floats, observed: Sequence[int]) -> Posterior:
    posterior = Posterior(rows, theta)
    for row in observed:
        posterior.observe(row)
    return posterior


def _listed(context: ProposalContext) -> _Listed:
    space = context.space
    known = _LISTED.get(space)
    if known is None:
        assert isinstance(space, Enumerable)
        members = space.members()
        encoder = _encoder(context)
        encodings = [encoder(member) for member in members]
        columns = Columns(encodings)
        row_of = {fingerprint(member): row for row, member in enumerate(members)}
        known = _LISTED[space] = _Listed(members, row_of, columns(encodings))
    return known


def _split(seen: Sequence[Candidate], maximize: bool) -> tuple[list[Candidate], list[Candidate]]:
    """Those that hyper-parameters are learned from, the best and the newest of them, and those since."""
    at = max(takewhile(lambda n: n <= len(seen), fit_counts(LEAST, GROWTH, MIN_GROWTH)))
    first, later = list(seen[:at]), list(seen[at:])
    if at <= MOST_LEARNED:
        return first, later
    half, sign = MOST_LEARNED // 2, -1.0 if maximize else 1.0
    old = sorted(range(at - half), key=lambda i: sign * first[i].rung_scores[0])[:half]
    return [first[i] for i in sorted(old)] + first[-half:], later


def _members(context: ProposalContext, seen: Snapshot) -> list[Candidate]:
    """Those under way that are members of the space."""
    found = []
    for candidate in seen.underway:
        with contextlib.suppress(ProposalError):
            genotype = context.space.validate(candidate.genotype)
            found.append(candidate.model_copy(update={"genotype": genotype}))
    return found


def _chance(posterior: Posterior, kept: Floats) -> Floats:
    """Of keeping the limits; `kept` holds 1 or 0 for each that `posterior` is conditioned on."""
    from scipy.special import ndtr

    share = float(kept.mean())
    mean, std = posterior.at(kept - share)
    mean = mean + share
    chance: Floats = np.maximum(ndtr((mean - 0.5) / np.sqrt(std**2 + 0.05)), _LEAST_CHANCE)
    return chance


def _best(seen: Sequence[Candidate], targets: Floats) -> float:
    """The best target within the limits; the worst of all while nobody keeps them."""
    within = [target for candidate, target in zip(seen, targets, strict=True) if candidate.feasible]
    return float(max(within)) if within else float(targets.min())


def _encoder(context: ProposalContext) -> Callable[[Genotype], Encoding]:
    return context.encode or (lambda genotype: encode(context.space, genotype))


def _targets(context: ProposalContext, seen: Sequence[Candidate]) -> Floats:
    return log_regret(_scores(context, seen))


def _scores(context: ProposalContext, seen: Sequence[Candidate]) -> Floats:
    """What each is worth at the lowest rung, higher being better."""
    maximize = context.task.maximize
    sign = 1.0 if maximize else -1.0
    return np.array([sign * c.reward(c.rung_scores[0], maximize) for c in seen])
