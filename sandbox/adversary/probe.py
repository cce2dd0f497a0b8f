"""What a probe is: one hostile candidate, and what must be true when it has ended."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from cambrian.sandbox.adversary.plugin import SPACE_NAME
from cambrian.sandbox.outputs import OutputError, Outputs, read_outputs
from cambrian.sandbox.protocol import JobLimits, JobState, LatencySpec, Outcome
from cambrian.search_spaces import Splits

REASON_CHARS = 2100
ORDINARY, BRIEF = JobLimits(wall_s=40, file_mb=32), JobLimits(wall_s=3, file_mb=32)
"""Few kinds of limits, because containers that wait for jobs are made for one."""
TIMED = LatencySpec(warmup=2, repeats=10, throughput_batch=None)

TRAINED, ERROR, KILLED, TIMEOUT = (
    frozenset({state}) for state in (JobState.TRAINED, JobState.ERROR, JobState.KILLED, JobState.TIMEOUT)
)
MEMORY, BAD = frozenset({JobState.OUT_OF_MEMORY}), frozenset({JobState.BAD_OUTPUT})
REPRODUCED, DIFFERS = frozenset({JobState.REPRODUCED}), frozenset({JobState.NOT_REPRODUCED})


@dataclass(frozen=True)
class Evidence:
    """What there is to look at when a probe has ended.

    Attributes:
        outcome: of its job.
        folder: of its job.
        splits: the task's, with the labels that no sandbox gets.
    """

    outcome: Outcome
    folder: Path
    splits: Splits

    @property
    def outputs(self) -> Outputs | None:
        """What the candidate predicted, if it can be read."""
        try:
            return read_outputs(self.folder)
        except OutputError:
            return None

    def accuracy(self) -> float:
        """Share of the validation split that it gets right by the host's own count; 0 without outputs."""
        outputs = self.outputs
        return 0.0 if outputs is None else float((outputs.val.argmax(1) == self.splits.y_val).mean())


Look = Callable[[Evidence], str]


@dataclass(frozen=True)
class Probe:
    """One hostile candidate.

    Attributes:
        name: unique.
        attempt: what it tries, in one plain sentence.
        genotype: `act` and what the act needs; the trial adds its bait.
        states: ways for the job to end that are right: of the job, or of the pair when it is `paired`.
        paired: whether a job that trained is reproduced, as for one that enters the leaderboard's top.
        then: genotype of a later job, which must end in `ERROR` and whose facts count.
        words: the reason must hold them.
        facts: what the candidate must have found, by name, when it tells what it found.
        escaped: these words in the reason mean that the attempt went through.
        declared: by the name of a fact, `state`, `escaped` or `left`: the phrase of `not_enforced` that owns
            up to it.
        look: what else must be true; says what is not.
        limits: of the job.
        latency: None when it is not measured.
        examined: whether its job is to examine it; else it is to train.
        short: whether it belongs to the short suite.
        shared: whether what stops it is code that all sandboxes share, so that one of them is enough for
            our tests.
        needs: a phrase of `not_enforced` under which the probe would hurt the user, and is left out.
    """

    name: str
    attempt: str
    genotype: Mapping[str, Any]
    states: frozenset[JobState]
    paired: bool = False
    then: Mapping[str, Any] | None = None
    words: str = ""
    facts: Mapping[str, Any] = field(default_factory=dict)
    escaped: str = ""
    declared: Mapping[str, str] = field(default_factory=dict)
    look: Look | None = None
    limits: JobLimits = ORDINARY
    latency: LatencySpec | None = None
    examined: bool = False
    short: bool = False
    shared: bool = False
    needs: str = ""


def told(reason: str) -> dict[str, Any] | None:
    """The facts that a candidate carried out in an exception called `Found`."""
    start, _, rest = reason.partition("Found: ")
    if start:
        return None
    try:
        facts = json.loads(rest.rpartition(" (")[0])
    except ValueError:
        return None
    return facts if isinstance(facts, dict) else None


_BUGS = (
    "AttributeError",
    "ImportError",
    "IndexError",
    "KeyError",
    "NameError",
    "TypeError",
    "UnboundLocalError",
)


def is_own_bug(reason: str) -> bool:
    """Whether a candidate ended by a mistake of its own, before it did any harm."""
    return reason.startswith(_BUGS) and f"({SPACE_NAME}/" in reason


def judge(probe: Probe, evidence: Evidence, state: JobState) -> dict[str, str]:
    """What is not as it must be, by what may be declared (a fact, `state`, `escaped`), else `look`."""
    reason, wrong = evidence.outcome.reason, {}
    if state not in probe.states:
        wrong["state"] = f"ended {state}, right is {' or '.join(sorted(probe.states))}: {reason[:200]}"
    if is_own_bug(reason):
        wrong["look"] = f"the candidate itself is broken: {reason[:200]}"
    elif probe.escaped and probe.escaped in reason:
        wrong["escaped"] = reason[:200]
    elif probe.words and "state" not in wrong and probe.words not in reason:
        wrong["look"] = f"the reason does not hold {probe.words!r}: {reason[:200]}"
    if probe.facts and probe.then is None:
        found = told(reason)
        if found is None:
            wrong.setdefault("look", f"it did not tell what it found: {reason[:200]}")
        else:
            for name, right in probe.facts.items():
                if found.get(name) != right:
                    wrong[name] = f"{name}: {found.get(name)!r}"
    if not _is_one_line(reason):
        wrong["look"] = "the reason is not one printable line"
    elif probe.look is not None and "state" not in wrong and (problem := probe.look(evidence)):
        wrong["look"] = problem
    return wrong


def _is_one_line(reason: str) -> bool:
    return len(reason) <= REASON_CHARS and reason.isprintable()


# What probes look at ----------------------------------------------------------------------------------------


def log_is_capped(evidence: Evidence) -> str:
    """The log is no longer than allowed."""
    size = (evidence.folder / "log.txt").stat().st_size
    return f"the log has {size >> 10} KiB" if size > 80 << 10 else ""


def at_chance(evidence: Evidence) -> str:
    """The host's own count says that nothing was learnt, whatever was claimed."""
    accuracy = evidence.accuracy()
    return f"scored {accuracy:.2f} without having learnt" if accuracy > 0.4 else ""


def last_epoch_agrees(evidence: Evidence) -> str:
    """What was told of the last epoch is what the outputs say."""
    outputs = evidence.outputs
    if outputs is None or evidence.outcome.state is not JobState.TRAINED or not len(outputs.val_epochs):
        return ""
    agrees = np.array_equal(outputs.val_epochs[-1], outputs.val.argmax(1))
    return "" if agrees else "classes told of the last epoch are not those of the outputs"


def claims_are_ignored(evidence: Evidence) -> str:
    """The report is the worker's, not what was printed."""
    report = evidence.outcome.report
    if evidence.outcome.state is not JobState.TRAINED:
        return ""
    if report is None or report.parameters == 1 or report.train_loss[0] < 1e-3:
        return "the report is not that of the training"
    return ""


def has_no_score(evidence: Evidence) -> str:
    """There is nothing that a score could be made of."""
    return "" if evidence.outputs is None else "handed in outputs although nothing was trained"


def slow_as_it_is(evidence: Evidence) -> str:
    """A network that sleeps 10 ms a call is not believed to be faster than 6 ms."""
    report = evidence.outcome.report
    if evidence.outcome.state is not JobState.TRAINED or report is None or report.latency is None:
        return ""
    believed = report.latency.median_ms
    return f"believed to take {believed:.3g} ms, takes more than 10" if believed < 6 else ""
