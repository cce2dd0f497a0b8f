"""Acts that reach for what is not theirs: secrets, files, sockets, privileges, labels, other processes."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import importlib.util
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

from .resources import Act, raise_limits

SHOWN = 12


class Found(RuntimeError):
    """Carries to the host what a candidate found out."""


def found(**facts: Any) -> None:
    """End by telling `facts`; of long lists only the first are told."""
    told = {key: value[:SHOWN] if isinstance(value, list) else value for key, value in facts.items()}
    raise Found(json.dumps(told, sort_keys=True))


def processes() -> Iterator[int]:
    """Ids of all processes that can be seen."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            yield int(entry.name)


def others() -> list[int]:
    """All processes that can be seen but ourselves."""
    return [pid for pid in processes() if pid != os.getpid()]


def look_for(secret: str) -> list[str]:
    """Places where `secret` can be read: our environment, and that of every process there is."""
    places = ["own"] if any(secret in value for value in os.environ.values()) else []
    for pid in processes():
        for name in ("environ", "cmdline"):
            with contextlib.suppress(OSError):
                if secret.encode() in Path(f"/proc/{pid}/{name}").read_bytes():
                    places.append(f"{pid}/{name}")
    return places


def connects(address: str, port: int) -> bool:
    """Whether a TCP server can be reached."""
    try:
        socket.create_connection((address, port), timeout=2).close()
    except OSError:
        return False
    return True


def writes(path: str) -> bool:
    """Whether a file can be written."""
    try:
        Path(path).write_text("was here")
    except OSError:
        return False
    return True


def reads(path: str) -> bool:
    """Whether a file or folder can be read."""
    try:
        os.listdir(path) if Path(path).is_dir() else Path(path).read_bytes()  # noqa: PTH208
    except OSError:
        return False
    return True


def signals(pid: int) -> bool:
    """Whether process `pid` can be signalled."""
    try:
        os.kill(pid, 0)
    except OSError:
        return False
    return True


def look(genotype: dict[str, Any]) -> None:
    """What the contract asks of every sandbox at once."""
    found(
        secret=look_for(genotype["head"] + genotype["tail"]),
        connects=[a for a in genotype["addresses"] if connects(a, genotype["port"])],
        writes=[p for p in genotype["paths"] if writes(p)],
        signals=signals(genotype["pid"]),
        environment=sorted(os.environ),
        uid=os.getuid(),
    )


def read_secrets(genotype: dict[str, Any]) -> None:
    """Look for a key of the host in environments, files and the memory of other processes."""
    secret = genotype["head"] + genotype["tail"]
    places = look_for(secret)
    found(
        environments=places,
        names=[name for name in os.environ if re.search("KEY|TOKEN|SECRET|PASSWORD", name)],
        files=[path for path in genotype["files"] if reads(path)],
        memory=[pid for pid in others() if _opens(f"/proc/{pid}/mem", os.O_RDONLY)],
    )


def _opens(path: str, flags: int) -> bool:
    try:
        os.close(os.open(path, flags | os.O_NONBLOCK | os.O_NOCTTY))
    except OSError:
        return False
    return True


def gateways() -> list[str]:
    """Addresses that the routing table knows, and those that engines commonly give their bridge."""
    known = {"172.17.0.1", "172.18.0.1", "192.168.65.2", "10.0.2.2", "169.254.169.254"}
    with contextlib.suppress(OSError):
        for line in Path("/proc/net/route").read_text().splitlines()[1:]:
            raw = int(line.split()[2], 16)
            known.add(socket.inet_ntoa(raw.to_bytes(4, "little")))
    return sorted(known - {"0.0.0.0"})


