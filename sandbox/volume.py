"""The volume that holds a task's data on the engine's machine."""

from __future__ import annotations

import contextlib
import io
import tarfile
import tempfile
from pathlib import Path, PurePosixPath

import docker
from docker.errors import DockerException
from requests.exceptions import RequestException

from cambrian.sandbox.engine import engine_errors
from cambrian.sandbox.outputs import disk, write_arrays
from cambrian.sandbox.protocol import SPACE
from cambrian.sandbox.settings import DATA, Hull
from cambrian.search_spaces import Splits
from cambrian.search_spaces.finding import files_of


def place_data(
    client: docker.DockerClient, hull: Hull, labels: dict[str, str], splits: Splits, space: Path | None
) -> None:
    """Write what jobs may read into the volume, as an archive through a container that is never started.

    Args:
        client: of the engine.
        hull: names the volume, and an image that the engine has.
        labels: of that container.
        splits: the task's data.
        space: the folder that jobs build from.

    Raises:
        UserError: the space folder is too large or holds no text.
        InfrastructureError: the engine or a disk failed.
    """
    files = files_of(space) if space is not None else {}
    with engine_errors("place the task's data"), tempfile.TemporaryDirectory() as place:
        arrays = write_arrays(Path(place), splits)
        helper = client.containers.create(
            hull.image,
            ["true"],
            labels=labels,
            network_mode="none",
            volumes={hull.data: {"bind": DATA, "mode": "rw"}},
        )
        try:
            with disk("pack the task's data"), tempfile.TemporaryFile() as packed:
                with tarfile.open(fileobj=packed, mode="w") as tar:
                    for path in arrays:
                        _add(tar, path)
                    for name, content in files.items():
                        _add_bytes(tar, f"{SPACE}/{name}", content)
                packed.seek(0)
                helper.put_archive(DATA, packed)
        finally:
            with contextlib.suppress(DockerException, RequestException):
                helper.remove(force=True)


def _add(tar: tarfile.TarFile, path: Path) -> None:
    """Add a file by its bare name, to be read but not written by the job's user."""
    entry = tarfile.TarInfo(path.name)
    entry.size, entry.mode, entry.uid, entry.gid = path.stat().st_size, 0o444, 1000, 1000
    with path.open("rb") as file:
        tar.addfile(entry, file)


def _add_bytes(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    """Add a file with the folders above it, to be read but not written by the job's user."""
    for above in reversed(PurePosixPath(name).parents):
        if str(above) != "." and str(above) not in tar.getnames():
            entry = tarfile.TarInfo(str(above))
            entry.type, entry.mode = tarfile.DIRTYPE, 0o555
            tar.addfile(entry)
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = len(content), 0o444
    tar.addfile(entry, io.BytesIO(content))
