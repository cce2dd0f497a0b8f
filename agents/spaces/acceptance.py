"""Which raw draws of a space are refused, and why; and what is refused whenever it is drawn."""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from cambrian.agents.errors import CambrianError
from cambrian.agents.spaces.coverage import Missing, missing, taken
from cambrian.agents.spaces.report import Acceptance, Cause, Failure, Refusal
from cambrian.search_spaces import Genotype
from cambrian.search_spaces.declarative.definition import Definition
from cambrian.search_spaces.declarative.grammar import Repeat
from cambrian.search_spaces.declarative.rules import problem
from cambrian.search_spaces.declarative.sampling import drawer

RAW_DRAWS = 400
MORE_DRAWS = 2000
"""Further ones, while it is not known of some value whether anything with it is well-typed."""
SURE, ENOUGH = 12, 40
"""Ill-typed draws that a value must have before it is called broken, and after which no more are made."""
_NUMBER = re.compile(r"(?<![A-Za-z_\d])\d+(?:[,.x]\d+)*[kMG]?(?![A-Za-z_])")


class Drawn(NamedTuple):
    """A raw draw.

    Attributes:
        cause: what refuses it; None for a member.
        what: the limit's key, the rule's message, or what is ill-typed and where.
    """

    genotype: Genotype
    cause: Cause | None = None
    what: str = ""


def numberless(reason: str) -> str:
    """`reason` with a sign for every number in it, so that equal faults with other counts are equal."""
    return _NUMBER.sub("#", reason)


def raw_draws(definition: Definition, n: int, rng: random.Random) -> Iterator[Drawn]:
    """At most `n` folded derivations as the space's sampler draws them, members or not.

    Raises:
        UserError: there are too many derivations to draw uniformly, or a condition fails.
    """
    draw = drawer(definition)
    for _ in range(n):
        genotype = draw(rng)
        if genotype is not None:  # else a uniform draw of a derivation that is written differently
            yield _judged(definition, genotype)


def _judged(definition: Definition, genotype: Genotype) -> Drawn:
    try:
        found = problem(definition, genotype)
    except Exception as error:  # blocks and expressions that somebody writes may fail in any way
        text = error.message if isinstance(error, CambrianError) else f"{type(error).__name__}: {error}"
        return Drawn(genotype, "typing", text)
    if found is None:
        return Drawn(genotype)
    if found.limit:
        return Drawn(genotype, "limit", f"limits.{found.limit}")
    return Drawn(genotype, "require", found.rule) if found.rule else Drawn(genotype, "typing", found.text)


def acceptance_of(drawn: list[Drawn]) -> Acceptance:
    """How many of `drawn` are members, and what refuses the others."""
    kinds: dict[tuple[Cause, str], Refusal] = {}
    for each in drawn:
        if each.cause is not None:
            new = Refusal(cause=each.cause, what=each.what, times=0)
            known = kinds.setdefault((each.cause, numberless(each.what)), new)
            kinds[each.cause, numberless(each.what)] = known.model_copy(update={"times": known.times + 1})
    return Acceptance(
        draws=len(drawn),
        members=sum(each.cause is None for each in drawn),
        refusals=sorted(kinds.values(), key=lambda refusal: -refusal.times),
    )


@dataclass
class _Suspect:
    """A value that no valid design has, and its raw draws that are ill-typed."""

    missing: Missing
    genotypes: list[Genotype] = field(default_factory=list)
    reasons: list[str] = field(default_factory=list)

    def failure(self) -> Failure:
        kinds = Counter(map(numberless, self.reasons))
        most = kinds.most_common(1)[0][0]
        at = next(i for i, reason in enumerate(self.reasons) if numberless(reason) == most)
        return Failure(
            stage="typing",
            reason=f"{self.missing.place}: {self.missing.text} in no valid design: all draws "
            f"with it that keep the other rules are ill-typed, most often {self.reasons[at]}",
            genotype=self.genotypes[at],
            times=len(self.reasons),
        )


def broken_choices(
    definition: Definition, designs: list[Genotype], drawn: list[Drawn], rng: random.Random
) -> dict[Missing, Failure]:
    """Values and options that the grammar offers and typing always refuses: what they build is broken.

    A draw that breaks a `require` says nothing, because its typing is not looked at; one that exceeds a limit
    is well-typed. Lengths are left out: each further item may be as likely to be refused as the first.

    Args:
        definition: of the space.
        designs: members, some hundreds.
        drawn: raw draws; more are made while there is doubt.
        rng: for these.
    """
    grammar = definition.grammar
    members = [*designs, *(each.genotype for each in drawn if each.cause is None)]
    suspects = {
        each.key: _Suspect(each) for each in missing(grammar, members) if not isinstance(each.domain, Repeat)
    }

    def look(each: Drawn) -> None:
        for key in taken(grammar, each.genotype) & suspects.keys() if each.cause != "require" else ():
            if each.cause == "typing":
                suspects[key].genotypes.append(each.genotype)
                suspects[key].reasons.append(each.what)
            else:
                del suspects[key]

    for each in drawn:
        look(each)
    for each in raw_draws(definition, MORE_DRAWS, rng) if suspects else ():
        look(each)
        if all(len(suspect.reasons) >= ENOUGH for suspect in suspects.values()):
            break
    return {s.missing: s.failure() for s in suspects.values() if len(s.reasons) >= SURE}
