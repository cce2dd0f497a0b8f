"""Labels by which all that a run started is known, and the removal of what dead runs left over."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Mapping
from pathlib import Path

import docker
from docker.errors import APIError, NotFound

from cambrian.sandbox.engine import engine_errors

RUN, HOST, JOB = "cambrian.run", "cambrian.host", "cambrian.job"


def labels(run_id: str, job_id: str = "") -> dict[str, str]:
    """What marks a container or a volume as ours: its run, the process that made it, its job."""
    found = {RUN: run_id, HOST: this_host()}
    return found | {JOB: job_id} if job_id else found


def sweep(client: docker.DockerClient, run_id: str) -> int:
    """Remove every container and volume of this run, and those that dead processes of any run left.

    What belongs to live processes of other runs stays, as does what another machine's processes made: whether
    those live cannot be told from here.

    Returns:
        How many were removed.

    Raises:
        InfrastructureError: the engine does not answer.
    """
    ours: dict[str, str | list[str] | bool] = {"label": RUN}
    removed = 0
    with engine_errors("remove what an earlier process left behind"):
        for container in client.containers.list(all=True, filters=ours, ignore_removed=True):
            if is_left_over(container.labels, run_id):
                # another sweep may be at it: 404, or 409 "removal is already in progress"
                with contextlib.suppress(NotFound, APIError):
                    container.remove(force=True, v=True)
                    removed += 1
        for volume in client.volumes.list(filters=ours):
            if is_left_over((volume.attrs or {}).get("Labels") or {}, run_id):
                with contextlib.suppress(NotFound, APIError):
                    volume.remove(force=True)
                    removed += 1
    return removed


def is_left_over(found: Mapping[str, str], run_id: str) -> bool:
    """Whether something with these labels may be removed by whoever holds the run `run_id`."""
    return found.get(RUN) == run_id or is_dead(found.get(HOST, ""))


def this_host() -> str:
    """This process, as a label: its machine, pid and start."""
    return f"{_machine()}:{os.getpid()}:{started(os.getpid())}"


def is_dead(host: str) -> bool:
    """Whether the process of a label ran on this machine, as it was started last, and is there no more.

    A label of another form says nothing that can be told from here.
    """
    machine, _, process = host.partition(":")
    pid, _, start = process.partition(":")
    return machine == _machine() and pid.isdigit() and bool(start) and started(int(pid)) != start


def _machine() -> str:
    """Where a pid means one process: machines may share a name, and containers on one number their own."""
    boot = namespace = "unknown"
    with contextlib.suppress(OSError):
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        namespace = str(Path("/proc/self/ns/pid").stat().st_ino)
    return f"{socket.gethostname()}/{boot}/{namespace}"


def started(pid: int) -> str | None:
    """When process `pid` was started, in the kernel's ticks; None when there is none. Pids are used again."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    return stat.rpartition(")")[2].split()[19]
