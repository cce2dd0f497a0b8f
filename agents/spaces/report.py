"""What `cambrian spaces check` finds, as data."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict

from cambrian.search_spaces import Genotype

Cause = Literal["require", "typing", "limit"]
SHOWN_REFUSALS = 4


class _Data(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Failure(_Data):
    """One way in which a design failed.

    Attributes:
        stage: what was being done.
        reason: in one line.
        genotype: the first design that failed so; None when there was none yet.
        times: how many did.
    """

    stage: Literal["typing", "sample", "validate", "edit", "crossover", "build", "build and run", "identity"]
    reason: str
    genotype: Genotype | None
    times: int = 1


class Refusal(_Data):
    """One reason why raw draws are no members.

    Attributes:
        what: the limit's key, the message of the rule, or what is ill-typed and where, of the first.
    """

    cause: Cause
    what: str
    times: int

    def __str__(self) -> str:
        if self.cause == "typing":
            return f"are ill-typed ({self.what})"
        return f"exceed {self.what}" if self.cause == "limit" else f"break the rule {self.what!r}"


class Acceptance(_Data):
    """How many of the raw draws, from which the sampler keeps the members, are members.

    Attributes:
        refusals: of the others, the most frequent first; of each draw the rule that is looked at first.
    """

    draws: int
    members: int
    refusals: list[Refusal] = []

    def __str__(self) -> str:
        share = 100 * self.members / max(1, self.draws)
        text = f"{share:.3g} % of {self.draws:,} raw draws are members"
        others = self.draws - self.members
        why = [f"{100 * one.times / others:.3g} % {one}" for one in self.refusals[:SHOWN_REFUSALS]]
        if len(self.refusals) > len(why):
            rest = sum(one.times for one in self.refusals[SHOWN_REFUSALS:])
            why.append(f"{100 * rest / others:.3g} % have other faults (--json has all)")
        return f"{text}; of the others {', '.join(why)}" if why else text


class Quantiles(_Data):
    """Of one number over all drawn designs."""

    least: float
    p5: float
    median: float
    p95: float
    most: float

    @classmethod
    def of(cls, values: Iterable[float]) -> Quantiles:
        """Of at least one value; each quantile is one of the values."""
        ranked = sorted(map(float, values))
        at = [ranked[round(share * (len(ranked) - 1))] for share in (0, 0.05, 0.5, 0.95, 1)]
        return cls(least=at[0], p5=at[1], median=at[2], p95=at[3], most=at[4])


class Duplicates(_Data):
    """How many designs compute the same as another one.

    Attributes:
        examined: designs that were hashed by what they compute.
        distinct_genotypes: different ones among them.
        distinct: different functions among them.
        example: two different genotypes of one function, in words.
        genotypes: those two.
    """

    examined: int
    distinct_genotypes: int
    distinct: int
    example: tuple[str, str] | None = None
    genotypes: tuple[Genotype, Genotype] | None = None

    @property
    def share(self) -> float:
        """Of the designs examined that repeat another one's function, 0 to 1."""
        return 1 - self.distinct / self.examined if self.examined else 0.0


class Size(_Data):
    """How large the space is; numbers as text, because they exceed what JSON readers hold.

    Attributes:
        derivations: before rules, limits and typing.
        exact: whether that is exact rather than an upper bound.
        accepted_share: of the draws that are members: uniform ones where `members` is told, else by weights.
        members: the estimate; empty where there are too many derivations to draw them uniformly. `low` and
            `high` bound it at 95 %.
    """

    derivations: str
    exact: bool
    accepted_share: float
    members: str
    low: str
    high: str

    def __str__(self) -> str:
        exactly = "" if self.exact else "at most "
        found = f"about {self.members} networks ({self.low} to {self.high})"
        if not self.members:
            found = f"at least {self.low} networks (a bound, not an estimate)"
        share = f"{100 * self.accepted_share:.3g} %"
        if self.members:
            which = f"{share} of them within rules, limits and shapes"
        else:  # only what needs no folding counts there, so that no network counts twice
            which = f"{share} of random draws are members just as they are drawn"
        return f"{found}; {exactly}{self.derivations} genotypes, {which}"


class BaselineFact(_Data):
    """One baseline.

    Attributes:
        parameters: where the published count holds, else at the reference.
        published: its published parameter count, if there is one.
        problem: why it is no good; empty when all is well.
    """

    name: str
    summary: str
    parameters: int | None = None
    published: int | None = None
    problem: str = ""


class TaskFact(_Data):
    """One task that the space lists.

    Attributes:
        status: `not tried` when it cannot be made without options or its data.
        built: designs that were built for it.
    """

    name: str
    status: Literal["fits", "does not fit", "not tried"]
    built: int = 0
    reason: str = ""


class CheckReport(_Data):
    """All that `check` found of a space.

    Attributes:
        signature: the inputs that designs were built for.
        designs: how many were drawn.
        edits: how many were edited or crossed.
        valid: how many of both were sound.
        acceptance: of raw draws; None for spaces of code.
        failures: choices whose every draw is ill-typed, then what was wrong with designs and edits, the most
            frequent first.
        quantiles: by `parameters`, `flops` and `depth`.
        milliseconds: median for one design, by what is done.
        never_drawn: values and options that no draw had though it should.
        unused: fields and shared genes that change nothing.
        left_out: what was not checked, and why.
        isolation: where designs were built, when not here.
        sheet: the file of drawings.
    """

    space: str
    version: str
    kind: str
    folder: Path | None
    seed: int
    signature: str
    designs: int
    edits: int
    valid: int
    acceptance: Acceptance | None = None
    failures: list[Failure] = []
    quantiles: dict[str, Quantiles] = {}
    duplicates: Duplicates | None = None
    size: Size | None = None
    milliseconds: dict[str, float] = {}
    baselines: list[BaselineFact] = []
    tasks: list[TaskFact] = []
    never_drawn: list[str] = []
    unused: list[str] = []
    left_out: list[str] = []
    isolation: str = ""
    sheet: Path | None = None
    wall_s: float = 0.0

    @property
    def share_valid(self) -> float:
        """Of all designs and edits, 0 to 1."""
        return self.valid / max(1, self.designs + self.edits)

    @property
    def sound(self) -> bool:
        """Whether every design, edit, choice and baseline is good, and every listed task fits."""
        return not (
            self.failures
            or any(baseline.problem for baseline in self.baselines)
            or any(task.status == "does not fit" for task in self.tasks)
        )
