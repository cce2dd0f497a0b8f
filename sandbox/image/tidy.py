"""Removing images that newer ones have replaced, and what dead runs left on an engine.

A change of our sources makes a new worker image of a few megabytes; a change of packages makes a new
`cambrian-deps` of nearly a gigabyte. What a container uses is never removed, whatever its age.
"""

from __future__ import annotations

import calendar
import contextlib
import time
from collections.abc import Collection
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict

from cambrian.sandbox.engine import engine_errors

if TYPE_CHECKING:
    import docker
    from docker.models.images import Image

WORKER, DEPS = "cambrian-worker", "cambrian-deps"
OURS, STAGE = "cambrian.image", "cambrian.image=stage"
BUILD_S = 1800.0
"""Seconds that the builder may be silent: installing torch prints nothing for minutes on a slow disk."""
KEPT = 3
"""Worker images that are kept after a build: other checkouts and plugins use the same engine."""
YOUNG_S = 86_400.0
"""Age below which a build leaves an image alone: somebody may be about to use it."""


class Tidied(BaseModel):
    """What was removed from an engine.

    Attributes:
        images: their tags.
        leftovers: how many containers and volumes of dead runs.
        freed_mb: by how much the engine's disk shrank.
        kept: tags of images that are still there, and why, where it is not for being the current one.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    images: tuple[str, ...] = ()
    leftovers: int = 0
    freed_mb: float = 0.0
    kept: dict[str, str] = {}


def remove_superseded(client: docker.DockerClient, current: str, deps: str) -> list[str]:
    """Remove images that others have replaced, carefully: called after a build.

    Kept are the current ones, the newest `KEPT` workers, whatever is younger than a day or in use.

    Args:
        client: of the engine.
        current: tag of the worker image of now.
        deps: tag of what it is built on.

    Returns:
        Tags of what was removed.
    """
    workers = _tagged(client, WORKER)
    new = {tag for tag, _ in sorted(workers, key=lambda pair: -_created(pair[1]))[:KEPT]}
    young = {
        tag for tag, image in (*workers, *_tagged(client, DEPS)) if time.time() - _created(image) < YOUNG_S
    }
    return _remove(client, {current, deps, *new, *young})[0]


def tidy(client: docker.DockerClient, keep: Collection[str]) -> Tidied:
    """Remove every image of ours but those in `keep`, and what dead runs left.

    While a run is alive that has no container at this moment, no worker image is removed: it may need one.

    Args:
        client: of the engine.
        keep: tags.

    Raises:
        InfrastructureError: the engine does not answer.
    """
    from cambrian.sandbox.sweep import sweep

    with engine_errors("tell how much disk it uses"):
        before = _disk_bytes(client)
    leftovers = sweep(client, "")
    with engine_errors("remove images"):
        alive = _idle_live_runs(client)
        wait = {tag for tag, _ in (*_tagged(client, WORKER), *_tagged(client, DEPS))} if alive else set()
        removed, kept = _remove(client, {*keep, *wait})
        kept |= dict.fromkeys(sorted(wait - {*keep}), f"run {', '.join(sorted(alive))} may need it")
        remove_nameless(client)
        freed = before - _disk_bytes(client)
    return Tidied(images=tuple(removed), leftovers=leftovers, freed_mb=max(0.0, freed / 1e6), kept=kept)


def remove_stages(client: docker.DockerClient) -> None:
    """Drop stages that held the wheels; without a tag they are only dead weight."""
    from docker.errors import APIError

    for image in client.images.list(filters={"label": STAGE, "dangling": True}):
        with contextlib.suppress(APIError):  # another build is using it
            client.images.remove(str(image.id))


def remove_nameless(client: docker.DockerClient) -> None:
    """Drop images of ours that lost their tag, but for those that a build may be making at this moment."""
    from docker.errors import APIError

    for image in client.images.list(filters={"label": OURS, "dangling": True}):
        if time.time() - _created(image) > BUILD_S:
            with contextlib.suppress(APIError):  # in use
                client.images.remove(str(image.id))


def _remove(client: docker.DockerClient, keep: Collection[str]) -> tuple[list[str], dict[str, str]]:
    """Remove all of ours but `keep`; what was removed, and what was not because it is in use."""
    from docker.errors import APIError

    removed, kept = [], {}
    for name in (WORKER, DEPS):  # an image cannot go before those that are built on it
        for tag, _ in _tagged(client, name):
            if tag in keep:
                continue
            try:
                client.images.remove(tag)
                removed.append(tag)
            except APIError as error:
                if error.status_code == 409:
                    kept[tag] = "in use"
                elif error.status_code != 404:  # another one was quicker
                    raise
    return removed, kept


def _tagged(client: docker.DockerClient, name: str) -> list[tuple[str, Image]]:
    return [(tag, image) for image in client.images.list(name) for tag in image.tags if tag.startswith(name)]


def _created(image: Image) -> float:
    """When it was made, in seconds since 1970; the engine's nanoseconds are left out."""
    text = str((image.attrs or {}).get("Created", ""))[:19]
    try:
        return float(calendar.timegm(time.strptime(text, "%Y-%m-%dT%H:%M:%S")))
    except ValueError:
        return time.time()


def _idle_live_runs(client: docker.DockerClient) -> set[str]:
    """Live runs that have a volume but no container: what they will start is not known."""
    from cambrian.sandbox.sweep import RUN

    volumes = [
        (volume.attrs or {}).get("Labels") or {} for volume in client.volumes.list(filters={"label": RUN})
    ]
    containers = client.containers.list(all=True, filters={"label": RUN}, ignore_removed=True)
    return {found[RUN] for found in volumes} - {container.labels.get(RUN) for container in containers}


def _disk_bytes(client: docker.DockerClient) -> int:
    """What images and volumes take on the engine's disk."""
    usage: dict[str, Any] = client.df()
    volumes = [(volume.get("UsageData") or {}).get("Size", 0) for volume in usage.get("Volumes") or []]
    return int(usage.get("LayersSize") or 0) + sum(max(0, int(size)) for size in volumes)
