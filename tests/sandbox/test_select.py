"""Which sandbox a run gets, and what is said of the engine."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from cambrian.sandbox import InfrastructureError
from cambrian.sandbox.process import ProcessSandbox
from cambrian.sandbox.select import engine_status, open_sandbox
from cambrian.search_spaces import UnknownNameError
from tests.contracts.sandbox import digits


@contextlib.contextmanager
def silent_server() -> Iterator[str]:
    """Accepts connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        kept: list[socket.socket] = []

        def accept() -> None:
            with contextlib.suppress(OSError):
                while True:
                    kept.append(server.accept()[0])

        threading.Thread(target=accept, daemon=True).start()
        yield f"tcp://127.0.0.1:{server.getsockname()[1]}"
        for connection in kept:
            connection.close()


def test_no_socket_is_no_engine(tmp_path: Path) -> None:
    os.environ["DOCKER_HOST"] = f"unix://{tmp_path}/none.sock"
    status = engine_status()
    assert (status.available, status.version) == (False, "")
    assert status.detail == "no engine answers: no such file or directory"


def test_a_refused_connection_is_no_engine() -> None:
    os.environ["DOCKER_HOST"] = "tcp://127.0.0.1:9"
    assert engine_status().detail == "no engine answers: connection refused"


def test_a_nonsensical_address_is_no_engine() -> None:
    os.environ["DOCKER_HOST"] = "nonsense://x"
    status = engine_status()
    assert not status.available
    assert "nonsense" in status.detail


def test_a_silent_engine_does_not_keep_us_waiting() -> None:
    with silent_server() as address:
        os.environ["DOCKER_HOST"] = address
        started = time.monotonic()
        status = engine_status()
        assert time.monotonic() - started < 4
    assert not status.available
    assert "timed out" in status.detail


@pytest.mark.docker
def test_a_real_engine_tells_its_version() -> None:
    status = engine_status(10)
    assert status.available
    assert status.version in status.detail


async def test_auto_makes_do_with_a_process_and_says_why(tmp_path: Path) -> None:
    os.environ["DOCKER_HOST"] = f"unix://{tmp_path}/none.sock"
    folder = tmp_path / "run"
    folder.mkdir()
    sandbox, note = await open_sandbox("auto", run_id="test-auto", folder=folder, splits=digits(), slots=1)
    try:
        assert isinstance(sandbox, ProcessSandbox)
        assert note is not None
        assert note.startswith("candidates run as processes")
        assert "no engine answers" in note
        assert "\n" not in note
    finally:
        await sandbox.close()


async def test_an_engine_asked_for_by_name_must_be_there(tmp_path: Path) -> None:
    os.environ["DOCKER_HOST"] = f"unix://{tmp_path}/none.sock"
    with pytest.raises(InfrastructureError, match="sandbox 'docker': no engine answers") as caught:
        await open_sandbox("docker", run_id="test", folder=tmp_path, splits=digits(), slots=1)
    assert "sandbox.kind: process" in caught.value.hint


async def test_an_unknown_kind_lists_near_names(tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match="proces") as caught:
        await open_sandbox("proces", run_id="test", folder=tmp_path, splits=digits(), slots=1)
    assert "process" in caught.value.hint


@pytest.mark.docker
async def test_a_base_image_that_was_asked_for_must_be_there(tmp_path: Path) -> None:
    lines: list[str] = []
    with pytest.raises(InfrastructureError, match="'cambrian-no-such-base:1'"):
        await open_sandbox(
            "auto",
            run_id="test-no-image",
            folder=tmp_path,
            splits=digits(),
            slots=1,
            base_image="cambrian-no-such-base:1",
            progress=lines.append,
        )
    assert lines == ["pulling the base image cambrian-no-such-base:1"]


async def test_a_base_image_means_containers(tmp_path: Path) -> None:
    os.environ["DOCKER_HOST"] = f"unix://{tmp_path}/none.sock"
    with pytest.raises(InfrastructureError, match="sandbox 'docker': no engine answers") as caught:
        await open_sandbox(
            "auto", run_id="test", folder=tmp_path, splits=digits(), slots=1, base_image="cambrian-base"
        )
    assert "process" not in caught.value.hint
