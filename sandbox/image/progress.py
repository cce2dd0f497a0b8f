"""Signs of life of what takes minutes."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator

BEAT_S = 10.0
"""Seconds between signs of life of one step."""


@contextlib.contextmanager
def beating(say: Callable[[str], None], doing: Callable[[], str], every_s: float = BEAT_S) -> Iterator[None]:
    """Say what is being done, and since when, for as long as the block takes.

    Args:
        say: told, line by line, from another thread.
        doing: what is being done at that moment.
        every_s: seconds between two lines; a block that is quicker says nothing.
    """
    over = threading.Event()
    started = time.monotonic()

    def beat() -> None:
        while not over.wait(every_s):
            say(f"  {doing()}, {time.monotonic() - started:.0f} s")

    thread = threading.Thread(target=beat, name="cambrian-progress", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
