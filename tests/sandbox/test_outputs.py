"""Reading files that nobody vouches for, and removing folders whatever is in them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from cambrian.sandbox.outputs import OutputError, read_outputs, read_regular, remove_tree


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
