"""A job under way, shared by the thread that runs it and by whoever cancels it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable

from cambrian.sandbox.protocol import Outcome


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

    async def outcome(self, thread: asyncio.Future[Outcome], patience_s: float) -> Outcome:
        """What the job's thread returns or raises. Cancelling this call ends the job first.

        Args:
            thread: in which the job runs.
            patience_s: how long a job that was ended may take to come to its end.
        """
        try:
            return await asyncio.shield(thread)
        except asyncio.CancelledError:
            await asyncio.to_thread(self.cancel)
            await asyncio.wait({thread}, timeout=patience_s)
            if thread.done() and not thread.cancelled():
                thread.exception()  # or asyncio complains that nobody looked
            raise
