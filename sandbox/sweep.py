"""Labels by which all that a run started is known, and the removal of what dead runs left over."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping

import docker
from docker.errors import APIError, NotFound

from cambrian.sandbox.engine import engine_errors
from cambrian.sandbox.identity import is_dead, this_host

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
