"""One job's supervisor: confines the worker, keeps it, ends everything that it started.

Three processes a job, each forked from the last:
    supervisor   on the host's side: the keeper; clock, memory, process count; a user namespace of its own
    first        process 1 of the new process ids: mounts, adopts orphans; its end ends them all
    worker       no privileges; runs the candidate
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import struct
import time
from collections.abc import Sequence, Set
from pathlib import Path
from typing import NoReturn

from cambrian.sandbox.protocol import JobLimits
from cambrian.sandbox.worker import confine
from cambrian.sandbox.worker.keeper import HostGone, HostLink, Keeper, set_dumpable
from cambrian.sandbox.worker.launch import become_worker, close_files
from cambrian.sandbox.worker.messages import Ending, Order, Place, Why
from cambrian.sandbox.worker.stopwatch import Stopwatch

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


def supervise(
    place: Place, features: frozenset[confine.Feature], visible: Sequence[Path], gpu: bool
) -> NoReturn:
    """Carry out what the host orders over the link of `place`. Called in a fresh fork."""
    try:
        confine.die_with_parent()
        close_files(set())
        with contextlib.suppress(HostGone, OSError), socket.socket(socket.AF_UNIX) as link:
            link.connect(f"\0{place.link}")
            link.sendall(place.token.encode())
            place = place.model_copy(update={"token": ""})
            _Supervision(place, features, visible, gpu).run(link.fileno())
    finally:
        os._exit(0)


class _Supervision:
    def __init__(
        self, place: Place, features: frozenset[confine.Feature], visible: Sequence[Path], gpu: bool
    ) -> None:
        self.place, self.features, self.visible, self.gpu = place, features, visible, gpu
        self.limits: JobLimits | None = None
        self.first = 0
        self.worker_pid: int | None = None
        self.peak_kb = 0

    def run(self, link: int) -> None:
        set_dumpable(True)  # or a user that is not root could not fill in the maps of its namespace
        confine.adopt_orphans()
        confine.enter_namespaces(self.features)
        confine.die_with_parent()  # again: a change of credentials may clear it
        set_dumpable(False)
        ours, theirs = socket.socketpair()
        log_read, log_write = os.pipe()
        status_read, status_write = os.pipe()
        self.first = os.fork()
        if self.first == 0:
            self._first(theirs, log_write, status_write, {ours.fileno(), log_read, status_read, link})
        theirs.close()
        for fd in (log_write, status_write):
            os.close(fd)
        to_host = HostLink(link, link)  # only now: who was forked with the key in memory could find it
        to_host.send({"ready": True})
        order = to_host.order()
        self.limits = order.job.limits
        stopwatch = Stopwatch(self._worker_pid, self._helpers)
        keeper = Keeper(to_host, order, ours, log_read, status_read, self._over_limit, self._pause, stopwatch)
        try:
            ending = self._keep(keeper, status_read)
        except OSError as error:  # ours, not the candidate's
            ending = Ending(why="lost", note=f"{type(error).__name__}: {error}"[:500])
        keeper.finish(ending)

    def _keep(self, keeper: Keeper, status_read: int) -> Ending:
        why: Why = "stopped"
        try:
            why = keeper.run()
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.first, signal.SIGKILL)
            # with process ids of its own this waits until the kernel has ended all of them
            first_code = os.waitstatus_to_exitcode(os.waitpid(self.first, 0)[1])
            kill_below()
        status = os.read(status_read, 65536) if why == "exit" else b""
        peak_mb = self.peak_kb / 1024
        if why != "exit":
            return Ending(why=why, peak_mb=peak_mb)
        if not status:  # the first process was killed: by the kernel for want of memory, or by the job
            return Ending(why="exit", code=first_code, peak_mb=peak_mb)
        if len(status) != 4:
            return Ending(why="lost", note=status.decode(errors="replace")[:500])
        code = os.waitstatus_to_exitcode(struct.unpack("i", status)[0])
        return Ending(why="exit", code=code, peak_mb=peak_mb)

    def _worker_pid(self) -> int | None:
        return self.worker_pid or next(iter(children(self.first)), None)

    def _helpers(self) -> set[int]:
        """Processes of the job beside the worker itself."""
        self.worker_pid = self._worker_pid()
        return set(self._below()) - {self.worker_pid or 0}

    def _pause(self, stop: bool) -> None:
        for pid in self._below():
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGSTOP if stop else signal.SIGCONT)

    def _below(self) -> list[int]:
        """All that hangs below us but the first process, which is ours."""
        return [pid for pid in descendants(os.getpid()) if pid != self.first]

    def _over_limit(self) -> Why | None:
        limits = self.limits
        assert limits is not None
        below = self._below()
        if len(below) > limits.processes or sum(tasks(pid) for pid in below) > limits.processes:
            return "processes"
        self.peak_kb = max(self.peak_kb, used := sum(resident_kb(pid) for pid in below))
        return "memory" if used > limits.memory_mb * 1024 else None

    def _first(self, channel: socket.socket, log: int, status: int, drop: set[int]) -> NoReturn:
        """The first process of the job's own process ids."""
        worker = 0
        try:
            # As process 1 we get no signal from inside but those that we handle, and Python handles this one.
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            confine.die_with_parent()
            for fd in drop:
                os.close(fd)
            visible = (*self.visible, self.place.data)
            confine.private_mounts(self.features, visible, self.place.scratch, SCRATCH_MB)
            worker = os.fork()
            if worker == 0:
                become_worker(channel, log, self.place.data, self.place.scratch, self._confine)
            confine.drop_privileges()
            confine.die_with_parent()
            channel.close()
            os.close(log)
            while True:
                pid, code = os.waitpid(-1, 0)
                if pid == worker:
                    os.write(status, struct.pack("i", code))
                    break
        except BaseException as error:
            with contextlib.suppress(OSError):
                if not worker:  # no candidate can have caused it
                    os.write(status, f"{type(error).__name__}: {error}".encode())
        finally:
            os._exit(0)

    def _confine(self, order: Order) -> None:
        """Take from the worker what it must not have; called in it."""
        confine.die_with_parent()
        confine.set_limits(order.job.limits, self.features, _data_kb(), self.gpu)
        confine.drop_privileges(self.features)
        confine.die_with_parent()


def _data_kb() -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmData:"):
            return int(line.split()[1])
    return 0
