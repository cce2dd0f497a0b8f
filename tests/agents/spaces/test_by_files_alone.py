"""The README's steps from an idea to a finished run, taken as they stand there: no Python is written."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
CAMBRIAN = Path(sys.executable).with_name("cambrian")


def section() -> str:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    return text.partition("\n## Search somewhere new\n")[2].partition("\n## ")[0]


def commands() -> dict[str, list[str]]:
    """The section's command lines by their first words, comments left out."""
    lines = re.findall(r"(?m)^    (cambrian [^#\n]+)", section())
    return {" ".join(line.split()[:3]): line.split()[1:] for line in lines}


def cambrian(folder: Path, *arguments: str) -> str:
    done = subprocess.run(
        [CAMBRIAN, *arguments], cwd=folder, capture_output=True, text=True, timeout=240, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
def test_from_an_idea_to_a_finished_run(tmp_path: Path, record_property: pytest.RecordProperty) -> None:
    known = commands()
    space_file, run_lines = re.findall(r"```yaml\n(.*?)```", section(), re.DOTALL)
    started = time.monotonic()

    cambrian(tmp_path, *known["cambrian spaces new"])
    assert "TemporalBlock" in cambrian(tmp_path, *known["cambrian spaces blocks"])
    (tmp_path / "tcn" / "space.yaml").write_text(space_file, encoding="utf-8")
    run_file = tmp_path / "tcn.yaml"
    text = run_file.read_text(encoding="utf-8")
    for line in run_lines.strip().splitlines():
        key = line.partition(":")[0]
        text, times = re.subn(rf"(?m)^{key}:.*$", line, text)
        assert times == 1, f"the run file that `spaces new` writes has no line {key}"
    run_file.write_text(text, encoding="utf-8")

    report = json.loads(cambrian(tmp_path, *known["cambrian spaces check"], "--draws", "200", "--json"))
    assert report["failures"] == []

    # smaller than what the user would run, so that the suite stays short; in processes for the same reason
    short = ["evaluations=8", "warmup=3", "sandbox.kind=process", "task.rungs=[{epochs: 2}]"]
    options = ["--budget", short[0], *(word for each in short[1:] for word in ("--set", each))]
    end = json.loads(
        cambrian(tmp_path, *known["cambrian run tcn.yaml"], "--json", "--runs", "runs", *options)
    )
    seconds = time.monotonic() - started
    record_property("seconds from `spaces new` to a finished run", round(seconds, 1))
    print(f"from `spaces new` to a finished run: {seconds:.0f} s")
    assert end["status"] == "finished", end
    assert end["leaderboard"][0]["score"] > 0.3  # ten classes: better than chance by far
    (run,) = (tmp_path / "runs").glob("tcn-*")
    assert (run / "space" / "space.yaml").read_text(encoding="utf-8") == space_file
