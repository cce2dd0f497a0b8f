"""Looks at, and tries, what a job may not; runs inside a container, as `python -c`, for `test_limits`."""
# Fewer modules inside, fewer places that it reads before it looks: no pathlib here.
# ruff: noqa: PTH101, PTH108, PTH110, PTH116, PTH118, PTH123, PTH202, PTH208

import contextlib
import ctypes
import errno
import json
import os
import resource
import signal
import socket
import stat
import subprocess
import sys
import time

libc = ctypes.CDLL(None, use_errno=True)
found = {}


def error_of(call):
    """The number of the error that `call` raises; 0 for none."""
    try:
        call()
    except OSError as error:
        return error.errno
    return 0


def system_call(number, *arguments):
    ctypes.set_errno(0)
    return ctypes.get_errno() if libc.syscall(number, *arguments) == -1 else 0


def write(path):
    with open(path, "w") as file:
        file.write("mine")


def status():
    with open("/proc/self/status") as file:
        return dict(line.rstrip("\n").split(":\t", 1) for line in file if ":\t" in line)


# network
found["interfaces"] = sorted(os.listdir("/sys/class/net"))
with open("/proc/net/route") as file:
    found["routes"] = len(file.read().splitlines()[1:])
hosts = ["172.17.0.1", "169.254.169.254", "192.0.2.1"]
found["connects"] = {h: error_of(lambda h=h: socket.create_connection((h, PORT), 1)) for h in hosts}  # noqa: F821
found["loopback"] = error_of(lambda: socket.create_connection(("127.0.0.1", PORT), 1))  # noqa: F821

# places to write
found["writable"] = []
for folder, names, _ in os.walk("/", onerror=None):
    if folder in ("/proc", "/sys", "/usr/local/lib/cambrian"):
        names.clear()
    probe = os.path.join(folder, "mine")
    if error_of(lambda probe=probe: write(probe)) == 0:
        found["writable"].append(folder)
        os.unlink(probe)
for probe in ("/usr/local/lib/cambrian/code/mine", "/usr/local/lib/cambrian/venv/mine"):
    if error_of(lambda probe=probe: write(probe)) == 0:
        found["writable"].append(probe)
found["data"] = error_of(lambda: write("/data/mine"))
found["queue"] = error_of(lambda: write("/dev/mqueue/mine"))
found["shared_memory"] = os.path.exists("/dev/shm")
with open("/proc/self/mountinfo") as file:
    found["mounts"] = [line.split()[4] for line in file]
found["environment"] = dict(os.environ)
found["hostname"] = socket.gethostname()

# rights
found["uids"], found["gids"], found["groups"] = list(os.getresuid()), list(os.getresgid()), os.getgroups()
found["capabilities"] = {name: int(value, 16) for name, value in status().items() if name.startswith("Cap")}
found["no_new_privileges"] = int(status()["NoNewPrivs"])
found["seccomp"] = int(status()["Seccomp"])
found["setuid"] = error_of(lambda: os.setuid(0))
found["raw_socket"] = error_of(lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, 1))
found["set_uid_programs"] = {}
for name in ("su", "mount", "passwd", "newgrp"):
    path = f"/usr/bin/{name}"
    if os.path.exists(path) and os.stat(path).st_mode & stat.S_ISUID:
        # stopped at its first instruction, so that it can be looked at
        with contextlib.suppress(OSError):
            child = os.fork()
            if child == 0:
                libc.ptrace(0, 0, 0, 0)
                os.execv(path, [path])
            os.waitpid(child, 0)
            with open(f"/proc/{child}/status") as file:
                line = next(line for line in file if line.startswith("Uid:"))
            found["set_uid_programs"][name] = int(line.split()[2])
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
NEW_USER = 0x10000000
calls = {
    "unshare": (272, NEW_USER),
    "keyctl": (250, 0, 0, 0),
    "bpf": (321, 0, 0, 0),
    "mount": (165, 0, 0, 0, 0, 0),
}
calls |= {"userfaultfd": (323, 0), "perf_event_open": (298, 0, 0, 0, 0, 0), "init_module": (175, 0, 0, 0)}
if os.uname().machine == "x86_64":
    found["system_calls"] = {name: system_call(*call) for name, call in calls.items()}
