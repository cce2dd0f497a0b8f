"""What isolation costs: the way to the first training step, and candidates an hour.

Three ways to run a job: a container that waits with torch imported (`container-warm`), one that is started
when the job comes (`container-cold`), and a process forked from one that has imported torch (`process`).

A training of 5 s lasts 5 s by the clock, while it computes convolutions and counts them. So efficiency, ideal
time by wall time, tells how well the slots are kept busy; the work tells what a training got done in its
time, relative to one that has the machine to itself. The two belong together: making the next container ready
takes CPU time from the trainings when all cores are busy.

    make bench NAME=sandbox
    make bench NAME=sandbox ARGS="--quick"
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import safetensors.numpy

from cambrian.sandbox import Job, JobLimits, JobState, Outcome, Sandbox
from cambrian.sandbox.container import ContainerSandbox
from cambrian.sandbox.process import ProcessSandbox
from cambrian.search_spaces import TASKS
from tests.benchmarks.harness import publish

KINDS = ("container-warm", "container-cold", "process")
LIMITS = JobLimits(wall_s=300)
BATCH = 64


def plugin(folder: Path) -> Path:
    """A folder laid out like an installed package that registers the space `busy`."""
    about = folder / "cambrian_busy-1.0.dist-info"
    about.mkdir(parents=True)
    (folder / "busy.py").write_bytes(Path(__file__).with_name("busy.py").read_bytes())
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: cambrian-busy\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text("[cambrian.spaces]\nbusy = busy:BusySpace\n")
    return folder


class Bench:
    """Opens sandboxes and runs jobs in them.

    Args:
        folder: for everything that is written.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._plugin = plugin(folder / "plugin")
        self._task = TASKS.create("digits")
        self._splits = self._task.load()
        self._jobs = 0

    @asynccontextmanager
    async def open(self, kind: str, slots: int) -> AsyncIterator[Sandbox]:
        """An open sandbox, with all its containers ready."""
        sandbox: Sandbox
        if kind == "process":
            sandbox = ProcessSandbox(plugins=[self._plugin])
        else:
            warm = 0 if kind == "container-cold" else slots
            sandbox = ContainerSandbox(plugins=[self._plugin], limits=LIMITS, warm=warm, progress=print)
        self._jobs += 1
        await sandbox.open(f"bench-{os.getpid()}-{self._jobs}", self._folder, self._splits, slots)
        try:
            await until_ready(sandbox, slots)
            yield sandbox
        finally:
            await sandbox.close()

    def job(self, seconds: float) -> Job:
        """A training that lasts `seconds`."""
        self._jobs += 1
        steps = len(self._splits.x_train) // BATCH
        recipe = self._task.recipe.model_copy(update={"batch_size": BATCH})
        return Job(
            id=f"bench-{self._jobs}",
            run_id="bench",
            candidate_id="bench",
            space="busy",
            genotype={"seconds": seconds, "steps": steps},
            signature=self._task.signature,
            recipe=recipe,
            epochs=1,
            seed=1,
            limits=LIMITS,
            latency=None,
        )

    async def run(self, sandbox: Sandbox, seconds: float) -> tuple[Outcome, float]:
        """Run a job to its end; how it went, and how many convolutions it did."""
        job = self.job(seconds)
        outcome = await sandbox.run(job)
        if outcome.state is not JobState.TRAINED:
            raise SystemExit(f"a benchmark's job ended as {outcome.state}: {outcome.reason}")
        weights = safetensors.numpy.load_file(self._folder / "jobs" / job.id / "weights.safetensors")
        return outcome, float(weights["done"])


async def until_ready(sandbox: Sandbox, count: int) -> None:
    """Wait until `count` containers wait, where any do."""
    if isinstance(sandbox, ContainerSandbox) and sandbox._pool._size:
        while sandbox._pool.waiting() < count:
            await asyncio.sleep(0.05)


