"""What a run finds out of its candidates before it trains them: generated code in a real sandbox."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cambrian.agents.checking import check_run
from cambrian.agents.cli.looking import show_command
from cambrian.agents.errors import RunFileError
from cambrian.agents.evaluator.admission import Admission
from cambrian.agents.examining import examine_spec
from cambrian.agents.population import CandidateState
from cambrian.agents.population.model import Candidate, Proposal
from cambrian.agents.population.store import PopulationStore, RunRecord
from cambrian.agents.recorder.notes import candidate_note
from cambrian.agents.runfile import RunConfig
from cambrian.agents.session import Watch, start
from cambrian.agents.workspace import Workspace
from cambrian.sandbox import Isolation, JobState, Outcome, WorkerReport
from cambrian.sandbox.examination.report import Examination, Finding, StaticFacts
from cambrian.search_spaces import SPACES, TASKS
from tests.support.code_space import install
from tests.support.instant import InstantSandbox

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


# the steps one by one ---------------------------------------------------------------------------------------


class Steps:
    """The admission of a run of generated code, with outcomes as the test has them."""

    def __init__(self, config: RunConfig, folder: Path) -> None:
        self.config, self.folder = config, folder
        self.space, self.task = SPACES.create("coded"), TASKS.create("digits")
        record = RunRecord(
            run_id="r", name="r", space="coded", task="digits", metric="accuracy", maximize=True,
            cost="params", created=0.0, config=config.model_dump(mode="json"),
        )  # fmt: skip
        self.store = PopulationStore(folder, create=record)
        self.admission = Admission(config, self.space, self.task, self.store)

    def admit(self, name: str, index: int) -> Candidate:
        genotype = {"source": SOURCES[name]}
        candidate = Candidate(
            id=f"c-{index}", index=index, proposal=Proposal(arm="random", genotype=genotype),
            genotype=genotype, state=CandidateState.PROPOSED,
        )  # fmt: skip
        if index >= len(self.store.candidates()):
            self.store.add(candidate)
        return self.saved(self.admission.admit(candidate))

    def examined(
        self, candidate: Candidate, state: JobState = JobState.EXAMINED, **found: object
    ) -> Candidate:
        report = WorkerReport(status="examined", examination=Examination.model_validate(found))
        outcome = Outcome(
            job_id="x", state=state, reason="took longer than 3 s" if state is JobState.TIMEOUT else "",
            wall_s=1.5, isolation=Isolation(level="docker"), report=report,
        )  # fmt: skip
        return self.saved(self.admission.examined(candidate, outcome))

    def saved(self, candidate: Candidate) -> Candidate:
        self.store.update(candidate)
        return candidate

    def resumed(self) -> None:
        self.admission = Admission(self.config, self.space, self.task, self.store)


@pytest.fixture
def steps(config: MakeConfig, tmp_path: Path) -> Iterator[Steps]:
    made = Steps(
        config(space="coded", constraints=["params <= 5k"], checks={"forbid": ["train-eval"]}), tmp_path
    )
    yield made
    made.store.close()


ONE, TWO = "f1:" + "1" * 32, "f1:" + "2" * 32


def test_equal_code_is_known_by_its_text_before_and_by_its_function_afterwards(steps: Steps) -> None:
    first = steps.admit("causal", 0)
    assert first.state is CandidateState.PROPOSED and first.identity and first.identity.startswith("code:")
    at_once = steps.admit("causal", 1)  # while the first one is examined
    assert (at_once.state, at_once.duplicate_of) == (CandidateState.DUPLICATE, "c-0")
    assert at_once.reason.startswith("is the source of c-0")
    assert steps.examined(first, identity=ONE).identity == ONE
    assert steps.examined(steps.admit("other", 2), identity=TWO).state is CandidateState.PROPOSED
    same = steps.examined(steps.admit("refactored", 3), identity=ONE)
    assert (same.state, same.duplicate_of, same.examined_s) == (CandidateState.DUPLICATE, "c-0", 1.5)
    steps.resumed()
    assert steps.admit("causal", 4).duplicate_of == "c-0"
    assert steps.admit("refactored", 5).duplicate_of == "c-0"
    assert steps.admit("causal", 0).state is CandidateState.PROPOSED, "it is no duplicate of itself"


def test_an_examination_that_is_repeated_changes_nothing(steps: Steps) -> None:
    admitted = steps.admit("causal", 0)
    once = steps.examined(admitted, identity=ONE)
    assert steps.examined(admitted, identity=ONE) == steps.examined(once, identity=ONE) == once


def test_what_was_found_ends_a_candidate_with_its_reason(steps: Steps) -> None:
    failed = Finding(check="finite", verdict="failed", detail="outputs are not finite")
    noted = Finding(check="train-eval", verdict="noted", detail="differ by 0.9")
    other = Finding(check="determinism", verdict="noted", detail="differ")
    refused = steps.examined(steps.admit("causal", 0), findings=[failed, noted, other], identity=ONE)
    assert refused.state is CandidateState.INVALID
    assert refused.reason == "finite: outputs are not finite; train-eval: differ by 0.9"
    assert refused.identity != ONE, (
        "another one that computes the same is told the same, not sent to this one"
    )
    again = steps.admit("causal", 1)
    assert again.reason.startswith("is the source of c-0: finite: outputs are not finite")

    facts = StaticFacts(parameters=6000, flops=1, peak_memory_mb=1, depth=1)
    large = steps.examined(steps.admit("large", 2), static=facts, identity=TWO)
    assert (large.state, large.reason) == (CandidateState.INFEASIBLE, "params 6000 > 5000")
    assert large.cost == 6000 and not large.feasible
    slow = steps.examined(steps.admit("other", 3), JobState.TIMEOUT)
    assert (slow.state, slow.reason) == (CandidateState.FAILED, "timeout: took longer than 3 s")


def test_without_an_identity_the_text_is_one(steps: Steps) -> None:
    candidate = steps.examined(steps.admit("causal", 0), motifs={f"m{i}": 1 for i in range(1500)})
    assert candidate.state is CandidateState.PROPOSED
    assert candidate.identity and candidate.identity.startswith("code:")
    assert len(candidate.motifs) == 1024


# run files --------------------------------------------------------------------------------------------------


def test_who_is_examined_and_for_what(config: MakeConfig) -> None:
    digits = TASKS.create("digits")

    def spec(space: str = "convnet", **checks: object):  # type: ignore[no-untyped-def]
        return examine_spec(config(checks=checks), SPACES.create(space), digits)

    assert spec() is None and spec(behaviour="off") is None
    assert spec(behaviour=True).behaviour and not spec(behaviour="on").identity
    asked = spec(proxies=["naswot"])
    assert asked.proxies == ("naswot",) and not asked.behaviour and not asked.motifs
    assert spec(forbid=["train-eval"]).behaviour
    code = spec("coded")
    assert code.identity and code.motifs and code.behaviour and not code.sequence
    assert not spec("coded", behaviour="off").behaviour and spec("coded", behaviour="off").identity
    sequence = examine_spec(config(), SPACES.create("coded"), TASKS.create("digits", view="sequence"))
    assert sequence is not None and sequence.sequence


@pytest.mark.parametrize(
    ("checks", "words"),
    [
        ({"behaviour": "off", "causal": True}, "'causal' needs the checks: leave out 'behaviour: off'"),
        ({"proxies": ["nasswot"]}, "unknown proxy 'nasswot'"),
        ({"forbid": ["finit"]}, "checks.forbid"),
        ({"max_exponent": 0}, "checks.max_exponent"),
        ({"behavior": "on"}, "checks.behavior: unknown key, did you mean behaviour?"),
    ],
)
def test_a_wrong_section_is_told(config: MakeConfig, checks: dict[str, object], words: str) -> None:
    with pytest.raises(RunFileError) as caught:
        config(checks=checks)
    assert words in caught.value.message


def test_demands_on_sequences_need_sequences(config: MakeConfig) -> None:
    with pytest.raises(RunFileError, match=r"checks\.causal: inputs of task 'digits' have no length"):
        check_run(config(checks={"causal": True}), "a run file")
    check_run(config(space="convnet", checks={"forbid": ["finite"]}), "a run file")


async def test_networks_of_trusted_blocks_are_examined_where_it_is_asked_for(
    config: MakeConfig, runs: Path, instant: list[InstantSandbox]
) -> None:
    made = config(checks={"behaviour": True, "proxies": ["params"]}, budget={"evaluations": 3})
    await start(made, Workspace(runs), Watch(say=lambda _: None))
    store = Workspace(runs).open("last")
    trained = [c for c in store.candidates() if c.state is CandidateState.EVALUATED]
    assert len(trained) == 3 and all(c.findings and "params" in c.proxies for c in trained)
    assert all(c.identity and not c.identity.startswith("t1") for c in trained), "the host's own"
    assert sorted(instant[0].ran) == sorted(f"{c.id}-r0-s0" for c in trained)
    store.close()
