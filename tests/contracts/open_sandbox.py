"""An open sandbox, and what its suites need around it."""

from __future__ import annotations

import asyncio
import os
import random
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from cambrian.sandbox import Job, JobLimits, LatencySpec, Sandbox
from cambrian.search_spaces import SPACES, TASKS, Recipe, Splits

Make = Callable[[], Sandbox]


def digits() -> Splits:
    return TASKS.create("digits").load()


def convnet(seed: int = 2) -> dict[str, Any]:
    """A small member of the space."""
    return SPACES.create("convnet").sample(random.Random(seed))


def alive(marker: str) -> list[int]:
    """Processes of this machine whose command line or environment holds `marker`."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            for name in ("cmdline", "environ"):
                try:
                    if marker.encode() in (entry / name).read_bytes():
                        found.append(int(entry.name))
                        break
                except OSError:
                    continue
    return found


async def until(condition: Callable[[], bool], seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        await asyncio.sleep(0.05)
    return True


def files(sandbox_folder: Path, job: Job) -> set[str]:
    return {path.name for path in (sandbox_folder / "jobs" / job.id).iterdir()}


@pytest.mark.asyncio(loop_scope="class")
class OpenSandbox:
    """What the suites share: one open sandbox, because opening costs seconds; each test has its own jobs.

    Attributes:
        start_s: seconds after which a job of this sandbox surely trains.
        confined: whether network, files and processes of the host are kept from a job.
    """

    start_s = 2.0
    confined = True

    @pytest.fixture(scope="class")
    def make(self, plugin: Path) -> Make:
        raise NotImplementedError

    @pytest.fixture(scope="class")
    def folder(self, tmp_path_factory: pytest.TempPathFactory) -> Path:
        return tmp_path_factory.mktemp("run")

    @pytest.fixture(scope="class")
    def run_id(self, folder: Path) -> str:
        return f"test-{os.getpid()}-{folder.name}-{type(self).__name__.lower()}"

    @pytest_asyncio.fixture(scope="class", loop_scope="class")
    async def sandbox(self, make: Make, folder: Path, run_id: str) -> AsyncIterator[Sandbox]:
        sandbox = make()
        await sandbox.open(run_id, folder, digits(), 2)
        yield sandbox
        await sandbox.close()
        self.assert_nothing_left(run_id, folder)

    def assert_nothing_left(self, run_id: str, folder: Path) -> None:
        """No process, container or volume of the run is left, and nothing but `jobs` in its folder."""
        assert {path.name for path in folder.iterdir()} <= {"jobs"}

    def host_command(self, *arguments: str) -> list[str]:
        """A process that opens this kind of sandbox and runs one job; see `tests/sandbox/host.py`."""
        raise NotImplementedError

    def job(self, name: str, genotype: dict[str, Any], **changes: Any) -> Job:
        hostile = "act" in genotype
        values: dict[str, Any] = {
            "id": f"{type(self).__name__}-{name}",
            "run_id": "test",
            "candidate_id": "c-0001",
            "space": "hostile" if hostile else "convnet",
            "genotype": genotype,
            "signature": TASKS.create("digits").signature,
            "recipe": Recipe(batch_size=64, augment=("shift", "flip"), label_smoothing=0.1),
            "epochs": 1,
            "seed": 7,
            "limits": JobLimits(wall_s=60),
            "latency": LatencySpec(warmup=2, repeats=10),
        }
        return Job(**(values | changes))
