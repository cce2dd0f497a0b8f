"""The host's end of the fork server."""

from __future__ import annotations

import contextlib
import hmac
import json
import secrets
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cambrian.sandbox.errors import InfrastructureError
from cambrian.sandbox.outputs import disk
from cambrian.sandbox.worker.forkserver import PACKET
from cambrian.sandbox.worker.messages import Place

START_S = 120.0
"""Seconds that the fork server may take to import torch; a busy disk can be that slow."""


CONNECT_S = 15.0
"""Seconds that a keeper may take to come to its link."""


class ServerDied(Exception):
    """The fork server is gone, and with it every job that it ran."""


class SocketLink:
    """A link over a socket of this machine; see `conversation.Link`."""

    def __init__(self, own: socket.socket) -> None:
        self._socket = own

    def send(self, data: bytes) -> None:
        """See `Link`."""
        self._socket.sendall(data)

    def receive(self, size: int, timeout_s: float | None) -> bytes:
        """See `Link`."""
        self._socket.settimeout(timeout_s)
        try:
            return self._socket.recv(size)
        except ConnectionResetError:
            return b""

    def close(self) -> None:
        """See `Link`."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()


class ForkClient:
    """Starts a fork server and has it fork keepers. Blocking; `start` once, the rest from any thread.

    Args:
        folder: for the server's log and its probe of the machine.
        environment: the whole environment of the server.
        plugins: folders for its import path.
        namespaces: whether jobs are to be confined by them where the kernel allows it.
    """

    def __init__(
        self, folder: Path, environment: Mapping[str, str], plugins: Sequence[Path], namespaces: bool
    ) -> None:
        self._folder = folder
        self._environment = dict(environment)
        self._probe = "probe" if namespaces else "none"
        self._plugins = [str(p.resolve()) for p in plugins]
        self._process: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None
        self._listener: threading.Thread | None = None
        self._changed = threading.Condition()
        self._open: set[str] = set()
        self._dead = False

    def start(self) -> tuple[str, ...]:
        """Start the server and wait until it is ready.

        Returns:
            What it cannot keep a job from on this machine.

        Raises:
            InfrastructureError: it ended or stayed silent; the message has the end of its log.
        """
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        # -s -P and an environment of our own isolate as -I does, but for the hash seed, which we set
        command = [sys.executable, "-s", "-P", "-m", "cambrian.sandbox.worker.forkserver"]
        command += [str(theirs.fileno()), self._probe, str(self._folder), *self._plugins]
        with theirs, disk("start the fork server"):
            log = (self._folder / "forkserver.log").open("ab")
            with log:
                self._process = subprocess.Popen(
                    command,
                    env=self._environment,
                    cwd=self._folder,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    pass_fds=(theirs.fileno(),),
                    start_new_session=True,
                )
        self._control.settimeout(START_S)
        try:
            ready: dict[str, Any] = json.loads(self._control.recv(PACKET) or b"null")
            missing = tuple(str(phrase) for phrase in ready["missing"])
        except (OSError, TypeError) as error:
            self.close()
            raise InfrastructureError(
                f"the process sandbox's fork server did not start: {self._last_words()}",
                hint="see 'cambrian doctor'; is torch installed?",
            ) from error
        self._control.settimeout(None)
        self._listener = threading.Thread(target=self._listen, args=(self._control,), daemon=True)
        self._listener.start()
        return missing

    def fork(self, key: str, data: Path, scratch: Path) -> SocketLink:
        """Have a keeper forked, and return the link to it.

        Args:
            key: names the job.
            data: the task's arrays.
            scratch: an empty folder, the job's home.

        Raises:
            ServerDied: there is no server.
        """
        token = secrets.token_hex(32)
        with socket.socket(socket.AF_UNIX) as door:
            name = f"cambrian-{secrets.token_hex(16)}"
            door.bind(f"\0{name}")
            door.listen()
            place = Place(key=key, link=name, token=token, data=data, scratch=scratch)
            with self._changed:
                if self._dead or self._control is None:
                    raise ServerDied("it is not running")
                self._open.add(key)
                try:
                    self._control.send(place.model_dump_json().encode())
                except OSError as error:
                    self._open.discard(key)
                    raise ServerDied(str(error)) from error
            return SocketLink(self._admit(door, token))

    def _admit(self, door: socket.socket, token: str) -> socket.socket:
        """The connection of who knows the token; others are sent away."""
        deadline = time.monotonic() + CONNECT_S
        try:
            while True:
                door.settimeout(max(0.01, deadline - time.monotonic()))
                guest = door.accept()[0]
                guest.settimeout(max(0.01, deadline - time.monotonic()))
                with contextlib.suppress(OSError):
                    if hmac.compare_digest(_exactly(guest, len(token)), token.encode()):
                        guest.settimeout(None)
                        return guest
                guest.close()
        except OSError as error:
            raise ServerDied("a keeper did not come to its link") from error

    def join(self, key: str, timeout_s: float) -> None:
        """Wait until all processes of the job of that key are gone; its link must be closed or at its end.

        Raises:
            ServerDied: the server has died, or does not come to an end with the job; it was killed then.
        """
        deadline = time.monotonic() + timeout_s
        with self._changed:
            while key in self._open and not self._dead:
                left = deadline - time.monotonic()
                if left <= 0:
                    self.kill()
                    raise ServerDied(f"job {key} did not end")
                self._changed.wait(left)
            if self._dead:
                raise ServerDied(self._last_words())

    def kill(self) -> None:
        """End the server at once; the kernel ends its jobs."""
        if self._process is not None:
            self._process.kill()

    def close(self) -> None:
        """End the server and all its jobs, and wait until they are gone. Safe to call twice."""
        control, self._control = self._control, None
        if control is not None:
            with contextlib.suppress(OSError):
                control.shutdown(socket.SHUT_RDWR)
            control.close()
        process, self._process = self._process, None
        if process is not None:
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        if self._listener is not None:
            self._listener.join()

    def _listen(self, control: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while packet := control.recv(PACKET):
                with self._changed:
                    self._open.discard(json.loads(packet)["ended"])
                    self._changed.notify_all()
        with self._changed:
            self._dead = True
            self._changed.notify_all()

    def _last_words(self) -> str:
        try:
            lines = (self._folder / "forkserver.log").read_text(errors="replace").splitlines()
        except OSError:
            lines = []
        return next(
            (line.strip()[:300] for line in reversed(lines) if line.strip()), "it ended without a word"
        )


def _exactly(guest: socket.socket, size: int) -> bytes:
    content = b""
    while len(content) < size and (part := guest.recv(size - len(content))):
        content += part
    return content
