"""A job under way, shared by the thread that runs it and by whoever cancels it."""

from __future__ import annotations

import threading
from collections.abc import Callable


class Cancelled(Exception):
    """The job's caller has gone away, or the sandbox was closed."""


class Running:
    """What of a job has to be ended when it is cancelled; nothing until `begin` says what.

    Attributes:
        cancelled: whether it was.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._end: Callable[[], object] | None = None
        self.cancelled = False

    def check(self) -> None:
        """Raise `Cancelled` if it was cancelled."""
        if self.cancelled:
            raise Cancelled

    def begin(self, end: Callable[[], object]) -> None:
        """From now on `end` ends it. Raises `Cancelled` if it is too late: then `end` was not called."""
        with self._lock:
            self.check()
            self._end = end

    def cancel(self) -> None:
        """End it; from any thread."""
        with self._lock:
            self.cancelled = True
            end = self._end
        if end is not None:
            end()
