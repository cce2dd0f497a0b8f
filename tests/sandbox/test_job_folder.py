"""What the host believes of what a job handed in."""

from __future__ import annotations

import json
import os
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cambrian.sandbox import InfrastructureError, Isolation, Job, JobState, LatencySpec, Outcome
from cambrian.sandbox.job_folder import JobFolder
from cambrian.sandbox.outputs import read_outputs
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
    np.savez(folder.path / "outputs.npz", **(outputs or arrays()))
    (folder.path / "weights.safetensors").write_bytes(b"\2\0\0\0\0\0\0\0{}")
    (folder.path / "report.json").write_text(json.dumps(report | changes))


def test_a_good_result_is_trained(folder: JobFolder) -> None:
    leave(folder)
    outcome = folder.conclude(DONE, ISOLATION, 1.5)
    assert (outcome.state, outcome.reason, outcome.wall_s) == (JobState.TRAINED, "", 1.5)
    assert Outcome.model_validate_json((folder.path / "outcome.json").read_bytes()) == outcome
    assert folder.settled(ISOLATION) == outcome


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"val": np.ones((5, 2), np.float32)}, "outputs on val have shape (5, 2), expected (5, 3)"),
        ({"test": np.ones((5, 3), np.float32)}, "outputs on test have shape (5, 3), expected (4, 3)"),
        ({"val": np.ones((5, 3))}, "val is not a float32 matrix"),
        ({"val": np.ones(15, np.float32)}, "is not a float32 matrix"),
        ({"val": np.full((5, 3), np.nan, np.float32)}, "outputs on val are not finite"),
        ({"test": np.full((4, 3), np.inf, np.float32)}, "outputs on test are not finite"),
        ({"val": np.asfortranarray(np.ones((5, 3), np.float32))}, "is not a float32 matrix"),
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
    with zipfile.ZipFile(folder.path / "outputs.npz", "w") as archive:
        for name in ("val", "test", "val_epochs"):
            archive.writestr(f"{name}.npy", fake)
    outcome = folder.conclude(DONE, ISOLATION, 1.0)
    assert outcome.state is JobState.BAD_OUTPUT
    assert "is not a float32 matrix as numpy writes it" in outcome.reason


def test_a_zip_bomb_is_not_inflated(folder: JobFolder) -> None:
    leave(folder)
    np.savez_compressed(folder.path / "outputs.npz", **arrays(val=np.zeros((10_000_000, 3), np.float32)))
    assert "is compressed" in folder.conclude(DONE, ISOLATION, 1.0).reason


@pytest.mark.parametrize("content", [b"", b"PK\3\4 no archive", b"\0" * 100])
def test_no_archive_at_all(folder: JobFolder, content: bytes) -> None:
    leave(folder)
    (folder.path / "outputs.npz").write_bytes(content)
    outcome = folder.conclude(DONE, ISOLATION, 1.0)
    assert outcome.state is JobState.BAD_OUTPUT
    assert "not an archive" in outcome.reason


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"train_loss": [1.0]}, "tells of 1 epochs of 2"),
        ({"train_loss": [1.0, float("nan")]}, "malformed at train_loss"),
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
    (folder.path / "report.json").write_text(" " * (2 << 20))
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
    (folder.path / name).rename(target)
    if kind == "symbolic":
        (folder.path / name).symlink_to(target)
    elif kind == "hard":
        (folder.path / name).hardlink_to(target)
    else:
        os.mkfifo(folder.path / name)
    outcome = folder.conclude(DONE, ISOLATION, 1.0)
    assert outcome.state is JobState.BAD_OUTPUT
    assert name in outcome.reason


