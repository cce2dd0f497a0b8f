from __future__ import annotations

import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from cambrian.agents.errors import InfrastructureError, UserError
from cambrian.agents.population.store import PopulationStore
from cambrian.agents.recorder.mlflow_recorder import MLflowRecorder
from cambrian.agents.recorder.server import HOST, TrackingServer
from cambrian.search_spaces import Space, Task
from tests.agents.recorder.making import enter, made


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def test_a_taken_port_is_the_users_error(tmp_path: Path) -> None:
    with socket.create_server((HOST, 0)) as taken:
        port = taken.getsockname()[1]
        server = TrackingServer(f"sqlite:///{tmp_path}/mlflow.db", port, tmp_path / "artifacts")
        with pytest.raises(UserError, match=f"port {port} cannot be used") as caught:
            server.start()
    assert f"--port {port + 1}" in caught.value.hint


@pytest.mark.parametrize("port", [-1, 70_000])
def test_a_port_that_is_none_is_the_users_error(tmp_path: Path, port: int) -> None:
    with pytest.raises(UserError, match=f"port {port} cannot be used"):
        TrackingServer("sqlite:///x.db", port, tmp_path).start()


def test_a_server_is_not_served(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is a server already"):
        TrackingServer("http://127.0.0.1:5000", 5001, tmp_path)


@pytest.mark.slow
def test_a_server_that_cannot_start_says_why(tmp_path: Path) -> None:
    (tmp_path / "mlflow.db").write_text("this is no database, however long one looks at it")
    server = TrackingServer(f"sqlite:///{tmp_path}/mlflow.db", free_port(), tmp_path / "artifacts")
    with pytest.raises(InfrastructureError, match=r"did not start: .*not a database"):
        server.start()


@pytest.mark.slow
def test_nothing_is_lost_while_the_server_is_away(
    store: PopulationStore, space: Space, task: Task, database: Path, tmp_path: Path
) -> None:
    """Down at first, then up, then away; recorded over HTTP, artifacts included."""
    server = TrackingServer(f"sqlite:///{database}", free_port(), tmp_path / "artifacts")
    recorder = MLflowRecorder(store, space, task, server.url)
    recorder.start()
    enter(store, made(space, 0))
    assert not recorder.flush(3)
    assert recorder.status.pending == 1 and recorder.status.error
    with server:
        enter(store, made(space, 1))
        assert recorder.flush(60)
        assert recorder.status.pending == 0 and recorder.status.error == ""
        client: Any = recorder.client
        runs = client.search_runs([recorder.experiment_id], filter_string="tags.state = 'evaluated'")
        assert sorted(run.data.tags["cambrian.candidate"] for run in runs) == ["c-0001", "c-0002"]
        assert {run.info.status for run in runs} == {"FINISHED"}
        listed = {item.path for item in client.list_artifacts(runs[0].info.run_id)}
        assert {"architecture.svg", "genotype.json", "source.py"} <= listed
        page = f"{server.url}/get-artifact?path=architecture.svg&run_uuid={runs[0].info.run_id}"
        with urllib.request.urlopen(page, timeout=10) as answer:
            assert b"<svg" in answer.read()
    enter(store, made(space, 2))
    assert not recorder.flush(3)
    recorder.close(0.5)
    assert recorder.status.pending == 1 and recorder.status.error


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 0), (signal.SIGTERM, 143), (signal.SIGKILL, -9)]
)
def test_the_server_ends_with_us(database: Path, tmp_path: Path, number: signal.Signals, code: int) -> None:
    port = free_port()
    program = (
        "import sys; from pathlib import Path; from cambrian.agents.recorder.server import serve; "
        "serve(sys.argv[1], Path(sys.argv[2]), port=int(sys.argv[3]), ready=lambda u: print(u, flush=True))"
    )
    arguments = [f"sqlite:///{database}", str(tmp_path / "artifacts"), str(port)]
    process = subprocess.Popen(
        [sys.executable, "-P", "-c", program, *arguments], stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        assert url.startswith(f"http://{HOST}:{port}/#/experiments")
        with urllib.request.urlopen(url, timeout=10) as answer:
            assert b"MLflow" in answer.read()
        process.send_signal(number)
        assert process.wait(20) == code
    finally:
        process.kill()
        process.communicate()
    for _ in range(50):
        with socket.socket() as probe:
            if probe.connect_ex((HOST, port)):
                return
        time.sleep(0.1)
    pytest.fail("the server outlived us")
