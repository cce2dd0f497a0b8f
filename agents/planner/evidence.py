"""What the run has measured of single genes: how networks with each value did, and what was tried already.

Of each gene of a parent, the values that it can become are weighed by the scores of the networks that have
them, whatever else these consist of: a marginal effect, which says what went together and not what caused it.
Ranks are averaged rather than scores, because one collapsed network would outweigh many good ones, and are
drawn towards the middle where few networks tell.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from scipy.stats import rankdata

from cambrian.agents.planner.arm import PopulationView
from cambrian.agents.planner.changes import Gene
from cambrian.agents.population.model import Candidate

LOOK_BACK = 256
"""How many of the newest scored candidates are read, and half as many of those that came to nothing."""
DRAWN = 2.0
"""Networks of middling rank that are added to those that have a value."""
_MISSING = object()


@dataclass(frozen=True)
class Went:
    """How the networks with one value of a gene did.

    Attributes:
        value: of the gene.
        networks: how many have it and a score at the lowest rung.
        median: of these scores; None without any.
        rank: mean of their ranks among all that are read, drawn towards 0.5; 1 is best.
        tried: the candidate that is the parent but for this value.
    """

    value: Any
    networks: int = 0
    median: float | None = None
    rank: float = 0.5
    tried: Candidate | None = None


@dataclass(frozen=True)
class Weighed:
    """A gene with what is known of its value and of each that it can become, the most promising first.

    Attributes:
        others: empty where the values are not listed.
    """

    gene: Gene
    now: Went
    others: tuple[Went, ...]

    @property
    def promise(self) -> float:
        """By how much the best value that was not tried here outranks the present one."""
        return max((each.rank for each in self.others if each.tried is None), default=0.0) - self.now.rank


def weighed(
    population: PopulationView, parent: Candidate, found: Sequence[Gene], maximize: bool
) -> list[Weighed]:
    """What is known of each of `found`, the genes of `parent`, the most promising first.

    Args:
        population: of the run.
        parent: whose genes they are.
        found: all of them.
        maximize: whether higher scores are better.
    """
    scored = [c for c in population.recent(LOOK_BACK) if _score(c) is not None]
    if parent.score is not None and all(c.id != parent.id for c in scored):
        scored.append(parent)
    genotypes = [dict(_leaves("", c.genotype)) for c in scored]
    scores = [_score(c) or 0.0 for c in scored]
    ranks = rankdata(scores if maximize else [-score for score in scores])
    ranks = [0.5] if len(ranks) == 1 else (ranks - 1) / max(len(ranks) - 1, 1)
    tried = _tried(parent, [*scored, *population.setbacks(LOOK_BACK // 2)])

    def went(path: str, value: Any) -> Went:
        mine = [i for i, genes in enumerate(genotypes) if _same(genes.get(path, _MISSING), value)]
        rank = (sum(ranks[i] for i in mine) + 0.5 * DRAWN) / (len(mine) + DRAWN)
        median = statistics.median(scores[i] for i in mine) if mine else None
        known = next((c for at, other, c in tried if at == path and _same(other, value)), None)
        return Went(value, len(mine), median, float(rank), known)

    made = []
    for gene in found:
        others = [went(gene.path, value) for value in gene.values or ()]
        if isinstance(gene.now, list | dict):  # to be removed or repeated: no value that others have
            others = [replace(each, networks=0, median=None, rank=0.5) for each in others]
        others.sort(key=lambda each: (each.tried is not None, -each.rank))
        made.append(Weighed(gene, went(gene.path, gene.now), tuple(others)))
    return sorted(made, key=lambda each: -each.promise)


def _score(candidate: Candidate) -> float | None:
    """At the lowest rung, where all who have a score have one."""
    return candidate.rung_scores[0] if candidate.rung_scores else candidate.score


def _tried(parent: Candidate, others: Sequence[Candidate]) -> list[tuple[str, Any, Candidate]]:
    """Those that differ from `parent` in one value: where, what it is there, and who."""
    own = dict(_leaves("", parent.genotype))
    found = []
    for other in others:
        theirs = dict(_leaves("", other.genotype))
        if theirs.keys() == own.keys():
            differ = [path for path, value in theirs.items() if not _same(value, own[path])]
            if len(differ) == 1:
                found.append((differ[0], theirs[differ[0]], other))
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
