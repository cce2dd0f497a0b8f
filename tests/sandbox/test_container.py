"""The container sandbox against a real engine: the contract, sweeping, an engine that goes away."""

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

from cambrian.sandbox import InfrastructureError, JobState, Sandbox
from cambrian.sandbox.container import ContainerSandbox, _this_host
from cambrian.sandbox.image.build import LOCAL_BASE, default_base, ensure_image
from tests.contracts.sandbox import Make, SandboxContract, digits, until

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


class Relay:
    """A Unix socket that passes everything on to another one, until it is cut."""

    def __init__(self, path: Path, target: str) -> None:
        self.path, self._target = path, target
        self._open: list[socket.socket] = []

    def __enter__(self) -> Relay:
        self._server = socket.socket(socket.AF_UNIX)
        self._server.bind(str(self.path))
        self._server.listen()
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.cut()

    def cut(self) -> None:
        self.path.unlink(missing_ok=True)
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


@pytest.fixture(scope="module")
def image(plugin: Path) -> str:
    """The worker's image with the plugin in it; built here when it is missing."""
    try:
        return ensure_image(None, [plugin])
    except InfrastructureError as error:
        if os.environ.get("CAMBRIAN_REQUIRE_DOCKER") == "1":
            raise
        pytest.skip(str(error))


class TestContainerSandbox(SandboxContract):
    start_s = 12.0

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
        assert leftovers(run_id) != []  # only `open` can know that nobody will come back for them

    async def test_isolation_is_that_of_a_container(self, sandbox: Sandbox) -> None:
        assert sandbox.isolation.level == "docker"
        assert not any("network" in phrase for phrase in sandbox.isolation.not_enforced)

    async def test_each_job_leaves_no_container_and_no_volume(self, sandbox: Sandbox, run_id: str) -> None:
        assert (await sandbox.run(self.job("tidy", {"act": "raise"}))).state is JobState.ERROR
        (data,) = leftovers(run_id)
        assert data.name == sandbox._data  # type: ignore[attr-defined]

    async def test_the_root_is_read_only_and_nobody_is_root(
        self, sandbox: Sandbox, listener: int, keeper: int
    ) -> None:
        paths = [Path("/usr/mine"), Path("/data/mine"), Path("/scratch/mine"), Path("/job/mine")]
        facts = await self.look(sandbox, paths, listener, keeper)
        assert facts["writes"] == ["/scratch/mine", "/job/mine"]
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
        machine = socket.gethostname()
        hosts = {"dead": f"{machine}:1:0", "elsewhere": f"not-{machine}:1:0", "alive": _this_host()}
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
                assert {name for name, volume in volumes.items() if volume.name in names} == {
                    "elsewhere",
                    "alive",
                }
            finally:
                for name in ("elsewhere", "alive"):
                    volumes[name].remove(force=True)

    async def test_an_engine_that_goes_away_in_mid_run_is_an_infrastructure_error(
        self, make: Make, tmp_path: Path, run_id: str
    ) -> None:
        address = os.environ.get("DOCKER_HOST", "unix:///var/run/docker.sock")
        if not address.startswith("unix://"):
            pytest.skip("the relay that is cut knows Unix sockets only")
        folder, run_id = tmp_path / "run", f"{run_id}-gone"
        folder.mkdir()
        job = self.job("gone", {"act": "slow", "seconds": 60})
        with Relay(tmp_path / "relay.sock", address.removeprefix("unix://")) as relay:
            os.environ["DOCKER_HOST"] = f"unix://{relay.path}"
            sandbox = make()
            await sandbox.open(run_id, folder, digits(), 1)
            running = asyncio.ensure_future(sandbox.run(job))
            assert await until(lambda: len(leftovers(run_id, address)) == 3, 20)
            await asyncio.sleep(1)
            relay.cut()
            with pytest.raises(InfrastructureError, match=r"engine failed to run job .*gone") as caught:
                await running
            assert "resume" in caught.value.hint
            assert not (folder / "jobs" / job.id / "outcome.json").exists()
            await sandbox.close()
        os.environ["DOCKER_HOST"] = address
        assert len(leftovers(run_id)) == 3  # the job's container and volume, the data
        await sandbox.open(run_id, folder, digits(), 1)
        assert (await sandbox.run(self.job("gone", {"act": "plain"}))).state is JobState.TRAINED
        await sandbox.close()
        self.assert_nothing_left(run_id, folder)


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
