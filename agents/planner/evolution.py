"""Arms without a model: the random control, mutation and crossover.

Parents are chosen by a mix of rules, the first two about half of the time each:

* a tournament among the best by score, as in regularized evolution (Real et al., "Regularized Evolution for
  Image Classifier Architecture Search", AAAI 2019): a few candidates are drawn at random and the best of
  them becomes the parent. Unlike there, nobody dies of age: the population keeps everything.
* a binary tournament by crowding distance on the Pareto front of score and cost, as in NSGA-II (Deb et al.,
  "A Fast and Elitist Multiobjective Genetic Algorithm", IEEE TEVC 2002): of two members of the front the
  more isolated one becomes the parent, so that cheap and dear regions are both kept alive.
* now and then any elite of the archive of cost by family, each as likely as any other, as in MAP-Elites
  (Mouret and Clune, arXiv 1504.04909): see `agents.population.archive`.

Where a space tells the kinds of its mutations apart, each is tried as often as it has paid, see
`agents.planner.credit`.
"""

from __future__ import annotations

import json
import random
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

from cambrian.agents.errors import ProposalError
from cambrian.agents.planner.arm import PopulationView, ProposalContext
from cambrian.agents.planner.credit import operator_weights
from cambrian.agents.population.archive import Archive
from cambrian.agents.population.model import Candidate, Proposal
from cambrian.agents.runfile import RunConfig
from cambrian.search_spaces import Genotype, HasOperators, Space

ELITE = 24
"""How many of the best take part in tournaments."""
TOURNAMENT = 4
FRONT_SHARE = 0.5
ARCHIVE_SHARE = 0.1
"""Of parents that are drawn from the archive, whatever they are worth beside those of other cells."""
MUTATIONS = (0.6, 0.3, 0.1)
"""Probabilities of one, two and three mutations in a row."""
NEIGHBOURHOOD = 32
"""How many of the newest candidates a draft is compared with, beside the elite and the front."""
NEIGHBOURS = 24
"""Edits in a row that were known already, after which a candidate counts as a local optimum."""
ATTEMPTS = 8
"""Draws for one draft before an already known genotype is accepted."""


def fingerprint(genotype: Genotype) -> str:
    """A text that is equal exactly for equal canonical genotypes."""
    return json.dumps(genotype, sort_keys=True, separators=(",", ":"))


@dataclass(frozen=True)
class Parents:
    """Those who may become parents, read once for all drafts of one place.

    Attributes:
        elite: the best by score, best first.
        front: the Pareto front of score and cost.
        distances: crowding distance of each member of `front`.
        everyone: all of them, each once; evaluated candidates that break a constraint are among them only
            while there is nothing better.
        cells: the best of each cell of the archive; empty where it is not asked.
    """

    elite: Sequence[Candidate]
    front: Sequence[Candidate]
    distances: Sequence[float]
    everyone: Sequence[Candidate]
    cells: Sequence[Candidate] = ()

    @classmethod
    def of(cls, population: PopulationView, needed: int, space: Space | None = None) -> Parents:
        """The parents in `population`; at least `needed` of them if so many are evaluated at all.

        Args:
            population: where they are.
            needed: how many there have to be.
            space: theirs, to draw from the archive as well.
        """
        elite, front = population.elite(ELITE), population.front()
        everyone = {candidate.id: candidate for candidate in (*elite, *front)}
        if len(everyone) < needed:
            everyone.update({candidate.id: candidate for candidate in population.recent(NEIGHBOURHOOD)})
        cells = () if space is None else tuple(Archive.of(population, space).elites.values())
        return cls(elite, front, crowding_distances(front), list(everyone.values()), cells)

    def select(self, rng: random.Random) -> Candidate:
        """One parent by the rules of this module."""
        if len(self.cells) > 1 and rng.random() < ARCHIVE_SHARE:
            return rng.choice(self.cells)
        if self.front and rng.random() < FRONT_SHARE:
            drawn = rng.sample(range(len(self.front)), min(2, len(self.front)))
            return self.front[max(drawn, key=lambda i: self.distances[i])]
        if self.elite:
            return self.elite[min(rng.sample(range(len(self.elite)), min(TOURNAMENT, len(self.elite))))]
        return rng.choice(self.everyone)

    def select_two(self, rng: random.Random) -> tuple[Candidate, Candidate]:
        """Two different parents."""
        first, second = self.select(rng), self.select(rng)
        if second.id == first.id:
            second = rng.choice([candidate for candidate in self.everyone if candidate.id != first.id])
        return first, second


class Mutations:
    """The mutations of a space, for all drafts of one place.

    Args:
        context: its population tells which kinds of mutations paid so far.
    """

    def __init__(self, context: ProposalContext) -> None:
        self._space, self._rng = context.space, context.rng
        usual = self._space.operators() if isinstance(self._space, HasOperators) else {}
        self._weights = operator_weights(context.population, usual)

    def __call__(self, genotype: Genotype) -> tuple[Genotype, str, str]:
        """A neighbour of `genotype`, the edit in words, and its kind, empty where it has none."""
        if isinstance(self._space, HasOperators) and self._weights:
            return self._space.mutate_by(genotype, self._rng, self._weights)
        return *self._space.mutate(genotype, self._rng), ""


