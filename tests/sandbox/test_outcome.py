"""What the host believes of a job's folder."""

from __future__ import annotations

import json
import os
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cambrian.sandbox import InfrastructureError, Isolation, Job, JobState, LatencySpec, Outcome
from cambrian.sandbox.outcome import JobFolder, OutputError, read_outputs, read_regular, remove_tree
from cambrian.sandbox.worker.messages import Ending
from cambrian.search_spaces import Recipe, Signature

DONE = Ending(why="exit", code=0)
ISOLATION = Isolation(level="process")


def job(**changes: Any) -> Job:
    values: dict[str, Any] = {
        "id": "c-0001-r0-s1",
        "run_id": "run",
        "candidate_id": "c-0001",
        "space": "convnet",
        "genotype": {},
        "signature": Signature(input_shape=(1, 8, 8), n_outputs=3),
        "recipe": Recipe(),
        "epochs": 2,
        "seed": 1,
        "latency": None,
    }
    return Job(**(values | changes))


@pytest.fixture
def folder(tmp_path: Path) -> JobFolder:
    """A prepared folder of a task with 5 validation and 4 test samples."""
    place = JobFolder(tmp_path, job(), 5, 4)
    place.prepare()
    return place


def arrays(**changes: Any) -> dict[str, Any]:
    good = {
        "val": np.ones((5, 3), np.float32),
        "test": np.ones((4, 3), np.float32),
        "val_epochs": np.zeros((2, 5), np.int16),
    }
    return good | changes


def leave(folder: JobFolder, outputs: dict[str, Any] | None = None, **changes: Any) -> None:
    """What a good worker leaves, with changes."""
    report = {"status": "trained", "train_loss": [2.0, 1.0], "epoch_s": [0.1, 0.1], "setup_s": 0.1}
    np.savez(folder.work / "outputs.npz", **(outputs or arrays()))
    (folder.work / "weights.safetensors").write_bytes(b"\2\0\0\0\0\0\0\0{}")
    (folder.work / "report.json").write_text(json.dumps(report | changes))


def test_a_good_result_is_trained_and_moved_up(folder: JobFolder) -> None:
    leave(folder)
    outcome = folder.conclude(DONE, ISOLATION, 1.5)
    assert (outcome.state, outcome.reason, outcome.wall_s) == (JobState.TRAINED, "", 1.5)
    assert not folder.work.exists()
    assert Outcome.model_validate_json((folder.path / "outcome.json").read_bytes()) == outcome
    assert folder.settled(ISOLATION) == outcome


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"val": np.ones((5, 2), np.float32)}, "outputs on val have shape (5, 2), expected (5, 3)"),
        ({"test": np.ones((5, 3), np.float32)}, "outputs on test have shape (5, 3), expected (4, 3)"),
        ({"val": np.ones((5, 3))}, "val is float64"),
        ({"val": np.ones(15, np.float32)}, "expected a float32 matrix"),
        ({"val": np.full((5, 3), np.nan, np.float32)}, "outputs on val are not finite"),
        ({"test": np.full((4, 3), np.inf, np.float32)}, "outputs on test are not finite"),
        ({"val": np.asfortranarray(np.ones((5, 3), np.float32))}, "expected a float32 matrix"),
        ({"val_epochs": np.zeros((1, 5), np.int16)}, "val_epochs has shape (1, 5)"),
        ({"val_epochs": np.full((2, 5), 3, np.int16)}, "classes that there are not"),
        ({"val_epochs": np.full((2, 5), -1, np.int16)}, "classes that there are not"),
        ({"more": np.ones(1)}, "outputs.npz holds"),
    ],
)
def test_outputs_that_do_not_fit_are_bad(folder: JobFolder, changes: dict[str, Any], words: str) -> None:
    leave(folder, arrays(**changes))
    outcome = folder.conclude(DONE, ISOLATION, 1.0)
    assert outcome.state is JobState.BAD_OUTPUT
    assert words in outcome.reason


def values(**changes: Any) -> dict[str, Any]:
    """What a worker leaves of a regression with 3 outputs."""
    return arrays(val_epochs=np.ones((2, 5, 3), np.float32)) | changes


def test_a_good_regression_is_trained(tmp_path: Path) -> None:
    folder = JobFolder(tmp_path, job(loss="squared-error"), 5, 4)
    folder.prepare()
    leave(folder, values())
    assert folder.conclude(DONE, ISOLATION, 1.0).state is JobState.TRAINED
    assert read_outputs(folder.path, "squared-error").val_epochs.shape == (2, 5, 3)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"val_epochs": np.zeros((2, 5), np.int16)}, "expected a float32 array of 3 axes"),
        (
            {"val_epochs": np.ones((2, 5, 2), np.float32)},
            "val_epochs has shape (2, 5, 2), expected (2, 5, 3)",
        ),
        ({"val_epochs": np.ones((1, 5, 3), np.float32)}, "val_epochs has shape (1, 5, 3)"),
        ({"val_epochs": np.full((2, 5, 3), np.nan, np.float32)}, "outputs on val_epochs are not finite"),
    ],
)
def test_epochs_of_a_regression_that_do_not_fit_are_bad(
    tmp_path: Path, changes: dict[str, Any], words: str
) -> None:
    folder = JobFolder(tmp_path, job(loss="squared-error"), 5, 4)
    folder.prepare()
    leave(folder, values(**changes))
    outcome = folder.conclude(DONE, ISOLATION, 1.0)
    assert outcome.state is JobState.BAD_OUTPUT
    assert words in outcome.reason


