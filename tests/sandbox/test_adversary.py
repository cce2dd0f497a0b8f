"""Hostile candidates against every sandbox, and whether the trial would notice."""

from __future__ import annotations

import ast
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from cambrian.sandbox import InfrastructureError, Isolation, JobState, Outcome, Sandbox
from cambrian.sandbox.adversary.plugin import lay_out
from cambrian.sandbox.adversary.probe import ERROR, ORDINARY, Evidence, Probe, judge, told
from cambrian.sandbox.adversary.probes import catalogue, short_suite
from cambrian.sandbox.adversary.report import ProbeResult, TrialReport
from cambrian.sandbox.adversary.trial import Trial, engine_leftovers
from cambrian.sandbox.process import ProcessSandbox
from cambrian.search_spaces import TASKS

INSIDE = Path(__file__).parents[2] / "sandbox" / "adversary" / "inside"
PROBES = {probe.name: probe for probe in catalogue()}

Make = Callable[[Path], Sandbox]


async def tried(
    make: Make, place: Path, probes: Sequence[Probe], every: int = 1, claims: Isolation | None = None
) -> TrialReport:
    """The trial of a sandbox; `claims` is what it says of itself instead of the truth."""
    task = TASKS.create("digits")
    splits, folder, run_id = task.load(), place / "run", f"trial-{os.getpid()}-{place.name}"
    folder.mkdir()
    sandbox = make(lay_out(place / "plugin"))
    docker = sandbox.isolation.level == "docker"
    trial = Trial(
        sandbox,
        run_id,
        folder,
        splits,
        task.signature,
        every=every,
        leftovers=engine_leftovers(run_id, None) if docker else lambda _job: [],
    )
    try:
        await sandbox.open(run_id, folder, splits, 2)
        sandbox.isolation = claims or sandbox.isolation
        report = await trial.run(probes)
    finally:
        await sandbox.close()
    return trial.after_closing(report)


def failures(report: TrialReport) -> list[str]:
    wrong = [f"{one.name}: {one.detail}" for one in report.honest if not one.ok]
    for probe in report.probes:
        if not probe.ok:
            wrong.append(f"{probe.name}: {probe.problems} {probe.left} unharmed={probe.unharmed}")
    return wrong + list(report.left)


def process(plugin: Path) -> Sandbox:
    return ProcessSandbox(plugins=[plugin], trust_generated_code=True)


def bare(plugin: Path) -> Sandbox:
    return ProcessSandbox(plugins=[plugin], trust_generated_code=True, namespaces=False)


def docker(plugin: Path) -> Sandbox:
    from cambrian.sandbox.container import ContainerSandbox

    return ContainerSandbox(plugins=[plugin], limits=ORDINARY)


@pytest.mark.slow
@pytest.mark.timeout(300)
async def test_all_candidates_against_processes(tmp_path: Path) -> None:
    report = await tried(process, tmp_path, catalogue())
    if "reaches the network" in report.isolation.not_enforced:
        pytest.skip("this machine allows no namespaces")
    assert failures(report) == []
    assert report.passed
    assert not any(probe.skipped for probe in report.probes)


@pytest.mark.docker
@pytest.mark.slow
@pytest.mark.timeout(600)
async def test_candidates_against_containers(tmp_path: Path) -> None:
    """But for those that are stopped by what both sandboxes share."""
    probes = [probe for probe in catalogue() if not probe.shared]
    assert len(probes) >= 30
    try:
        report = await tried(docker, tmp_path, probes, every=8)
    except InfrastructureError as error:
        if os.environ.get("CAMBRIAN_REQUIRE_DOCKER") == "1":
            raise
        pytest.skip(str(error))
    assert failures(report) == []
    assert report.passed
    assert not any(probe.skipped or probe.declared for probe in report.probes)


