"""What counts as a worker's time: its work and its sleep, not what others make it wait."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from cambrian.sandbox.worker.stopwatch import Stopwatch, usage

CORE = min(os.sched_getaffinity(0))
WORK_S = 0.15


def work(seconds: float) -> None:
    """Use that much of a processor, however long it takes."""
    until = time.thread_time() + seconds
    while time.thread_time() < until:
        pass


@contextmanager
def forked(do: Callable[[], object], times: int = 1) -> Iterator[list[tuple[int, int, int]]]:
    """Processes on one core that do something when they are told to, and wait: pid, pipe in, pipe out."""
    made = []
    for _ in range(times):
        go_read, go = os.pipe()
        done, done_write = os.pipe()
        pid = os.fork()
        if pid == 0:
            try:
                os.sched_setaffinity(0, {CORE})
                os.read(go_read, 1)
                do()
                os.write(done_write, b".")
                time.sleep(60)
            finally:
                os._exit(0)
        made.append((pid, go, done))
    try:
        yield made
    finally:
        for pid, _, _ in made:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


def timed(do: Callable[[], object], helpers: Callable[[], set[int]] = set) -> tuple[float, float]:
    """What a stopwatch and the wall say of it."""
    with forked(do) as ((pid, go, done),):
        watch = Stopwatch(lambda: pid, helpers)
        watch.start()
        began = time.monotonic()
        os.write(go, b".")
        os.read(done, 1)
        arrived = time.monotonic()
        return watch.stop(arrived), arrived - began


def test_work_and_sleep_count() -> None:
    assert timed(lambda: work(WORK_S))[0] >= 0.95 * WORK_S
    assert timed(lambda: time.sleep(WORK_S))[0] >= 0.95 * WORK_S


@contextmanager
def busy_core(hogs: int) -> Iterator[None]:
    with forked(lambda: work(60), hogs) as made:
        for _, go, _ in made:
            os.write(go, b".")
        yield


def test_waiting_for_a_busy_core_does_not_count() -> None:
    if usage(os.getpid()) is None:
        pytest.skip("this kernel does not count how long processes wait")
    with busy_core(4):
        seconds, wall = timed(lambda: work(WORK_S))
    assert wall > 2.5 * WORK_S
    assert 0.95 * WORK_S <= seconds < 0.6 * wall


def test_a_worker_with_helpers_is_timed_by_the_wall() -> None:
    with busy_core(4):
        seconds, wall = timed(lambda: work(WORK_S), lambda: {1})
    assert seconds == pytest.approx(wall, rel=0.3)


def test_a_thread_of_its_own_cannot_work_while_the_worker_waits() -> None:
    import threading

    def cheat() -> None:
        thread = threading.Thread(target=work, args=(WORK_S,))
        thread.start()
        work(0.01)
        thread.join()

    assert timed(cheat)[0] >= 0.95 * WORK_S


def test_a_process_that_is_gone_is_timed_by_the_wall() -> None:
    watch = Stopwatch(lambda: 2**22)
    watch.start()
    time.sleep(0.05)
    assert 0.05 <= watch.stop(time.monotonic()) < 0.5