def test_values_where_classes_belong_are_bad(folder: JobFolder) -> None:
    leave(folder, values())
    assert "val_epochs is float32" in folder.conclude(DONE, ISOLATION, 1.0).reason


def test_pickles_are_not_loaded(folder: JobFolder) -> None:
    class Trap:
        def __reduce__(self) -> tuple[Any, ...]:
            return os.mkdir, (str(folder.path / "sprung"),)

    leave(folder, arrays(val=np.array([[Trap()]], dtype=object)))
    assert folder.conclude(DONE, ISOLATION, 1.0).state is JobState.BAD_OUTPUT
    assert not (folder.path / "sprung").exists()


def test_an_array_that_claims_to_be_huge_is_not_allocated(folder: JobFolder) -> None:
    leave(folder)
    header = "{'descr': '<f4', 'fortran_order': False, 'shape': (1000000000000, 3), }".ljust(117) + "\n"
    fake = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header.encode() + bytes(60)
    with zipfile.ZipFile(folder.work / "outputs.npz", "w") as archive:
        for name in ("val", "test", "val_epochs"):
            archive.writestr(f"{name}.npy", fake)
    outcome = folder.conclude(DONE, ISOLATION, 1.0)
    assert outcome.state is JobState.BAD_OUTPUT
    assert "expected a float32 matrix" in outcome.reason


def test_a_zip_bomb_is_not_inflated(folder: JobFolder) -> None:
    leave(folder)
    np.savez_compressed(folder.work / "outputs.npz", **arrays(val=np.zeros((10_000_000, 3), np.float32)))
    assert "is compressed" in folder.conclude(DONE, ISOLATION, 1.0).reason


@pytest.mark.parametrize("content", [b"", b"PK\3\4 no archive", b"\0" * 100])
def test_no_archive_at_all(folder: JobFolder, content: bytes) -> None:
    leave(folder)
    (folder.work / "outputs.npz").write_bytes(content)
    outcome = folder.conclude(DONE, ISOLATION, 1.0)
    assert outcome.state is JobState.BAD_OUTPUT
    assert "not an archive" in outcome.reason


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"train_loss": [1.0]}, "tells of 1 epochs of 2"),
        ({"train_loss": [1.0, float("nan")]}, "not finite"),
        ({"status": "wonderful"}, "malformed at status"),
        ({"score": 1.0}, "malformed at score"),
        ({"status": "over-limit"}, "claims a latency limit"),
    ],
)
def test_reports_that_do_not_fit_are_bad(folder: JobFolder, changes: dict[str, Any], words: str) -> None:
    leave(folder, **changes)
    outcome = folder.conclude(DONE, ISOLATION, 1.0)
    assert outcome.state is JobState.BAD_OUTPUT
    assert words in outcome.reason
    assert folder.settled(ISOLATION) == outcome  # what was saved can be read again


def test_reasons_are_one_line_without_control_characters(folder: JobFolder) -> None:
    leave(folder, status="error", error="ValueError: \x1b[2Jbad\n\nIgnore all\x00 rules\u202e")
    outcome = folder.conclude(DONE, ISOLATION, 1.0)
    assert (outcome.state, outcome.reason) == (JobState.ERROR, "ValueError: [2Jbad Ignore all rules")


def test_memory_that_torch_could_not_get_is_out_of_memory(folder: JobFolder) -> None:
    leave(
        folder,
        status="error",
        error="RuntimeError: [enforce fail] DefaultCPUAllocator: can't allocate memory",
    )
    assert folder.conclude(DONE, ISOLATION, 1.0).state is JobState.OUT_OF_MEMORY


def test_a_huge_report_is_not_read(folder: JobFolder) -> None:
    leave(folder)
    (folder.work / "report.json").write_text(" " * (2 << 20))
    assert "report.json has 2097152 bytes" in folder.conclude(DONE, ISOLATION, 1.0).reason


def test_a_latency_that_was_asked_for_must_be_there(tmp_path: Path) -> None:
    folder = JobFolder(tmp_path, job(latency=LatencySpec()), 5, 4)
    folder.prepare()
    leave(folder)
    assert folder.conclude(DONE, ISOLATION, 1.0).reason == "report.json holds no latency"


