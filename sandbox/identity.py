"""Which process something belongs to, told so that it can be said later whether that one still lives."""

from __future__ import annotations

import contextlib
import os
import socket
from pathlib import Path


def this_host() -> str:
    """This process, as a label: its machine, pid and start."""
    return f"{machine()}:{os.getpid()}:{started(os.getpid())}"


def is_dead(host: str) -> bool:
    """Whether the process of a label ran on this machine, as it was started last, and is there no more.

    A label of another form says nothing that can be told from here.
    """
    place, _, process = host.partition(":")
    pid, _, start = process.partition(":")
    return place == machine() and pid.isdigit() and bool(start) and started(int(pid)) != start


def machine() -> str:
    """Where a pid means one process: machines may share a name, and containers on one number their own."""
    boot = "unknown"
    with contextlib.suppress(OSError):
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return f"{socket.gethostname()}/{boot}/{pid_namespace()}"


def pid_namespace() -> int:
    """Number of the namespace that this process's pid belongs to; 0 where there are none."""
    try:
        return Path("/proc/self/ns/pid").stat().st_ino
    except OSError:
        return 0


def started(pid: int) -> str | None:
    """When process `pid` was started, in the kernel's ticks; None when there is none. Pids are used again."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    return stat.rpartition(")")[2].split()[19]
