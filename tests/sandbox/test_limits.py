"""Every option of a job's container is seen to bite, by small commands run with exactly those options."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from cambrian.sandbox import InfrastructureError, JobLimits
from cambrian.sandbox import settings as rules
from cambrian.sandbox.engine import connect, engine_errors
from cambrian.sandbox.link import STDERR_BYTES, ContainerLink
from cambrian.sandbox.settings import (
    DATA,
    PYTHON,
    SCRATCH_MB,
    Hull,
    environment,
    not_enforced,
    settings,
    update,
)
from cambrian.sandbox.sweep import labels

pytestmark = [pytest.mark.docker, pytest.mark.slow, pytest.mark.timeout(300)]

RUN_ID = f"test-limits-{os.getpid()}"
LIMITS = JobLimits(wall_s=60, memory_mb=256, processes=20, file_mb=8)
HEAD = "import ctypes, errno, json, os, resource, signal, socket, subprocess, sys, time\n"


@dataclass(frozen=True)
class Ended:
    """What a container said, and how it ended."""

    out: str
    err: str
    code: int
    out_of_memory: bool


class Engine:
    """Runs commands as jobs are run."""

    def __init__(self, client: Any, hull: Hull) -> None:
        self.client, self.hull = client, hull

    @contextlib.contextmanager
    def container(self, code: str, limits: JobLimits = LIMITS, **changes: Any) -> Iterator[tuple[Any, Any]]:
        """A running container and the link to it; `changes` are of the hull, but for `cores`."""
        cores = changes.pop("cores", ())
        hull = replace(self.hull, **changes)
        command = [PYTHON, "-I", "-c", HEAD + code]
        with engine_errors("run a test"):
            made = self.client.containers.create(**settings(hull, limits, labels(RUN_ID), cores, command))
            try:
                link = ContainerLink(made)
                made.start()
                yield made, link
                link.close()
            finally:
                made.remove(force=True)

    def run(self, code: str, limits: JobLimits = LIMITS, **changes: Any) -> Ended:
        with self.container(code, limits, **changes) as (made, link):
            out = bytearray()
            while part := link.receive(1 << 16, 60):
                out += part
            made.wait(timeout=20)
            made.reload()
            state = made.attrs["State"]
            return Ended(out.decode(), link.said(), state["ExitCode"], state["OOMKilled"])

    def facts(self, code: str, limits: JobLimits = LIMITS, **changes: Any) -> Any:
        ended = self.run(code, limits, **changes)
        assert ended.code == 0, ended
        return json.loads(ended.out)


@pytest.fixture(scope="module")
def engine(image: str) -> Iterator[Engine]:
    client = connect(timeout_s=60)
    info = client.info()
    volume = client.volumes.create(labels=labels(RUN_ID))
    hull = Hull(image, volume.name, cpus=info["NCPU"], swappiness=info.get("CgroupVersion", "1") == "1")
    yield Engine(client, hull)
    volume.remove(force=True)
    assert client.containers.list(all=True, filters={"label": f"cambrian.run={RUN_ID}"}) == []
    client.close()


@pytest.fixture(scope="module")
def looked(engine: Engine) -> dict[str, Any]:
    """What one process finds that looks at and tries everything that does not end it."""
    code = Path(__file__).with_name("probe.py").read_text()
    with socket.create_server(("0.0.0.0", 0)) as listening:
        code = code.replace("PORT", str(listening.getsockname()[1]))
        found: dict[str, Any] = engine.facts(code, cores=(0,))
    return found


# what may be reached


def test_there_is_no_network(looked: dict[str, Any]) -> None:
    assert looked["interfaces"] == ["lo"]
    assert looked["routes"] == 0
    assert set(looked["connects"].values()) == {errno.ENETUNREACH}
    assert looked["loopback"] == errno.ECONNREFUSED  # our own loopback, where nobody listens


def test_only_scratch_can_be_written(looked: dict[str, Any]) -> None:
    assert looked["writable"] == ["/scratch"]
    assert looked["data"] == errno.EROFS
    assert looked["queue"] in (errno.EMFILE, errno.EACCES, errno.ENOENT)
    assert looked["shared_memory"] is False


def test_nothing_of_the_host_is_mounted_but_the_data(looked: dict[str, Any]) -> None:
    known = ("/proc", "/sys", "/dev", "/etc/hosts", "/etc/hostname", "/etc/resolv.conf", "/sbin/docker-init")
    others = [m for m in looked["mounts"] if not m.removeprefix("/usr").startswith(known)]
    assert sorted(others) == ["/", DATA, "/scratch"]


def test_nothing_of_the_host_s_environment_is_inside(looked: dict[str, Any]) -> None:
    ours = environment(LIMITS)
    found = {name: value for name, value in looked["environment"].items() if name in ours}
    assert found == ours
    # PATH and what describes the Python come from the image
    rest = set(looked["environment"]) - set(ours) - {"PATH", "HOSTNAME", "PWD", "LC_CTYPE"}
    assert {name for name in rest if not name.startswith(("PYTHON", "GPG_KEY"))} == set()
    assert looked["hostname"] == "sandbox"


# what may be done


def test_nobody_is_root_and_nobody_becomes_root(looked: dict[str, Any]) -> None:
    assert (looked["uids"], looked["gids"], looked["groups"]) == ([1000] * 3, [1000] * 3, [1000])
    assert set(looked["capabilities"].values()) == {0}
    assert looked["setuid"] == errno.EPERM
    assert looked["raw_socket"] == errno.EPERM
    assert looked["no_new_privileges"] == 1
    assert set(looked["set_uid_programs"].values()) <= {1000}  # where a base image has any


def test_the_engine_s_system_call_filter_holds(looked: dict[str, Any]) -> None:
    assert looked["seccomp"] == 2
    assert set(looked["system_calls"].values()) <= {errno.EPERM, errno.ENOSYS}


def test_the_kernel_s_settings_are_out_of_reach(looked: dict[str, Any]) -> None:
    assert set(looked["kernel"].values()) <= {errno.EROFS, errno.EACCES, errno.ENOENT}
    assert looked["oom_score_adj"] == rules.OOM_SCORE
    assert looked["oom_score_adj_lower"] == errno.EACCES


def test_programs_written_to_scratch_do_not_run(looked: dict[str, Any]) -> None:
    assert looked["execute"] == errno.EACCES


# how much may be used


def test_the_cores_are_those_that_were_given(looked: dict[str, Any]) -> None:
    assert looked["cores"] == [0]
    assert looked["other_cores"] == errno.EINVAL


def test_files_are_limited_in_size_and_number(looked: dict[str, Any]) -> None:
    assert (looked["big_file"], looked["file_size"]) == (errno.EFBIG, LIMITS.file_mb << 20)
    assert looked["open_files"] == [errno.EMFILE, 1024]
    assert looked["fill"] == errno.ENOSPC
    assert (SCRATCH_MB - 1) << 20 <= looked["filled"] <= SCRATCH_MB << 20
    assert looked["core_dump"] is False


def test_processes_are_limited(looked: dict[str, Any]) -> None:
    refused, started = looked["forks"]
    assert refused == errno.EAGAIN
    assert LIMITS.processes - 2 <= started <= LIMITS.processes + rules.OUR_PROCESSES


def test_swap_is_no_way_out(looked: dict[str, Any]) -> None:
    for path, value in looked["swap"].items():
        assert value == (0 if path.endswith(("swappiness", "swap.max")) else LIMITS.memory_mb << 20), path
    assert looked["swap"]


def test_memory_is_limited(engine: Engine) -> None:
    code = (
        "kept = []\n"
        "for mb in range(0, 1024, 8):\n"
        "    kept.append(b'x' * (8 << 20)); os.write(1, b'%d\\n' % (mb + 8))\n"
    )
    ended = engine.run(code)
    assert (ended.code, ended.out_of_memory) == (137, True)
    assert LIMITS.memory_mb / 2 < int(ended.out.split()[-1]) <= LIMITS.memory_mb


def test_scratch_counts_as_memory(engine: Engine) -> None:
    code = "for i in range(7): open(f'/scratch/{i}', 'wb').write(b'x' * (8 << 20))\nprint('full')"
    limits = LIMITS.model_copy(update={"memory_mb": 64})
    ended = engine.run(code, limits)
    assert ended.out_of_memory or "full" not in ended.out
    assert engine.run(code).out == "full\n"


def test_cpu_time_is_shared_out(engine: Engine) -> None:
    code = (
        "start = time.monotonic()\n"
        "child = os.fork()\n"
        "while time.monotonic() < start + 1: pass\n"
        "if child == 0: os._exit(0)\n"
        "os.wait()\n"
        "spent = time.process_time() + sum(os.times()[2:4])\n"
        "for path in ('cpu.stat', 'cpu/cpu.stat', 'cpu.max', 'cpu/cpu.cfs_quota_us'):\n"
        "    path = '/sys/fs/cgroup/' + path\n"
        "    if os.path.exists(path):\n"
        "        words = open(path).read().split()\n"
        "        if 'nr_throttled' in words: throttled = int(words[words.index('nr_throttled') + 1])\n"
        "        else: quota = int(words[0])\n"
        "print(json.dumps([spent, quota, throttled]))\n"
    )
    spent, quota, throttled = engine.facts(code)  # two processes, one processor's worth of time
    assert spent < 1.25
    assert quota == 100_000
    if engine.hull.cpus > 1 and spent > 0.95:  # or others left no more than that
        assert throttled > 0


def test_cpu_seconds_end_a_process_that_nobody_ends(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rules, "CPU_GRACE_S", 1)
    ended = engine.run("while True: pass", LIMITS.model_copy(update={"wall_s": 0.1}))
    assert ended.code == 137
    assert not ended.out_of_memory


def test_a_running_container_takes_on_other_limits(engine: Engine) -> None:
    code = (
        "sys.stdin.readline()\n"
        "kept = []\n"
        "for mb in range(0, 64, 8): kept.append(b'x' * (8 << 20))\n"
        "pids = 0\n"
        "try:\n"
        "    while True:\n"
        "        if os.fork() == 0: time.sleep(60); os._exit(0)\n"
        "        pids += 1\n"
        "except OSError: pass\n"
        "print(json.dumps([sorted(os.sched_getaffinity(0)), pids])); sys.stdout.flush()\n"
        "for mb in range(0, 512, 8): kept.append(b'x' * (8 << 20))\n"
    )
    other = LIMITS.model_copy(update={"memory_mb": 128, "processes": 6})
    last = engine.hull.cpus - 1
    with engine.container(code, cores=(0,)) as (made, link):
        api = engine.client.api
        url = f"{api.base_url}/v{api.api_version}/containers/{made.id}/update"
        assert api.post(url, json=update(engine.hull, other, (last,)), timeout=10).status_code == 200
        link.send(b"go\n")
        cores, forked = json.loads(link.receive(100, 20))
        assert cores == [last]
        assert 4 <= forked <= 6 + rules.OUR_PROCESSES
        assert link.receive(100, 20) == b""
        made.reload()
        assert made.attrs["State"]["OOMKilled"]


# streams


def test_streams_are_told_apart_and_standard_error_is_capped(engine: Engine) -> None:
    code = (
        "data = sys.stdin.buffer.read(3000000)\n"
        "sys.stderr.write('e' * 200000 + 'the end'); sys.stderr.flush()\n"
        "sys.stdout.buffer.write(data[::-1])\n"
    )
    sent = os.urandom(3_000_000)
    with engine.container(code) as (_, link):
        assert link.is_open()
        link.send(sent)
        got = bytearray()
        while part := link.receive(1 << 20, 20):
            got += part
        assert bytes(got) == sent[::-1]
        assert link.said().endswith("ethe end")
        assert len(link.said()) == STDERR_BYTES
        assert not link.is_open()


def test_a_silent_container_runs_into_the_timeout(engine: Engine) -> None:
    with engine.container("time.sleep(20)") as (_, link):
        start = time.monotonic()
        with pytest.raises(TimeoutError):
            link.receive(1, 0.2)
        assert 0.15 < time.monotonic() - start < 5


def test_nothing_that_is_printed_is_kept_by_the_engine(engine: Engine) -> None:
    with engine.container("print('x' * 100000)") as (made, link):
        while link.receive(1 << 16, 20):
            pass
        made.reload()
        assert made.attrs["HostConfig"]["LogConfig"]["Type"] == "none"
        assert not made.attrs["LogPath"]


def test_a_container_ends_with_the_host_s_end_of_its_input(engine: Engine) -> None:
    with engine.container("sys.stdin.read()") as (made, link):
        time.sleep(0.2)
        made.reload()
        assert made.status == "running"
        link.close()
        assert made.wait(timeout=10)["StatusCode"] == 0


# what an engine may lack


def test_an_unknown_runtime_is_named(engine: Engine) -> None:
    with pytest.raises(InfrastructureError, match="cambrian-no-such-runtime") as caught:
        engine.run("pass", runtime="cambrian-no-such-runtime")
    assert "sandbox.runtime" in caught.value.hint


def test_a_known_runtime_is_passed_through(engine: Engine) -> None:
    default = engine.client.info()["DefaultRuntime"]
    with engine.container("time.sleep(20)", runtime=default) as (made, _):
        made.reload()
        assert made.attrs["HostConfig"]["Runtime"] == default


def test_gpus_are_asked_for(engine: Engine) -> None:
    if "nvidia" in engine.client.info()["Runtimes"]:
        pytest.skip("this engine has GPUs")
    for gpus in (("all",), ("0", "1")):
        with pytest.raises(InfrastructureError, match="could not select device driver") as caught:
            engine.run("pass", gpus=gpus)
        assert "no GPU" in caught.value.hint
    found = settings(replace(engine.hull, gpus=("0", "GPU-1")), LIMITS, {})["device_requests"]
    assert [(request["Count"], request["DeviceIDs"]) for request in found] == [(0, ["0", "GPU-1"])]


def test_what_an_engine_cannot_do_is_said(engine: Engine) -> None:
    info = engine.client.info()
    assert not_enforced({**info, "SecurityOptions": ["name=seccomp,profile=default"]}) == ()
    poor = {
        **info,
        "MemoryLimit": False,
        "CPUSet": False,
        "SecurityOptions": ["name=seccomp,profile=unconfined"],
    }
    assert [phrase.split()[0] for phrase in not_enforced(poor)] == ["memory", "which", "system"]
