"""What the kernel can be asked to keep from a process, without an engine and without being root.

Everything here is called between `fork` and the candidate's first line. Namespaces come as one set:
a user namespace (which allows the others and puts the host's processes out of ptrace's reach), a network
without interfaces, process ids of its own (killing the first of them kills all, whatever they did to hide)
and own System V IPC. Where the kernel or a container around us forbids them, `probe` says which are missing.
"""

from __future__ import annotations

import ctypes
import os
import platform
import resource
import signal
import subprocess
import sys
from collections.abc import Sequence, Set
from pathlib import Path

from cambrian.sandbox.protocol import JobLimits
from cambrian.sandbox.worker import mounts
from cambrian.sandbox.worker.mounts import check
from cambrian.sandbox.worker.syscalls import refuse_unneeded

_libc = ctypes.CDLL(None, use_errno=True)

_CLONE_NEWIPC, _CLONE_NEWUSER, _CLONE_NEWPID, _CLONE_NEWNET = 0x08000000, 0x10000000, 0x20000000, 0x40000000
_PR_SET_PDEATHSIG, _PR_CAPBSET_DROP, _PR_SET_CHILD_SUBREAPER, _PR_SET_NO_NEW_PRIVS = 1, 24, 36, 38
_LAST_CAPABILITY = 63
_CAPABILITY_VERSION_3 = 0x20080522

Feature = str
"""`user`, `isolated` (network, process ids, IPC), `mount`, `root`, `proc`, or `filter` (of system calls)."""

ROUNDS: tuple[frozenset[Feature], ...] = (
    frozenset({"user", "isolated", "mount", "root", "proc"}),
    frozenset({"user", "isolated", "mount", "proc"}),
    frozenset({"user", "isolated", "mount", "root"}),
    frozenset({"user", "isolated", "mount"}),
    frozenset({"user", "isolated"}),
    frozenset({"isolated", "mount", "root", "proc"}),
    frozenset({"isolated", "mount", "proc"}),
    frozenset({"isolated", "mount"}),
    frozenset({"isolated"}),
    frozenset(),
)
"""What `probe` tries, best first; the rounds without `user` are for root where user namespaces are off."""


class _Capabilities(ctypes.Structure):
    _fields_ = (("effective", ctypes.c_uint32), ("permitted", ctypes.c_uint32), ("inherit", ctypes.c_uint32))


def die_with_parent() -> None:
    """Have the kernel kill this process when the thread that forked it ends."""
    check(_libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0), "PR_SET_PDEATHSIG")


def adopt_orphans() -> None:
    """Make descendants whose parent died children of this process, so that none gets out of sight."""
    check(_libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0), "PR_SET_CHILD_SUBREAPER")


def enter_namespaces(features: frozenset[Feature]) -> None:
    """Leave the host's network, IPC and, for children, process ids. Needs a process of one thread."""
    if "isolated" not in features:
        return
    uid, gid = os.geteuid(), os.getegid()
    flags = _CLONE_NEWNET | _CLONE_NEWPID | _CLONE_NEWIPC
    check(_libc.unshare(flags | (_CLONE_NEWUSER if "user" in features else 0)), "unshare")
    if "user" in features:
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"{uid} {uid} 1")
        Path("/proc/self/gid_map").write_text(f"{gid} {gid} 1")


def private_mounts(
    features: frozenset[Feature], visible: Sequence[Path], scratch: Path, scratch_mb: int
) -> None:
    """Take the file systems away from this process and its children, as far as `features` go.

    Args:
        features: how far.
        visible: what stays, read-only, where the rest can be hidden.
        scratch: an empty folder; becomes a small file system in memory, the only one that can be written to,
            and vanishes with the processes.
        scratch_mb: its size.

    Raises:
        OSError: the kernel does not allow it.
    """
    if "root" in features:
        mounts.new_root(visible, scratch, scratch_mb, "proc" in features)
    elif "mount" in features:
        mounts.read_only(scratch, scratch_mb, "proc" in features)