@pytest.mark.parametrize(
    ("ending", "state", "reason"),
    [
        (Ending(why="timeout"), JobState.TIMEOUT, "took longer than 300 s"),
        (Ending(why="memory"), JobState.OUT_OF_MEMORY, "used more than 2048 MiB of memory"),
        (Ending(why="processes"), JobState.KILLED, "started more than 64 processes and threads"),
        (Ending(why="exit", code=-11), JobState.KILLED, "ended by signal SIGSEGV"),
        (Ending(why="exit", code=-99), JobState.KILLED, "ended by signal number 99"),
        (Ending(why="exit", code=7), JobState.KILLED, "ended with exit code 7"),
        (Ending(why="flood"), JobState.BAD_OUTPUT, "handed in more than 256 MiB"),
        (
            Ending(why="forged"),
            JobState.BAD_OUTPUT,
            "wrote what no worker writes to the channel of its results",
        ),
        (Ending(why="undue"), JobState.BAD_OUTPUT, "asked for held-out inputs that were not due"),
        (Ending(why="gone"), JobState.KILLED, "ended the process that watches over it"),
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
    with pytest.raises(InfrastructureError, match="was lost: stopped"):
        folder.conclude(Ending(why="stopped"), ISOLATION, 1.0)
    assert not (folder.path / "outcome.json").exists()


def test_an_unread_report_of_another_job_is_not_adopted(tmp_path: Path) -> None:
    first = JobFolder(tmp_path, job(), 5, 4)
    first.prepare()
    leave(first)
    assert first.settled(ISOLATION) is None  # how its processes ended is not known
    first.conclude(DONE, ISOLATION, 1.0)
    (first.path / "outcome.json").unlink()
    assert JobFolder(tmp_path, job(seed=2), 5, 4).settled(ISOLATION) is None
    adopted = first.settled(ISOLATION)
    assert adopted is not None
    assert adopted.state is JobState.TRAINED


def test_an_unread_report_without_its_outputs_is_not_adopted(folder: JobFolder) -> None:
    leave(folder)
    folder.conclude(DONE, ISOLATION, 1.0)
    for name in ("outcome.json", "outputs.npz"):
        (folder.path / name).unlink()
    assert folder.settled(ISOLATION) is None
    folder.prepare()
    assert {path.name for path in folder.path.iterdir()} == {"job.json"}


def test_a_run_folder_that_cannot_be_written_is_an_infrastructure_error(tmp_path: Path) -> None:
    (tmp_path / "jobs").write_text("a file where a folder should be")
    with pytest.raises(InfrastructureError, match="cannot prepare"):
        JobFolder(tmp_path, job(), 5, 4).prepare()


@pytest.mark.parametrize("name", ["..", ".", "../x", "a/b", ""])
def test_job_ids_cannot_leave_the_folder(name: str) -> None:
    with pytest.raises(ValueError, match="id"):
        job(id=name)


# what comes over the link


def test_parts_become_a_file_with_the_last_one(folder: JobFolder) -> None:
    folder.receive("outputs.npz", b"one ", last=False)
    assert not folder.has("outputs.npz")
    folder.receive("outputs.npz", b"two", last=True)
    assert folder.has("outputs.npz")
    assert (folder.path / "outputs.npz").read_bytes() == b"one two"


@pytest.mark.parametrize("name", ["outcome.json", "job.json", "../up", "/root", "x\0y", "outputs.npz.part"])
def test_what_no_worker_hands_in_is_dropped(folder: JobFolder, name: str) -> None:
    before = {path: path.read_bytes() for path in folder.path.parent.rglob("*") if path.is_file()}
    folder.receive(name, b"mine", last=True)
    assert {p: p.read_bytes() for p in folder.path.parent.rglob("*") if p.is_file()} == before


def test_half_a_file_is_removed_at_the_end(folder: JobFolder) -> None:
    folder.receive("outputs.npz", b"half", last=False)
    outcome = folder.conclude(Ending(why="exit", code=-9), ISOLATION, 1.0)
    assert outcome.state is JobState.KILLED
    assert {path.name for path in folder.path.iterdir()} == {"ending.json", "job.json", "outcome.json"}


def test_a_full_disk_is_an_infrastructure_error(folder: JobFolder) -> None:
    """`/dev/full` stands for a disk: what is written there finds no space."""
    (folder.path / "outputs.npz.part").symlink_to("/dev/full")
    with pytest.raises(InfrastructureError, match="No space left on device") as caught:
        folder.receive("outputs.npz", b"x", last=False)
    assert "free some disk space" in caught.value.hint


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x80\x04\x95\x0f\x00\x00\x00\x00\x00\x00\x00\x8c\x02os\x94\x8c\x06system\x94\x93\x94.",
        (1 << 40).to_bytes(8, "little") + b"{}",
        (20).to_bytes(8, "little") + b'{"w":{"dtype":"F32"}',
        (62).to_bytes(8, "little") + b'{"w":{"dtype":"F32","shape":[9],"data_offsets":[0,36]}}        ',
    ],
)
def test_weights_that_are_no_safetensors_are_bad(folder: JobFolder, content: bytes) -> None:
    """Empty, a pickle, a header longer than the file, half a header, tensors without their bytes."""
    leave(folder)
    (folder.path / "weights.safetensors").write_bytes(content)
    outcome = folder.conclude(DONE, ISOLATION, 1.0)
    assert outcome.state is JobState.BAD_OUTPUT
    assert "weights.safetensors" in outcome.reason


