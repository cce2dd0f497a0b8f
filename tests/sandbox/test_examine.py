"""Examinations: what a job may ask for, what a report may tell, what a worker finds out."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn

from cambrian.sandbox.examination.report import Examination, ExamineSpec, Finding
from cambrian.sandbox.job_folder import check_examination
from cambrian.sandbox.outputs import OutputError
from cambrian.sandbox.protocol import Job
from cambrian.sandbox.worker.examine import examine
from cambrian.sandbox.worker.training import Data
from cambrian.search_spaces import Recipe, Signature

GOOD: dict[str, Any] = {"findings": [{"check": "finite", "verdict": "passed"}]}
ASKED = ExamineSpec(identity=True, proxies=("params",), motifs=True)


def job(**changes: Any) -> Job:
    values: dict[str, Any] = {
        "id": "c-0001-x", "run_id": "r", "candidate_id": "c-0001", "space": "test", "genotype": {},
        "signature": Signature(input_shape=(4,), n_outputs=3), "recipe": Recipe(), "epochs": 0, "seed": 1,
        "latency": None, "purpose": "examine", "examine": ASKED,
    }  # fmt: skip
    return Job(**(values | changes))


def test_only_a_job_that_examines_says_what_for() -> None:
    assert job().examine == ASKED
    for changes in ({"examine": None}, {"purpose": "train"}, {"purpose": "measure"}):
        with pytest.raises(ValidationError, match="'examine' goes with the purpose 'examine'"):
            job(**changes)


@pytest.mark.parametrize(
    ("spec", "told", "words"),
    [
        (ASKED, None, "holds no examination"),
        (ASKED, {}, "holds no findings"),
        (ExamineSpec(), {**GOOD, "identity": "f1:" + "0" * 32}, "an identity that nobody asked for"),
        (ASKED, {**GOOD, "identity": "f1:" + "0" * 31}, "an identity that is none"),
        (ASKED, {**GOOD, "proxies": {"params": 1, "naswot": 1}}, "proxies that nobody asked for"),
        (ExamineSpec(), {**GOOD, "motifs": {"relu": 1}}, "motifs that nobody asked for"),
        (ExamineSpec(behaviour=False), GOOD, "findings that nobody asked for"),
        (ExamineSpec(), {"findings": GOOD["findings"] * 2}, "two findings of one check"),
    ],
)
def test_a_report_tells_of_what_was_asked(spec: ExamineSpec, told: dict[str, Any] | None, words: str) -> None:
    found = None if told is None else Examination.model_validate(told)
    with pytest.raises(OutputError, match=words):
        check_examination(found, spec)


def test_what_was_asked_for_may_be_missing_but_for_the_findings() -> None:
    check_examination(Examination.model_validate(GOOD), ASKED)
    check_examination(Examination(), ExamineSpec(behaviour=False, identity=True))


def test_a_note_is_a_fault_where_it_is_forbidden() -> None:
    findings = [
        Finding(check="finite", verdict="passed", detail="fine"),
        Finding(check="determinism", verdict="noted", detail="differs"),
        Finding(check="growth", verdict="skipped", detail="short"),
    ]
    found = Examination(findings=tuple(findings))
    assert found.faults() == []
    assert found.faults({"determinism", "finite", "growth"}) == ["determinism: differs"]


class Space:
    """Builds one network, whatever the genotype says."""

    name, version, kind = "test", "1", "code"

    def __init__(self, network: type[nn.Module]) -> None:
        self._network = network

    def build(self, genotype: dict[str, Any], signature: Signature) -> nn.Module:
        return self._network()

    def recipe(self, genotype: dict[str, Any]) -> dict[str, Any]:
        return {}


class Plain(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


class LooksAtNumbers(Plain):
    """Cannot run on the meta device."""

    def forward(self, x: Tensor) -> Tensor:
        assert float(x.abs().sum()) >= 0
        return super().forward(x)


class Wrong(Plain):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x)[:, :2]


class Raises(Plain):
    def forward(self, x: Tensor) -> Tensor:
        raise RuntimeError("shapes do not fit")


def found_of(network: type[nn.Module]) -> Examination:
    rng = np.random.default_rng(0)
    inputs = torch.from_numpy(rng.normal(size=(100, 4)).astype(np.float32))
    data = Data(inputs, torch.from_numpy(rng.integers(0, 3, 100)), lambda name: inputs)
    return examine(job(), Space(network), data)  # type: ignore[arg-type]


def test_a_network_is_known_inside_by_what_it_computes() -> None:
    found = found_of(Plain)
    assert found.identity and found.static and not found.faults() and found.motifs
    assert found.static.parameters == found.proxies["params"] == 4 * 8 + 8 + 8 * 3 + 3
    assert found.seconds.keys() == {"static", "identity", "behaviour", "motifs", "proxies"}
    check_examination(found, ASKED)


def test_a_network_that_parts_cannot_follow_is_none_the_worse() -> None:
    found, plain = found_of(LooksAtNumbers), found_of(Plain)
    assert not found.faults() and found.static is not None and plain.static is not None
    assert (found.static.parameters, found.static.flops) == (plain.static.parameters, plain.static.flops)
    check_examination(found, ASKED)


def test_a_network_that_fails_a_check_is_looked_at_no_further() -> None:
    found = found_of(Wrong)
    assert found.faults() == ["output-shape: for 5 samples the output has shape (5, 2), not (5, 3)"]
    assert not found.proxies and not found.motifs


def test_what_a_network_raises_is_its_own_error() -> None:
    with pytest.raises(RuntimeError, match="shapes do not fit"):
        found_of(Raises)
