"""Who runs on which cores, and quiet where a latency is measured.

A `Place` is some cores, and a GPU or none, of one machine for one job. While there are enough cores no two
places share one, and measuring costs nobody anything. Where they must share, `Place.alone` has the others
stand still for the moment of a measurement.

All of it is for threads: each job has one. Of other processes it knows which cores they claim, and takes
others as long as there are any.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from cambrian.sandbox.claims import CoreClaims, local_claims

logger = logging.getLogger(__name__)


def host_cores() -> tuple[int, ...]:
    """The cores that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return tuple(sorted(os.sched_getaffinity(0)))
    return tuple(range(os.cpu_count() or 1))


def engine_cores(info: Mapping[str, Any]) -> tuple[int, ...]:
    """The cores of a container engine's machine, from what `docker info` says; one where it says nothing."""
    count = info.get("NCPU")
    return tuple(range(count)) if isinstance(count, int) and count > 0 else (0,)


def shared_cores(info: Mapping[str, Any] | None = None, local: bool = True) -> Cores:
    """The cores of a machine, which other processes of ours may use as well.

    Args:
        info: what the engine of that machine says; None for this process's own cores.
        local: whether it is this machine, so that the other processes can be known.
    """
    return Cores(host_cores() if info is None else engine_cores(info), local_claims() if local else None)


class Cores:
    """The cores of one machine, handed out to jobs.

    Args:
        cores: their numbers, as the kernel counts them.
        claims: shared with other processes on the machine; None when nobody else uses it.
    """

    def __init__(self, cores: Sequence[int], claims: CoreClaims | None = None) -> None:
        if not cores:
            raise ValueError("there must be at least one core")
        self._cores = tuple(sorted(set(cores)))
        self._claims = claims
        self._changed = threading.Condition()
        self._places: list[Place] = []
        self._measuring: list[Place] = []

    def place(self, threads: int, gpu: str | None = None) -> Place:
        """The `threads` least used cores; all of them where there are fewer.

        Waits while a latency is being measured on one of them, or on the same GPU.

        Args:
            threads: of the job.
            gpu: number or UUID of the GPU that it uses.
        """
        with self._changed:
            while True:
                used = Counter(core for place in self._places for core in place.cores)
                quiet = {core for place in self._measuring for core in place.cores}
                foreign = {core for core in self._cores if not self._is_ours(core)}
                order = sorted(
                    self._cores, key=lambda core: (used[core] + (core in foreign), core in quiet, core)
                )
                place = Place(self, tuple(sorted(order[: max(1, threads)])), gpu)
                place.shared = not foreign.isdisjoint(place.cores)
                waits = any(place.overlaps(other) for other in self._measuring)
                if not waits:
                    self._places.append(place)
                self._give_up_claims()
                if not waits:
                    return place
                self._changed.wait()

    def _is_ours(self, core: int) -> bool:
        return self._claims is None or self._claims.take(core)

    def _give_up_claims(self) -> None:
        """Those on cores that no place uses."""
        if self._claims is not None:
            for core in set(self._cores) - {core for place in self._places for core in place.cores}:
                self._claims.give(core)

    def idle(self) -> tuple[int, ...]:
        """The cores that no place holds now."""
        with self._changed:
            used = {core for place in self._places for core in place.cores}
            return tuple(core for core in self._cores if core not in used)

    def _begin(self, place: Place) -> list[Place] | None:
        """Wait for `place`'s turn to measure; who has to stand still then, or None if it was released."""
        with self._changed:
            while place in self._places:
                if not any(place.overlaps(other) for other in self._measuring):
                    self._measuring.append(place)
                    return [p for p in self._places if p is not place and p.overlaps(place)]
                self._changed.wait()
            return None

    def _end(self, place: Place) -> None:
        with self._changed:
            self._measuring.remove(place)
            self._changed.notify_all()

    def _forget(self, place: Place) -> None:
        with self._changed:
            if place in self._places:
                self._places.remove(place)
            self._give_up_claims()
            self._changed.notify_all()


