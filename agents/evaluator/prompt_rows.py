"""What a report on prompts tells: a row for each version of a template, and how two of them compare."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict

from cambrian.agents.evaluator.shares import Rate

RateName = Literal["valid_first", "valid", "duplicates", "improved", "borne_out"]
GOOD: dict[RateName, bool] = {
    "valid_first": True,
    "valid": True,
    "duplicates": False,
    "improved": True,
    "borne_out": True,
}
"""Whether more of it is better."""


class _Data(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Gain(_Data):
    """Mean gain over the control arm of the same run, in per cent of its mean; positive is better."""

    n: int
    mean: float | None = None
    low: float | None = None
    high: float | None = None


class VersionRow(_Data):
    """What one version of one template brought.

    Attributes:
        origin: whose it was; empty where runs did not keep it.
        runs: ids, oldest first.
        questions: that it had a part in; of a repair template, its turns.
        calls: requests, retries included.
        valid_first: of the questions that were answered, those whose first answer was usable.
        valid: the same, after repair turns.
        duplicates: of the candidates that came of it, those that compute what an earlier one does.
        improved: of the evaluated with an evaluated parent, those better than it beyond the noise.
        borne_out: of the hypotheses about score and cost with evidence, those that the measurements bear out.
        gain: of the evaluated, at the lowest rung.
        tokens: prompt and answer, repair turns included.
        money: US dollars; None where a price is not known.
        tokens_per_evaluated: None without any evaluated.
        money_per_evaluated: None without any, or without a price.
    """

    space: str
    task: str
    model: str
    template: str
    version: str
    origin: str
    runs: tuple[str, ...]
    questions: int
    calls: int
    valid_first: Rate
    valid: Rate
    duplicates: Rate
    improved: Rate
    borne_out: Rate
    gain: Gain
    evaluated: int
    tokens: int
    money: float | None
    tokens_per_evaluated: float | None
    money_per_evaluated: float | None


class Comparison(_Data):
    """How the newer of two versions differs in one rate.

    Attributes:
        difference: newer minus older, in points of a share.
        low: lower end of its 95 % interval.
        high: its upper end.
        verdict: `better`, `worse`, or `no difference beyond chance`.
        together_with: other templates that changed between the runs as well.
    """

    space: str
    task: str
    model: str
    template: str
    older: str
    newer: str
    rate: RateName
    difference: float
    low: float
    high: float
    verdict: Literal["better", "worse", "no difference beyond chance"]
    together_with: tuple[str, ...] = ()


class PromptsReport(_Data):
    """Rows by space, task, model and template, versions in the order of their first use."""

    rows: tuple[VersionRow, ...]
    comparisons: tuple[Comparison, ...]
