"""Runs whose space is a folder keep a copy of it: whoever edits the folder changes later runs only."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from cambrian.agents.checking import check_run
from cambrian.agents.errors import RunFileError, UserError
from cambrian.agents.runfile import RunConfig, load_run_file
from cambrian.agents.session import Watch, resume, start
from cambrian.agents.workspace import Workspace, kept_space, space_of
from cambrian.search_spaces.finding import MAX_BYTES, files_of
from tests.support.folders import write_space

MakeConfig = Callable[..., RunConfig]
QUIET = Watch(say=lambda _line: None)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_space(tmp_path / "mine", custom=True)


def store_of(runs: Path):  # type: ignore[no-untyped-def]
    return Workspace(runs).open("last")


async def test_a_run_keeps_its_space_and_goes_on_without_the_original(
    config: MakeConfig, runs: Path, folder: Path
) -> None:
    (folder / "prompts" / "propose.j2").write_text("{# mine #}{{ task.name }}")
    await start(config(space=str(folder), budget={"evaluations": 4}), Workspace(runs), QUIET)
    store = store_of(runs)
    assert store.run.space == "mine" and store.run.config["space"] == str(folder)
    copy = kept_space(store.folder)
    assert copy is not None and files_of(copy) == files_of(folder)
    genotypes = [c.genotype for c in store.candidates()]
    assert all({"width", "depth", "activation"} == {*genotype} for genotype in genotypes)
    shutil.rmtree(folder)
    report = await resume("last", Workspace(runs), QUIET, {"budget.evaluations": 8})
    assert report.ledger.evaluations == 8
    assert len(store_of(runs).candidates()) > len(genotypes)


async def test_editing_a_space_changes_later_runs_only(config: MakeConfig, runs: Path, folder: Path) -> None:
    await start(config(space=str(folder), budget={"evaluations": 4}), Workspace(runs), QUIET)
    text = (folder / "space.yaml").read_text()
    (folder / "space.yaml").write_text(text.replace("[8, 16, 32]", "[4]").replace("width: 16", "width: 4"))
    await resume("last", Workspace(runs), QUIET, {"budget.evaluations": 10})
    store = store_of(runs)
    assert {c.genotype["width"] for c in store.candidates()} <= {8, 16, 32}
    assert space_of(store).validate({"width": 32, "depth": 1, "activation": "relu"})
    await start(config(space=str(folder), budget={"evaluations": 4}), Workspace(runs), QUIET)
    later = store_of(runs)
    assert later.run.run_id != store.run.run_id
    assert {c.genotype["width"] for c in later.candidates()} == {4}


async def test_a_space_that_hides_ours_is_told_in_one_line(
    config: MakeConfig, runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CAMBRIAN_SPACES", str(tmp_path / "spaces"))
    write_space(tmp_path / "spaces" / "cell")
    lines: list[str] = []
    await start(config(space="cell", budget={"evaluations": 2}), Workspace(runs), Watch(say=lines.append))
    told = [line for line in lines if "is not used" in line]
    assert told == [f"space 'cell' is the one in {tmp_path / 'spaces' / 'cell'}; the shipped one is not used"]
    lines.clear()
    await start(config(space="convnet", budget={"evaluations": 2}), Workspace(runs), Watch(say=lines.append))
    assert not [line for line in lines if "is not used" in line]


async def test_a_folder_that_is_too_large_or_broken_starts_nothing(
    config: MakeConfig, runs: Path, folder: Path
) -> None:
    (folder / "knowledge" / "paper.md").write_text("x" * MAX_BYTES)
    with pytest.raises(UserError, match=r"with knowledge/paper\.md it holds more than 1000 kB"):
        await start(config(space=str(folder)), Workspace(runs), QUIET)
    (folder / "knowledge" / "paper.md").unlink()
    text = (folder / "space.yaml").read_text()
    (folder / "space.yaml").write_text(text.replace("{out: =width}", "{out: =widht}"))
    with pytest.raises(UserError) as caught:
        await start(config(space=str(folder)), Workspace(runs), QUIET)
    assert (
        str(folder / "space.yaml") in caught.value.message and "rules.network.build" in caught.value.message
    )
    assert "widht" in caught.value.message and "did you mean width" in caught.value.hint
    assert not runs.exists()


@pytest.mark.slow
@pytest.mark.skipif(os.uname().sysname != "Linux", reason="the process sandbox needs Linux")
async def test_a_whole_run_of_blocks_of_one_s_own(config: MakeConfig, runs: Path, folder: Path) -> None:
    made = config(space=str(folder), budget={"evaluations": 3}, sandbox={"kind": "process"})
    report = await start(made, Workspace(runs), QUIET)
    assert report.ledger.evaluations == 3 and len(report.leaderboard) == 3
    assert all(row.score > 0.3 for row in report.leaderboard), "they learn"


# Run files --------------------------------------------------------------------------------------------------


def run_file(path: Path, **changes: object) -> Path:
    data = {"name": "x", "space": "./mine", "task": "digits", "budget": 2, **changes}
    path.parent.mkdir(exist_ok=True)
    path.write_text(yaml.safe_dump(data))
    return path


def test_a_path_starts_from_the_run_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_space(tmp_path / "experiments" / "mine")
    path = run_file(tmp_path / "experiments" / "run.yaml")
    monkeypatch.chdir(tmp_path)
    assert load_run_file(path).space == str(folder)
    assert load_run_file(Path("experiments/run.yaml")).space == str(folder)
    assert load_run_file(run_file(path, space="cell")).space == "cell"
    assert check_run(load_run_file(run_file(path)), "run.yaml")[0].name == "mine"


def test_a_path_where_no_space_is_names_the_field(tmp_path: Path) -> None:
    write_space(tmp_path / "mine")
    with pytest.raises(RunFileError) as caught:
        load_run_file(run_file(tmp_path / "run.yaml", space="./mina"))
    assert "run.yaml: space: no space in ./mina" in caught.value.message
    assert caught.value.hint == "did you mean mine?"


def test_a_task_that_does_not_fit_is_told_before_anything_starts(tmp_path: Path) -> None:
    with pytest.raises(RunFileError) as caught:
        check_run(load_run_file(run_file(tmp_path / "run.yaml", space="gnn")), "run.yaml")
    assert caught.value.message == (
        "run.yaml: task: 'digits' gives images, space 'gnn' takes node ids of a graph"
    )
    assert caught.value.hint == "tasks that fit: cora"
