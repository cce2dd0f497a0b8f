"""Which changes of a parent the run's measurements speak for: how networks with each value of a gene did.

The value that a gene has and those that it can become are weighed by the scores of the networks that have
them, whatever else these consist of: a marginal effect, which says what went together and not what caused it.
Ranks are averaged rather than scores, because one collapsed network would outweigh many good ones, and are
drawn towards the middle where few networks tell; networks that break a limit rank last. Who explores is
offered values by how good they could be, which is more for those of few networks: the upper confidence bound
of Auer et al. (2002). A change that was proposed before is not offered.
"""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from scipy.stats import rankdata

from cambrian.agents.planner.arm import PopulationView
from cambrian.agents.planner.changes import Gene
from cambrian.agents.population.model import Candidate

LOOK_BACK = 256
"""How many of the newest scored candidates are read."""
DRAWN = 2.0
"""Networks of middling rank that are added to those that have a value."""
SPREAD = 12**-0.5
"""Standard deviation of ranks that are evenly spread from 0 to 1."""
_MISSING = object()


@dataclass(frozen=True)
class Went:
    """How the networks with one value of a gene did.

    Attributes:
        value: of the gene.
        networks: how many have it and a score at the lowest rung.
        median: of the scores of those within the limits; None without any.
        rank: mean of their ranks among all that are read, drawn towards 0.5; 1 is best.
        tried: the candidate that is the parent but for this value.
    """

    value: Any
    networks: int = 0
    median: float | None = None
    rank: float = 0.5
    tried: Candidate | None = None

    @property
    def could_be(self) -> float:
        """The rank and its standard error: high for what is good, and for what few networks tell of."""
        return self.rank + SPREAD / math.sqrt(self.networks + DRAWN)


@dataclass(frozen=True)
class Offer:
    """A change of a parent, with what is known of its value and of the one that it has.

    Attributes:
        to: None where the values that the gene can become are not listed.
    """

    gene: Gene
    now: Went
    to: Went | None

    @property
    def promise(self) -> float:
        """By how much the new value outranks the present one, from -1 to 1."""
        return (self.to.rank if self.to is not None else 0.5) - self.now.rank

    @property
    def hope(self) -> float:
        """By how much the new value could outrank the present one."""
        return (self.to if self.to is not None else Went(None)).could_be - self.now.rank


def offers(
    population: PopulationView,
    found: Sequence[Gene],
    parents: Sequence[Candidate],
    most: int,
    maximize: bool,
    explore: bool = False,
) -> list[Offer]:
    """The most promising changes that were not made before, the best first; any where all were made.

    Args:
        population: of the run.
        found: the genes of the first parent.
        parents: the one that is changed, and another one whose values it may get, if that is what is wanted.
        most: changes.
        maximize: whether higher scores are better.
        explore: whether what few networks tell of comes before what is as good.
    """
    record = _Record.of(population, parents[0], maximize)
    made = []
    for gene in found:
        now = record.went(gene.path, gene.now)
        values = gene.values
        whole = isinstance(gene.now, list | dict)  # to be removed or repeated: no value that others have
        for value in values or ():
            made.append(Offer(gene, now, Went(value) if whole else record.went(gene.path, value)))
        if values is None:
            made.append(Offer(gene, now, None))
    new = [offer for offer in made if not was_made(offer)] or made
    if len(parents) > 1:
        theirs = dict(_leaves("", parents[1].genotype))
        shared = [o for o in new if o.to is not None and _same(theirs.get(o.gene.path, _MISSING), o.to.value)]
        new = shared or new
    return sorted(new, key=lambda offer: -(offer.hope if explore else offer.promise))[:most]


def was_made(offer: Offer) -> bool:
    """Whether the parent was changed like that before, and in nothing else."""
    return offer.to is not None and offer.to.tried is not None


