"""The container sandbox: every job in a fresh, hardened container of a local or remote Docker engine.

A job's container (`settings`) has no network, a read-only root, no capabilities, user 1000, its own process
ids, limits of memory without swap, of CPU, processes and files, and the task's data in a volume, read-only.
Nothing of the host is mounted and nothing is fetched from inside: the job goes in and results come out over
the attached standard streams (`link`, `conversation`), so a remote engine works like a local one. Containers
are made before they are needed (`warm`), used once and thrown away.

Not stopped: a kernel exploit (a `runtime` such as gVisor's `runsc` is the answer to that), and disturbing
other jobs through caches and memory bandwidth that all cores share.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

import docker
from docker.models.containers import Container
from requests.exceptions import RequestException

from cambrian.sandbox.cores import Cores, Place, engine_cores, shared_cores
from cambrian.sandbox.engine import ENGINE_S, connect, engine_errors, is_local
from cambrian.sandbox.errors import InfrastructureError
from cambrian.sandbox.held_out import HeldOut
from cambrian.sandbox.image.build import ensure_image
from cambrian.sandbox.job_folder import JobFolder
from cambrian.sandbox.protocol import Isolation, Job, JobLimits, Outcome
from cambrian.sandbox.running import Cancelled, Running
from cambrian.sandbox.settings import Hull, not_enforced, settings
from cambrian.sandbox.sweep import labels, sweep
from cambrian.sandbox.volume import place_data
from cambrian.sandbox.warm import Keep, OutOfMemory, Pool
from cambrian.sandbox.worker.messages import Ending
from cambrian.search_spaces import Splits

Start = Literal["cold", "warm"]
LOOK_S = 0.1
"""Seconds between looks at whether a job that waits for its container was cancelled."""


class ContainerSandbox:
    """Runs each job in a container of its own.

    Args:
        base_image: what the image is built from; None takes a local `cambrian-base`, else a Python image.
        runtime: the engine's runtime, such as `runsc`; None is its default.
        plugins: folders that are built into the image, on the workers' import path, for spaces that are
            not part of Cambrian.
        progress: told, line by line, what takes long.
        engine: address of the engine, see `engine`; None takes the one that the environment names.
        gpu: number or UUID of the engine's GPU that jobs get, or `all`; None gives them none.
        cores: shared with other sandboxes on the engine's machine; None takes all that the engine has.
        warm: how many containers wait for jobs; None is one a slot, 0 starts each when its job comes.
        limits: of the jobs to come; with them containers are made ready before the first job.
    """

    def __init__(
        self,
        base_image: str | None = None,
        runtime: str | None = None,
        plugins: Sequence[Path] = (),
        progress: Callable[[str], None] | None = None,
        engine: str | None = None,
        gpu: str | None = None,
        cores: Cores | None = None,
        warm: int | None = None,
        limits: JobLimits | None = None,
    ) -> None:
        self.isolation = Isolation(level="docker")
        self._base_image, self._runtime, self._engine, self._gpu = base_image, runtime, engine, gpu
        self._plugins = tuple(plugins)
        self._progress = progress
        self._given_cores = cores
        self._warm, self._limits = warm, limits
        self._client: docker.DockerClient | None = None
        self._threads: ThreadPoolExecutor | None = None
        self._running: set[Running] = set()
        self._pool = Pool(self._start, 0)
        self._run_id = ""
        self._folder = Path()

    async def open(
        self, run_id: str, folder: Path, splits: Splits, slots: int, space: Path | None = None
    ) -> None:
        """See `Sandbox.open`; takes minutes when the image has to be built."""
        await self.close()
        self._run_id, self._folder = run_id, folder.resolve()
        # two threads a slot: one talks to the container, one may have to end it
        self._threads = ThreadPoolExecutor(2 * slots + 2, thread_name_prefix="cambrian-docker")
        size = slots if self._warm is None else self._warm
        try:
            self._client = await self._blocking(connect, self._engine, ENGINE_S, 4 * slots + 2 * size + 4)
            await self._blocking(self._prepare, splits, space, size)
        except BaseException:
            await self.close()
            raise

    async def _blocking(self, call: Callable[..., Any], *arguments: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._threads, call, *arguments)

    def _prepare(self, splits: Splits, space: Path | None, size: int) -> None:
        client = self._engine_client()
        with engine_errors("be reached"):
            info = client.info()
        self.isolation = Isolation(level="docker", not_enforced=not_enforced(info))
        self._cores = self._given_cores or shared_cores(info, is_local(self._engine))
        sweep(client, self._run_id)
        image = ensure_image(self._base_image, self._plugins, self._progress, self._engine)
        with engine_errors("place the task's data"):
            volume = client.volumes.create(labels=labels(self._run_id))
        self._hull = Hull(
            image=image,
            data=str(volume.name),
            runtime=self._runtime,
            gpus=(self._gpu,) if self._gpu is not None else (),
            cpus=len(engine_cores(info)),
            swappiness=str(info.get("CgroupVersion") or "1") == "1",
        )
        self._held_out = HeldOut.of(splits)
        place_data(client, self._hull, labels(self._run_id), splits, space)
        self._try_settings()
        self._pool = Pool(self._start, size)
        if self._limits is not None:
            self._pool.fill(self._limits, idle=self._spare())

    def _try_settings(self) -> None:
        """Start and end a container with the settings of jobs: what the engine cannot do is told now."""
        with engine_errors("start a container as jobs need it"):
            made = self._engine_client().containers.create(
                **settings(self._hull, JobLimits(), labels(self._run_id), command=["/bin/true"])
            )
            try:
                made.start()
            finally:
                made.remove(force=True)

    def _start(self, limits: JobLimits, cores: Sequence[int]) -> Keep:
        return Keep(self._engine_client(), self._hull, limits, labels(self._run_id), cores)

    async def run(self, job: Job) -> Outcome:
        """See `Sandbox.run`."""
        submitted = time.monotonic()
        self._engine_client()
        folder = self._held_out.folder(self._folder, job)
        known = folder.settled(self.isolation)
        if known is not None:
            return known
        folder.prepare()
        running = Running()
        self._running.add(running)
        thread = asyncio.ensure_future(self._blocking(self._run_blocking, job, folder, running, submitted))
        try:
            return await running.outcome(thread, ENGINE_S)
        except Cancelled:
            raise InfrastructureError(
                f"the sandbox was closed while job {job.id} ran", hint="resume the run"
            ) from None
        finally:
            self._running.discard(running)

    def _run_blocking(self, job: Job, folder: JobFolder, running: Running, submitted: float) -> Outcome:
        """The whole life of a job, in one thread."""
        place = self._cores.place(job.limits.threads, self._gpu)
        start: Start = "cold"
        keep: Keep | None = None
        first_step: float | None = None
        try:
            try:
                keep, start = self._keep_for(job.limits, place, running)
            except OutOfMemory:
                ending = Ending(why="memory")
            else:
                ending = self._talk(keep, job, folder, place, running)
                first_step = keep.conversation.first_step
        finally:
            if keep is not None:
                keep.kill()
                self._pool.discard(keep)
            place.release()
        running.check()
        if ending.why != "memory":
            self._pool.fill(job.limits, place.cores, self._spare())
        return folder.conclude(
            ending,
            self.isolation,
            time.monotonic() - submitted,
            first_step - submitted if first_step is not None else None,
            start,
        )

    def _keep_for(self, limits: JobLimits, place: Place, running: Running) -> tuple[Keep, Start]:
        """A container that is ready for a job, and how it came to be: one that waits, or a new one."""
        while (taken := self._pool.take(limits, place.cores)) is not None:
            made, ready = taken
            try:
                keep = self._wait_for(made, running)
            except InfrastructureError:
                continue
            try:
                keep.adapt(limits, place.cores)
                running.check()
            except InfrastructureError:  # it ended while it waited, or it already uses more than it may
                self._pool.discard(keep)
                continue
            except Cancelled:
                self._pool.discard(keep)
                raise
            return keep, "warm" if ready else "cold"
        running.check()
        keep = self._start(limits, place.cores)
        try:
            running.begin(keep.kill)
            keep.get_ready()
            running.check()
        except BaseException:
            self._pool.discard(keep)
            running.check()
            raise
        return keep, "cold"

    def _wait_for(self, made: Future[Keep], running: Running) -> Keep:
        while True:
            try:
                return made.result(LOOK_S)
            except TimeoutError:
                if made.done():
                    raise
            if running.cancelled:
                made.add_done_callback(self._discard_when_made)
                running.check()

    def _discard_when_made(self, made: Future[Keep]) -> None:
        if not made.cancelled() and made.exception() is None:
            self._pool.discard(made.result())

    def _talk(self, keep: Keep, job: Job, folder: JobFolder, place: Place, running: Running) -> Ending:
        """Have the job done in a container that is ready."""
        running.begin(keep.kill)
        place.on_pause(keep.pause, keep.resume)
        quiet = _Quiet(place, self._pool)
        try:
            ending = keep.conversation.run(
                job,
                folder,
                self._held_out,
                quiet,
                on_first_step=lambda: self._pool.fill(job.limits, place.cores, self._spare(), most=1),
            )
        except OSError as error:
            running.check()
            return self._how_it_ended(keep, job, error)
        running.check()
        return self._how_it_ended(keep, job, None) if ending.why == "gone" else ending

    def _how_it_ended(self, keep: Keep, job: Job, error: OSError | None) -> Ending:
        """What became of a container whose link broke.

        Raises:
            InfrastructureError: the engine is to blame, not the job.
        """
        container = keep.container
        with engine_errors(f"run job {job.id}"):
            if not isinstance(error, TimeoutError):
                with contextlib.suppress(RequestException):  # it runs on: looked at below
                    container.wait(timeout=5)
            container.reload()
            state: dict[str, Any] = (container.attrs or {}).get("State", {})
            if state.get("Running"):
                if isinstance(error, TimeoutError):  # the keeper was stopped, so it takes nothing in
                    return Ending(why="gone")
                raise InfrastructureError(
                    f"the connection to the container of job {job.id} was lost", hint="resume the run"
                ) from error
            if state.get("OOMKilled"):
                return Ending(why="memory")
            if not _remembers(self._engine_client(), container, state):
                raise InfrastructureError(
                    f"the Docker engine ended the container of job {job.id}", hint="resume the run"
                ) from error
        return Ending(why="gone")

    def _spare(self) -> tuple[int, ...]:
        """Idle cores, last those that the next job will get."""
        return self._cores.idle()[::-1]

    def _engine_client(self) -> docker.DockerClient:
        if self._client is None:
            raise InfrastructureError("the sandbox is not open", hint="call open first")
        return self._client

    async def close(self) -> None:
        """See `Sandbox.close`."""
        client, self._client = self._client, None
        threads, self._threads = self._threads, None
        if client is not None:
            for running in self._running:
                await asyncio.to_thread(running.cancel)
            await asyncio.to_thread(self._pool.close)
            with contextlib.suppress(InfrastructureError):  # an engine that is gone has nothing left to end
                await asyncio.to_thread(sweep, client, self._run_id)
            client.close()
        if threads is not None:
            threads.shutdown(wait=False, cancel_futures=True)


class _Quiet:
    """A place where nothing is made ready while a latency is measured; see `conversation.Quiet`."""

    def __init__(self, place: Place, pool: Pool) -> None:
        self._place, self._pool = place, pool
        self.cores = place.cores

    @property
    def paused_s(self) -> float:
        return self._place.paused_s

    @contextlib.contextmanager
    def alone(self) -> Iterator[bool]:
        with self._place.alone() as alone, self._pool.quiet(self.cores) as quiet:
            yield alone and quiet


def _remembers(client: docker.DockerClient, container: Container, state: dict[str, Any]) -> bool:
    """Whether the engine saw the end of a container: one that was started after it did not, and caused it."""
    try:
        finished = int(datetime.fromisoformat(state["FinishedAt"][:19] + "+00:00").timestamp())
    except (KeyError, ValueError):
        return False
    filters = {"container": str(container.id), "event": "die"}
    return any(client.api.events(since=finished - 2, until=finished + 1, filters=filters, decode=True))
