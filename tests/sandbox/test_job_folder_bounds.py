"""Results that were made to break whoever reads them, or to fill what he writes."""

from __future__ import annotations

import zipfile
from typing import Any

import pytest

from cambrian.sandbox import JobState
from cambrian.sandbox.job_folder import JobFolder
from tests.sandbox.test_job_folder import DONE, ISOLATION, folder, leave

__all__ = ["folder"]


def header(text: str, version: bytes = b"\x01\x00") -> bytes:
    padded = text.ljust(117).encode() + b"\n"
    return b"\x93NUMPY" + version + len(padded).to_bytes(2, "little") + padded


@pytest.mark.parametrize(
    "text",
    [
        "{'descr': '<f4', 'fortran_order': False, 'shape': (0, -1), }",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (-2, -3), }",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (True, 6), }",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (0, 1180591620717411303424), }",
        "{'descr': '|O', 'fortran_order': False, 'shape': (5, 3), }",
        "-" * 9000 + "1",
        "~" * 3000,
        "(",
        "'''",
    ],
)
def test_headers_that_numpy_does_not_write_are_not_parsed(folder: JobFolder, text: str) -> None:
    leave(folder)
    with zipfile.ZipFile(folder.path / "outputs.npz", "w") as archive:
        for name in ("val", "test", "val_epochs"):
            archive.writestr(f"{name}.npy", header(text))
    outcome = folder.conclude(DONE, ISOLATION, 1.0)
    assert outcome.state is JobState.BAD_OUTPUT
    assert folder.settled(ISOLATION) == outcome


def test_archives_that_break_their_reader_are_bad(folder: JobFolder) -> None:
    leave(folder)
    content = bytearray((folder.path / "outputs.npz").read_bytes())
    directory = content.index(b"PK\x01\x02")
    content[directory + 8] |= 1  # says that it is encrypted
    (folder.path / "outputs.npz").write_bytes(bytes(content))
    outcome = folder.conclude(DONE, ISOLATION, 1.0)
    assert (outcome.state, outcome.reason) == (
        JobState.BAD_OUTPUT,
        "outputs.npz is not an archive of arrays: RuntimeError",
    )


@pytest.mark.parametrize(
    "changes",
    [
        {"epoch_s": [-1e308, -1e308]},
        {"epoch_s": [1e300, 1e300]},
        {"setup_s": -1.0},
        {"parameters": -(10**400)},
        {"peak_memory_mb": float("inf")},
        {"torch": "2.13\x1b[2J"},
        {"torch": "x" * 100_000},
        {"x" * 600_000: 1},
    ],
)
def test_numbers_and_texts_have_bounds(folder: JobFolder, changes: dict[str, Any]) -> None:
    leave(folder, **changes)
    outcome = folder.conclude(DONE, ISOLATION, 1.0)
    assert outcome.state is JobState.BAD_OUTPUT
    assert len(outcome.reason) < 200


def test_reasons_have_a_length(folder: JobFolder) -> None:
    leave(folder, status="error", error="x" * 2000)
    assert len(folder.conclude(DONE, ISOLATION, 1.0).reason) <= 2000


def test_results_that_nobody_will_look_at_are_removed(folder: JobFolder) -> None:
    leave(folder, status="wonderful")
    assert folder.conclude(DONE, ISOLATION, 1.0).state is JobState.BAD_OUTPUT
    assert {path.name for path in folder.path.iterdir()} == {
        "ending.json", "job.json", "outcome.json", "report.json",
    }  # fmt: skip
