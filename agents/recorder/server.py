"""MLflow's server as `cambrian ui` starts it: loopback only, one worker, no telemetry, ended with us."""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import IO

from cambrian.agents.errors import InfrastructureError, UserError
from cambrian.agents.wording import one_line

HOST = "127.0.0.1"


class TrackingServer:
    """An `mlflow server` process on this machine; a context manager that ends it.

    As it comes MLflow starts 15 processes that need 40 s and gigabytes; without job execution and with one
    worker it is one process and about 10 s.

    Args:
        tracking_uri: database that it serves.
        port: TCP port on the loopback interface.
        artifact_root: where artifacts go that are uploaded through the server.

    Raises:
        UserError: the port is taken, or `tracking_uri` is itself a server.
    """

    def __init__(self, tracking_uri: str, port: int, artifact_root: Path) -> None:
        if tracking_uri.startswith(("http://", "https://")):
            raise UserError(f"{tracking_uri} is a server already", hint="open it in a browser")
        self.url = f"http://{HOST}:{port}"
        self._uri = tracking_uri
        self._port = port
        self._root = artifact_root
        self._process: subprocess.Popen[bytes] | None = None
        self._log: IO[bytes] | None = None

    def start(self, timeout_s: float = 120.0) -> str:
        """Start it, wait until it answers, and return its URL.

        Raises:
            UserError: the port is taken.
            InfrastructureError: it ended or did not answer in time; the message holds what it said last.
        """
        _require_free(self._port)
        self._root.mkdir(parents=True, exist_ok=True)
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the process
        command = [
            *(sys.executable, "-P", "-m", "mlflow", "server"),
            *("--backend-store-uri", self._uri),
            *("--artifacts-destination", self._root.resolve().as_uri()),
            *("--host", HOST, "--port", str(self._port), "--workers", "1"),
        ]
        # A session of its own: Ctrl-C reaches us only, and its workers can be ended as one group.
        self._process = subprocess.Popen(
            command,
            cwd=self._root,
            env=_environment(),
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=_end_with_parent if sys.platform == "linux" else None,
        )
        try:
            self._wait(timeout_s)
        except BaseException:
            self.stop()
            raise
        return self.url

    def wait(self) -> None:
        """Block until the server ends by itself.

        Raises:
            InfrastructureError: it ended.
        """
        if self._process is not None:
            code = self._process.wait()
            raise InfrastructureError(f"the MLflow server ended with code {code}: {self._cause()}")

    def stop(self) -> None:
        """End the server and its workers. Safe to call twice."""
        process, self._process = self._process, None
        if process is not None:
            for sign, patience in ((signal.SIGTERM, 5.0), (signal.SIGKILL, 5.0)):
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, sign)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(patience)
                    break
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # a worker that outlived its parent
        if self._log is not None:
            self._log.close()
            self._log = None

    def __enter__(self) -> TrackingServer:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _wait(self, timeout_s: float) -> None:
        assert self._process is not None
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                raise InfrastructureError(
                    f"the MLflow server did not start: {self._cause()}",
                    hint="`cambrian doctor` shows what this machine lacks",
                )
            try:
                with urllib.request.urlopen(f"{self.url}/health", timeout=2) as answer:
                    if answer.status == 200:
                        return
            except OSError:  # nobody listens yet; urllib's own errors are OSErrors
                pass
            time.sleep(0.2)
        raise InfrastructureError(
            f"the MLflow server did not answer within {timeout_s:.0f} s: {self._cause()}",
            hint="try again when the machine is less busy",
        )

    def _cause(self) -> str:
        if self._log is None:
            return ""
        self._log.seek(max(0, self._log.seek(0, os.SEEK_END) - 8192))
        text = self._log.read().decode("utf-8", "replace")
        lines = [line for line in text.splitlines() if line.strip()]
        errors = [line for line in lines if re.match(r"[\w.]*(Error|Exception): ", line)]
        return one_line([*lines, *errors][-1]) if lines else "it printed nothing"


def serve(
    tracking_uri: str,
    artifact_root: Path,
    *,
    port: int,
    ready: Callable[[str], None] = print,
    timeout_s: float = 120.0,
) -> None:
    """Serve MLflow's pages until Ctrl-C or SIGTERM; `ready` gets the URL once they can be opened.

    Raises:
        UserError: the port is taken.
        InfrastructureError: the server did not start, or ended by itself.
    """
    server = TrackingServer(tracking_uri, port, artifact_root)
    previous = signal.signal(signal.SIGTERM, _exit_on_sigterm)
    try:
        url = server.start(timeout_s)
        ready(f"{url}/#/experiments?workflowType=machine_learning")  # MLflow opens on its pages for LLMs
        with contextlib.suppress(KeyboardInterrupt):
            server.wait()
    finally:
        server.stop()
        signal.signal(signal.SIGTERM, previous)


def _exit_on_sigterm(number: int, _frame: object) -> None:
    raise SystemExit(128 + number)


def _end_with_parent() -> None:
    """Ask the kernel to end the server when we are killed and can no longer do it ourselves."""
    ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG


def _require_free(port: int) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except (OSError, OverflowError) as error:
            raise UserError(
                f"port {port} cannot be used: {getattr(error, 'strerror', None) or error}",
                hint=f"choose another one: --port {port + 1 if 0 < port < 65535 else 5001}",
            ) from error


def _environment() -> dict[str, str]:
    return {
        **os.environ,
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "DO_NOT_TRACK": "true",
        "PYTHONSAFEPATH": "1",  # its workers must not import `agents` or `sandbox` from the working directory
    }
