"""The container sandbox: every job in a fresh, hardened container of a local or remote Docker engine.

A job's container has no network, a read-only root, no capabilities, user 1000, its own process ids, limits of
memory (without swap), CPU, processes and file sizes, and two volumes: the task's data, read-only, and
its own folder. Nothing of the host is mounted, so a remote engine works like a local one: inputs are
written into volumes before the start, results are read from the stopped container, each file by its
name, with a cap on its size.

Not stopped: a kernel exploit (a `runtime` such as gVisor's `runsc` is the answer to that), and a job that
fills the engine's disk with many files, each below the limit.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import math
import os
import socket
import tarfile
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from typing import IO, Any

import docker
from docker.errors import APIError, DockerException, NotFound
from docker.models.containers import Container
from docker.types import LogConfig, Ulimit
from requests.exceptions import ConnectionError as RequestsConnectionError
from requests.exceptions import ReadTimeout, RequestException

from cambrian.sandbox.errors import InfrastructureError
from cambrian.sandbox.image.build import ensure_image
from cambrian.sandbox.outcome import REPORT_BYTES, RESULTS, JobFolder, disk, write_arrays
from cambrian.sandbox.protocol import SPACE, Isolation, Job, JobLimits, Outcome
from cambrian.sandbox.worker.messages import Ending
from cambrian.search_spaces import Splits
from cambrian.search_spaces.finding import files_of

PYTHON = "/usr/local/lib/cambrian/venv/bin/python"
USER = "1000:1000"
SCRATCH_MB = 64
ENGINE_S = 60
"""Seconds that the engine may take to answer."""
ORPHAN_GRACE_S = 30
"""How long after its limit a job ends by itself when nobody is left to end it."""


class _Cancelled(Exception):
    """The job's caller has gone away."""