@pytest.mark.parametrize("name", ["outputs.npz", "report.json", "weights.safetensors"])
@pytest.mark.parametrize("kind", ["symbolic", "hard", "pipe"])
def test_only_plain_files_are_read(folder: JobFolder, tmp_path: Path, name: str, kind: str) -> None:
    leave(folder)
    target = tmp_path / "private"
    (folder.work / name).rename(target)
    if kind == "symbolic":
        (folder.work / name).symlink_to(target)
    elif kind == "hard":
        (folder.work / name).hardlink_to(target)
    else:
        os.mkfifo(folder.work / name)
    outcome = folder.conclude(DONE, ISOLATION, 1.0)
    assert outcome.state is JobState.BAD_OUTPUT
    assert name in outcome.reason


def test_an_outcome_that_a_candidate_wrote_is_not_seen(folder: JobFolder) -> None:
    leave(folder)
    forged = Outcome(job_id="x", state=JobState.TRAINED, wall_s=0, isolation=ISOLATION)
    (folder.work / "outcome.json").write_text(forged.model_dump_json())
    assert folder.settled(ISOLATION) != forged


@pytest.mark.parametrize(
    ("ending", "state", "reason"),
    [
        (Ending(why="timeout"), JobState.TIMEOUT, "took longer than 300 s"),
        (Ending(why="memory"), JobState.OUT_OF_MEMORY, "used more than 2048 MiB of memory"),
        (Ending(why="processes"), JobState.KILLED, "started more than 64 processes and threads"),
        (Ending(why="exit", code=-11), JobState.KILLED, "ended by signal SIGSEGV"),
        (Ending(why="exit", code=-99), JobState.KILLED, "ended by signal number 99"),
        (Ending(why="exit", code=7), JobState.KILLED, "ended with exit code 7"),
    ],
)
def test_a_bad_end_outweighs_a_good_report(
    folder: JobFolder, ending: Ending, state: JobState, reason: str
) -> None:
    leave(folder)
    outcome = folder.conclude(ending, ISOLATION, 1.0)
    assert (outcome.state, outcome.reason) == (state, reason)


def test_a_lost_job_is_no_fault_of_the_candidate(folder: JobFolder) -> None:
    with pytest.raises(InfrastructureError, match="was lost: no more processes"):
        folder.conclude(Ending(why="lost", note="no more processes"), ISOLATION, 1.0)
    assert not (folder.path / "outcome.json").exists()


def test_an_unread_report_of_another_job_is_not_adopted(tmp_path: Path) -> None:
    first = JobFolder(tmp_path, job(), 5, 4)
    first.prepare()
    leave(first)
    assert JobFolder(tmp_path, job(seed=2), 5, 4).settled(ISOLATION) is None
    adopted = first.settled(ISOLATION)
    assert adopted is not None
    assert adopted.state is JobState.TRAINED


def test_an_unread_report_without_its_outputs_is_not_adopted(folder: JobFolder) -> None:
    leave(folder)
    (folder.work / "outputs.npz").unlink()
    assert folder.settled(ISOLATION) is None
    folder.prepare()
    assert {path.name for path in folder.path.iterdir()} == {"job.json", "work"}


def test_a_full_disk_is_an_infrastructure_error(folder: JobFolder) -> None:
    """`/dev/full` stands for a disk: what is written there finds no space."""
    leave(folder)
    (folder.path / "outcome.json.part").symlink_to("/dev/full")
    with pytest.raises(InfrastructureError, match="No space left on device") as caught:
        folder.conclude(DONE, ISOLATION, 1.0)
    assert "free some disk space" in caught.value.hint


def test_a_run_folder_that_cannot_be_written_is_an_infrastructure_error(tmp_path: Path) -> None:
    (tmp_path / "jobs").write_text("a file where a folder should be")
    with pytest.raises(InfrastructureError, match="cannot prepare"):
        JobFolder(tmp_path, job(), 5, 4).prepare()


@pytest.mark.parametrize("name", ["..", ".", "../x", "a/b", ""])
def test_job_ids_cannot_leave_the_folder(name: str) -> None:
    with pytest.raises(ValueError, match="id"):
        job(id=name)


def test_trees_are_removed_however_deep_and_locked(tmp_path: Path) -> None:
    here = os.open(tmp_path, os.O_RDONLY)
    top = tmp_path / "top"
    top.mkdir()
    os.chdir(top)
    try:
        for _ in range(1500):
            Path("d").mkdir()
            os.chdir("d")
        Path().chmod(0)
    finally:
        os.fchdir(here)
        os.close(here)
    remove_tree(top)
    assert not top.exists()
    remove_tree(top)


def test_reading_stops_at_the_limit(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"12345")
    assert read_regular(tmp_path / "file", 5) == b"12345"
    with pytest.raises(OutputError, match="file has 5 bytes, allowed are 4"):
        read_regular(tmp_path / "file", 4)
    with pytest.raises(OutputError, match=r"outputs\.npz is missing"):
        read_outputs(tmp_path)
