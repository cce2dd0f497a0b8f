from pathlib import Path

import pytest

from cambrian.agents.errors import UnknownNameError, UserError
from cambrian.agents.population.store import PopulationStore, RunRecord
from cambrian.agents.workspace import Workspace


def make_run(workspace: Workspace, run_id: str) -> None:
    record = RunRecord(
        run_id=run_id, name="x", space="convnet", task="digits", metric="accuracy", maximize=True,
        cost="params", created=0.0, config={},
    )  # fmt: skip
    PopulationStore(workspace.root / run_id, create=record).close()


def test_runs_are_found_by_id_start_path_and_last(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    for run_id in ("alpha-1", "alpha-2", "beta-1"):
        make_run(workspace, run_id)
    assert workspace.run_ids() == ["alpha-1", "alpha-2", "beta-1"]
    assert workspace.folder("beta").name == "beta-1"
    assert workspace.folder("alpha-2").name == "alpha-2"
    assert workspace.folder(str(tmp_path / "alpha-1")).name == "alpha-1"
    assert workspace.folder("last").name == "beta-1"
    with pytest.raises(UnknownNameError, match="fits 2 runs"):
        workspace.folder("alpha")
    with pytest.raises(UnknownNameError) as caught:
        workspace.folder("bta-1")
    assert "did you mean beta-1" in caught.value.hint


def test_names_of_candidates() -> None:
    workspace = Workspace(Path("runs"))
    assert workspace.split_candidate("c-0012") == ("last", "c-0012")
    assert workspace.split_candidate("alpha-1/c-0003") == ("alpha-1", "c-0003")
    assert workspace.split_candidate("c-alpha") is None
    assert workspace.split_candidate("alpha-1") is None


def test_two_runs_of_one_second_get_folders_of_their_own(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    assert len({workspace.new_folder("x") for _ in range(3)}) == 3


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot make the folder") as caught:
        Workspace(tmp_path / "file" / "runs").new_folder("x")
    assert "CAMBRIAN_RUNS" in caught.value.hint


def test_the_environment_names_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CAMBRIAN_RUNS", str(tmp_path / "elsewhere"))
    assert Workspace().root == tmp_path / "elsewhere"
    assert Workspace(tmp_path).root == tmp_path
