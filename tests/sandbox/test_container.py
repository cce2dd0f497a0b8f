"""The container sandbox against a real engine: the contract, containers that wait, sweeping, lost engines."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cambrian.sandbox import InfrastructureError, JobLimits, JobState, Outcome, Sandbox
from cambrian.sandbox.container import ContainerSandbox, _remembers
from cambrian.sandbox.identity import this_host
from cambrian.sandbox.image.build import LOCAL_BASE, default_base, ensure_image
from tests.contracts.sandbox import Make, SandboxContract, alive, digits, until

pytestmark = [pytest.mark.docker, pytest.mark.slow, pytest.mark.timeout(900)]


@contextlib.contextmanager
def engine(address: str | None = None) -> Iterator[Any]:
    import docker

    client = docker.DockerClient(address, timeout=60) if address else docker.from_env(timeout=60)
    try:
        yield client
    finally:
        client.close()


def leftovers(run_id: str, address: str | None = None) -> list[Any]:
    of_run = {"label": f"cambrian.run={run_id}"}
    with engine(address) as client:
        return [*client.containers.list(all=True, filters=of_run), *client.volumes.list(filters=of_run)]


def containers(run_id: str) -> list[Any]:
    with engine() as client:
        return client.containers.list(
            all=True, filters={"label": f"cambrian.run={run_id}"}, ignore_removed=True
        )


class Relay:
    """A TCP port that passes everything on to the engine's Unix socket, until it is cut: a remote engine."""

    def __init__(self, target: str) -> None:
        self._target = target
        self._open: list[socket.socket] = []

    @property
    def address(self) -> str:
        return f"tcp://127.0.0.1:{self._server.getsockname()[1]}"

    def __enter__(self) -> Relay:
        self._server = socket.create_server(("127.0.0.1", 0))
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.cut()

    def cut(self) -> None:
        with contextlib.suppress(OSError):
            self._server.shutdown(socket.SHUT_RDWR)  # or it would accept once more
        self._server.close()
        for connection in self._open:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client = self._server.accept()[0]
                engine = socket.socket(socket.AF_UNIX)
                engine.connect(self._target)
                self._open += [client, engine]
                for source, sink in ((client, engine), (engine, client)):
                    threading.Thread(target=self._pass_on, args=(source, sink), daemon=True).start()

    @staticmethod
    def _pass_on(source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while chunk := source.recv(65536):
                sink.sendall(chunk)
            sink.shutdown(socket.SHUT_WR)


class TestContainerSandbox(SandboxContract):
    start_s = 3.0

    @pytest.fixture(scope="class")
    def make(self, plugin: Path, image: str) -> Make:
        return lambda: ContainerSandbox(plugins=[plugin])

    @pytest.fixture(autouse=True)
    def _plugin(self, plugin: Path) -> None:
        self.plugin = plugin

    def host_command(self, *arguments: str) -> list[str]:
        return [sys.executable, "-P", "-m", "tests.sandbox.host", "docker", str(self.plugin), *arguments]

    def assert_nothing_left(self, run_id: str, folder: Path) -> None:
        super().assert_nothing_left(run_id, folder)
        assert leftovers(run_id) == []

    async def after_host_death(self, marker: str, run_id: str) -> None:
        """The keeper ends with the host; what it was in is removed when somebody opens a sandbox."""
        assert await until(lambda: not alive(marker), 10)
        assert leftovers(run_id) != []

    async def test_isolation_is_that_of_a_container(self, sandbox: Sandbox) -> None:
        assert sandbox.isolation.level == "docker"
        assert not any("network" in phrase for phrase in sandbox.isolation.not_enforced)

    async def test_each_job_s_container_is_removed(self, sandbox: ContainerSandbox, run_id: str) -> None:
        before = {container.id for container in containers(run_id)}
        assert (await sandbox.run(self.job("tidy", {"act": "raise"}))).state is JobState.ERROR

        def tidy() -> bool:
            # a container waits for each slot, and none of them has done a job
            return sandbox._pool.waiting() == 2 == len(containers(run_id))

        assert await until(tidy, 60)
        assert len(before & {container.id for container in containers(run_id)}) <= 1

    async def test_the_root_is_read_only_and_nobody_is_root(
        self, sandbox: Sandbox, listener: int, keeper: int
    ) -> None:
        paths = [Path("/usr/mine"), Path("/data/mine"), Path("/scratch/mine"), Path("/tmp/mine")]
        facts = await self.look(sandbox, paths, listener, keeper)
        assert facts["writes"] == ["/scratch/mine"]
        assert facts["uid"] == 1000

    async def test_other_runs_are_not_swept(self, make: Make, tmp_path: Path, run_id: str) -> None:
        with engine() as client:
            stranger = client.volumes.create(labels={"cambrian.run": f"{run_id}-other"})
            dead = client.volumes.create(labels={"cambrian.run": f"{run_id}-mine"})
            try:
                sandbox = make()
                await sandbox.open(f"{run_id}-mine", tmp_path, digits(), 1)
                names = {volume.name for volume in client.volumes.list()}
                await sandbox.close()
                assert stranger.name in names
                assert dead.name not in names
            finally:
                stranger.remove(force=True)

    async def test_what_dead_processes_of_other_runs_left_is_swept(
        self, make: Make, tmp_path: Path, run_id: str
    ) -> None:
        machine, name = this_host().split(":")[0], socket.gethostname()
        hosts = {
            "dead": f"{machine}:1:0",
            "elsewhere": f"not-{machine}:1:0",
            "of-equal-name": f"{name}/another-boot/1:1:0",
            "in-the-old-style": f"{name}:1:0",
            "alive": this_host(),
        }
        with engine() as client:
            volumes = {
                name: client.volumes.create(labels={"cambrian.run": f"{run_id}-other", "cambrian.host": host})
                for name, host in hosts.items()
            }
            try:
                sandbox = make()
                await sandbox.open(f"{run_id}-mine", tmp_path, digits(), 1)
                names = {volume.name for volume in client.volumes.list()}
                await sandbox.close()
                kept = {name for name, volume in volumes.items() if volume.name in names}
                assert kept == set(hosts) - {"dead"}
            finally:
                for name in set(hosts) - {"dead"}:
                    volumes[name].remove(force=True)

    # containers that wait

    async def test_a_job_takes_a_container_that_waits(self, sandbox: ContainerSandbox) -> None:
        assert (await sandbox.run(self.job("first", {"act": "plain"}))).state is JobState.TRAINED
        assert await until(lambda: sandbox._pool.waiting() == 2, 60)
        warm = await sandbox.run(self.job("warm", {"act": "plain"}))
        assert (warm.state, warm.start) == (JobState.TRAINED, "warm")
        assert warm.first_step_s is not None
        assert 0 < warm.first_step_s < warm.wall_s

    async def test_the_next_container_is_made_while_a_training_runs(self, sandbox: ContainerSandbox) -> None:
        await sandbox.run(self.job("earlier", {"act": "plain"}, latency=None))
        assert await until(lambda: sandbox._pool.waiting() == 2, 60)
        before = set(sandbox._pool._entries)
        job = self.job("long", {"act": "slow", "seconds": 0.2}, latency=None)  # some 5 s of training
        running = asyncio.ensure_future(sandbox.run(job))
        assert await until(lambda: bool(set(sandbox._pool._entries) - before), 20)
        assert not running.done()
        assert (await running).state is JobState.TRAINED

    async def test_other_limits_get_what_they_ask_for(self, sandbox: ContainerSandbox) -> None:
        await sandbox.run(self.job("earlier-too", {"act": "plain"}, latency=None))
        assert await until(lambda: sandbox._pool.waiting() == 2, 60)
        more = JobLimits(wall_s=60, memory_mb=1500, processes=40)
        assert (await sandbox.run(self.job("more", {"act": "plain"}, limits=more))).start == "warm"
        files = JobLimits(wall_s=60, file_mb=300)  # a limit that a running container cannot be given
        assert (await sandbox.run(self.job("files", {"act": "plain"}, limits=files))).start == "cold"

    async def test_containers_that_died_while_they_waited_are_replaced(
        self, sandbox: ContainerSandbox, run_id: str
    ) -> None:
        await sandbox.run(self.job("before", {"act": "plain"}))
        assert await until(lambda: sandbox._pool.waiting() == 2, 60)
        for container in containers(run_id):
            container.kill()
        assert (await sandbox.run(self.job("after", {"act": "plain"}))).state is JobState.TRAINED
        assert await until(lambda: sandbox._pool.waiting() == 2, 60)

    async def test_too_little_memory_for_torch_is_said(self, sandbox: ContainerSandbox) -> None:
        limits = JobLimits(wall_s=60, memory_mb=64, file_mb=32)
        outcome = await sandbox.run(self.job("tiny", {"act": "plain"}, limits=limits))
        assert outcome.state is JobState.OUT_OF_MEMORY
        assert "64 MiB" in outcome.reason

    async def test_a_job_in_a_container_that_somebody_killed(
        self, sandbox: ContainerSandbox, run_id: str
    ) -> None:
        running = await self.start_one(sandbox, "killed")
        (end,) = {one._end for one in sandbox._running}
        end.__self__.container.kill()  # type: ignore[union-attr]
        assert (await running).state is JobState.KILLED
        assert len(containers(run_id)) <= 3

    async def start_one(self, sandbox: ContainerSandbox, name: str) -> asyncio.Future[Outcome]:
        """A job that is under way for sure, and will be for a while."""
        marker = f"cambrian-{name}-{os.getpid()}"
        job = self.job(name, {"act": "hide", "marker": marker, "seconds": 60}, latency=None)
        running = asyncio.ensure_future(sandbox.run(job))
        assert await until(lambda: bool(alive(marker)), 60)
        return running

    async def test_an_end_that_the_engine_did_not_see_is_not_the_candidate_s(
        self, sandbox: ContainerSandbox, run_id: str
    ) -> None:
        """An engine that was started anew ended what ran, and does not remember that it did."""
        await sandbox.run(self.job("earlier-still", {"act": "plain"}, latency=None))
        assert await until(lambda: sandbox._pool.waiting() == 2, 60)
        taken = sandbox._pool.take(JobLimits(wall_s=60))
        assert taken is not None
        keep = taken[0].result()
        keep.kill()
        keep.container.wait(timeout=20)
        keep.container.reload()
        state = keep.container.attrs["State"]
        assert _remembers(sandbox._engine_client(), keep.container, state)
        before = {**state, "FinishedAt": "2026-01-01T00:00:00.123456789Z"}
        assert not _remembers(sandbox._engine_client(), keep.container, before)
        sandbox._pool.discard(keep)

    # engines elsewhere

    async def test_a_remote_engine_that_goes_away_in_mid_job_is_an_infrastructure_error(
        self, plugin: Path, tmp_path: Path, run_id: str
    ) -> None:
        address = os.environ.get("DOCKER_HOST", "unix:///var/run/docker.sock")
        if not address.startswith("unix://"):
            pytest.skip("the relay that is cut knows Unix sockets only")
        folder, run_id = tmp_path / "run", f"{run_id}-gone"
        folder.mkdir()
        with Relay(address.removeprefix("unix://")) as relay:
            sandbox = ContainerSandbox(plugins=[plugin], engine=relay.address)
            await sandbox.open(run_id, folder, digits(), 1)
            assert (await sandbox.run(self.job("far", {"act": "plain"}))).state is JobState.TRAINED
            running = await self.start_one(sandbox, "gone")
            relay.cut()
            with pytest.raises(InfrastructureError, match=r"engine failed to run job .*gone") as caught:
                await running
            assert "resume" in caught.value.hint
            assert not list(folder.glob("jobs/*gone/outcome.json"))
            await sandbox.close()
        assert leftovers(run_id) != []  # nobody could remove them
        sandbox = ContainerSandbox(plugins=[plugin])
        await sandbox.open(run_id, folder, digits(), 1)
        assert (await sandbox.run(self.job("gone", {"act": "plain"}))).state is JobState.TRAINED
        await sandbox.close()
        self.assert_nothing_left(run_id, folder)

    async def test_what_an_engine_cannot_do_is_told_when_the_sandbox_opens(
        self, plugin: Path, tmp_path: Path, run_id: str
    ) -> None:
        sandbox = ContainerSandbox(plugins=[plugin], runtime="cambrian-no-such-runtime")
        with pytest.raises(InfrastructureError, match="cambrian-no-such-runtime"):
            await sandbox.open(f"{run_id}-runtime", tmp_path, digits(), 1)
        assert leftovers(f"{run_id}-runtime") == []


def test_image_is_built_once_and_follows_the_sources(plugin: Path, tmp_path: Path) -> None:
    image = ensure_image(None, [plugin])
    lines: list[str] = []
    assert ensure_image(None, [plugin], lines.append) == image
    assert lines == []
    (tmp_path / "another.py").write_text("NAME = 'another'\n")
    other = ensure_image(None, [tmp_path])
    with engine() as client:
        try:
            assert other != image
            code = (
                "import another, cambrian.sandbox.worker.execute as e, torch; print(another.NAME, e.__file__)"
            )
            printed = client.containers.run(
                other,
                ["/usr/local/lib/cambrian/venv/bin/python", "-s", "-P", "-c", code],
                network_mode="none",
                remove=True,
            )
            assert printed.decode().startswith("another /usr/local/lib/cambrian/code/cambrian/")
        finally:
            client.images.remove(other)


def test_a_base_image_that_cannot_be_had_is_named() -> None:
    with pytest.raises(InfrastructureError, match=r"'cambrian-no-such-base:1'.*cannot be pulled") as caught:
        ensure_image("cambrian-no-such-base:1")
    assert "debian-base.sh" in caught.value.hint


def test_a_base_without_python_is_refused(tmp_path: Path) -> None:
    import io
    import tarfile

    from cambrian.sandbox.image import build

    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        tar.addfile(tarfile.TarInfo("empty"))
    with engine() as client:
        client.api.import_image_from_data(packed.getvalue(), repository="cambrian-test-empty", tag="1")
        try:
            with pytest.raises(InfrastructureError, match="no usable python3"):
                build._python_of(client, "cambrian-test-empty:1")
        finally:
            client.images.remove("cambrian-test-empty:1")


def test_names_of_bases_are_what_the_documentation_says() -> None:
    assert LOCAL_BASE == "cambrian-base:latest"
    assert default_base() == f"python:3.{sys.version_info.minor}-slim"