def use_network(genotype: dict[str, Any]) -> None:
    """Reach a server of the host, the internet, and sockets of the file system and without a name."""
    port = genotype["port"]
    mine = [*genotype["addresses"], *gateways(), "127.0.0.1", "::1"]
    unix = [*genotype["sockets"], "/var/run/docker.sock", "/run/containerd/containerd.sock"]
    found(
        tcp=sorted({a for a in mine if _tries(socket.AF_INET6 if ":" in a else socket.AF_INET, (a, port))}),
        internet=[a for a in ("1.1.1.1", "9.9.9.9") if _tries(socket.AF_INET, (a, 53))],
        datagrams=_sends_datagram(),
        unix=[path for path in unix if _tries(socket.AF_UNIX, path)],
        abstract=[name for name in genotype["abstract"] if _tries(socket.AF_UNIX, "\0" + name)],
        raw=[name for name in ("AF_PACKET", "AF_INET") if _raw(name)],
    )


def _tries(family: int, address: Any) -> bool:
    with contextlib.suppress(OSError), socket.socket(family) as one:
        one.settimeout(1)
        one.connect(address)
        return True
    return False


def _sends_datagram() -> bool:
    with contextlib.suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
        one.sendto(b"x", ("1.1.1.1", 53))
        return True
    return False


def _raw(name: str) -> bool:
    with contextlib.suppress(OSError), socket.socket(getattr(socket, name), socket.SOCK_RAW, 1):
        return True
    return False


KNOBS = (
    "/proc/sys/kernel/core_pattern", "/proc/sys/kernel/hostname", "/proc/sys/vm/overcommit_memory",
    "/proc/sys/kernel/modprobe", "/proc/sysrq-trigger", "/proc/acpi/wakeup",
    "/sys/kernel/mm/transparent_hugepage/enabled", "/sys/power/state", "/sys/kernel/uevent_helper",
    "/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/pids/pids.max",
    "/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/pids.max", "/sys/fs/cgroup/cgroup.procs",
)  # fmt: skip


def turn_knobs(genotype: dict[str, Any]) -> None:
    """Open for writing what steers the kernel; nothing is written."""
    found(opened=[path for path in KNOBS if _opens(path, os.O_WRONLY)])


MS_BIND = 4096
PTRACE_ATTACH = 16


def take_privileges(genotype: dict[str, Any]) -> None:
    """Do what only root may: device files, mounts, other users, set-user-id programs."""
    libc = ctypes.CDLL(None, use_errno=True)
    here = Path.cwd()
    (here / "point").mkdir()
    taken = []
    with contextlib.suppress(OSError):
        os.mknod(here / "disk", 0o60600, os.makedev(8, 0))
        taken.append("mknod")
    calls: dict[str, Callable[[], int]] = {
        "mount": lambda: libc.mount(b"tmpfs", str(here / "point").encode(), b"tmpfs", 0, None),
        "bind": lambda: libc.mount(b"/", str(here / "point").encode(), None, MS_BIND, None),
        "remount": lambda: libc.mount(None, b"/", None, 32 | MS_BIND, None),
        "hostname": lambda: libc.sethostname(*_hostname()),
        "chroot": lambda: libc.chroot(str(here).encode()),
        "user": lambda: libc.setresuid(12345, 12345, 12345),
    }
    for name, call in calls.items():
        if call() == 0:
            taken.append(name)
    found(taken=taken, capabilities=_capabilities(), set_user_id=_set_user_id(), raised=raise_limits())


def _hostname() -> tuple[bytes, int]:
    """The name that this machine has already, so that nothing changes where it may be set."""
    name = socket.gethostname().encode()
    return name, len(name)


def _capabilities() -> str:
    """The capabilities that we have, or could come to have, as the kernel writes them."""
    status = Path("/proc/self/status").read_text()
    values = [int(value, 16) for value in re.findall(r"^Cap(?:Prm|Eff|Inh|Amb):\s*(\w+)", status, re.M)]
    return hex(max(values))


