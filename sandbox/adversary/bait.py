"""What a trial lays out for hostile candidates to find: a key, a file, servers; and what they may leave."""

from __future__ import annotations

import contextlib
import ctypes
import os
import secrets
import socket
import subprocess
import sys
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

SHARED_PLACES = ("/tmp", "/var/tmp", "/dev/shm", "/dev/mqueue", "/run", "/usr/local")
STRAYS = ("cambrian-unpickled", "cambrian-evil", "cambrian-filler", "evil")
"""Names of files that hostile candidates try to make."""
ORPHAN_S = 3.0
"""How long processes may take to be gone."""


class Bait:
    """Open it with `with`; the key is in this process's environment and in that of a child.

    Args:
        folder: an empty one.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._stack = contextlib.ExitStack()
        self._head, self._tail = "sk-nobody-may-", secrets.token_hex(8)
        self.marker = f"cambrian-trial-{secrets.token_hex(6)}"
        self._facts: dict[str, Any] = {}

    def __enter__(self) -> Self:
        key = self._head + self._tail
        environment = {"OPENAI_API_KEY": key}
        child = self._stack.enter_context(
            subprocess.Popen(
                [sys.executable, "-S", "-c", "import sys; sys.stdin.read()"],  # ends with this process
                stdin=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env=environment,
                start_new_session=True,  # Ctrl-C is for us
            )
        )
        self._stack.callback(child.kill)
        secret_file = self._folder / "secret.txt"
        secret_file.write_text(key)
        server = self._stack.enter_context(socket.create_server(("0.0.0.0", 0)))
        named, nameless = (self._stack.enter_context(socket.socket(socket.AF_UNIX)) for _ in range(2))
        named.bind(str(self._folder / "socket"))
        nameless.bind(f"\0{self.marker}")
        for one in (named, nameless):
            one.listen()
        self._facts = {
            "head": self._head,
            "tail": self._tail,  # in two parts, so that no file of a job holds the whole
            "files": [str(secret_file), "/etc/shadow", str(Path.home() / ".ssh")],
            "addresses": addresses(),
            "port": server.getsockname()[1],
            "sockets": [str(self._folder / "socket")],
            "abstract": [self.marker],
        }
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def facts(self, marker: str) -> dict[str, Any]:
        """What is added to the genotype of a probe whose traces are to be told by `marker`."""
        return {**self._facts, "marker": marker, "note": _note(marker), "key": _segment(marker)}

    def left(self, marker: str) -> list[str]:
        """Processes with `marker`, files and shared memory that candidates left on this machine; removed."""
        deadline = time.monotonic() + ORPHAN_S
        while (orphans := alive(marker)) and time.monotonic() < deadline:
            time.sleep(0.05)
        found = [f"process {pid}" for pid in orphans]
        places = [Path(place) for place in (*SHARED_PLACES, "/", "/etc", str(Path.home()))]
        for path in [place / name for place in places for name in (*STRAYS, _note(marker))]:
            if path.exists():
                found.append(str(path))
                with contextlib.suppress(OSError):
                    path.rmdir() if path.is_dir() else path.unlink()
        return found + _shared_memory(_segment(marker))


def _note(marker: str) -> str:
    return f"{marker}-note"


def _segment(marker: str) -> int:
    """A key of shared memory (System V)."""
    return zlib.crc32(marker.encode()) >> 2 | 1


def _shared_memory(key: int) -> list[str]:
    libc = ctypes.CDLL(None)
    segment = libc.shmget(key, 0, 0)
    if segment < 0:
        return []
    libc.shmctl(segment, 0, None)
    return [f"shared memory {key}"]


def addresses() -> list[str]:
    """Addresses of this machine."""
    found = {"127.0.0.1"}
    with contextlib.suppress(OSError):
        found |= {str(item[4][0]) for item in socket.getaddrinfo(socket.gethostname(), None, socket.AF_INET)}
    return sorted(found)


def processes_with(name: str, marker: bytes) -> Iterator[int]:
    """Processes of this machine, but for this one, whose `/proc/PID/name` holds `marker`."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            with contextlib.suppress(OSError):
                if marker in (entry / name).read_bytes():
                    yield int(entry.name)


def alive(marker: str) -> list[int]:
    """Processes whose command line or environment holds `marker`."""
    content = marker.encode()
    return sorted({*processes_with("cmdline", content), *processes_with("environ", content)})
