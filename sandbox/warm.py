"""Containers that wait: keepers that have imported torch and take one job each, made before they are needed.

A container is used once. What makes a fresh one slow is importing torch, so as many as there are slots wait
with that behind them; each one taken is replaced while a training runs, on an idle core, else on one of
that training, and never where latency is being measured: there a container in the making stands still.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from dataclasses import dataclass, field

import docker
from docker.errors import DockerException, NotFound
from docker.models.containers import Container
from requests.exceptions import RequestException

from cambrian.sandbox.conversation import Conversation
from cambrian.sandbox.engine import ENGINE_S, engine_errors
from cambrian.sandbox.errors import InfrastructureError
from cambrian.sandbox.link import ContainerLink
from cambrian.sandbox.protocol import JobLimits
from cambrian.sandbox.settings import Hull, fits, settings, update
from cambrian.sandbox.worker.channel import ChannelBroken

logger = logging.getLogger(__name__)

READY_S = 180.0
"""Seconds that a container may take to import torch; a busy disk can be that slow."""
LOOK_S = 0.5
"""Seconds between looks whether somebody still wants a container that is being made."""


class OutOfMemory(InfrastructureError):
    """A container ended before it was ready, for want of memory: its limit is too low for torch itself."""


class Keep:
    """One container with its keeper, for one job.

    Args:
        client: of the engine.
        hull: what it has in common with others.
        limits: what it is made for.
        labels: by which it is found again.
        cores: that it may run on; all when empty.

    Attributes:
        conversation: with its keeper.
        link: to its keeper.

    Raises:
        InfrastructureError: the engine cannot make it.
    """

    def __init__(
        self,
        client: docker.DockerClient,
        hull: Hull,
        limits: JobLimits,
        labels: dict[str, str],
        cores: Sequence[int] = (),
    ) -> None:
        self._client, self._hull, self.limits, self.cores = client, hull, limits, tuple(cores)
        self._lock = threading.Lock()
        self._stopped = False
        self._given_up = threading.Event()
        with engine_errors("start a container"):
            self.container: Container = client.containers.create(**settings(hull, limits, labels, cores))
            try:
                self.link = ContainerLink(self.container)
                self.container.start()
            except BaseException:
                self._remove()
                raise
        self.conversation = Conversation(self.link)

    def get_ready(self) -> None:
        """Greet the keeper and wait until it can take a job.

        Raises:
            OutOfMemory: there was too little of it for torch itself.
            InfrastructureError: it ended, is too slow, or was given up.
        """
        deadline = time.monotonic() + READY_S
        try:
            self.conversation.greet()
            while not self._is_ready(deadline):
                self._check_wanted()
        except TimeoutError as error:
            raise InfrastructureError(
                f"a container was not ready to train within {READY_S:g} s",
                hint="the engine's machine is too busy: try again when it is less so",
            ) from error
        except (OSError, EOFError, ChannelBroken) as error:
            self._check_wanted()
            with engine_errors("keep a container until it was ready"):
                self.container.wait(timeout=ENGINE_S)
                self.container.reload()
            if (self.container.attrs or {}).get("State", {}).get("OOMKilled"):
                raise OutOfMemory(
                    f"{self.limits.memory_mb} MiB are too little to import torch",
                    hint="raise 'sandbox.memory_mb' in the run file",
                ) from error
            words = self.link.said().strip().splitlines() or [str(error) or "it said nothing"]
            raise InfrastructureError(
                f"a container ended before it was ready: {words[-1][:300]}",
                hint="'cambrian sandbox check' looks for the cause",
            ) from error

    def _is_ready(self, deadline: float) -> bool:
        """Wait for a moment; raises `TimeoutError` only when the deadline has passed."""
        try:
            self.conversation.ready(min(LOOK_S, deadline - time.monotonic()))
        except TimeoutError:
            if time.monotonic() >= deadline:
                raise
            return False
        return True

    def _check_wanted(self) -> None:
        if self._given_up.is_set():
            raise InfrastructureError("the sandbox was closed", hint="call open first")

    def give_up(self) -> None:
        """Have `get_ready` fail within `LOOK_S`, whatever the container does; from any thread."""
        self._given_up.set()
        self.link.close()

    def adapt(self, limits: JobLimits, cores: Sequence[int]) -> None:
        """Give the container a job's limits and cores.

        Raises:
            InfrastructureError: the engine is gone, or the container, or the limits cannot be had.
        """
        same = (limits.memory_mb, limits.threads, limits.processes)
        ours = (self.limits.memory_mb, self.limits.threads, self.limits.processes)
        if same == ours and tuple(cores) == self.cores:
            return
        with engine_errors("give a container its limits"):
            self._post("update", update(self._hull, limits, cores))
        self.limits, self.cores = limits, tuple(cores)

    def pause(self) -> None:
        """Have every process in it stand still; raises what the SDK raises."""
        with self._lock:
            if not self._stopped:
                self.container.pause()
                self._stopped = True

    def resume(self) -> None:
        """Have them go on."""
        with self._lock:
            if self._stopped:
                self._stopped = False
                self.container.unpause()

    def kill(self) -> None:
        """End every process in it; quiet about an engine or a container that is gone."""
        with contextlib.suppress(DockerException, RequestException):
            self.container.kill()

    def remove(self) -> None:
        """End and remove it; quiet about an engine or a container that is gone."""
        self.link.close()
        self._remove()

    def _remove(self) -> None:
        with contextlib.suppress(DockerException, RequestException):
            self.container.remove(force=True)

    def _post(self, what: str, body: dict[str, object]) -> None:
        """What the SDK's own `update` does not know: processors and processes."""
        api = self._client.api
        url = f"{api.base_url}/v{api.api_version}/containers/{self.container.id}/{what}"
        response = api.post(url, json=body, timeout=ENGINE_S)
        if response.status_code == 404:
            raise NotFound(f"container {self.container.id} is gone")
        if response.status_code >= 400:
            raise DockerException(response.text)