class _Running:
    """The container of one job, shared by its thread and by whoever cancels it."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.cancelled = False
        self.container: Container | None = None

    def check(self) -> None:
        if self.cancelled:
            raise _Cancelled


class ContainerSandbox:
    """Runs each job in a container of its own.

    Args:
        base_image: what the image is built from; None takes a local `cambrian-base`, else a Python image.
        runtime: the engine's runtime, such as `runsc`; None is its default.
        plugins: folders that are built into the image, on the workers' import path, for spaces that are
            not part of Cambrian.
        progress: told, line by line, what takes long.
    """

    def __init__(
        self,
        base_image: str | None = None,
        runtime: str | None = None,
        plugins: Sequence[Path] = (),
        progress: Callable[[str], None] | None = None,
    ) -> None:
        self.isolation = Isolation(level="docker")
        self._base_image = base_image
        self._runtime = runtime
        self._plugins = tuple(plugins)
        self._progress = progress
        self._client: docker.DockerClient | None = None
        self._threads: ThreadPoolExecutor | None = None
        self._run_id = ""
        self._folder = Path()
        self._samples = (0, 0)
        self._image = ""
        self._data = ""
        self._cpus = 1

    async def open(
        self, run_id: str, folder: Path, splits: Splits, slots: int, space: Path | None = None
    ) -> None:
        """See `Sandbox.open`; takes minutes when the image has to be built."""
        await self.close()
        self._run_id, self._folder = run_id, folder.resolve()
        self._samples = (len(splits.x_val), len(splits.x_test))
        # two threads a slot: one waits for the container, one may have to end it
        self._threads = ThreadPoolExecutor(2 * slots + 2, thread_name_prefix="cambrian-docker")
        with _engine("be reached"):
            self._client = docker.from_env(timeout=ENGINE_S, max_pool_size=2 * slots + 2)
        await self._blocking(self._prepare, splits, space)

    async def _blocking(self, call: Callable[..., Any], *arguments: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._threads, call, *arguments)

    def _prepare(self, splits: Splits, space: Path | None) -> None:
        client = self._engine_client()
        with _engine("be reached"):
            info = client.info()
        self._cpus = int(info.get("NCPU", 1))
        self.isolation = Isolation(level="docker", not_enforced=_missing(info))
        self._sweep()
        self._image = ensure_image(self._base_image, self._plugins, self._progress)
        with _engine("place the task's data"), tempfile.TemporaryDirectory() as place:
            volume = client.volumes.create(labels=self._labels())
            self._data = str(volume.name)
            arrays = write_arrays(Path(place), splits)
            helper = client.containers.create(
                self._image,
                ["true"],
                labels=self._labels(),
                network_mode="none",
                volumes={self._data: {"bind": "/data", "mode": "rw"}},
            )
            with disk("pack the task's data"), tempfile.TemporaryFile() as packed:
                with tarfile.open(fileobj=packed, mode="w") as tar:
                    for path in arrays:
                        _add(tar, path)
                    for name, content in files_of(space).items() if space is not None else ():
                        _add_bytes(tar, f"{SPACE}/{name}", content)
                packed.seek(0)
                helper.put_archive("/data", packed)
            helper.remove(force=True)

    async def run(self, job: Job) -> Outcome:
        """See `Sandbox.run`."""
        started = time.monotonic()
        folder = JobFolder(self._folder, job, *self._samples)
        known = folder.settled(self.isolation)
        if known is not None:
            return known
        self._engine_client()
        folder.prepare()
        running = _Running()
        thread = asyncio.ensure_future(self._blocking(self._run_blocking, job, folder, running))
        try:
            ending: Ending = await asyncio.shield(thread)
        except asyncio.CancelledError:
            await self._cancel(running, thread)
            raise
        return folder.conclude(ending, self.isolation, time.monotonic() - started)

    async def _cancel(self, running: _Running, thread: asyncio.Future[Any]) -> None:
        def kill() -> None:
            with running.lock:
                running.cancelled = True
                if running.container is not None:
                    with contextlib.suppress(DockerException, RequestException):
                        running.container.kill()

        await self._blocking(kill)
        await asyncio.wait({thread}, timeout=ENGINE_S)
        if thread.done() and not thread.cancelled():
            thread.exception()  # or asyncio complains that nobody looked

    def _run_blocking(self, job: Job, folder: JobFolder, running: _Running) -> Ending:
        """The whole life of a job's container, cleaning up included, in one thread."""
        client = self._engine_client()
        container: Container | None = None
        volume = None
        try:
            with _engine(f"run job {job.id}"):
                running.check()
                volume = client.volumes.create(labels=self._labels(job))
                container = client.containers.create(**self._settings(job, str(volume.name)))
                container.put_archive("/job", _pack_job(folder.work / "job.json"))
                with running.lock:
                    running.check()
                    running.container = container
                    container.start()
                ending = self._wait(container, job.limits)
                running.check()
                self._fetch(container, job.limits, folder)
                return ending
        finally:
            with contextlib.suppress(DockerException, RequestException):
                if container is not None:
                    container.remove(force=True, v=True)
            with contextlib.suppress(DockerException, RequestException):
                if volume is not None:
                    volume.remove(force=True)

    def _settings(self, job: Job, volume: str) -> dict[str, Any]:
        limits = job.limits
        size = limits.file_mb << 20
        return {
            "image": self._image,
            # We end a job in time; `timeout` does when we are dead. It is what the init process waits for, so
            # a candidate that kills it ends its own container.
            "command": [
                *("timeout", "--signal=KILL", str(math.ceil(limits.wall_s) + ORPHAN_GRACE_S)),
                *(PYTHON, "-s", "-P", "-m", "cambrian.sandbox.worker", "/job", "/data"),
            ],
            "labels": self._labels(job),
            "environment": {
                "HOME": "/scratch",
                "TMPDIR": "/scratch",
                "LANG": "C.UTF-8",
                "PYTHONHASHSEED": "0",
                "PYTHONDONTWRITEBYTECODE": "1",
                "OMP_NUM_THREADS": str(limits.threads),
                "OPENBLAS_NUM_THREADS": "1",
                "CUBLAS_WORKSPACE_CONFIG": ":4096:8",
            },
            "volumes": {
                self._data: {"bind": "/data", "mode": "ro"},
                volume: {"bind": "/job", "mode": "rw"},
            },
            "tmpfs": {"/scratch": f"size={SCRATCH_MB}m,uid=1000,gid=1000,mode=0700,nosuid,nodev"},
            "working_dir": "/scratch",
            "user": USER,
            "network_mode": "none",
            "read_only": True,
            "cap_drop": ["ALL"],
            "security_opt": ["no-new-privileges:true"],
            "mem_limit": f"{limits.memory_mb}m",
            "memswap_limit": f"{limits.memory_mb}m",
            "nano_cpus": min(limits.threads, self._cpus) * 10**9,
            "pids_limit": limits.processes + 2,  # and the init process and `timeout`
            "ulimits": [
                Ulimit(name="fsize", soft=size, hard=size),
                Ulimit(name="nofile", soft=1024, hard=1024),
                Ulimit(name="core", soft=0, hard=0),
            ],
            "ipc_mode": "none",
            "init": True,
            "log_config": LogConfig(
                type=LogConfig.types.JSON, config={"max-size": f"{limits.log_kb}k", "max-file": "2"}
            ),
            "runtime": self._runtime,
        }

    def _wait(self, container: Container, limits: JobLimits) -> Ending:
        deadline = time.monotonic() + limits.wall_s
        try:
            container.wait(timeout=limits.wall_s)
        except (RequestsConnectionError, ReadTimeout):
            # over a Unix socket a timeout looks like a lost connection; the clock tells them apart
            if time.monotonic() < deadline - 0.05:
                raise
            with contextlib.suppress(APIError):  # ended just now
                container.kill()
            container.wait(timeout=ENGINE_S)
            return Ending(why="timeout")
        container.reload()
        state: dict[str, Any] = (container.attrs or {}).get("State", {})
        code = int(state.get("ExitCode", -1))
        if code != 0 and state.get("OOMKilled"):
            return Ending(why="memory")
        # the init process reports a signal as 128 and its number
        return Ending(why="exit", code=128 - code if 128 < code < 128 + 65 else code)

    def _fetch(self, container: Container, limits: JobLimits, folder: JobFolder) -> None:
        """Copy log and results here, the report last; whatever is no plain file of its name is left."""
        cap = limits.log_kb * 1024
        log = container.logs(stdout=True, stderr=True)[-cap:]
        with disk(f"write to {folder.path}"):
            (folder.path / "log.txt").write_bytes(log)
        for name in RESULTS:
            limit = REPORT_BYTES if name == "report.json" else limits.file_mb << 20
            try:
                chunks, status = container.get_archive(f"/job/{name}", chunk_size=1 << 20)
            except NotFound:
                continue
            if status is None or int(status["size"]) > limit:
                continue
            content = _unpack(_capped(chunks, limit + (1 << 16)), name)
            if content is not None:
                with disk(f"write to {folder.path}"):
                    (folder.work / name).write_bytes(content)

    def _labels(self, job: Job | None = None) -> dict[str, str]:
        labels = {"cambrian.run": self._run_id, "cambrian.host": _this_host()}
        return labels | {"cambrian.job": job.id} if job is not None else labels

    def _sweep(self) -> None:
        """Remove every container and volume of this run, and those that dead processes of any run left."""
        client = self._engine_client()
        ours: dict[str, Any] = {"label": "cambrian.run"}
        with _engine("remove what an earlier process left behind"):
            for container in client.containers.list(all=True, filters=ours, ignore_removed=True):
                if self._is_left_over(container.labels):
                    with contextlib.suppress(NotFound):
                        container.remove(force=True, v=True)
            for volume in client.volumes.list(filters=ours):
                if self._is_left_over((volume.attrs or {}).get("Labels") or {}):
                    with contextlib.suppress(NotFound, APIError):  # another sweep may be at it
                        volume.remove(force=True)

    def _is_left_over(self, labels: Mapping[str, str]) -> bool:
        return labels.get("cambrian.run") == self._run_id or _is_dead(labels.get("cambrian.host", ""))

    def _engine_client(self) -> docker.DockerClient:
        if self._client is None:
            raise InfrastructureError("the sandbox is not open", hint="call open first")
        return self._client

    async def close(self) -> None:
        """See `Sandbox.close`."""
        if self._client is None:
            return
        try:
            with contextlib.suppress(InfrastructureError):  # an engine that is gone has nothing left to end
                await self._blocking(self._sweep)
        finally:
            self._client.close()
            self._client = None
            if self._threads is not None:
                self._threads.shutdown(wait=False, cancel_futures=True)
                self._threads = None


