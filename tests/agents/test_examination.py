"""What a run finds out of its candidates before it trains them: generated code in a real sandbox."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cambrian.agents.cli.looking import show_command
from cambrian.agents.population import CandidateState
from cambrian.agents.recorder.notes import candidate_note
from cambrian.agents.runfile import RunConfig
from cambrian.agents.session import Watch, start
from cambrian.agents.workspace import Workspace
from cambrian.search_spaces import SPACES
from tests.support.code_space import install

MakeConfig = Callable[..., RunConfig]

BEGIN = """
import torch
from torch import nn


class Network(nn.Module):
    width = 16
    depth = 1
    activation = 'relu'

"""
CAUSAL = """
    def __init__(self, input_shape, n_outputs):
        super().__init__()
        self.mixer = nn.Conv1d(input_shape[1], self.width, 3, padding=2)
        self.head = nn.Linear(self.width, n_outputs)

    def forward(self, x):
        x = self.mixer(x.transpose(1, 2))[..., :x.shape[1]]
        return self.head(torch.relu(x).mean(2))
"""
REFACTORED = """
    def __init__(self, input_shape, n_outputs):
        super().__init__()
        classify = nn.Linear(16, n_outputs)
        self.parts = nn.ModuleDict({'in': nn.Conv1d(8, 16, kernel_size=3, padding=2), 'out': classify})
        self.nothing = nn.Dropout(0.0)

    def forward(self, sequence):
        length = sequence.size(1)
        hidden = self.parts['in'](sequence.permute(0, 2, 1)).narrow(2, 0, length)
        hidden = self.nothing(hidden.relu()) + 0 * 1
        return self.parts['out'](hidden.mean(dim=-1))
"""
NEIGHBOURS = """
    def __init__(self, input_shape, n_outputs):
        super().__init__()
        self.mixer = nn.Conv1d(input_shape[1], self.width, 3, padding=2)
        self.head = nn.Linear(self.width, n_outputs)

    def forward(self, x):
        x = self.mixer(x.transpose(1, 2))[..., :x.shape[1]].relu().mean(2)
        return self.head(x - x.mean(0))
"""
BOTH_WAYS = """
    def __init__(self, input_shape, n_outputs):
        super().__init__()
        self.mixer = nn.GRU(input_shape[1], self.width, batch_first=True, bidirectional=True)
        self.head = nn.Linear(2 * self.width, n_outputs)

    def forward(self, x):
        return self.head(self.mixer(x)[0].mean(1))
"""
LARGE = CAUSAL.replace("self.width, 3, padding=2", "self.width, 201, padding=200")
PARTS = {
    "causal": CAUSAL,
    "refactored": REFACTORED,
    "neighbours": NEIGHBOURS,
    "both-ways": BOTH_WAYS,
    "large": LARGE,
    "other": CAUSAL.replace("relu", "tanh"),
}
SOURCES = {name: BEGIN + text for name, text in PARTS.items()}


@pytest.fixture(autouse=True)
def coded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.syspath_prepend(str(install(tmp_path / "plugin", SOURCES)))
    yield
    SPACES._loaded.pop("coded", None)
    sys.modules.pop("code_space", None)


async def test_code_is_known_by_what_it_computes_and_refused_for_how_it_behaves(
    config: MakeConfig, runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = config(
        space="coded",
        task={"name": "digits", "view": "sequence", "rungs": [{"epochs": 1}]},
        sandbox={"kind": "process", "trust_generated_code": True},
        constraints=["params <= 20k"],
        checks={"causal": True, "proxies": ["grad_norm"]},
        baselines=list(SOURCES),
        arms={"random": 1},
        slots=1,
        budget={"evaluations": 2},
        latency={"repeats": 3},
    )
    report = await start(made, Workspace(runs), Watch(say=lambda _: None))
    store = Workspace(runs).open("last")
    found = {c.proposal.edit: c for c in store.candidates()}
    assert report.ledger.evaluations == len(store.evaluations()) == 2

    first, same = found["causal"], found["refactored"]
    assert first.state is CandidateState.EVALUATED and first.identity and first.identity.startswith("f")
    assert (same.state, same.duplicate_of) == (CandidateState.DUPLICATE, first.id)
    assert same.reason.startswith(f"computes the same as {first.id}")
    assert not store.evaluations(same.id)
    assert found["other"].state is CandidateState.EVALUATED
    assert found["other"].identity != first.identity

    neighbours, both, large = found["neighbours"], found["both-ways"], found["large"]
    assert neighbours.state is both.state is CandidateState.INVALID
    assert neighbours.reason.startswith("batch-independence: a sample's output changes by")
    assert both.reason.startswith("causality: not causal: changing position")
    assert large.state is CandidateState.INFEASIBLE and "params" in large.reason

    assert first.static is not None and first.static.parameters == 8 * 16 * 3 + 16 + 16 * 10 + 10
    verdicts = {finding.check: finding.verdict for finding in first.findings}
    assert verdicts["causality"] == verdicts["batch-independence"] == verdicts["growth"] == "passed"
    growth = next(finding for finding in first.findings if finding.check == "growth")
    assert growth.numbers["work_exponent"] == pytest.approx(1, abs=0.05)
    assert first.proxies.keys() == {"grad_norm"} and first.motifs and first.examined_s > 0
    assert {path.name for path in (store.folder / "jobs").glob("*-x")} == {
        f"{c.id}-x" for c in found.values()
    }

    note = candidate_note(both, [], store.run, [], {}, None)
    assert "causality" in note and "not causal" in note
    store.close()
    show_command(f"last/{first.id}", False, runs)
    shown = capsys.readouterr().out
    assert "batch-independence" in shown and "grad_norm" in shown
    show_command(f"last/{both.id}", True, runs)
    told = json.loads(capsys.readouterr().out)["candidate"]["findings"]
    assert [one["check"] for one in told if one["verdict"] == "failed"] == ["causality"]
