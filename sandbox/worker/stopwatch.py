"""How long the worker took for what it says it did, by clocks that candidate code cannot turn.

On a machine that is busy with other things the clock on the wall runs while the worker waits for a
processor, and while its words wait for the keeper to get one. The kernel's count of the worker's processor
time does not. It counts only as long as the worker has no other process that could work for it, and no GPU.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

_GPU = Path("/dev/nvidiactl")


def processor_seconds(pid: int) -> float | None:
    """What process `pid` has used of processors so far, all its threads; None where nobody says."""
    try:
        return time.clock_gettime((~pid << 3) | 2)  # the clock of that process, see clock_getcpuclockid(3)
    except OSError:
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
        self._used: float | None = None

    def start(self) -> None:
        """From now on; to be called just before the process may go on."""
        self._used = self._now()
        self._wall = time.monotonic()

    def stop(self, arrived: float) -> float:
        """Seconds since the start.

        Args:
            arrived: when the process said that it was done, on the clock of `time.monotonic`.
        """
        wall, used = arrived - self._wall, self._now()
        return wall if used is None or self._used is None else min(wall, used - self._used)

    def _now(self) -> float | None:
        pid = None if self._gpu else self._pid()
        return None if pid is None or self._helpers() else processor_seconds(pid)