class _EvolutionArm(ABC):
    """What the arms of this module share: no configuration, no state, nothing to release."""

    name: str
    control = False
    cheap = True
    parents_needed = 0

    def __init__(self, config: RunConfig | None = None, models: object = None) -> None:
        del config, models

    def ready(self, population: PopulationView) -> bool:
        """Whether enough candidates are evaluated to be parents."""
        return not self.parents_needed or len(population.recent(self.parents_needed)) >= self.parents_needed

    async def propose(self, context: ProposalContext, n: int) -> list[Proposal]:
        """Up to `n` drafts with distinct genotypes; fewer when the space seems to hold no more.

        Raises:
            ProposalError: too few candidates are evaluated to be parents.
        """
        needed = self.parents_needed
        parents = Parents.of(context.population, needed, context.space if needed else None)
        if len(parents.everyone) < needed:
            raise ProposalError(f"arm {self.name!r} needs {needed} evaluated candidates as parents")
        known, mutate = _known(context.population, parents), Mutations(context)
        drafts: list[Proposal] = []
        spare: Proposal | None = None
        for _ in range(max(1, n)):
            for _ in range(ATTEMPTS):
                draft = self._draft(context, parents, mutate)
                shape = fingerprint(draft.genotype)
                if shape not in known:
                    known.add(shape)
                    drafts.append(draft)
                    break
                spare = spare or draft
        # a known genotype is better than none: the identity check ends it without a training
        return drafts or [spare or self._draft(context, parents, mutate)]

    @abstractmethod
    def _draft(self, context: ProposalContext, parents: Parents, mutate: Mutations) -> Proposal: ...

    async def close(self) -> None:
        """Nothing to release."""
        return


class RandomArm(_EvolutionArm):
    """The control: independent samples of the space under the identical recipe, guided by nothing."""

    name = "random"
    control = True

    def _draft(self, context: ProposalContext, parents: Parents, mutate: Mutations) -> Proposal:
        return Proposal(arm=self.name, genotype=context.space.sample(context.rng), edit="random sample")


class MutationArm(_EvolutionArm):
    """One to three mutations of a good candidate; each draft chooses its own parent."""

    name = "mutation"
    parents_needed = 1

    def _draft(self, context: ProposalContext, parents: Parents, mutate: Mutations) -> Proposal:
        parent = parents.select(context.rng)
        child, edits = parent.genotype, []
        kinds = set()
        for _ in range(context.rng.choices((1, 2, 3), weights=MUTATIONS)[0]):
            child, edit, kind = mutate(child)
            edits.append(edit)
            kinds.add(kind)
        if fingerprint(child) == fingerprint(parent.genotype):  # a later mutation undid an earlier one
            child, edit, kind = mutate(parent.genotype)
            edits, kinds = [edit], {kind}
        return Proposal(
            arm=self.name,
            genotype=child,
            parents=(parent.id,),
            edit="; ".join(edits),
            operator=kinds.pop() if len(kinds) == 1 else "",  # of several kinds, none can be given the credit
        )


class CrossoverArm(_EvolutionArm):
    """A child of two good candidates, mutated once where it would equal one of them."""

    name = "crossover"
    parents_needed = 2

    def _draft(self, context: ProposalContext, parents: Parents, mutate: Mutations) -> Proposal:
        first, second = parents.select_two(context.rng)
        child, edit = context.space.crossover(first.genotype, second.genotype, context.rng)
        if fingerprint(child) in (fingerprint(first.genotype), fingerprint(second.genotype)):
            child, mutation, _ = mutate(child)
            edit = f"{edit}; {mutation}"
        return Proposal(arm=self.name, genotype=child, parents=(first.id, second.id), edit=edit)


class LocalArm(_EvolutionArm):
    """Local search: an edit of the best candidate whose neighbours are not all known (White et al. 2021).

    As in White et al., Exploring the Loss Landscape in Neural Architecture Search (UAI 2021), a local optimum
    ends the climb; then the next best of the elite is climbed from.
    """

    name = "local"
    parents_needed = 1

    def _draft(self, context: ProposalContext, parents: Parents, mutate: Mutations) -> Proposal:
        known = {fingerprint(candidate.genotype) for candidate in context.population.known()}
        for parent in parents.elite or parents.everyone:
            for _ in range(NEIGHBOURS):
                child, edit, kind = mutate(parent.genotype)
                if fingerprint(child) not in known:
                    return Proposal(
                        arm=self.name, genotype=child, parents=(parent.id,), edit=edit, operator=kind
                    )
        draft = MutationArm()._draft(context, parents, mutate)
        return draft.model_copy(update={"arm": self.name})


def crowding_distances(front: Sequence[Candidate]) -> list[float]:
    """NSGA-II's crowding distance of each member in score and cost; infinite at the ends of the front."""
    distances = [0.0] * len(front)
    if not front:
        return distances
    for values in ([c.score or 0.0 for c in front], [c.cost or 0.0 for c in front]):
        order = sorted(range(len(front)), key=values.__getitem__)
        span = values[order[-1]] - values[order[0]]
        distances[order[0]] = distances[order[-1]] = float("inf")
        if span > 0:
            for before, here, after in zip(order, order[1:], order[2:], strict=False):
                distances[here] += (values[after] - values[before]) / span
    return distances


def _known(population: PopulationView, parents: Parents) -> set[str]:
    """Fingerprints near at hand; the full comparison is the evaluator's identity check."""
    near = (*parents.everyone, *population.recent(NEIGHBOURHOOD), *population.setbacks(NEIGHBOURHOOD))
    return {fingerprint(candidate.genotype) for candidate in near}