def _started(pid: int) -> str | None:
    """When process `pid` was started, in the kernel's ticks; None when there is none. Pids are used again."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    return stat.rpartition(")")[2].split()[19]


def _this_host() -> str:
    """This process, as a label: machine, pid and start."""
    return f"{socket.gethostname()}:{os.getpid()}:{_started(os.getpid())}"


def _is_dead(host: str) -> bool:
    """Whether the process of a label ran on this machine and is there no more."""
    machine, pid, start = (*host.split(":"), "", "")[:3]
    return machine == socket.gethostname() and pid.isdigit() and _started(int(pid)) != start


@contextlib.contextmanager
def _engine(what: str) -> Iterator[None]:
    """Turn what the SDK and requests raise into an `InfrastructureError`."""
    try:
        yield
    except (DockerException, RequestException) as error:
        text = " ".join(str(getattr(error, "explanation", None) or error).split())[:300]
        raise InfrastructureError(
            f"the Docker engine failed to {what}: {text}",
            hint="start the engine ('docker info' tells), then resume the run",
        ) from error


def _missing(info: dict[str, Any]) -> tuple[str, ...]:
    """What this engine cannot enforce, by its own account."""
    lacks = [
        phrase
        for key, phrase in (
            ("MemoryLimit", "memory"),
            ("PidsLimit", "number of processes"),
            ("CpuCfsQuota", "share of the CPU"),
        )
        if not info.get(key, True)
    ]
    return (*lacks, "disk space in total (each file is limited)")


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


def _pack_job(path: Path) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        _add(tar, path)
    return packed.getvalue()


def _capped(chunks: Iterator[bytes], limit: int) -> IO[bytes]:
    """The stream as a file, cut off at `limit` bytes."""
    content = bytearray()
    for chunk in chunks:
        content += chunk
        if len(content) > limit:
            break
    return io.BytesIO(bytes(content[:limit]))


def _unpack(packed: IO[bytes], name: str) -> bytes | None:
    """The content of the plain file `name` in a tar; None when there is none."""
    try:
        with tarfile.open(fileobj=packed, mode="r:") as tar:
            member = tar.next()
            if member is None or member.name != name or not member.isreg():
                return None
            file = tar.extractfile(member)
            return None if file is None else file.read()
    except (tarfile.TarError, EOFError, OSError):
        return None