def _set_user_id() -> list[str]:
    """Set-user-id programs that would give us more than we have."""
    if re.search(r"^NoNewPrivs:\s*1", Path("/proc/self/status").read_text(), re.M):
        return []
    places = [Path("/bin"), Path("/usr/bin"), Path("/usr/sbin")]
    known = [path for place in places if place.is_dir() for path in place.iterdir()]
    return [str(path) for path in known if path.is_file() and path.stat().st_mode & 0o4000]


def make_namespaces(genotype: dict[str, Any]) -> None:
    """Become root of namespaces of our own, from where much of the kernel can be reached."""
    code = (
        "import ctypes, sys; libc = ctypes.CDLL(None, use_errno=True); "
        "sys.exit(0 if libc.unshare(int(sys.argv[1])) == 0 else 1)"
    )
    kinds = {"user": 0x10000000, "mount": 0x20000, "network": 0x40000000, "pid": 0x20000000}
    found(
        made=[
            name
            for name, flag in kinds.items()
            if subprocess.run([sys.executable, "-S", "-c", code, str(flag)], check=False).returncode == 0
        ]
    )


def trace(genotype: dict[str, Any]) -> None:
    """Get hold of the processes above and beside us: trace them, read their memory, take their files."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
    held: dict[str, list[int]] = {"traced": [], "memory": [], "files": []}
    for pid in others():
        if libc.ptrace(PTRACE_ATTACH, pid, None, None) == 0:
            os.waitpid(pid, 0x40000000)
            libc.ptrace(17, pid, None, None)
            held["traced"].append(pid)
        if _opens(f"/proc/{pid}/mem", os.O_RDWR):
            held["memory"].append(pid)
        with contextlib.suppress(OSError):  # root may list what it may not follow
            if [Path(f"/proc/{pid}/fd/{name}").readlink() for name in os.listdir(f"/proc/{pid}/fd")]:  # noqa: PTH208
                held["files"].append(pid)
        with contextlib.suppress(OSError):
            handle = os.pidfd_open(pid)
            if libc.syscall(438, handle, 0, 0) >= 0:  # pidfd_getfd
                held["files"].append(pid)
            os.close(handle)
    found(**held)


def edit_worker(genotype: dict[str, Any]) -> None:
    """Write to the files of the worker and of its packages."""
    import safetensors
    import torch

    import cambrian.sandbox.protocol as protocol

    ours = [str(module.__file__) for name, module in list(sys.modules.items()) if _is_worker(name, module)]
    others = [str(torch.__file__), str(safetensors.__file__), str(os.__file__), sys.executable]
    paths = [*ours, str(protocol.__file__), *others]
    beside = [str(Path(path).parent / "cambrian-intruder.py") for path in paths]
    caches = [str(Path(path).parent / "__pycache__" / "cambrian-intruder.pyc") for path in ours]
    made = [path for path in sorted({*beside, *caches}) if writes(path)]
    for path in made:
        Path(path).unlink()
    found(opened=[path for path in paths if _opens(path, os.O_WRONLY | os.O_APPEND)], made=made)


def _is_worker(name: str, module: Any) -> bool:
    return name.startswith("cambrian.sandbox.worker") and bool(getattr(module, "__file__", None))


def peek(genotype: dict[str, Any]) -> None:
    """Look for held-out inputs and labels in files and in our own memory, by their lengths and names."""
    import numpy as np
    import torch

    lengths = set(genotype["lengths"])
    names = re.compile(r"^(x|y)_(val|test)\b")
    files = []
    for top in (
        "/data",
        "/job",
        "/scratch",
        "/tmp",
        "/dev/shm",
        str(Path.cwd()),
        str(Path.cwd().parent.parent / "data"),
    ):
        for place, _, found_here in os.walk(top):
            files += [f"{place}/{name}" for name in found_here if names.match(name)]
    for name in _folders_on_the_stack():
        with contextlib.suppress(OSError):
            files += [str(path) for path in Path(name).iterdir() if names.match(path.name)]
    arrays = set()
    for thing in gc.get_objects():
        with contextlib.suppress(Exception):
            inner = list(vars(thing).values()) if hasattr(thing, "__dict__") else []
            inner += list(thing.values()) if isinstance(thing, dict) else []
            inner += list(thing) if isinstance(thing, list | tuple) else []
            for one in (thing, *inner):
                if not isinstance(one, np.ndarray | torch.Tensor) or not one.ndim or len(one) not in lengths:
                    continue
                if not genotype["labels_only"] or (one.ndim == 1 and "int" in str(one.dtype)):
                    arrays.add(f"{type(one).__name__}{tuple(one.shape)}")
    found(files=sorted(set(files)), arrays=sorted(arrays), datasets=_data_sets())


def _data_sets() -> list[str]:
    """Packages that bring the task's data with them, labels and all."""
    known = {"sklearn": "datasets/data"}
    found = []
    for name, folder in known.items():
        spec = importlib.util.find_spec(name)
        if spec is not None and spec.origin and any((Path(spec.origin).parent / folder).glob("*")):
            found.append(name)
    return found


