"""The records of a population: candidates, their proposals, their evaluations."""

from __future__ import annotations

import math
import time
from enum import StrEnum
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from cambrian.sandbox import Isolation, Latency
from cambrian.sandbox.examination.report import Finding, StaticFacts


class _Data(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


CONTROL_ARM = "random"
"""The arm that the others are measured against: a reserved share, never guided, never screened."""
LLM_ARM = "llm"
"""The arm that asks models."""
BASELINE_ARM = "baseline"
"""Author of the known networks that a run evaluates for comparison; no arm of the portfolio."""

FACTORIAL_ARM = "factorial"
"""Author of the pairs of architecture and recipe by which a gain is divided; see `agents.factorial`."""


class CandidateState(StrEnum):
    """Where a candidate is on its way, or how it ended. Only `EVALUATED` ranks."""

    PROPOSED = "proposed"
    PARKED = "parked"  # waits for a reviewer
    TRAINING = "training"
    EVALUATED = "evaluated"
    INVALID = "invalid"  # not a member of the space, its shapes do not fit, or it failed a check
    DUPLICATE = "duplicate"  # shares the evaluation of an earlier candidate
    INFEASIBLE = "infeasible"  # breaks a hard constraint
    SCREENED = "screened"  # the predictor saw no chance for it
    REJECTED = "rejected"  # by a reviewer
    FAILED = "failed"  # the sandbox could not get a score out of it

    @property
    def may_score(self) -> bool:
        """Whether a candidate in this state may have a score: no other way to end brings one."""
        return self is CandidateState.EVALUATED or not self.ended

    @property
    def ended(self) -> bool:
        """Whether no further step follows."""
        return self not in {CandidateState.PROPOSED, CandidateState.PARKED, CandidateState.TRAINING}


Author = Literal["arm", "operator", "model", "idea"]
"""By what candidates are told apart when it is asked who brought what; fields of `Proposal`."""
Measure = Literal["score", "latency_ms", "params", "flops", "memory_mb"]
"""What an expectation may be of."""


class Expectation(_Data):
    """What an author expects to be measured of a candidate, against its first parent.

    Attributes:
        measure: `score` is the task's metric.
        change: `same` means that it changes by less than `by_percent`.
        by_percent: least relative change in per cent, of the parent's value.
    """

    measure: Measure
    change: Literal["higher", "lower", "same"]
    by_percent: float = Field(default=0.0, ge=0, le=1e6, allow_inf_nan=False)

    def in_words(self, metric: str) -> str:
        """Such as `accuracy higher by 1 %`."""
        what = metric if self.measure == "score" else self.measure
        if self.change == "same":
            return f"{what} the same within {self.by_percent:g} %"
        return f"{what} {self.change}" + (f" by {self.by_percent:g} %" if self.by_percent else "")


class Verdict(StrEnum):
    """Whether what was measured bears a hypothesis out."""

    BORNE_OUT = "borne out"
    REFUTED = "refuted"
    WITHIN_NOISE = "within the noise"  # the difference is no larger than that of two trainings of one network
    NO_EVIDENCE = "no evidence"  # nothing was expected, or nothing was measured to compare with


class Lesson(_Data):
    """What a candidate taught: a verdict that is computed, and words for it, a model's where one was asked.

    Attributes:
        verdict: on the proposal's expectation.
        measured: what the verdict rests on, in words, with numbers.
        text: the lesson in a few sentences; empty while no model has been asked, or none could tell.
        compared_with: ids of the parents and siblings that it was compared with.
        unused: what that model said of the run's notes that could not be used, and why.
        exchange: id of the recorded model call behind `text`, or None.
    """

    verdict: Verdict
    measured: str = Field(default="", max_length=500)
    text: str = Field(default="", max_length=600)
    compared_with: tuple[str, ...] = ()
    unused: tuple[str, ...] = ()
    exchange: str | None = None


class Proposal(_Data):
    """What an arm hands in.

    Attributes:
        arm: name of the arm that made it.
        genotype: as the author wrote it; the space has not validated it yet.
        parents: ids of the candidates it was derived from, in order.
        edit: what was changed, in a few words.
        hypothesis: why it should be good; the LLM's reasoning, or empty.
        expected_effect: what should be measured if the hypothesis holds; may be empty.
        expectation: the same as data, None where the author gave none.
        against: whom one without parents is compared with, the best when it was asked for; None for nobody.
        exchange: id of the recorded model call behind it, or None.
        model: name of the model that made it; empty for arms without one.
        operator: kind of the edit, such as the mutation operator's name; may be empty.
        idea: what the model was asked to attempt (`refine`, `combine`, `explore`, ...); empty for other arms.
    """

    arm: str
    genotype: dict[str, Any]
    parents: tuple[str, ...] = ()
    edit: str = ""
    hypothesis: str = ""
    expected_effect: str = ""
    expectation: Expectation | None = None
    against: str | None = None
    exchange: str | None = None
    model: str = ""
    operator: str = ""
    idea: str = ""


class Nearest(_Data):
    """The earlier candidate that another one is most like.

    Attributes:
        id: of the earlier one.
        similarity: of the structure, from 0 to 1; 1 only where both compute the same.
        difference: what was changed in the genotype, in at most 100 characters; empty when nothing was.
        agreement: share of the validation samples for which both, trained at rung 0, predict the same class,
            or the squared correlation of their outputs where there are no classes; None until both are.
    """

    id: str
    similarity: float = Field(ge=0, le=1)
    difference: str = ""
    agreement: float | None = Field(default=None, ge=0, le=1)


class Evaluation(_Data):
    """One measurement of a candidate at one rung. All its numbers are finite.

    Attributes:
        metrics: host-computed numbers on the validation split, by name.
        test_metrics: the same on the test split; never shown to an arm, never ranked by.
        val_curve: the task's metric on the validation split after each epoch.
        device_name: what the run file calls the device that latency was measured on; empty where that is
            where the training ran.
        isolation: the weakest that any of its jobs had.
    """

    # JSON has no sign for the others: they would be stored as null, which no float is read from again.
    model_config = ConfigDict(allow_inf_nan=False)

    candidate_id: str
    rung: int
    seed: int
    epochs: int
    state: str
    reason: str = ""
    metrics: dict[str, float] = Field(default_factory=dict)
    test_metrics: dict[str, float] = Field(default_factory=dict)
    val_curve: tuple[float, ...] = ()
    train_loss: tuple[float, ...] = ()
    latency: Latency | None = None
    device_name: str = ""
    wall_s: float = 0.0
    train_s: float = 0.0
    peak_memory_mb: float = 0.0
    isolation: Isolation

    @field_validator("latency")
    @classmethod
    def _latency_is_finite(cls, value: Latency | None) -> Latency | None:
        told = value.model_dump() if value is not None else {}
        for name, number in told.items():
            if isinstance(number, float) and not math.isfinite(number):
                raise ValueError(f"{name} is {number}")
        return value

    def struck(self, state: str, reason: str) -> Evaluation:
        """The evaluation without its scores, and why they are gone."""
        gone: dict[str, Any] = {"metrics": {}, "test_metrics": {}, "val_curve": ()}
        return self.model_copy(update={"state": state, "reason": reason, **gone})


class Candidate(_Data):
    """A proposal that entered the population.

    Attributes:
        id: `c-0001`, by order of entry.
        index: the same as a number, from 0.
        genotype: canonical once validated, the author's until then.
        identity: versioned functional hash, None until computed.
        duplicate_of: id of the candidate whose evaluation it shares.
        nearest: which earlier candidate it is most like, None for the first and for those outside the space.
        static: what is known of it before anything is run; of generated code, its own word.
        findings: of the checks of its behaviour, in the sandbox.
        proxies: zero-cost proxies by name, where they were asked for.
        motifs: counts of the patterns of its computation graph, where its space does not know them.
        examined_s: seconds that its examination in the sandbox took.
        prediction: what the predictor expected of the metric before training, None when it abstained.
        predicted_latency: what the latency model expected before measuring, in the unit of the run's limit.
        score: the task's metric at the highest rung reached, None unless evaluated (a duplicate shares
            the score of its original by reference only).
        rung: the highest rung with a score, -1 for none.
        tried_rung: the highest rung that was tried, whether it gave a score or not.
        rung_scores: the score at each rung that it climbed, from 0; the arm `factorial`, which trains at a
            high rung at once, has none of those below it.
        train_s: seconds that its evaluation at rung 0 took, whatever came of it; 0 until then.
        reproduced: whether a fresh network with the weights of `rung` predicted the same in a fresh sandbox;
            None while nobody has tried. One that did not has no score, at any rung.
        latency_ratio: latency by that of the reference network.
        throughput: samples a second in batches.
        cost: value of the run's cost objective (such as median latency in ms), None until known.
        latency_factor: what scores are weighed with where the run's objective is the soft latency, else 1.
        lesson: what it taught; None until the analyst has looked at it.
        comment: what a reviewer said on letting it through, and who; why one was refused is its `reason`.
        ended_order: which of the run's candidates it was to end, from 1, whatever the clock on the wall said;
            0 until then.
    """

    id: str
    index: int
    proposal: Proposal
    genotype: dict[str, Any]
    state: CandidateState
    reason: str = ""
    summary: str = ""
    identity: str | None = None
    duplicate_of: str | None = None
    nearest: Nearest | None = None
    static: StaticFacts | None = None
    findings: tuple[Finding, ...] = ()
    proxies: dict[str, float] = Field(default_factory=dict)
    motifs: dict[str, float] = Field(default_factory=dict)
    examined_s: float = 0.0
    prediction: float | None = None
    predicted_latency: float | None = None
    score: float | None = None
    test_score: float | None = None
    rung: int = -1
    tried_rung: int = -1
    rung_scores: tuple[float, ...] = ()
    train_s: float = 0.0
    reproduced: bool | None = None
    latency_ms: float | None = None
    latency_ratio: float | None = None
    throughput: float | None = None
    cost: float | None = None
    latency_factor: float = 1.0
    feasible: bool = True
    created_s: float = 0.0
    lesson: Lesson | None = None
    comment: str = ""
    ended_s: float | None = None
    ended_order: int = 0

    def counted_verdict(self, cost: str) -> Verdict | None:
        """The verdict on its hypothesis where that is of what a run ranks by, the score or `cost`; else None.

        What the genotype tells beforehand, such as the memory that more channels take, is no discovery: a
        rate that counted it could be raised at will. None also without evidence.
        """
        expectation, lesson = self.proposal.expectation, self.lesson
        ranked = {"score", "latency_ms" if cost == "latency_ratio" else cost}
        if lesson is None or expectation is None or expectation.measure not in ranked:
            return None
        return lesson.verdict if lesson.verdict is not Verdict.NO_EVIDENCE else None

    @classmethod
    def newcomer(cls, index: int, proposal: Proposal) -> Candidate:
        """What a proposal is as it enters the population as number `index`, from 0."""
        return cls(
            id=candidate_id(index),
            index=index,
            proposal=proposal,
            genotype=proposal.genotype,
            state=CandidateState.PROPOSED,
            created_s=time.time(),
        )

    def values(self) -> dict[str, float]:
        """Every number of the candidate by the name that constraints and objectives use."""
        found = {} if self.static is None else self.static.limited()
        measured = {
            "latency_ms": self.latency_ms,
            "latency_ratio": self.latency_ratio,
            "throughput": self.throughput,
            "score": self.score,
        }
        return found | {name: value for name, value in measured.items() if value is not None}

    def reward(self, score: float, maximize: bool) -> float:
        """What `score` is worth under the run's objective, in the same sense: a slow candidate's is worse.

        A factor below 1 brings a positive score down and a negative one, or one that is minimised, up.
        """
        shrinks = (score >= 0) == maximize
        return score * self.latency_factor if shrinks else score / self.latency_factor

    def with_latency(self, latency: Latency | None) -> Candidate:
        """The candidate with what was measured; as it is when nothing was."""
        if latency is None:
            return self
        return self.model_copy(
            update={
                "latency_ms": latency.median_ms,
                "latency_ratio": latency.ratio,
                "throughput": latency.throughput,
            }
        )

    def discredited(self, reason: str, reproduced: bool | None) -> Candidate:
        """The candidate as one that failed: without any score, as none of them is believed any more."""
        return self.model_copy(
            update={
                "state": CandidateState.FAILED,
                "reason": reason,
                "score": None,
                "test_score": None,
                "rung": -1,
                "rung_scores": (),
                "reproduced": reproduced,
                "ended_s": None,  # it ends anew
                "ended_order": 0,
            }
        )


def candidate_id(index: int) -> str:
    """The id of the candidate that entered as number `index` (from 0)."""
    return f"c-{index + 1:04d}"
