"""Examining a candidate: what it computes, how it behaves, what it looks like to an estimator.

Runs on the CPU with one thread, on real training samples. The parts that describe a candidate (identity,
static facts, motifs, proxies) may be missing from what is told: a network that they cannot follow is none the
worse for it. The checks of its behaviour may not: who raises there raises in training.
"""

from __future__ import annotations

import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from cambrian.sandbox.examination.behaviour import check_behaviour
from cambrian.sandbox.examination.counting import counted_facts
from cambrian.sandbox.examination.identity import identity_inside
from cambrian.sandbox.examination.motifs import motifs
from cambrian.sandbox.examination.proxies import compute
from cambrian.sandbox.examination.report import Examination, StaticFacts
from cambrian.sandbox.examination.static import static_facts_inside
from cambrian.sandbox.examination.subject import Subject
from cambrian.sandbox.examination.uncompiled import spare_compiler
from cambrian.sandbox.protocol import Job
from cambrian.sandbox.worker.network import make_network
from cambrian.sandbox.worker.training import Data
from cambrian.search_spaces import ProposalError, Space

SAMPLES = 64
"""Training samples that a candidate is examined with, from all over the split."""


def examine(job: Job, space: Space, data: Data) -> Examination:
    """Everything that `job.examine` asks for; after a check that failed there is no more.

    Raises:
        Exception: whatever the network raises on ordinary samples.
    """
    spare_compiler()
    spec = job.examine
    assert spec is not None
    told: dict[str, Any] = {"seconds": {}}
    chosen = torch.linspace(0, len(data.x_train) - 1, min(SAMPLES, len(data.x_train))).long()
    inputs, targets = data.x_train[chosen], data.y_train[chosen]

    def build() -> nn.Module:
        return make_network(space, job, data)

    @contextmanager
    def part(name: str) -> Iterator[None]:
        began = time.perf_counter()
        yield
        told["seconds"][name] = time.perf_counter() - began

    if spec.identity:
        with part("static"), _contained():
            told["static"] = _static(job, space, build(), data)
        with part("identity"), _contained():
            told["identity"] = identity_inside(space, job.genotype, job.signature)
    if spec.behaviour:
        with part("behaviour"):
            subject = Subject(build, job.signature, inputs, targets, job.loss)
            told["findings"] = check_behaviour(subject, spec)
        if any(finding.verdict == "failed" for finding in told["findings"]):
            return Examination(**told)
    if spec.motifs:
        with part("motifs"), _contained():
            told["motifs"] = motifs(build(), job.signature)
    if spec.proxies:
        with part("proxies"), _contained():
            told["proxies"] = compute(spec.proxies, build, inputs, targets, job.loss)
    return Examination(**told)


def _static(job: Job, space: Space, module: nn.Module, data: Data) -> StaticFacts:
    """The static check; of a network that reads numbers of its tensors, what shows when it runs."""
    try:
        return static_facts_inside(space, job.genotype, job.signature, job.recipe.batch_size)
    except ProposalError:
        return counted_facts(module, data.x_train[:2], job.signature, job.recipe.batch_size)


@contextmanager
def _contained() -> Iterator[None]:
    """Whatever is raised inside goes to the log."""
    try:
        yield
    except Exception:
        traceback.print_exc()
