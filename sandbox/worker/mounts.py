"""What a confined process sees of the file systems: a root with what Python needs, or all of it read-only.

Called in a process that is alone in its mount namespace or about to be, and that may mount in it.
"""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

_libc = ctypes.CDLL(None, use_errno=True)

_CLONE_NEWNS = 0x00020000
_MS_RDONLY, _MS_NOSUID, _MS_NODEV, _MS_NOEXEC = 1, 2, 4, 8
_MS_BIND, _MS_REC, _MS_SLAVE = 4096, 16384, 1 << 19
_MNT_DETACH = 2
_SYS_MOUNT_SETATTR, _AT_FDCWD, _AT_RECURSIVE, _ATTR_RDONLY = 442, -100, 0x8000, 1
_SYS_PIVOT_ROOT = {"x86_64": 155, "aarch64": 41}
_SYSTEM = ("/usr", "/bin", "/lib", "/lib32", "/lib64", "/etc/ld.so.cache", "/etc/alternatives")
_DEVICES = ("null", "zero", "full", "random", "urandom")
_KNOBS = ("sys", "sysrq-trigger", "irq", "bus", "fs", "acpi", "scsi", "mtrr", "latency_stats")
"""Of `/proc`: what sets the kernel of the whole machine. Root may write there without any capability."""
_HIDDEN = ("sklearn/datasets/data",)
"""Of installed packages: labels that a task may hold out."""
_TMPFS = _MS_NOSUID | _MS_NODEV


def check(result: int, what: str) -> None:
    """Raise the `OSError` of a failed call of the C library."""
    if result != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{what}: {os.strerror(code)}")


def needed(plugins: Iterable[str]) -> tuple[Path, ...]:
    """The files and folders that a worker reads: Python, its packages, our own, system libraries.

    Args:
        plugins: further folders of the import path.
    """
    import cambrian.sandbox
    import cambrian.search_spaces

    ours = (cambrian.sandbox, cambrian.search_spaces)
    wanted = [Path(path) for path in (*_SYSTEM, sys.prefix, sys.base_prefix, sys.exec_prefix, *plugins)]
    wanted += [Path(path) for path in sys.path if path]
    wanted += [Path(path).resolve() for module in ours for path in module.__path__]
    wanted += [Path(path) for path in os.environ.get("LD_LIBRARY_PATH", "").split(os.pathsep) if path]
    if gpus := sorted(Path("/dev").glob("nvidia*")):
        wanted += [*gpus, Path("/sys")]  # the driver's library looks its devices up there
    found: list[Path] = []
    for path in sorted({each.absolute() for each in wanted if each.exists()}):
        if path != Path("/") and not any(path.is_relative_to(above) for above in found):
            found.append(path)
    return tuple(found)


def new_root(visible: Sequence[Path], scratch: Path, scratch_mb: int, own_proc: bool) -> None:
    """Leave all file systems for a root that holds `visible`, read-only, and an empty `scratch` in memory.

    Everything keeps its path. There is no way back: the old root is no longer mounted.

    Raises:
        OSError: the kernel does not allow it.
    """
    pivot = _SYS_PIVOT_ROOT.get(os.uname().machine)
    if pivot is None:
        raise OSError("pivot_root is not known for this machine")
    _own_mounts()
    root = scratch  # stands for the new root until it is one
    _mount("tmpfs", str(root), "tmpfs", _TMPFS, "size=1m,mode=0755")
    for path in visible:
        _show(path, root)
    (root / "dev").mkdir(exist_ok=True)
    for name in _DEVICES:
        _show(Path("/dev", name), root)
    inside = root / scratch.relative_to("/")
    inside.mkdir(parents=True, exist_ok=True)
    (root / "proc").mkdir(exist_ok=True)
    if not (root / "tmp").exists():
        (root / "tmp").symlink_to(scratch)
    _set_read_only(str(root))
    _mount("tmpfs", str(inside), "tmpfs", _TMPFS, f"size={scratch_mb}m,mode=0700")
    _hide_labels(root)
    if own_proc:
        _mount_proc(root / "proc")
    os.chdir(root)
    check(int(_libc.syscall(ctypes.c_long(pivot), b".", b".")), "pivot_root")
    check(_libc.umount2(b".", _MNT_DETACH), "umount the old root")
    os.chdir("/")


def read_only(scratch: Path, scratch_mb: int, own_proc: bool) -> None:
    """Make every file system read-only to this process and its children; `scratch` is empty, in memory.

    `/run` is emptied: the sockets there (an engine's, an agent's) answer to anyone who may open them, network
    or not.

    Raises:
        OSError: the kernel does not allow it.
    """
    _own_mounts()
    _set_read_only("/")
    _mount("tmpfs", str(scratch), "tmpfs", _TMPFS, f"size={scratch_mb}m,mode=0700")
    if Path("/run").is_dir() and not scratch.is_relative_to("/run"):
        _mount("tmpfs", "/run", "tmpfs", _TMPFS | _MS_NOEXEC, "size=1m,mode=0755")
    _hide_labels(Path("/"))
    if own_proc:
        _mount_proc(Path("/proc"))


def _mount_proc(place: Path) -> None:
    _mount("proc", str(place), "proc", _TMPFS | _MS_NOEXEC)
    for name in _KNOBS:
        if (knob := place / name).exists():
            _mount(str(knob), str(knob), None, _MS_BIND)
            _set_read_only(str(knob))


def _hide_labels(root: Path) -> None:
    for above in sys.path:
        for name in _HIDDEN:
            if above and (found := Path(above, name)).is_dir():
                _mount("tmpfs", str(root / found.relative_to("/")), "tmpfs", _TMPFS | _MS_RDONLY, "size=4k")


def _own_mounts() -> None:
    check(_libc.unshare(_CLONE_NEWNS), "unshare mounts")
    _mount("none", "/", None, _MS_REC | _MS_SLAVE)


def _show(path: Path, root: Path) -> None:
    """Have `path` in the new root as it is in the old one; a link stays a link."""
    place = root / path.relative_to("/")
    place.parent.mkdir(parents=True, exist_ok=True)
    if path.is_symlink() and not path.readlink().is_absolute():
        place.symlink_to(path.readlink())
        return
    if path.is_dir():
        place.mkdir(exist_ok=True)
    else:
        place.touch()
    _mount(str(path), str(place), None, _MS_BIND | _MS_REC)


def _mount(source: str, target: str, kind: str | None, flags: int, options: str = "") -> None:
    encoded = [s.encode() if s is not None else None for s in (source, target, kind)]
    check(_libc.mount(*encoded, ctypes.c_ulong(flags), options.encode() or None), f"mount {target}")


def _set_read_only(path: str) -> None:
    """`mount_setattr(2)` (Linux 5.12), the only way to do it for a whole tree at once."""
    attributes = (ctypes.c_uint64 * 4)(_ATTR_RDONLY, 0, 0, 0)
    result = _libc.syscall(
        ctypes.c_long(_SYS_MOUNT_SETATTR),
        ctypes.c_int(_AT_FDCWD),
        path.encode(),
        ctypes.c_uint(_AT_RECURSIVE),
        ctypes.byref(attributes),
        ctypes.c_size_t(ctypes.sizeof(attributes)),
    )
    check(int(result), f"mount_setattr {path}")