# measuring and reproducing


def latency(**changes: Any) -> dict[str, Any]:
    values = {
        "device": "cpu", "threads": 1, "batch": 1, "warmup": 1, "repeats": 4, "calls": 10,
        "median_ms": 2.0, "q1_ms": 1.9, "q3_ms": 2.1,
    }  # fmt: skip
    return values | changes


@pytest.mark.parametrize(
    ("claim", "timed", "words"),
    [
        ({}, [(10, 0.02)] * 4, ""),
        (
            {"median_ms": 0.2, "q1_ms": 0.2},
            [(10, 0.02)] * 4,
            "claims a latency of 0.2 ms, a clock outside saw 1.9 ms",
        ),
        ({}, [], "not measured as ordered"),
        ({"batch": 64}, [(10, 0.02)] * 4, "not measured as ordered"),
        ({"median_ms": float("inf")}, [(10, 0.02)] * 4, "malformed at latency.median_ms"),
    ],
)
def test_a_claimed_latency_is_held_against_the_keeper_s_clock(
    tmp_path: Path, claim: dict[str, Any], timed: list[tuple[int, float]], words: str
) -> None:
    folder = JobFolder(tmp_path, job(latency=LatencySpec(repeats=4), purpose="measure"), 5, 4)
    folder.prepare()
    report = {"status": "measured", "latency": latency(**claim)}
    (folder.path / "report.json").write_text(json.dumps(report))
    outcome = folder.conclude(Ending(why="exit", code=0, timed=tuple(timed)), ISOLATION, 1.0)
    assert outcome.state is (JobState.BAD_OUTPUT if words else JobState.MEASURED)
    assert words in outcome.reason


def test_a_report_for_another_purpose_is_bad(tmp_path: Path) -> None:
    folder = JobFolder(tmp_path, job(purpose="measure"), 5, 4)
    folder.prepare()
    (folder.path / "report.json").write_text(json.dumps({"status": "trained"}))
    assert folder.conclude(DONE, ISOLATION, 1.0).reason == "report.json says 'trained', expected 'measured'"


def test_predictions_are_compared_in_the_order_that_they_were_asked_for(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    first = JobFolder(tmp_path, job(), 5, 4)
    first.prepare()
    made = arrays(
        val=rng.normal(size=(5, 3)).astype(np.float32), test=rng.normal(size=(4, 3)).astype(np.float32)
    )
    made["val_epochs"] = np.stack([made["val"].argmax(axis=1)] * 2).astype(np.int16)
    leave(first, made)
    assert first.conclude(DONE, ISOLATION, 1.0).state is JobState.TRAINED
    orders = {"val": rng.permutation(5), "test": rng.permutation(4)}
    for shift, state in ((0, JobState.REPRODUCED), (1, JobState.NOT_REPRODUCED)):
        again = job(id="again", purpose="reproduce", weights_of=first.job.id)
        second = JobFolder(tmp_path, again, 5, 4)
        second.prepare()
        second.orders, second.asked = orders, {"val": 2, "test": 0}
        val = made["val"][orders["val"]]
        np.savez(
            second.path / "outputs.npz",
            val=val,
            test=np.roll(made["test"][orders["test"]], shift, axis=1),
            val_epochs=np.empty((0, 5), np.int16),
        )
        (second.path / "answers").write_bytes(val[:2].tobytes())
        (second.path / "report.json").write_text(json.dumps({"status": "reproduced"}))
        outcome = second.conclude(DONE, ISOLATION, 1.0)
        assert outcome.state is state, outcome.reason
        assert not (second.path / "answers").exists()
        assert JobFolder(tmp_path, again, 5, 4).settled(ISOLATION) == outcome
        assert not (second.path / "outputs.npz").exists()
        (second.path / "outcome.json").unlink()
        assert JobFolder(tmp_path, again, 5, 4).settled(ISOLATION) is None  # the order is not known any more


def test_only_reproducing_takes_weights() -> None:
    with pytest.raises(ValueError, match="weights_of"):
        job(weights_of="c-0001-r0-s1")
    with pytest.raises(ValueError, match="weights_of"):
        job(purpose="reproduce")
