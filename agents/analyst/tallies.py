"""What can be told of a run's edits by counting, without any model."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping

from cambrian.agents.analyst.verdicts import Effect, hypotheses, hypotheses_text
from cambrian.agents.planner.quoting import quoted
from cambrian.agents.population.model import Candidate

LEAST = 4
"""Comparisons from which on a kind of edit is told of."""
LEAST_TOLD = 2
"""Of those, how many have to be more than chance makes."""
LINES = 3
_SHOWN = 5


def tally_lines(candidates: Iterable[Candidate], effects: Mapping[str, Effect], cost: str) -> tuple[str, ...]:
    """Which kinds of edits made networks better than their parents, and how hypotheses came out.

    Args:
        candidates: of the run.
        effects: on the score against the first parent, by candidate, where both have one.
        cost: what the run ranks by beside the score.
    """
    known = list(candidates)
    by_kind: defaultdict[str, dict[str, Effect]] = defaultdict(dict)
    for candidate in known:
        effect = effects.get(candidate.id)
        if effect is not None and candidate.score is not None and candidate.proposal.operator:
            by_kind[candidate.proposal.operator][candidate.id] = effect
    told = []
    for kind, found in by_kind.items():
        better, worse = ([cid for cid, e in found.items() if e == way] for way in ("better", "worse"))
        if len(found) < LEAST or len(better) + len(worse) < LEAST_TOLD:
            continue
        said = f"edits of the kind {quoted(kind, 60)}: better than the parent, by more than chance, "
        said += f"in {len(better)} of {len(found)}, worse in {len(worse)}"
        if better:
            said += f" (better: {', '.join(better[-_SHOWN:])})"
        told.append((-abs(len(better) - len(worse)) / len(found), -len(found), said))
    lines = [said for _, _, said in sorted(told)[:LINES]]
    verdicts = hypotheses(known, cost)
    if sum(verdicts.values()) >= LEAST:
        lines.insert(0, hypotheses_text(verdicts))
    return tuple(lines[:LINES])
