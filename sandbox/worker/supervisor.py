"""One job's supervisor: confines the worker, watches it, ends everything that it started.

Three processes a job, each forked from the last:
    supervisor   on the host's side: clock, memory, process count, log; a user namespace of its own
    first        process 1 of the new process ids: mounts, adopts orphans; its end ends them all
    worker       no privileges; runs the candidate
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import struct
import time
from collections.abc import Set
from pathlib import Path
from types import FrameType
from typing import Literal

from cambrian.sandbox.worker import confine
from cambrian.sandbox.worker.messages import Ending, Order

WATCH_S = 0.05
"""Seconds between looks at memory and processes: what a candidate can exceed its limits by."""
SCRATCH_MB = 64
_KERNEL_LISTS_CHILDREN = Path(f"/proc/self/task/{os.getpid()}/children").exists()


def children(pid: int) -> list[int]:
    """Direct children of all threads of `pid`; empty when it is gone."""
    found: list[int] = []
    with contextlib.suppress(OSError):
        for thread in Path(f"/proc/{pid}/task").iterdir():
            with contextlib.suppress(OSError):
                found += [int(part) for part in (thread / "children").read_text().split()]
    return found


def descendants(pid: int, skip: Set[int] = frozenset()) -> list[int]:
    """All processes below `pid`, parents first, without its children in `skip` and what is below them."""
    find = children if _KERNEL_LISTS_CHILDREN else _by_parent().get
    found: list[int] = []
    waiting = [child for child in find(pid) or [] if child not in skip]
    while waiting:
        found.extend(waiting)
        waiting = [child for parent in waiting for child in find(parent) or []]
    return found


def _by_parent() -> dict[int, list[int]]:
    """Children of every process there is: what remains where the kernel does not list them."""
    found: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
                found.setdefault(parent, []).append(int(entry.name))
    return found


def resident_kb(pid: int) -> int:
    """Memory of `pid` that no file backs: what it allocated, and pages it shares with its parent."""
    total = 0
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith(("RssAnon:", "RssShmem:")):
                total += int(line.split()[1])
    return total


def tasks(pid: int) -> int:
    """Threads of `pid`."""
    try:
        return len(list(Path(f"/proc/{pid}/task").iterdir()))
    except OSError:
        return 0


def kill_below(keep: Set[int] = frozenset()) -> None:
    """End every descendant of this process, but for the children in `keep` and what is below them.

    All are stopped before any is killed: what is stopped cannot fork. Orphans must be ours to adopt.
    """
    for _ in range(1000):
        alive = [p for p in descendants(os.getpid(), keep) if not _is_zombie(p)]
        if not alive:
            break
        for number in (signal.SIGSTOP, signal.SIGKILL):
            for target in alive:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.kill(target, number)
        time.sleep(0.001)
        reap()


def reap() -> None:
    """Collect every child that has ended."""
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0] != 0:
            pass


def _is_zombie(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except OSError:
        return True


class _Log:
    """The first kilobytes of what the job prints; the rest is read and forgotten."""

    def __init__(self, path: Path, limit_kb: int) -> None:
        self._left = limit_kb * 1024
        self._limit_kb = limit_kb
        try:
            self._file: int | None = os.open(
                path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600
            )
        except OSError:  # a full disk; the job's result does not depend on its log
            self._file = None

    def drain(self, pipe: int) -> bool:
        """Take what is there; False at the end of the stream."""
        try:
            chunk = os.read(pipe, 65536)
        except BlockingIOError:
            return True
        if self._left > 0 and self._file is not None:
            kept = chunk[: self._left]
            self._left -= len(chunk)
            if self._left <= 0:
                kept += f"\n[only the first {self._limit_kb} KiB are kept]\n".encode()
            with contextlib.suppress(OSError):
                os.write(self._file, kept)
        return bool(chunk)


def supervise(order: Order, features: frozenset[confine.Feature], gpu: bool, result: int) -> None:
    """Run one job and write its `Ending` to the pipe `result`. Called in a fresh fork; never returns."""
    ending = Ending(why="lost", note="the supervisor failed")
    try:
        started = time.monotonic()
        confine.die_with_parent()
        confine.close_files({result})
        ending = _Supervision(order, features, gpu, started).run()
    except BaseException as error:
        ending = Ending(why="lost", note=f"{type(error).__name__}: {error}"[:500])
    finally:
        with contextlib.suppress(BaseException):
            os.write(result, ending.model_dump_json().encode())
        os._exit(0)


class _Supervision:
    def __init__(self, order: Order, features: frozenset[confine.Feature], gpu: bool, started: float) -> None:
        self.order, self.features, self.gpu, self.started = order, features, gpu, started
        self.stopped = False
        self.peak_kb = 0

    def run(self) -> Ending:
        signal.signal(signal.SIGTERM, self._stop)
        confine.adopt_orphans()
        confine.enter_namespaces(self.features)
        confine.die_with_parent()  # again: a change of credentials may clear it
        log_read, log_write = os.pipe()
        status_read, status_write = os.pipe()
        first = os.fork()
        if first == 0:
            self._first(log_write, status_write, {log_read, status_read})
        os.close(log_write)
        os.close(status_write)
        os.set_blocking(log_read, False)
        log = _Log(self.order.log, self.order.limits.log_kb)
        try:
            why = self._watch(first, log, log_read, status_read)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.kill(first, signal.SIGKILL)
            # with process ids of its own this waits until the kernel has ended all of them
            first_code = os.waitstatus_to_exitcode(os.waitpid(first, 0)[1])
            kill_below()
        while select.select([log_read], [], [], 0)[0] and log.drain(log_read):
            pass
        report = os.read(status_read, 65536)
        if why != "exit":
            return Ending(why=why, peak_mb=self.peak_kb / 1024)
        if not report:  # the first process was killed: by the kernel for want of memory, or by the job
            return Ending(why="exit", code=first_code, peak_mb=self.peak_kb / 1024)
        if len(report) != 4:
            return Ending(why="lost", note=report.decode(errors="replace")[:500])
        code = os.waitstatus_to_exitcode(struct.unpack("i", report)[0])
        return Ending(why="exit", code=code, peak_mb=self.peak_kb / 1024)

    def _stop(self, number: int, frame: FrameType | None) -> None:
        self.stopped = True

    def _watch(
        self, first: int, log: _Log, log_read: int, status_read: int
    ) -> Literal["exit", "stopped", "timeout", "memory", "processes"]:
        deadline = self.started + self.order.limits.wall_s
        next_look = time.monotonic() + WATCH_S
        readable = [log_read, status_read]
        while True:
            now = time.monotonic()
            timeout = max(0.0, min(deadline, next_look) - now)
            ready = select.select(readable, [], [], timeout)[0]
            if log_read in ready and not log.drain(log_read):
                readable.remove(log_read)
            if status_read in ready:
                return "exit"
            now = time.monotonic()
            if self.stopped:
                return "stopped"
            if now >= deadline:
                return "timeout"
            if now >= next_look:
                broken = self._over_limit(first)
                if broken:
                    return broken
                next_look = time.monotonic() + WATCH_S

    def _over_limit(self, first: int) -> Literal["memory", "processes"] | None:
        limits = self.order.limits
        # all that hangs below us but the first process, which is ours
        below = [pid for pid in descendants(os.getpid()) if pid != first]
        if len(below) > limits.processes or sum(tasks(pid) for pid in below) > limits.processes:
            return "processes"
        self.peak_kb = max(self.peak_kb, used := sum(resident_kb(pid) for pid in below))
        return "memory" if used > limits.memory_mb * 1024 else None

    def _first(self, log: int, status: int, drop: set[int]) -> None:
        """The first process of the job's own process ids. Never returns."""
        try:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            confine.die_with_parent()
            for fd in drop:
                os.close(fd)
            confine.private_mounts(self.features, self.order.folder, self.order.scratch, SCRATCH_MB)
            worker = os.fork()
            if worker == 0:
                self._worker(log)
            confine.drop_privileges()
            confine.die_with_parent()
            os.close(log)
            while True:
                pid, code = os.waitpid(-1, 0)
                if pid == worker:
                    os.write(status, struct.pack("i", code))
                    break
        except BaseException as error:
            with contextlib.suppress(OSError):
                os.write(status, f"{type(error).__name__}: {error}".encode())
        finally:
            os._exit(0)

    def _worker(self, log: int) -> None:
        """Become the worker. Never returns."""
        code = 70
        try:
            os.setsid()
            confine.die_with_parent()
            os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
            os.dup2(log, 1)
            os.dup2(log, 2)
            confine.close_files(set())
            os.chdir(self.order.scratch)
            os.environ.update(HOME=str(self.order.scratch), TMPDIR=str(self.order.scratch))
            confine.set_limits(self.order.limits, self.features, _data_kb(), self.gpu)
            confine.drop_privileges()
            confine.die_with_parent()
            from cambrian.sandbox.worker.execute import execute

            code = execute(self.order.folder, self.order.data, self.started)
        finally:
            with contextlib.suppress(BaseException):
                import sys

                sys.stdout.flush()
                sys.stderr.flush()
            os._exit(code)


def _data_kb() -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmData:"):
            return int(line.split()[1])
    return 0