else:
    found["system_calls"] = (
        {"unshare": error_of(lambda: os.unshare(NEW_USER))} if hasattr(os, "unshare") else {}
    )
paths = (
    "/proc/sys/kernel/hostname",
    "/proc/sysrq-trigger",
    "/sys/kernel/mm/ksm/run",
    "/proc/sys/vm/overcommit_memory",
)
found["kernel"] = {path: error_of(lambda path=path: write(path)) for path in paths}
with open("/proc/self/oom_score_adj") as file:
    found["oom_score_adj"] = int(file.read())


def lower():
    with open("/proc/self/oom_score_adj", "w") as file:
        file.write("-1")


found["oom_score_adj_lower"] = error_of(lower)

# cores
found["cores"] = sorted(os.sched_getaffinity(0))
found["other_cores"] = error_of(lambda: os.sched_setaffinity(0, {1}))

# files
with open("/bin/true", "rb") as source, open("/scratch/program", "wb") as copy:
    copy.write(source.read())
os.chmod("/scratch/program", 0o755)
found["execute"] = error_of(lambda: subprocess.run(["/scratch/program"]))
os.unlink("/scratch/program")


def big():
    with open("/scratch/big", "wb", buffering=0) as file:
        while True:
            file.write(b"x" * (1 << 20))


found["big_file"] = error_of(big)
found["file_size"] = os.path.getsize("/scratch/big")
os.unlink("/scratch/big")
opened = []
try:
    while True:
        opened.append(os.open("/dev/null", os.O_RDONLY))
except OSError as error:
    found["open_files"] = [error.errno, opened[-1] + 1]
for fd in opened:
    os.close(fd)
filled = 0
try:
    for number in range(1000):
        with open(f"/scratch/{number}", "wb", buffering=0) as file:
            for _ in range(7):
                filled += file.write(b"x" * (1 << 20))
except OSError as error:
    found["fill"], found["filled"] = error.errno, filled
for name in os.listdir("/scratch"):
    os.unlink(f"/scratch/{name}")
resource.setrlimit(resource.RLIMIT_CORE, (resource.getrlimit(resource.RLIMIT_CORE)[1],) * 2)
if (child := os.fork()) == 0:
    os.abort()
found["core_dump"] = os.WCOREDUMP(os.waitpid(child, 0)[1]) or bool(os.listdir("/scratch"))

# processes
if (child := os.fork()) == 0:
    if os.fork() == 0:
        time.sleep(0.05)
    os._exit(0)
os.waitpid(child, 0)
time.sleep(0.2)
found["zombies"] = 0
for name in os.listdir("/proc"):
    if name.isdigit():
        with contextlib.suppress(OSError), open(f"/proc/{name}/stat") as file:
            found["zombies"] += file.read().rpartition(")")[2].split()[0] == "Z"
with open("/proc/1/comm") as file:
    found["init"] = file.read().strip()
children = []
try:
    while len(children) < 1000:
        child = os.fork()
        if child == 0:
            time.sleep(60)
            os._exit(0)
        children.append(child)
    found["forks"] = [0, len(children)]
except OSError as error:
    found["forks"] = [error.errno, len(children)]
for child in children:
    os.kill(child, signal.SIGKILL)

# swap, by the account of the control groups
found["swap"] = {}
for path in ("memory/memory.swappiness", "memory/memory.memsw.limit_in_bytes", "memory.swap.max"):
    with contextlib.suppress(OSError), open(f"/sys/fs/cgroup/{path}") as file:
        found["swap"][path] = int(file.read())
assert errno.EPERM == 1
sys.stdout.write(json.dumps(found))
sys.stdout.flush()
