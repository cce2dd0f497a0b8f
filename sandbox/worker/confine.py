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
from pathlib import Path

from cambrian.sandbox.protocol import JobLimits

_libc = ctypes.CDLL(None, use_errno=True)

_CLONE_NEWNS, _CLONE_NEWIPC, _CLONE_NEWUSER = 0x00020000, 0x08000000, 0x10000000
_CLONE_NEWPID, _CLONE_NEWNET = 0x20000000, 0x40000000
_MS_NOSUID, _MS_NODEV, _MS_NOEXEC, _MS_REC, _MS_SLAVE = 2, 4, 8, 16384, 1 << 19
_PR_SET_PDEATHSIG, _PR_CAPBSET_DROP, _PR_SET_CHILD_SUBREAPER, _PR_SET_NO_NEW_PRIVS = 1, 24, 36, 38
_LAST_CAPABILITY = 63
_SYS_MOUNT_SETATTR, _AT_FDCWD, _AT_RECURSIVE, _ATTR_RDONLY = 442, -100, 0x8000, 1
_CAPABILITY_VERSION_3 = 0x20080522

Feature = str
"""One of `user`, `isolated` (network, process ids, IPC), `mount`, `proc`."""

ROUNDS: tuple[frozenset[Feature], ...] = (
    frozenset({"user", "isolated", "mount", "proc"}),
    frozenset({"user", "isolated", "mount"}),
    frozenset({"user", "isolated"}),
    frozenset({"isolated", "mount", "proc"}),
    frozenset({"isolated", "mount"}),
    frozenset({"isolated"}),
    frozenset(),
)
"""What `probe` tries, best first; the rounds without `user` are for root where user namespaces are off."""


class _Capabilities(ctypes.Structure):
    _fields_ = (("effective", ctypes.c_uint32), ("permitted", ctypes.c_uint32), ("inherit", ctypes.c_uint32))


def _check(result: int, what: str) -> None:
    if result != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{what}: {os.strerror(code)}")


def die_with_parent() -> None:
    """Have the kernel kill this process when the thread that forked it ends."""
    _check(_libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0), "PR_SET_PDEATHSIG")


def adopt_orphans() -> None:
    """Make descendants whose parent died children of this process, so that none gets out of sight."""
    _check(_libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0), "PR_SET_CHILD_SUBREAPER")


def enter_namespaces(features: frozenset[Feature]) -> None:
    """Leave the host's network, IPC and, for children, process ids. Needs a process of one thread."""
    if "isolated" not in features:
        return
    uid, gid = os.geteuid(), os.getegid()
    flags = _CLONE_NEWNET | _CLONE_NEWPID | _CLONE_NEWIPC
    _check(_libc.unshare(flags | (_CLONE_NEWUSER if "user" in features else 0)), "unshare")
    if "user" in features:
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"{uid} {uid} 1")
        Path("/proc/self/gid_map").write_text(f"{gid} {gid} 1")


def private_mounts(features: frozenset[Feature], scratch: Path, scratch_mb: int) -> None:
    """Make every file system read-only to this process and its children, but for one folder.

    `scratch` becomes a small file system in memory that vanishes with the processes. `/run` is emptied: the
    sockets there (an engine's, an agent's) answer to anyone who may open them, network or not.
    """
    if "mount" not in features:
        return
    _check(_libc.unshare(_CLONE_NEWNS), "unshare mounts")
    _mount("none", "/", None, _MS_REC | _MS_SLAVE)
    _set_read_only("/", True)
    options = _MS_NOSUID | _MS_NODEV
    _mount("tmpfs", str(scratch), "tmpfs", options, f"size={scratch_mb}m,mode=0700")
    if Path("/run").is_dir() and not scratch.is_relative_to("/run"):
        _mount("tmpfs", "/run", "tmpfs", options | _MS_NOEXEC, "size=1m,mode=0755")
    if "proc" in features:
        _mount("proc", "/proc", "proc", options | _MS_NOEXEC)


def _mount(source: str, target: str, kind: str | None, flags: int, options: str = "") -> None:
    encoded = [s.encode() if s is not None else None for s in (source, target, kind)]
    _check(_libc.mount(*encoded, ctypes.c_ulong(flags), options.encode() or None), f"mount {target}")


def _set_read_only(path: str, wanted: bool) -> None:
    """`mount_setattr(2)` (Linux 5.12), the only way to do it for a whole tree at once."""
    change = (_ATTR_RDONLY, 0) if wanted else (0, _ATTR_RDONLY)
    attributes = (ctypes.c_uint64 * 4)(*change, 0, 0)
    recursive = _AT_RECURSIVE if wanted else 0
    size = ctypes.c_size_t(ctypes.sizeof(attributes))
    result = _libc.syscall(
        ctypes.c_long(_SYS_MOUNT_SETATTR),
        ctypes.c_int(_AT_FDCWD),
        path.encode(),
        ctypes.c_uint(recursive),
        ctypes.byref(attributes),
        size,
    )
    _check(int(result), f"mount_setattr {path}")


def drop_privileges() -> None:
    """Give up every capability for good, and with them what set-uid programs would grant."""
    _check(_libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "PR_SET_NO_NEW_PRIVS")
    for capability in range(_LAST_CAPABILITY + 1):
        if _libc.prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0) != 0:
            break  # beyond the kernel's last one, or nothing that we might drop
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0)
    nothing = (_Capabilities * 2)()
    _check(_libc.capset(ctypes.byref(header), ctypes.byref(nothing)), "capset")


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


def probe(scratch: Path) -> frozenset[Feature]:
    """The best round of `ROUNDS` that this machine allows, found by trying it in a child process."""
    for features in ROUNDS:
        pid = os.fork()
        if pid == 0:
            _attempt(features, scratch)
        if os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0:
            return features
    return frozenset()


def _attempt(features: frozenset[Feature], scratch: Path) -> None:
    code = 1
    try:
        enter_namespaces(features)
        pid = os.fork()
        if pid == 0:
            try:
                private_mounts(features, scratch, 1)
                (scratch / "probe").write_bytes(b"")
                drop_privileges()
                code = 0
            finally:
                os._exit(code)
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    finally:
        os._exit(code & 0xFF)


def missing(features: frozenset[Feature]) -> tuple[str, ...]:
    """What a process confined by `features` is still able to do, one short phrase each."""
    lacks = ["reads files that this user may read", "Unix sockets outside /run"]
    if "mount" not in features:
        lacks.append("writes files that this user may write")
    if "isolated" not in features:
        lacks += ["reaches the network", "sees and signals processes of this user"]
    # without any capability it may not look into processes that have some, such as all of root's
    if "user" not in features and os.geteuid() != 0:
        lacks.append("reads memory and environment of this user's processes")
    if "user" in features and os.geteuid() == 0:
        lacks.append("owns root's files, though without any capability")
    lacks.append("memory and process counts are watched, not enforced by the kernel")
    if "mount" not in features:
        lacks.append("disk space in total (each file is limited)")
    return tuple(lacks)
