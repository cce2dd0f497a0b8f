"""Which engine is meant, and what is said when it does not answer."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from cambrian.sandbox import InfrastructureError
from cambrian.sandbox.engine import DEFAULT_ADDRESS, connect, engine_errors, resolve
from cambrian.sandbox.errors import EngineOptionError


def context(home: Path, name: str, **endpoint: object) -> Path:
    """A context as the docker command writes it; the folder for its certificates."""
    folder = home / ".docker" / "contexts"
    key = hashlib.sha256(name.encode()).hexdigest()
    meta = folder / "meta" / key / "meta.json"
    meta.parent.mkdir(parents=True)
    meta.write_text(json.dumps({"Name": name, "Metadata": {}, "Endpoints": {"docker": endpoint}}))
    return folder / "tls" / key / "docker"


def certificates(folder: Path, *names: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).write_text("-----BEGIN CERTIFICATE-----\n")


def current(home: Path, name: str) -> None:
    (home / ".docker").mkdir(exist_ok=True)
    (home / ".docker" / "config.json").write_text(json.dumps({"currentContext": name, "auths": {}}))


@contextlib.contextmanager
def server(answer: bytes | None) -> Iterator[str]:
    """Answers each connection with `answer`, after the request; None never answers."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        kept: list[socket.socket] = []

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    kept.append(listening.accept()[0])
                    if answer is not None:
                        kept[-1].recv(65536)
                        kept[-1].sendall(answer)
                        kept[-1].close()

        threading.Thread(target=serve, daemon=True).start()
        yield f"tcp://127.0.0.1:{listening.getsockname()[1]}"
        for connection in kept:
            connection.close()


# which engine


def test_without_anything_it_is_the_local_socket(tmp_path: Path) -> None:
    assert resolve(None, {"HOME": str(tmp_path)}).address == DEFAULT_ADDRESS


def test_the_order_of_what_names_an_engine(tmp_path: Path) -> None:
    for name in ("one", "two", "three"):
        context(tmp_path, name, Host=f"unix:///run/{name}.sock")
    env = {"HOME": str(tmp_path)}
    current(tmp_path, "one")
    assert resolve(None, env).address == "unix:///run/one.sock"
    env["DOCKER_CONTEXT"] = "two"
    assert str(resolve(None, env)) == "unix:///run/two.sock (context 'two')"
    env["DOCKER_HOST"] = "tcp://10.0.0.1:2375"
    assert str(resolve(None, env)) == "tcp://10.0.0.1:2375 (DOCKER_HOST)"
    assert resolve("context:three", env).address == "unix:///run/three.sock"
    assert resolve("context:default", env).address == DEFAULT_ADDRESS
    assert resolve("ssh://me@there", env).address == "ssh://me@there"


def test_the_configuration_s_folder_can_be_elsewhere(tmp_path: Path) -> None:
    context(tmp_path, "far", Host="tcp://10.0.0.2:2375")
    env = {"HOME": "/nonexistent", "DOCKER_CONFIG": str(tmp_path / ".docker"), "DOCKER_CONTEXT": "far"}
    assert resolve(None, env).address == "tcp://10.0.0.2:2375"


def test_contexts_are_those_of_the_docker_command(tmp_path: Path) -> None:
    try:
        env = {**os.environ, "DOCKER_CONFIG": str(tmp_path)}
        env.pop("DOCKER_HOST", None)
        created = ["docker", "context", "create", "gpu", "--docker", "host=tcp://10.0.0.3:2376"]
        subprocess.run(created, env=env, check=True, capture_output=True, timeout=20)
        subprocess.run(
            ["docker", "context", "use", "gpu"], env=env, check=True, capture_output=True, timeout=20
        )
    except FileNotFoundError:
        pytest.skip("no docker command")
    assert resolve(None, env).address == "tcp://10.0.0.3:2376"


def test_certificates_of_the_environment(tmp_path: Path) -> None:
    certificates(tmp_path, "ca.pem", "cert.pem", "key.pem")
    env = {"DOCKER_HOST": "tcp://10.0.0.1:2376", "DOCKER_CERT_PATH": str(tmp_path), "DOCKER_TLS_VERIFY": "1"}
    tls = resolve(None, env).tls
    assert tls is not None
    assert (tls.verify, tls.ca_cert) == (True, str(tmp_path / "ca.pem"))
    assert tls.cert == (str(tmp_path / "cert.pem"), str(tmp_path / "key.pem"))
    assert resolve("unix:///run/x.sock", env).tls is None
    assert resolve(None, {**env, "DOCKER_CERT_PATH": "", "DOCKER_TLS_VERIFY": ""}).tls is None


