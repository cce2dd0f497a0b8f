"""Whether what was measured bears a hypothesis out: computed, free, of every candidate.

An expectation is of one number against that of the first parent, or of the best network at that time where it
has none. The rules, for a change of at least
`by_percent` of the parent's value:

* no larger than what chance makes: within the noise, whatever was expected. Only numbers that are exact, such
  as parameters, can be refuted by not changing;
* in the other direction: refuted;
* in the right direction: borne out from half of `by_percent` on, else refuted. Half, since authors give round
  guesses: one that is right within a factor of two has understood what the change does, while "some gain" is
  no success of who promised a large one. `measured` says when it was less than expected.

`same` says that the number changes by less than `by_percent`. It is borne out where the change and what
chance may add to it stay within that (as in an equivalence test), or where the change is real and stays
within it; refuted where it is real and goes beyond; else it is within the noise.

A network that breaks a hard limit bears nothing out: that a larger one needs more memory is no success where
it needs more than there is.

All verdicts are kept and shown. Counted are those on what the run ranks by, the score and its cost measure:
what else is expected mostly follows from the genotype, and would make the rate look better than it is.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from cambrian.agents.analyst.differences import Difference, Readings
from cambrian.agents.population.model import Candidate, Expectation, Measure, Verdict
from cambrian.agents.wording import clean, show_change, show_cost, show_number, show_percent, show_score
from cambrian.search_spaces import Task

ENOUGH = 0.5
"""Share of the expected change from which on a hypothesis counts as borne out."""
SIBLINGS = 16
"""How many siblings, newest first, a candidate is compared with."""
_LONGEST = 500
Effect = Literal["better", "worse", "tied"]


@dataclass(frozen=True)
class Assessment:
    """What the measurements of a candidate say.

    Attributes:
        verdict: on its author's expectation.
        measured: what that rests on, in words.
        compared_with: ids of parents and siblings.
        effect: of the edit on the score, against the first parent; None where that cannot be compared, and
            of an edit that breaks a hard limit.
        telling: whether its score or its latency differs for real from who it is compared with first.
    """

    verdict: Verdict
    measured: str
    compared_with: tuple[str, ...] = ()
    effect: Effect | None = None
    telling: bool = False


def verdict_on(expectation: Expectation, difference: Difference) -> tuple[Verdict, str]:
    """The verdict by the rules of this module, and what is to be said beside the numbers; may be empty."""
    change, bound = difference.change, difference.bound
    least = expectation.by_percent / 100 * abs(difference.theirs)
    if bound is None:
        return Verdict.NO_EVIDENCE, "what chance makes of it is not known"
    if expectation.change == "same":
        within = abs(change) <= least
        if difference.is_real:
            return (Verdict.BORNE_OUT, "") if within else (Verdict.REFUTED, "it changed by more")
        if bound == 0 or abs(change) + bound <= least:
            return Verdict.BORNE_OUT, ""
        return Verdict.WITHIN_NOISE, "no change was seen, but one beyond that cannot be excluded"
    if not difference.is_real:
        return (Verdict.WITHIN_NOISE, "") if bound else (Verdict.REFUTED, "it did not change")
    if (change > 0) != (expectation.change == "higher"):
        return Verdict.REFUTED, "it went the other way"
    if abs(change) < ENOUGH * least:
        return Verdict.REFUTED, "the direction is right, but it is less than half of what was expected"
    return Verdict.BORNE_OUT, "less than expected" if abs(change) < least else ""


def assess(
    candidate: Candidate,
    parents: Sequence[Candidate],
    siblings: Sequence[Candidate],
    other: Candidate | None,
    reference: Candidate | None,
    readings: Readings,
    task: Task,
) -> Assessment:
    """What the measurements of `candidate` say.

    Args:
        candidate: that has ended.
        parents: those that exist, in order.
        siblings: other children of theirs, newest first.
        other: whom it is compared with where it has neither: the earlier one that it is most like.
        reference: whom it was to be compared with where it has no parents.
        readings: of the run.
        task: tells metric and direction.
    """
    judge = parents[0] if parents else reference
    first = judge or other
    expectation = candidate.proposal.expectation
    verdict, remarks = Verdict.NO_EVIDENCE, []
    if not candidate.feasible:
        remarks.append(f"it breaks a hard limit: {candidate.reason or 'not known which'}")
        if expectation is not None:
            remarks.append(f"expected: {expectation.in_words(task.metric)}")
    elif expectation is not None:
        found = readings.difference(expectation.measure, candidate, judge) if judge else None
        remark = "" if judge else "it names no parent to be measured against"
        if found is not None:
            verdict, remark = verdict_on(expectation, found)
        elif judge:
            remark = f"there is no {expectation.measure} of both to compare"
        remarks.append(f"expected: {expectation.in_words(task.metric)}" + (f"; {remark}" if remark else ""))
    measures: list[Measure] = list(
        dict.fromkeys((expectation.measure if expectation else "score", "score", "latency_ms"))
    )
    compared = {m: d for m in measures if first and (d := readings.difference(m, candidate, first))}
    said = [_in_words(d, first.id, task) for d in compared.values()] if first else []
    close = [(s, d) for s in siblings[:SIBLINGS] if (d := readings.difference("score", candidate, s))]
    if close:
        ways = Counter(effect_of(d, task.maximize) for _, d in close)
        many = "1 sibling" if len(close) == 1 else f"{len(close)} siblings"
        how = f"better than {ways['better']}, worse than {ways['worse']} and tied with {ways['tied']}"
        remarks.append(f"by score {how} of {many}")
    others = [*parents, *([first] if first else []), *(sibling for sibling, _ in close)]
    score = compared.get("score")
    return Assessment(
        verdict=verdict,
        measured=clean("; ".join([*said, *remarks] if candidate.feasible else [*remarks, *said]), _LONGEST),
        compared_with=tuple(dict.fromkeys(each.id for each in others)) if compared or close else (),
        effect=effect_of(score, task.maximize) if score and parents and candidate.feasible else None,
        telling=any(d.is_real for m, d in compared.items() if m in {"score", "latency_ms"}),
    )


def effect_of(difference: Difference, maximize: bool) -> Effect:
    """Whether a score is better for real."""
    if not difference.is_real:
        return "tied"
    return "better" if (difference.change > 0) == maximize else "worse"


def hypotheses(candidates: Iterable[Candidate], cost: str, arm: str = "llm") -> dict[Verdict, int]:
    """How the hypotheses of an arm about score and cost came out, those without evidence left out.

    Args:
        candidates: of the run.
        cost: what the run ranks by beside the score.
        arm: whose hypotheses.
    """
    told = Counter(c.counted_verdict(cost) for c in candidates if c.proposal.arm == arm)
    return {v: told[v] for v in Verdict if told[v]}


def hypotheses_text(told: dict[Verdict, int]) -> str:
    """`hypotheses of the model about score and cost: 3 borne out, 2 refuted`; empty without any."""
    counts = ", ".join(f"{n} {verdict}" for verdict, n in told.items())
    return f"hypotheses of the model about score and cost: {counts}" if told else ""


def _in_words(difference: Difference, other: str, task: Task) -> str:
    """`accuracy 91 % against 90 % of c-0003, both after 2 epochs: +1.1 % (chance makes up to 0.9 %)`."""
    measure, rung = difference.measure, difference.rung
    name = task.metric if measure == "score" else measure
    ours, theirs = (
        show_score(task.metric, value) if measure == "score" else show_cost(measure, value)
        for value in (difference.ours, difference.theirs)
    )
    said = f"{name} {ours} against {theirs} of {other}"
    if rung is not None:
        epochs = task.rungs[rung].epochs
        said += f", both after {epochs} epoch{'' if epochs == 1 else 's'}"
    change = difference.percent(difference.change)
    said += f": {show_number(difference.change, sign=True) if change is None else show_change(change)}"
    if difference.bound is None:
        return f"{said} (its noise is not known)"
    if difference.bound == 0:
        return said
    bound = difference.percent(difference.bound)
    most = show_number(difference.bound, 2) if bound is None else show_percent(bound, 2)
    return f"{said} (chance makes up to {most})"