async def measure_start(bench: Bench, kind: str, jobs: int) -> dict[str, Any]:
    """Seconds from a job's submission to its first training step, one job after the other."""
    first: list[float] = []
    async with bench.open(kind, 1) as sandbox:
        await bench.run(sandbox, 0)
        for _ in range(jobs):
            await until_ready(sandbox, 1)
            outcome, _ = await bench.run(sandbox, 0)
            assert outcome.first_step_s is not None
            first.append(outcome.first_step_s)
    cuts = statistics.quantiles(first, n=20, method="inclusive")
    return {"kind": kind, "jobs": jobs, "p50 ms": 1e3 * statistics.median(first), "p95 ms": 1e3 * cuts[18]}


async def measure_throughput(
    bench: Bench, kind: str, seconds: float, slots: int, jobs: int, alone: float
) -> dict[str, Any]:
    """Candidates an hour with all slots busy; `alone` is what one training does in a second by itself."""
    done: list[float] = []
    left = iter(range(jobs))
    async with bench.open(kind, slots) as sandbox:

        async def fill_slot() -> None:
            for _ in left:
                done.append((await bench.run(sandbox, seconds))[1])

        started = time.monotonic()
        await asyncio.gather(*(fill_slot() for _ in range(slots)))
        wall = time.monotonic() - started
    work = statistics.mean(done) / (alone * seconds) if seconds else None
    return {
        "kind": kind,
        "training s": seconds,
        "slots": slots,
        "jobs": jobs,
        "candidates/h": round(3600 * jobs / wall),
        "efficiency": jobs * seconds / slots / wall if seconds else "-",
        "work": work if work is not None else "-",
    }


async def measure_alone(bench: Bench, seconds: float) -> float:
    """Convolutions a second of a training that has the machine to itself."""
    async with bench.open("container-cold", 1) as sandbox:
        return (await bench.run(sandbox, seconds))[1] / seconds


async def measure_idle(bench: Bench) -> dict[str, Any]:
    """What a container costs that waits, by the engine's own account."""
    async with bench.open("container-warm", 1) as sandbox:
        assert isinstance(sandbox, ContainerSandbox)
        with sandbox._pool._lock:
            (entry,) = sandbox._pool._entries
        stats = await asyncio.to_thread(entry.made.result().container.stats, stream=False)
    memory = stats["memory_stats"]
    files = memory["stats"].get("total_inactive_file", memory["stats"].get("inactive_file", 0))
    return {
        "memory MiB": (memory["usage"] - files) / 2**20,
        "CPU s to make ready": stats["cpu_stats"]["cpu_usage"]["total_usage"] / 1e9,
        "processes": stats["pids_stats"]["current"],
    }


async def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument(
        "--quick", action="store_true", help="about a minute: fewer jobs, no training of 30 s"
    )
    parser.add_argument("--start-jobs", type=int, help="jobs of each kind for the way to the first step")
    parser.add_argument("--only", choices=["start", "throughput", "idle"], help="one of the three tables")
    arguments = parser.parse_args()
    quick = arguments.quick
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(folder))
        if arguments.only in (None, "idle"):
            publish("sandbox-idle", [await measure_idle(bench)], note="one container that waits for a job")
        if arguments.only in (None, "start"):
            jobs = arguments.start_jobs or (6 if quick else 25)
            rows = [await measure_start(bench, kind, jobs) for kind in KINDS]
            publish(
                "sandbox-start",
                rows,
                note="from the job's submission to its first training step; target: warm p50 at most 150 ms",
            )
        if arguments.only in (None, "throughput"):
            alone = await measure_alone(bench, 2 if quick else 5)
            cases = [(0, 2, 8), (5, 2, 6)] if quick else [(0, 1, 20), (0, 2, 20), (5, 1, 10), (5, 2, 20)]
            cases += [] if quick else [(30, 1, 3), (30, 2, 6)]
            rows = [
                await measure_throughput(bench, kind, seconds, slots, jobs, alone)
                for seconds, slots, jobs in cases
                for kind in KINDS
            ]
            publish(
                "sandbox-throughput",
                rows,
                note="efficiency: ideal time by wall time; work: what a training got done in its time, by\n"
                "what one does that has the machine to itself; target: efficiency 0.95 at 5 s on 2 slots",
            )


if __name__ == "__main__":
    asyncio.run(main())