class Place:
    """Cores for one job; made by `Cores.place`.

    Attributes:
        cores: their numbers, ascending.
        gpu: as it was asked for.
        shared: whether another process had claimed one of the cores when this place was made.
    """

    def __init__(self, owner: Cores, cores: tuple[int, ...], gpu: str | None) -> None:
        self.cores = cores
        self.gpu = gpu
        self.shared = False
        self._owner = owner
        # Guards what follows, and is held while pause and resume are called, so that they come in order.
        # Nobody waits for another's turn to measure while holding it. May be taken again by those calls.
        self._gate = threading.RLock()
        self._pause: Callable[[], None] | None = None
        self._resume: Callable[[], None] | None = None
        self._holds = 0  # measurements of others that want this place to stand still
        self._touched = False  # its pause was called, and perhaps did something even if it raised
        self._paused = False
        self._released = False
        self._stopwatch = _Stopwatch()

    @property
    def paused_s(self) -> float:
        """Seconds that others had this place stand still so far: a deadline moves by as much.

        Waiting in `alone` for one's turn is not counted.
        """
        return self._stopwatch.seconds

    def overlaps(self, other: Place) -> bool:
        """Whether the two share a core or a GPU."""
        same_gpu = self.gpu is not None and self.gpu == other.gpu
        return same_gpu or not set(self.cores).isdisjoint(other.cores)

    def on_pause(self, pause: Callable[[], None], resume: Callable[[], None]) -> None:
        """Say how the job is made to stand still and to go on; called in turns, from any thread.

        Where somebody measures on these cores already, `pause` is called at once.
        """
        with self._gate:
            self._pause, self._resume = pause, resume
            if self._holds and not self._released:
                self._try_to_pause()

    @contextmanager
    def alone(self) -> Iterator[bool]:
        """Have these cores and this GPU to oneself, as far as other places of the same `Cores` go.

        Waits until nobody else measures here, pauses the other places that overlap with this one, and lets
        them go on at the end, whatever happens.

        Yields:
            False when one of them could not be paused, when this place was released meanwhile, or when
            another process uses one of the cores.
        """
        with self._stopwatch.stopped():
            others = self._owner._begin(self)
        if others is None:
            yield False
            return
        held: list[Place] = []
        try:
            quiet = not self.shared
            for other in others:
                held.append(other)
                quiet = other._hold() and quiet
            yield quiet
        finally:
            for other in held:
                other._let_go()
            self._owner._end(self)

    def release(self) -> None:
        """Give the cores back; a job that stands still is made to go on first. Safe to call twice."""
        with self._gate:
            self._released = True
            self._try_to_resume()
        self._owner._forget(self)

    def _hold(self) -> bool:
        """Stand still, or still do, for one more measurement; whether that worked."""
        with self._gate:
            self._holds += 1
            return self._released or self._try_to_pause()

    def _let_go(self) -> None:
        with self._gate:
            self._holds -= 1
            if not self._holds:
                self._try_to_resume()

    def _try_to_pause(self) -> bool:
        if self._paused or self._pause is None:
            return self._paused
        self._touched = True
        self._stopwatch.start()
        try:
            self._pause()
        except Exception as error:
            logger.warning("a job beside a measurement could not be paused: %s", error)
            return False
        self._paused = True
        return True

    def _try_to_resume(self) -> None:
        if not self._touched:
            return
        self._touched = self._paused = False
        try:
            if self._resume is not None:
                self._resume()
        except Exception as error:
            # it has ended, or its deadline will end it
            logger.warning("a job beside a measurement could not be resumed: %s", error)
        finally:
            self._stopwatch.stop()


class _Stopwatch:
    """Adds up time on the monotonic clock; starting one that runs changes nothing."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._sum = 0.0
        self._since: float | None = None
        self._started = False
        self._stopped = False

    def start(self) -> None:
        self._set(started=True)

    def stop(self) -> None:
        self._set(started=False)

    @contextmanager
    def stopped(self) -> Iterator[None]:
        """Time herein does not count."""
        self._set(stopped=True)
        try:
            yield
        finally:
            self._set(stopped=False)

    @property
    def seconds(self) -> float:
        with self._lock:
            return self._sum + (time.monotonic() - self._since if self._since is not None else 0.0)

    def _set(self, started: bool | None = None, stopped: bool | None = None) -> None:
        with self._lock:
            self._started = self._started if started is None else started
            self._stopped = self._stopped if stopped is None else stopped
            now = time.monotonic()
            if self._since is not None:
                self._sum += now - self._since
            self._since = now if self._started and not self._stopped else None
