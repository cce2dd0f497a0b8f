"""How long the worker took for what it says it did, by clocks that candidate code cannot turn.

On a machine that is busy with other things the clock on the wall runs while the worker waits for a
processor, and while its words wait for the keeper to get one. The kernel counts both waits, and they are
taken off, down to the processor time that the worker has used: or a worker could make itself wait while a
thread of its own does the work. None of this counts while it has another process that could work for it, or
where there is a GPU.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

_GPU = Path("/dev/nvidiactl")


class Usage(NamedTuple):
    """What a process has had so far, in seconds.

    Attributes:
        used: of processors, by all its threads.
        waited: for a processor, by its first thread.
    """

    used: float
    waited: float


def usage(pid: int) -> Usage | None:
    """What process `pid` has had so far; None where the kernel does not say."""
    try:
        used = time.clock_gettime((~pid << 3) | 2)  # the clock of that process, see clock_getcpuclockid(3)
        return Usage(used, int(Path(f"/proc/{pid}/schedstat").read_text().split()[1]) / 1e9)
    except (OSError, IndexError, ValueError):
        return None


def processes() -> set[int]:
    """Every process that we can see."""
    return {int(name) for name in os.listdir("/proc") if name.isdigit()}  # noqa: PTH208


class Stopwatch:
    """Times what one process does.

    Args:
        pid: finds the process; None for one that cannot be found, which is timed by the wall only.
        helpers: processes that might work for it.
    """

    def __init__(
        self, pid: Callable[[], int | None] = lambda: None, helpers: Callable[[], set[int]] = set
    ) -> None:
        self._pid, self._helpers = pid, helpers
        self._gpu = _GPU.exists()
        self._wall = 0.0
        self._before: tuple[Usage, Usage] | None = None

    def start(self) -> None:
        """From now on; to be called just before the process may go on."""
        self._before = self._now()
        self._wall = time.monotonic()

    def stop(self, arrived: float) -> float:
        """Seconds since the start.

        Args:
            arrived: when the process said that it was done, on the clock of `time.monotonic`.
        """
        wall, now = arrived - self._wall, self._now()
        if now is None or self._before is None:
            return wall
        (worker, keeper), (worker_before, keeper_before) = now, self._before
        waited = worker.waited - worker_before.waited + keeper.waited - keeper_before.waited
        return min(wall, max(worker.used - worker_before.used, wall - waited))

    def _now(self) -> tuple[Usage, Usage] | None:
        """What the worker and we have had so far."""
        pid = None if self._gpu else self._pid()
        if pid is None or self._helpers():
            return None
        worker, keeper = usage(pid), usage(os.getpid())
        return (worker, keeper) if worker is not None and keeper is not None else None
