"""A disk that really fills up under a run: a clear error, nothing lost, and `resume` goes on."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.agents.test_cli import QUICK, cambrian

SIZE_MB = 3


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of a few megabytes."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={SIZE_MB}m", "tmpfs", str(place)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True).returncode != 0:
        pytest.skip("a file system can be mounted by root only")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_full_disk_stops_the_run_and_resume_goes_on(small_disk: Path, tmp_path: Path) -> None:
    path = tmp_path / "quick.yaml"
    path.write_text(yaml.safe_dump({**QUICK, "budget": {"evaluations": 200}, "mlflow": {"enabled": False}}))
    done = cambrian("run", path, "--runs", small_disk, cwd=tmp_path, code=4)
    assert "full" in done.stderr and "resume" in done.stderr
    assert len(done.stderr.splitlines()) <= 2
    subprocess.run(["mount", "-o", "remount,size=200m", str(small_disk)], check=True)
    before = json.loads(cambrian("show", "--json", "--runs", small_disk, cwd=tmp_path).stdout)
    made = before["ledger"]["evaluations"]
    assert 0 < made < 200
    resumed = cambrian("resume", "--budget", str(made + 3), "--json", "--runs", small_disk, cwd=tmp_path)
    assert json.loads(resumed.stdout)["ledger"]["evaluations"] == made + 3