async def test_what_no_namespace_holds_is_declared_and_what_is_hidden_is_noticed(tmp_path: Path) -> None:
    probes = [PROBES[name] for name in ("network", "notes", "kill-everything", "daemon", "dice")]
    (tmp_path / "honest").mkdir()
    report = await tried(bare, tmp_path / "honest", probes)
    assert failures(report) == []
    verdicts = {probe.name: probe.verdict for probe in report.probes}
    assert verdicts == {
        "network": "declared", "notes": "declared", "kill-everything": "left out", "daemon": "contained",
        "dice": "contained",
    }  # fmt: skip
    # the same, by a sandbox that hides what it cannot stop; of what hurts others nothing may be run
    (tmp_path / "boastful").mkdir()
    boasts = Isolation(level="process", not_enforced=())
    report = await tried(bare, tmp_path / "boastful", probes[:2], claims=boasts)
    assert not report.passed
    assert [probe.verdict for probe in report.probes] == ["NOT CONTAINED", "NOT CONTAINED"]
    assert any("127.0.0.1" in problem for problem in report.probes[0].problems)
    assert any("-note" in thing for thing in report.probes[1].left)
    assert not list(Path("/tmp").glob("cambrian-trial-*-note"))  # noticed, and taken away


def test_each_probe_says_what_it_is() -> None:
    probes = catalogue()
    assert len(probes) >= 40
    assert len(PROBES) == len(probes)
    assert 20 <= len(short_suite()) <= 40
    for probe in probes:
        assert probe.attempt.endswith(".") and probe.attempt[0].isupper()
        assert probe.states
        # what ends in an ordinary error is only contained when the candidate tells what it met
        tells = probe.facts or probe.words or probe.escaped or probe.look or len(probe.states) > 1
        assert tells or probe.states != ERROR or probe.shared, probe.name


def test_each_probe_has_an_act_inside() -> None:
    """Without importing any: nothing in `inside` is ever imported on the host."""
    acts: set[str] = set()
    for path in INSIDE.glob("*.py"):
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.AnnAssign) and isinstance(node.value, ast.Dict):
                acts |= {key.value for key in node.value.keys if isinstance(key, ast.Constant)}
    wanted = {probe.genotype["act"] for probe in PROBES.values()}
    wanted |= {probe.then["act"] for probe in PROBES.values() if probe.then is not None}
    assert wanted <= acts


def evidence(place: Path, state: JobState, reason: str = "") -> Evidence:
    outcome = Outcome(job_id="j", state=state, reason=reason, wall_s=1.0, isolation=Isolation(level="docker"))
    return Evidence(outcome, place, TASKS.create("digits").load())


@pytest.mark.parametrize(
    ("name", "state", "reason", "wrong"),
    [
        ("segfault", JobState.KILLED, "ended by signal SIGSEGV", set()),
        ("segfault", JobState.KILLED, "ended by signal SIGKILL", {"look"}),
        ("segfault", JobState.TRAINED, "", {"state"}),
        ("knobs", JobState.ERROR, 'Found: {"opened": []} (hostile/reach.py:1 in found)', set()),
        ("knobs", JobState.ERROR, 'Found: {"opened": ["/proc/x"]} (hostile/reach.py:1 in found)', {"opened"}),
        ("knobs", JobState.ERROR, "OSError: [Errno 1] nothing told (hostile/reach.py:1 in found)", {"look"}),
        ("knobs", JobState.ERROR, "NameError: a mistake (hostile/reach.py:1 in found)", {"look"}),
        ("many-files", JobState.ERROR, "RuntimeError: wrote 160 MiB (hostile/x.py:1 in y)", {"escaped"}),
        ("prompt-injection", JobState.ERROR, "two\nlines", {"look"}),
        ("prompt-injection", JobState.ERROR, "x" * 3000, {"look"}),
    ],
)
def test_judging(tmp_path: Path, name: str, state: JobState, reason: str, wrong: set[str]) -> None:
    (tmp_path / "log.txt").write_text("")
    assert judge(PROBES[name], evidence(tmp_path, state, reason), state).keys() == wrong


def test_facts_come_from_the_exception_that_carries_them_only() -> None:
    assert told('Found: {"a": [1]} (hostile/reach.py:1 in found)') == {"a": [1]}
    assert told('ValueError: Found: {"a": []} (x)') is None
    assert told("Found: no JSON (x)") is None


def test_a_row_says_why_it_is_right_that_a_hostile_candidate_trained() -> None:
    trained = ProbeResult(name="reseed", attempt="Takes away seeds.", state=JobState.TRAINED)
    assert trained.ending == "trained, did no harm"
    assert trained.model_copy(update={"left": ("a file",)}).ending == "trained"
    assert trained.model_copy(update={"state": None}).ending == ""