def offered(found: Sequence[Offer]) -> tuple[Gene, ...]:
    """The genes of `found`, each once, with no other values than are offered."""
    # of a place in a list there may be two: one for what becomes of the entry, one for its kind or value
    by_key = {(offer.gene.path, json.dumps(offer.gene.others)): offer.gene for offer in found}
    values: dict[tuple[str, str], list[Any]] = {}
    for offer in found:
        own = values.setdefault((offer.gene.path, json.dumps(offer.gene.others)), [])
        own.extend([] if offer.to is None else [offer.to.value])
    return tuple(by_key[key].only(own) if own else by_key[key] for key, own in values.items())


@dataclass(frozen=True)
class _Record:
    """The scored networks, read once.

    Attributes:
        genotypes: the single values of each, by path.
        scores: at the lowest rung; None beyond the limits.
        ranks: of the scores, 0 to 1; 1 is best.
        tried: those that differ from the parent in one value: where, what it is there, and who.
    """

    genotypes: Sequence[Mapping[str, Any]]
    scores: Sequence[float | None]
    ranks: Sequence[float]
    tried: Sequence[tuple[str, Any, Candidate]]

    @classmethod
    def of(cls, population: PopulationView, parent: Candidate, maximize: bool) -> _Record:
        scored = list(population.scored())[-LOOK_BACK:]
        if parent.score is not None and all(c.id != parent.id for c in scored):
            scored.append(parent)
        last = -math.inf if maximize else math.inf
        worth = [c.reward(_score(c), maximize) if c.feasible else last for c in scored]
        ranks = rankdata(worth if maximize else [-value for value in worth])
        return cls(
            genotypes=[dict(_leaves("", c.genotype)) for c in scored],
            scores=[_score(c) if c.feasible else None for c in scored],
            ranks=[0.5] if len(ranks) == 1 else [float(rank - 1) / (len(ranks) - 1) for rank in ranks],
            tried=_tried(parent, population.known()),
        )

    def went(self, path: str, value: Any) -> Went:
        """How those with `value` at `path` did."""
        mine = [i for i, genes in enumerate(self.genotypes) if _same(genes.get(path, _MISSING), value)]
        rank = (sum(self.ranks[i] for i in mine) + 0.5 * DRAWN) / (len(mine) + DRAWN)
        scores = [score for i in mine if (score := self.scores[i]) is not None]
        median = statistics.median(scores) if scores else None
        known = next((c for at, other, c in self.tried if at == path and _same(other, value)), None)
        return Went(value, len(mine), median, rank, known)


def _score(candidate: Candidate) -> float:
    """At the lowest rung, where all who have a score have one."""
    return candidate.rung_scores[0] if candidate.rung_scores else candidate.score or 0.0


def _tried(parent: Candidate, others: Iterable[Candidate]) -> list[tuple[str, Any, Candidate]]:
    """Those that differ from `parent` in one value: where, what it is there, and who."""
    own, leaves = parent.genotype, dict(_leaves("", parent.genotype))
    found = []
    for other in others:
        theirs = other.genotype
        # most differ in more than one of the outer genes, which costs next to nothing to see
        if theirs.keys() != own.keys() or sum(theirs[name] != own[name] for name in own) != 1:
            continue
        inner = dict(_leaves("", theirs))
        if inner.keys() == leaves.keys():
            differ = [path for path, value in inner.items() if not _same(value, leaves[path])]
            if len(differ) == 1:
                found.append((differ[0], inner[differ[0]], other))
    return found


def _leaves(path: str, value: Any) -> Iterator[tuple[str, Any]]:
    """Each single value of a genotype by its path."""
    if isinstance(value, Mapping):
        for name, below in value.items():
            yield from _leaves(f"{path}.{name}" if path else str(name), below)
    elif isinstance(value, list | tuple):
        for i, below in enumerate(value):
            yield from _leaves(f"{path}[{i}]", below)
    else:
        yield path, value


def _same(one: Any, other: Any) -> bool:
    """Equal, and both or neither a truth value."""
    return bool(one == other) and (one is True or one is False) == (other is True or other is False)