def test_certificates_of_a_context(tmp_path: Path) -> None:
    folder = context(tmp_path, "safe", Host="tcp://10.0.0.1:2376", SkipTLSVerify=False)
    certificates(folder, "ca.pem", "cert.pem", "key.pem")
    tls = resolve("context:safe", {"HOME": str(tmp_path)}).tls
    assert tls is not None and tls.verify is True
    (folder / "key.pem").unlink()
    with pytest.raises(InfrastructureError, match="incomplete"):
        resolve("context:safe", {"HOME": str(tmp_path)})


# what is said


def test_an_unknown_context_lists_those_that_there_are(tmp_path: Path) -> None:
    context(tmp_path, "lab", Host="unix:///run/x.sock")
    with pytest.raises(InfrastructureError, match="no docker context 'labs'") as caught:
        resolve("context:labs", {"HOME": str(tmp_path)})
    assert "known: default, lab;" in caught.value.hint


def test_a_broken_configuration_is_named(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(InfrastructureError, match=r"config\.json cannot be read"):
        resolve(None, {"DOCKER_CONFIG": str(tmp_path)})


def test_a_nonsensical_address_is_refused() -> None:
    with pytest.raises(InfrastructureError, match="'nonsense://x' of DOCKER_HOST") as caught:
        resolve(None, {"DOCKER_HOST": "nonsense://x"})
    assert "unix:///path/to/socket" in caught.value.hint


def test_an_engine_that_does_not_run(tmp_path: Path) -> None:
    with pytest.raises(InfrastructureError, match=r"none\.sock failed to be reached: no such file") as caught:
        connect(f"unix://{tmp_path}/none.sock")
    assert "start the engine" in caught.value.hint
    with pytest.raises(InfrastructureError, match="connection refused"):
        connect("tcp://127.0.0.1:9")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody who may not")
def test_a_socket_that_is_not_ours_to_open(tmp_path: Path) -> None:
    path = tmp_path / "engine.sock"
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        path.chmod(0o600)
        for folder in (tmp_path, *tmp_path.parents[:2]):
            folder.chmod(0o755)
        code = (
            "import os, sys, cambrian.sandbox.engine as engine\n"
            "import urllib3.contrib, requests, docker, encodings.idna\n"
            "os.setuid(1000)\n"
            "try: engine.connect(sys.argv[1])\n"
            "except Exception as error: print(type(error).__name__, error, error.hint)\n"
        )
        found = subprocess.run(
            [sys.executable, "-P", "-c", code, f"unix://{path}"], capture_output=True, text=True, timeout=60
        )
    assert found.stdout.startswith("InfrastructureError"), found.stderr
    assert "permission denied" in found.stdout
    assert "group" in found.stdout


def test_an_engine_that_never_answers() -> None:
    with server(None) as address, pytest.raises(InfrastructureError, match="timed out") as caught:
        connect(address, 0.3)
    assert "hangs" in caught.value.hint


def test_something_else_that_answers() -> None:
    with (
        server(b"SSH-2.0-OpenSSH_9.2\r\n") as address,
        pytest.raises(InfrastructureError, match="the Docker engine at tcp://127"),
    ):
        connect(address, 2)


def test_ssh_names_what_to_install() -> None:
    try:
        import paramiko  # noqa: F401
    except ImportError:
        with pytest.raises(InfrastructureError, match="paramiko") as caught:
            connect("ssh://nobody@127.0.0.1:9")
        assert "docker[ssh]" in caught.value.hint
    else:
        with pytest.raises(InfrastructureError, match="failed to be reached"):
            connect("ssh://nobody@127.0.0.1:9", 5)


def test_errors_of_the_disk_are_not_blamed_on_the_engine() -> None:
    with pytest.raises(FileNotFoundError), engine_errors("do anything"):
        Path("/nonexistent/file").read_bytes()


@pytest.mark.docker
def test_an_unknown_runtime_is_the_user_s_to_mend() -> None:
    client = connect(timeout_s=60)
    try:
        images = client.images.list()
        if not images:
            pytest.skip("needs any image")
        with pytest.raises(EngineOptionError, match="runtime") as caught, engine_errors("start a container"):
            client.containers.create(images[0], ["/bin/true"], runtime="no-such-runtime").start()
        assert caught.value.exit_code == 2 and "docker info" in caught.value.hint
    finally:
        client.close()