def drop_privileges(features: Set[Feature] = frozenset()) -> None:
    """Give up every capability for good, what set-uid programs would grant, and calls that nobody needs."""
    check(_libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "PR_SET_NO_NEW_PRIVS")
    for capability in range(_LAST_CAPABILITY + 1):
        if _libc.prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0) != 0:
            break  # beyond the kernel's last one, or nothing that we might drop
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0)
    nothing = (_Capabilities * 2)()
    check(_libc.capset(ctypes.byref(header), ctypes.byref(nothing)), "capset")
    if "filter" in features:
        refuse_unneeded()


def set_limits(limits: JobLimits, features: frozenset[Feature], own_data_kb: int, gpu: bool) -> None:
    """Resource limits of this process and its children.

    `RLIMIT_AS` is left alone: torch reserves far more address space than it uses. `RLIMIT_DATA` is only a
    backstop at twice the job's memory, against one sudden huge allocation; the supervisor watches what is
    really resident. `RLIMIT_NPROC` counts all processes of a user, except in a user namespace since
    Linux 5.14, where it counts ours alone; root is never held to it. It is set where it means something.

    Args:
        limits: of the job.
        features: the namespaces that we are in.
        own_data_kb: `VmData` of this process before the candidate runs.
        gpu: whether torch has CUDA, which reserves memory that counts as data.
    """
    mib = 2**20
    cpu = int(limits.wall_s * limits.threads) + 10
    wanted = {
        resource.RLIMIT_FSIZE: limits.file_mb * mib,
        resource.RLIMIT_CPU: cpu,
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_NOFILE: 1024,
    }
    if not gpu:
        wanted[resource.RLIMIT_DATA] = own_data_kb * 1024 + 2 * limits.memory_mb * mib
    if "user" in features and _kernel() >= (5, 14):
        wanted[resource.RLIMIT_NPROC] = limits.processes + 3  # supervisor, first process, worker
    for kind, value in wanted.items():
        hard = resource.getrlimit(kind)[1]
        value = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(kind, (value, value))


def _kernel() -> tuple[int, int]:
    major, minor = platform.release().split(".")[:2]
    digits = "".join(c for c in minor if c.isdigit())
    return int(major), int(digits or 0)


def probe(visible: Sequence[Path], scratch: Path) -> frozenset[Feature]:
    """The best round of `ROUNDS` that this machine allows, found by trying it in a child process."""
    for features in ROUNDS:
        pid = os.fork()
        if pid == 0:
            _attempt(features, visible, scratch)
        if os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0:
            return features | _filter()
    return frozenset()


def _filter() -> frozenset[Feature]:
    """Whether system calls can be filtered here, found by trying it in a child process."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            drop_privileges({"filter"})
            code = 0
        finally:
            os._exit(code)
    worked = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    return frozenset({"filter"}) if worked else frozenset()


def _attempt(features: frozenset[Feature], visible: Sequence[Path], scratch: Path) -> None:
    code = 1
    try:
        enter_namespaces(features)
        pid = os.fork()
        if pid == 0:
            try:
                private_mounts(features, visible, scratch, 1)
                (scratch / "probe").write_bytes(b"")
                subprocess.run([sys.executable, "-S", "-c", ""], check=True, env={})
                drop_privileges()
                code = 0
            finally:
                os._exit(code)
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    finally:
        os._exit(code & 0xFF)


def missing(features: frozenset[Feature]) -> tuple[str, ...]:
    """What a process confined by `features` is still able to do, one short phrase each."""
    lacks: list[str] = []
    if "root" not in features:
        lacks += ["reads files that this user may read", "Unix sockets outside /run"]
    if "mount" not in features:
        lacks.append("writes files that this user may write")
    if "isolated" not in features:
        lacks += ["reaches the network", "sees and signals processes of this user"]
    # without any capability it may not look into processes that have some, such as all of root's
    if "user" not in features and os.geteuid() != 0:
        lacks.append("reads memory and environment of this user's processes")
    elif "isolated" not in features:
        lacks.append("reads the memory of other jobs")
    if "user" in features and "root" not in features and os.geteuid() == 0:
        lacks.append("owns root's files, though without any capability")
    if "filter" not in features:
        lacks.append("system calls that no training needs")
    lacks.append("memory and process counts are watched, not enforced by the kernel")
    if "mount" not in features:
        lacks.append("disk space in total (each file is limited)")
    return tuple(lacks)
