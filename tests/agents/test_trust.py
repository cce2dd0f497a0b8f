"""Code that a model wrote runs in containers, unless the user says in so many words that it is trusted."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cambrian.agents.checking import check_run
from cambrian.agents.errors import UserError
from cambrian.agents.population import CandidateState
from cambrian.agents.runfile import RunConfig
from cambrian.agents.session import Watch, start
from cambrian.agents.workspace import Workspace
from cambrian.sandbox import Job
from cambrian.search_spaces import SPACES
from tests.support.code_space import install

MakeConfig = Callable[..., RunConfig]


@pytest.fixture(autouse=True)
def coded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.syspath_prepend(str(install(tmp_path / "plugin")))
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/none.sock")
    yield
    SPACES._loaded.pop("coded", None)
    sys.modules.pop("code_space", None)


@pytest.mark.parametrize("kind", ["process", "auto"])
async def test_a_run_of_generated_code_without_a_container_is_refused_before_it_starts(
    config: MakeConfig, runs: Path, kind: str
) -> None:
    made = config(space="coded", sandbox={"kind": kind})
    with pytest.raises(UserError, match=r"sandbox\.kind .* generated code") as caught:
        await start(made, Workspace(runs), Watch(say=lambda _: None))
    assert "sandbox.trust_generated_code: true" in caught.value.hint
    assert Workspace(runs).run_ids() == []
    check_run(config(space="coded", sandbox={"kind": "docker"}), "a run file")
    check_run(config(sandbox={"kind": kind}), "a run file")


def test_the_device_is_held_to_the_same(config: MakeConfig) -> None:
    devices = {"desk": {"kind": "process"}}
    made = config(space="coded", sandbox={"kind": "docker"}, devices=devices, latency={"device": "desk"})
    with pytest.raises(UserError, match=r"devices\.desk\.kind 'process'"):
        check_run(made, "a run file")


async def test_trusted_code_runs_in_a_process_and_is_reproduced(config: MakeConfig, runs: Path) -> None:
    made = config(
        space="coded",
        sandbox={"kind": "process", "trust_generated_code": True},
        arms={"random": 0.5, "mutation": 0.5},
        budget={"evaluations": 3},
        latency={"repeats": 3},
    )
    report = await start(made, Workspace(runs), Watch(say=lambda _: None))
    store = Workspace(runs).open("last")
    trained = [c for c in store.candidates() if c.state is CandidateState.EVALUATED]
    assert len(trained) == 3 == len(report.leaderboard) and all(c.reproduced for c in trained)
    assert len({c.identity for c in trained}) == 3
    for path in (store.folder / "jobs").glob("*/job.json"):
        assert Job.model_validate_json(path.read_text()).generated_code
    assert len(list((store.folder / "jobs").glob("*-again"))) == 3
    store.close()
