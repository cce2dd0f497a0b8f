"""Ctrl-C at the right moment, for runs that wait for a person."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable

GRACE_S = 1.5


def interrupts_when_waiting(
    lines: list[str], ready: Callable[[], bool] = lambda: True
) -> Callable[[str], None]:
    """Takes a run's lines; interrupts this process soon after the run has said that it waits for review.

    Args:
        lines: gets the lines.
        ready: asked at each such line whether this is the one; what has been waited for may differ.
    """

    pulled: list[bool] = []

    def say(line: str) -> None:
        lines.append(line)
        if "wait for review" in line and ready() and not pulled:
            pulled.append(True)  # a second one would hit whatever this process does next
            asyncio.get_running_loop().call_later(GRACE_S, os.kill, os.getpid(), signal.SIGINT)

    return say