@dataclass(eq=False)
class _Entry:
    """A container that waits, or is in the making."""

    limits: JobLimits
    cores: tuple[int, ...]
    made: Future[Keep]
    keep: Keep | None = None
    born: float = field(default_factory=time.monotonic)

    def pause(self) -> bool:
        """Have it stand still while it is being made; whether that worked."""
        if self.keep is None or self.made.done():  # not begun: `Pool._finish` looks; ready: it only waits
            return True
        try:
            self.keep.pause()
        except (DockerException, RequestException) as error:
            logger.debug("a container in the making could not be paused: %s", error)
            return False
        return True

    def hurry(self, cores: Sequence[int]) -> None:
        """Have it go on, on the cores of the job that waits for it."""
        self.resume()
        self.cores = tuple(cores)
        if self.keep is not None and cores:
            with contextlib.suppress(InfrastructureError):
                self.keep.adapt(self.keep.limits, cores)

    def resume(self) -> None:
        """Have it go on."""
        if self.keep is not None:
            with contextlib.suppress(DockerException, RequestException):
                self.keep.resume()


class Pool:
    """Containers made before they are needed.

    Args:
        start: starts one, for limits and on cores.
        size: how many are to wait.
    """

    def __init__(self, start: Callable[[JobLimits, Sequence[int]], Keep], size: int) -> None:
        self._start, self._size = start, size
        self._lock = threading.Condition()
        self._entries: list[_Entry] = []
        self._making: list[_Entry] = []
        self._measured: list[tuple[int, ...]] = []
        self._closed = False
        self._threads = ThreadPoolExecutor(max(1, size), thread_name_prefix="cambrian-warm")
        self._removers = ThreadPoolExecutor(2, thread_name_prefix="cambrian-remove")
        # a job waits before it leaves more behind than this
        self._to_remove = threading.BoundedSemaphore(2 * size + 4)

    def fill(
        self, limits: JobLimits, cores: Sequence[int] = (), idle: Sequence[int] = (), most: int | None = None
    ) -> None:
        """Start making what is missing, in the background, one at a time on each core.

        Args:
            limits: of the jobs to come; what waits for others makes room.
            cores: of a training that can spare some time; all when empty.
            idle: cores that nobody uses; they are preferred.
            most: start no more than these.
        """
        with self._lock:
            for _ in range(self._size if most is None else most):
                if self._closed or not self._make_room(limits):
                    return
                self._make(limits, self._choose(idle) or self._choose(cores) or tuple(cores[:1]))

    def take(self, limits: JobLimits, cores: Sequence[int] = ()) -> tuple[Future[Keep], bool] | None:
        """One that fits, and whether it is ready, else the oldest that is in the making; None for neither.

        Args:
            limits: of the job.
            cores: of the job, which are idle until it has its container.
        """
        with self._lock:
            fitting = [entry for entry in self._entries if fits(entry.limits, limits)]
            for entry in [entry for entry in fitting if entry.made.done()]:
                self._entries.remove(entry)
                if not _died(entry.made):
                    return entry.made, True
                self._put_away(entry)
            for entry in fitting:
                # one that has to wait for another one to be made would be later than a new one
                if entry.keep is not None and not entry.made.done():
                    self._entries.remove(entry)
                    entry.hurry(cores)
                    return entry.made, False
        return None

    @contextlib.contextmanager
    def quiet(self, cores: Sequence[int]) -> Iterator[bool]:
        """Have nothing in the making on these cores; whether that worked."""
        measured = tuple(cores)
        with self._lock:
            self._measured.append(measured)
            overlapping = [entry for entry in self._entries if _overlap(entry.cores, cores)]
            worked = all([entry.pause() for entry in overlapping])
        try:
            yield worked
        finally:
            with self._lock:
                self._measured.remove(measured)
                for entry in self._entries:
                    if not self._is_quiet(entry.cores):
                        entry.resume()
                self._lock.notify_all()

    def discard(self, keep: Keep) -> None:
        """Remove a container in the background."""
        self._to_remove.acquire()

        def remove() -> None:
            try:
                keep.remove()
            finally:
                self._to_remove.release()

        try:
            self._removers.submit(remove)
        except RuntimeError:  # closed meanwhile
            remove()

    def waiting(self) -> int:
        """How many are ready."""
        with self._lock:
            return sum(entry.made.done() and not _died(entry.made) for entry in self._entries)

    def close(self) -> None:
        """Remove all that wait or are being made, and wait until that is done.

        What the engine has just been asked to start is removed as soon as the engine has answered.
        """
        with self._lock:
            self._closed = True
            entries, self._entries = self._entries, []
            entries += [entry for entry in self._making if entry not in entries]  # a job waits for those
            keeps = [entry.keep for entry in entries if entry.keep is not None]
            self._lock.notify_all()
        for entry in entries:
            entry.made.cancel()
        for keep in keeps:
            keep.give_up()
        for keep in keeps:
            self.discard(keep)
        self._threads.shutdown(wait=True, cancel_futures=True)
        self._removers.shutdown(wait=True)

    # -- inside, with the lock held -----------------------------------------------------------------

    def _make_room(self, limits: JobLimits) -> bool:
        for entry in [entry for entry in self._entries if entry.made.done() and _died(entry.made)]:
            self._entries.remove(entry)
            self._put_away(entry)
        if len(self._entries) < self._size:
            return True
        for entry in self._entries:
            if entry.made.done() and not fits(entry.limits, limits):
                self._entries.remove(entry)
                self._put_away(entry)
                return True
        return False

    def _put_away(self, entry: _Entry) -> None:
        if entry.keep is not None:
            self.discard(entry.keep)

    def _is_quiet(self, cores: Sequence[int]) -> bool:
        return any(_overlap(cores, measured) for measured in self._measured)

    def _choose(self, cores: Sequence[int]) -> tuple[int, ...]:
        """One of these where nothing is made yet and nothing measured; none if there is no such."""
        taken = {core for entry in self._entries if not entry.made.done() for core in entry.cores}
        free = [core for core in cores if core not in taken and not self._is_quiet((core,))]
        return tuple(free[:1])

    def _make(self, limits: JobLimits, cores: tuple[int, ...]) -> None:
        entry = _Entry(limits, cores, Future())
        self._entries.append(entry)
        self._threads.submit(self._finish, entry)

    def _must_wait(self, entry: _Entry) -> bool:
        busy = any(_overlap(entry.cores, other.cores) for other in self._making)
        return not self._closed and (busy or self._is_quiet(entry.cores))

    # -- in a thread --------------------------------------------------------------------------------

    def _finish(self, entry: _Entry) -> None:
        if not entry.made.set_running_or_notify_cancel():
            return
        with self._lock:
            self._lock.wait_for(lambda: not self._must_wait(entry))
            self._making.append(entry)
        begun = time.monotonic()
        try:
            keep = self._start(entry.limits, entry.cores)
            with self._lock:
                entry.keep = keep
                if self._closed:
                    raise InfrastructureError("the sandbox was closed", hint="call open first")
                if self._is_quiet(entry.cores):
                    entry.pause()
            keep.get_ready()
        except BaseException as error:
            if entry.keep is not None:
                self.discard(entry.keep)
                entry.keep = None
            entry.made.set_exception(error)
            if not isinstance(error, Exception):
                raise
            logger.debug("a container could not be made ready: %s", error)
        else:
            logger.debug("a container was ready after %.2f s", time.monotonic() - begun)
            entry.made.set_result(keep)
        finally:
            with self._lock:
                self._making.remove(entry)
                self._lock.notify_all()


def _died(made: Future[Keep]) -> bool:
    """Whether a container that was finished is of no use, because it failed or has ended since."""
    try:
        return made.exception(0) is not None or not made.result(0).link.is_open()
    except (CancelledError, TimeoutError):
        return True


def _overlap(cores: Sequence[int], others: Sequence[int]) -> bool:
    """Whether two sets of cores meet; none means all."""
    return not cores or not others or not set(cores).isdisjoint(others)
