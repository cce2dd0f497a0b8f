"""Which cores of this machine other processes use, so that runs keep out of each other's way.

A claim is a lock on a file, which the kernel gives up with the process that holds it.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import tempfile
from pathlib import Path


class CoreClaims:
    """Claims on cores by their numbers. Not for several threads at once.

    Args:
        folder: of the lock files, the same for all processes that are to know of each other; made when it is
            missing. Where it cannot be had nothing is claimed, and nobody is known.
    """

    def __init__(self, folder: Path) -> None:
        self._folder: Path | None = folder
        self._held: dict[int, int] = {}
        try:
            folder.mkdir(mode=0o700, exist_ok=True)
            if folder.stat().st_uid != os.geteuid():
                self._folder = None
        except OSError:
            self._folder = None

    def take(self, core: int) -> bool:
        """Claim `core`; False when another process has it."""
        if core in self._held or self._folder is None:
            return True
        try:
            fd = os.open(self._folder / str(core), os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        except OSError:
            return True
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(fd)
            return False
        self._held[core] = fd
        return True

    def give(self, core: int) -> None:
        """Give up the claim on `core`, if it is ours."""
        fd = self._held.pop(core, None)
        if fd is not None:
            with contextlib.suppress(OSError):
                os.close(fd)


def local_claims() -> CoreClaims:
    """Claims that all runs of this user on this machine respect."""
    return CoreClaims(Path(tempfile.gettempdir(), f"cambrian-cores-{os.geteuid()}"))
