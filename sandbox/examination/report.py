"""What an examination is asked for, and what it tells: the data that cross the sandbox's boundary.

An examination runs a candidate's real module on a few probes before anything is trained: what it computes
(identity), whether it behaves (checks), and what it looks like to an estimator (proxies, motifs).
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Annotated, Literal, get_args

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from cambrian.search_spaces import Signature


def _printable(text: str) -> str:
    if not text.isprintable():
        raise ValueError("holds characters that cannot be printed")
    return text


Printable = AfterValidator(_printable)
"""Of text that people will read, and that a candidate may have written."""
Finite = Annotated[float, Field(allow_inf_nan=False, ge=-1e30, le=1e30)]
CheckName = Literal[
    "output-shape",
    "input-sizes",
    "finite",
    "determinism",
    "gradients",
    "batch-independence",
    "train-eval",
    "causality",
    "growth",
]
CHECKS: tuple[str, ...] = get_args(CheckName)
"""What is checked of a network's behaviour, in this order."""
Short = Annotated[str, Field(max_length=400), Printable]
Key = Annotated[str, Field(max_length=120), Printable]


class _Data(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


def is_sequence(signature: Signature) -> bool:
    """Whether inputs have an axis of length: ids `(length,)`, or `(length, channels)`."""
    return signature.graph is None and (signature.vocabulary is not None or len(signature.input_shape) == 2)


class StaticFacts(_Data):
    """What the static check found without allocating memory.

    Attributes:
        parameters: trainable parameters.
        flops: floating point operations of one forward pass of one sample, 2 per multiply-add, of
            convolutions and matrix products.
        peak_memory_mb: estimated peak of one training step at the recipe's batch size: weights, gradients,
            optimizer state and activations, in MiB.
        depth: modules with weights on the forward pass.
    """

    parameters: int = Field(ge=0, le=10**15)
    flops: int = Field(ge=0, le=10**18)
    peak_memory_mb: float = Field(ge=0, le=1e12)
    depth: int = Field(ge=0, le=10**9)

    def limited(self) -> dict[str, float]:
        """What a run file may limit, by the names that it has there."""
        return {
            "params": float(self.parameters),
            "flops": float(self.flops),
            "memory_mb": self.peak_memory_mb,
        }


class ExamineSpec(_Data):
    """What to find out of a candidate.

    Attributes:
        identity: whether its functional hash is wanted; the host works it out itself where trusted code
            builds the network.
        behaviour: whether the checks of `behaviour` are to run.
        proxies: names of the zero-cost proxies to compute.
        motifs: whether the motifs of its computation graph are wanted.
        sequence: whether the task is about sequences: inputs have an axis of length, so that causality and
            growth can be checked.
        causal: whether a later position must not change an earlier output: then it is a failure if it does.
        max_exponent: largest growth of work, memory and time with length, as the exponent of a power law,
            that is no failure; None only reports it.
    """

    identity: bool = False
    behaviour: bool = True
    proxies: tuple[Key, ...] = ()
    motifs: bool = False
    sequence: bool = False
    causal: bool = False
    max_exponent: float | None = Field(default=None, gt=0)


class Finding(_Data):
    """One thing that was checked.

    Attributes:
        check: its name, such as `batch-independence`.
        verdict: `passed`; `failed`: such a candidate is not trained; `noted`: worth knowing, no fault;
            `skipped`: could not be checked, `detail` says why.
        detail: one line for people and for the planner, with what was measured.
        numbers: what was measured, by name.
    """

    check: Key
    verdict: Literal["passed", "failed", "noted", "skipped"]
    detail: Short = ""
    numbers: dict[Key, Finite] = Field(default_factory=dict, max_length=32)


class Examination(_Data):
    """What an examination told. It is the candidate's word where its code was generated.

    Attributes:
        identity: versioned functional hash; None when it was not asked for.
        static: of the module, as the static check found it; None where the host did that.
        findings: of the behaviour checks, in the order in which they ran.
        proxies: by name; what could not be computed is missing.
        motifs: counts of the patterns of the computation graph, see `examination.motifs`.
        seconds: how long each part took, by name.
    """

    identity: Key | None = None
    static: StaticFacts | None = None
    findings: tuple[Finding, ...] = Field(default=(), max_length=32)
    proxies: dict[Key, Finite] = Field(default_factory=dict, max_length=64)
    motifs: dict[Key, Finite] = Field(default_factory=dict, max_length=4096)
    seconds: dict[Key, Finite] = Field(default_factory=dict, max_length=16)

    def faults(self, forbidden: Collection[str] = ()) -> list[str]:
        """Why the candidate is not to be trained, one line each; empty when nothing speaks against it.

        Args:
            forbidden: names of checks of which a note is a fault as well.
        """
        return [
            f"{f.check}: {f.detail}"
            for f in self.findings
            if f.verdict == "failed" or (f.verdict == "noted" and f.check in forbidden)
        ]
