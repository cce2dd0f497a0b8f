"""How a job's container is confined: every option of the engine that we use, in one place.

The root is read-only, the only place to write is `/scratch`, a small tmpfs whose pages count as memory, and
nothing of the host is mounted: the task's data come in a volume, read-only. `tests/sandbox/test_limits.py`
sees each option bite.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from docker.types import DeviceRequest, LogConfig, Ulimit

from cambrian.sandbox.protocol import JobLimits

PYTHON = "/usr/local/lib/cambrian/venv/bin/python"
DATA, SCRATCH = "/data", "/scratch"
KEEPER = (PYTHON, "-s", "-P", "-m", "cambrian.sandbox.worker", DATA, SCRATCH)
USER = "1000:1000"
SCRATCH_MB = 64
OUR_PROCESSES = 3
"""Processes and threads of a container that are not the job's: the keeper, its reaper, one to spare."""
CPU_GRACE_S = 30
"""CPU seconds beyond the limit after which the kernel ends a process that nobody is left to end."""
OOM_SCORE = 500
"""When the machine runs out of memory the kernel ends a candidate before it ends anything else."""


@dataclass(frozen=True)
class Hull:
    """What all containers of one run have in common.

    Attributes:
        image: tag of the worker's image.
        data: name of the volume with the task's data.
        runtime: the engine's runtime, such as `runsc`; None is its default.
        gpus: ids of the engine's GPUs that jobs may use, or `all`; none where empty.
        cpus: processors of the engine's machine.
        swappiness: whether the engine can set the swappiness of a container (control groups of version 1).
    """

    image: str
    data: str
    runtime: str | None = None
    gpus: tuple[str, ...] = ()
    cpus: int = 1
    swappiness: bool = False


def settings(
    hull: Hull,
    limits: JobLimits,
    labels: dict[str, str],
    cores: Sequence[int] = (),
    command: Sequence[str] = KEEPER,
) -> dict[str, Any]:
    """Arguments of the SDK's `containers.create`.

    Args:
        hull: what all containers have in common.
        limits: what the container may use.
        labels: by which it is found again.
        cores: the processors it may run on; all when empty.
        command: what it runs, its standard streams attached.
    """
    size = limits.file_mb << 20
    seconds = cpu_seconds(limits)
    found = {
        "image": hull.image,
        "entrypoint": list(command),  # whatever the base image has is not run
        "command": [],
        "stdin_open": True,  # and closed when we are gone: then the keeper ends by itself
        "labels": labels,
        "hostname": "sandbox",
        "environment": environment(limits),
        "volumes": {hull.data: {"bind": DATA, "mode": "ro"}},
        "tmpfs": {SCRATCH: f"size={SCRATCH_MB}m,uid=1000,gid=1000,mode=0700,nosuid,nodev,noexec"},
        "working_dir": SCRATCH,
        "user": USER,
        "network_mode": "none",
        "read_only": True,
        "cap_drop": ["ALL"],
        # nothing about seccomp, so that the engine's own profile holds
        "security_opt": ["no-new-privileges:true"],
        "ulimits": [
            Ulimit(name="fsize", soft=size, hard=size),
            Ulimit(name="nofile", soft=1024, hard=1024),
            Ulimit(name="core", soft=0, hard=0),
            Ulimit(name="cpu", soft=seconds, hard=seconds),
            Ulimit(name="msgqueue", soft=0, hard=0),  # else queues of messages are a place to leave things
        ],
        "mem_limit": limits.memory_mb << 20,
        "memswap_limit": limits.memory_mb << 20,
        "nano_cpus": min(limits.threads, hull.cpus) * 10**9,
        "pids_limit": limits.processes + OUR_PROCESSES,
        "oom_score_adj": OOM_SCORE,
        "ipc_mode": "none",
        # The keeper is process 1 itself and reaps what is left over: an init process beside it would be one
        # that candidates can stop, trace and look into, as they cannot the keeper.
        "init": False,
        "healthcheck": {"test": ["NONE"]},
        "log_config": LogConfig(type="none", config={}),  # what a job prints comes over the link, capped
    }
    if cores:
        found["cpuset_cpus"] = _joined(cores)
    if hull.swappiness:
        found["mem_swappiness"] = 0
    if hull.runtime is not None:
        found["runtime"] = hull.runtime
    if hull.gpus:
        found["device_requests"] = [_gpus(hull.gpus)]
    return found


def update(hull: Hull, limits: JobLimits, cores: Sequence[int] = ()) -> dict[str, Any]:
    """What gives a running container the limits and cores of a job: the body of the engine's `update`."""
    body: dict[str, Any] = {
        "Memory": limits.memory_mb << 20,
        "MemorySwap": limits.memory_mb << 20,
        "NanoCpus": min(limits.threads, hull.cpus) * 10**9,
        "PidsLimit": limits.processes + OUR_PROCESSES,
    }
    return body | {"CpusetCpus": _joined(cores)} if cores else body


def fits(made: JobLimits, limits: JobLimits) -> bool:
    """Whether `update` can turn a container made for limits `made` into one for `limits`: ulimits stay.

    More CPU seconds than asked for do no harm: the host's clock ends the job long before.
    """
    return made.file_mb == limits.file_mb and cpu_seconds(made) >= cpu_seconds(limits)


def cpu_seconds(limits: JobLimits) -> int:
    """CPU seconds of any one process. The host's clock is earlier; this is for when the host is dead."""
    return math.ceil(limits.wall_s * limits.threads) + CPU_GRACE_S


def environment(limits: JobLimits) -> dict[str, str]:
    """The whole environment of a job: nothing of the host's."""
    return {
        "HOME": SCRATCH,
        "TMPDIR": SCRATCH,
        "LANG": "C.UTF-8",
        "PYTHONHASHSEED": "0",  # the order of sets is part of being reproducible
        "PYTHONDONTWRITEBYTECODE": "1",
        # the keeper must stay single-threaded, because it forks; the worker sets its own number
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
        "CUBLAS_WORKSPACE_CONFIG": ":4096:8",  # without it cuBLAS is not deterministic
    }


def not_enforced(info: dict[str, Any]) -> tuple[str, ...]:
    """What an engine cannot enforce, by its own account.

    Args:
        info: what the engine says of itself.
    """
    lacks = [
        phrase
        for key, phrase in (
            ("MemoryLimit", "memory"),
            ("SwapLimit", "swap"),
            ("PidsLimit", "number of processes"),
            ("CpuCfsQuota", "share of the CPU"),
            ("CPUSet", "which cores are used"),
        )
        if not info.get(key, True)
    ]
    profiles = [option for option in info.get("SecurityOptions") or () if "name=seccomp" in option]
    if not profiles or any("unconfined" in option for option in profiles):
        lacks.append("system calls (the engine has no seccomp profile)")
    return tuple(lacks)


def _gpus(gpus: Sequence[str]) -> DeviceRequest:
    if "all" in gpus:
        return DeviceRequest(count=-1, capabilities=[["gpu"]])
    return DeviceRequest(device_ids=list(gpus), capabilities=[["gpu"]])


def _joined(cores: Sequence[int]) -> str:
    return ",".join(str(core) for core in sorted(cores))
