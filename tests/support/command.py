"""The console script, by the interpreter that runs the tests."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

HELP = """
import sys
from cambrian.agents.cli import main
sys.argv = ["cambrian", *sys.argv[1:], "--help"]
try:
    main()
except SystemExit as end:
    assert not end.code, end.code
print(*sorted(name for name in sys.modules if name in ("torch", "mlflow", "docker", "numpy", "yaml")))
"""


def command(*arguments: str | Path) -> list[str]:
    """What runs `cambrian` with `arguments`."""
    return [sys.executable, "-P", "-c", "from cambrian.agents.cli import main; main()", *map(str, arguments)]


def cambrian(
    *arguments: str | Path, cwd: Path, code: int = 0, timeout_s: float = 240, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run `cambrian`; it must end with `code` and without a traceback."""
    done = subprocess.run(
        command(*arguments),
        cwd=cwd,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )
    assert done.returncode == code, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done


def assert_help_is_light(*arguments: str, cwd: Path) -> None:
    """The help of a command is there, and nothing heavy was imported for it."""
    done = subprocess.run(
        [sys.executable, "-P", "-c", HELP, *arguments], cwd=cwd, capture_output=True, text=True, check=True
    )
    assert "Usage" in done.stdout and done.stdout.splitlines()[-1] == ""
