"""The host's end of a container's standard streams, over any transport that the SDK knows."""

from __future__ import annotations

import contextlib
import socket
import struct
import time
from typing import Any

from docker.models.containers import Container

from cambrian.sandbox.engine import engine_errors

STDERR_BYTES = 64 << 10
STALL_S = 30.0
"""Seconds that an engine may take to accept some bytes; a job's own deadline is the caller's to keep."""
_HEAD = struct.Struct(">BxxxL")
_STDOUT, _STDERR = 1, 2


class ContainerLink:
    """Standard input and output of a container as one stream; its standard error is kept for messages.

    Attach before the start, so that nothing is missed. For one thread at a time.

    Args:
        container: created, not started.

    Raises:
        InfrastructureError: the engine does not attach us.
    """

    def __init__(self, container: Container) -> None:
        with engine_errors("attach to a container"):
            self._stream = container.attach_socket(params={"stdin": 1, "stdout": 1, "stderr": 1, "stream": 1})
        # a plain socket is wrapped; over TLS and SSH it is the thing itself
        self._socket: Any = getattr(self._stream, "_sock", self._stream)
        self._said = bytearray()
        self._raw = bytearray()
        self._stdout = bytearray()
        self._stream_now, self._left = 0, 0
        self._at_end = False

    def send(self, data: bytes) -> None:
        """Send all of `data`.

        Raises:
            OSError: the container or the engine is gone.
            TimeoutError: nothing went out for `STALL_S` seconds.
        """
        view = memoryview(data)
        while view:
            self._socket.settimeout(STALL_S)
            view = view[self._socket.send(view[: 1 << 20]) :]

    def receive(self, size: int, timeout_s: float | None) -> bytes:
        """Up to `size` bytes of standard output, as soon as there are some; none at the end of the stream.

        Raises:
            OSError: the engine is gone.
            TimeoutError: nothing came within `timeout_s` seconds.
        """
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        while not self._stdout and not self._at_end:
            if not self._sort():
                left = None if deadline is None else deadline - time.monotonic()
                if left is not None and left <= 0:
                    raise TimeoutError("nothing came in time")
                self._socket.settimeout(left)
                data = self._socket.recv(1 << 18)
                self._at_end = not data
                self._raw += data
        found = bytes(self._stdout[:size])
        del self._stdout[:size]
        return found

    def said(self) -> str:
        """The end of what the container wrote to standard error."""
        return bytes(self._said).decode(errors="replace")

    def is_open(self) -> bool:
        """Whether nothing has come, not even the end; for a container that has nothing to say."""
        try:
            self.receive(1, 0.001)
        except TimeoutError:
            return True
        except OSError:
            return False
        return False

    def close(self) -> None:
        """Let go of the streams; the container's standard input ends."""
        with contextlib.suppress(Exception):  # paramiko and ssl have errors of their own
            self._socket.shutdown(socket.SHUT_RDWR)  # wakes a thread that receives; closing alone would not
        for end in (self._stream, self._socket):
            with contextlib.suppress(Exception):
                end.close()

    def _sort(self) -> bool:
        """Take one piece of what has come to where it belongs; False when nothing can be done yet."""
        if self._left == 0:
            if len(self._raw) < _HEAD.size:
                return False
            self._stream_now, self._left = _HEAD.unpack_from(self._raw)
            del self._raw[: _HEAD.size]
            return True
        if not self._raw:
            return False
        part = self._raw[: self._left]
        del self._raw[: self._left]
        self._left -= len(part)
        if self._stream_now == _STDOUT:
            self._stdout += part
        elif self._stream_now == _STDERR:
            self._said += part
            del self._said[:-STDERR_BYTES]
        return True