def _folders_on_the_stack() -> list[str]:
    """Paths that the functions that called us know."""
    known, frame = [], sys._getframe()
    while frame.f_back is not None:
        frame = frame.f_back
        known += [str(value) for value in frame.f_locals.values() if isinstance(value, Path)]
    return known


PLACES = ("/tmp", "/var/tmp", "/dev/shm", "/dev/mqueue", "/run", "/data", "/job", "/scratch", "/usr/local")


def leave_note(genotype: dict[str, Any]) -> None:
    """Leave a prepared answer wherever one can, for a later job to find."""
    for place in (*PLACES, str(Path.cwd()), str(Path.cwd().parent), str(Path.home())):
        writes(f"{place}/{genotype['note']}")
    with contextlib.suppress(Exception):
        from multiprocessing import shared_memory

        shared_memory.SharedMemory(genotype["note"], create=True, size=64)
    libc = ctypes.CDLL(None)
    libc.shmget(int(genotype["key"]), 4096, 0o1666)


def find_note(genotype: dict[str, Any]) -> None:
    """Look for what an earlier job left."""
    places = (*PLACES, str(Path.cwd()), str(Path.cwd().parent), str(Path.home()))
    notes = {f"{place}/{genotype['note']}" for place in places}
    segment = ctypes.CDLL(None).shmget(int(genotype["key"]), 4096, 0o666)
    found(notes=sorted(path for path in notes if Path(path).exists()), segment=segment >= 0)


def data(genotype: dict[str, Any]) -> None:
    """List the folder that the worker takes its data from, which it names on the stack."""
    frame: FrameType | None = sys._getframe()
    while frame is not None and "data_folder" not in frame.f_locals:
        frame = frame.f_back
    assert frame is not None
    folder = Path(frame.f_locals["data_folder"])
    found(files=sorted(str(path.relative_to(folder)) for path in folder.rglob("*")))


def stop_keeper(genotype: dict[str, Any]) -> None:
    """Send process 1 what would end any other, leave orphans to it, and count what it did not reap."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGSTOP, signal.SIGKILL):
        with contextlib.suppress(OSError):
            os.kill(1, number)
    for _ in range(5):
        if os.fork() == 0:
            if os.fork() == 0:
                os._exit(0)
            os._exit(0)
    for _ in range(5):
        os.wait()
    time.sleep(0.5)
    states = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                states.append((entry / "stat").read_text().rpartition(")")[2].split()[0])
    found(zombies=states.count("Z"), stopped=states.count("T"))


REACH: dict[str, Act] = {
    "stop-keeper": stop_keeper,
    "data": data,
    "look": look,
    "read-secrets": read_secrets,
    "use-network": use_network,
    "turn-knobs": turn_knobs,
    "take-privileges": take_privileges,
    "make-namespaces": make_namespaces,
    "trace": trace,
    "edit-worker": edit_worker,
    "peek": peek,
    "leave-note": leave_note,
    "find-note": find_note,
}
