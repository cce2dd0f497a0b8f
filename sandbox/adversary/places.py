"""Temporary folders of a check, which a later check removes if this one was killed."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from cambrian.sandbox.identity import pid_namespace, started
from cambrian.sandbox.outputs import remove_tree

PREFIXES = ("cambrian-check", "cambrian-bait")


@contextlib.contextmanager
def temporary(prefix: str) -> Iterator[Path]:
    """A folder whose name tells which process it belongs to; removed at the end.

    Args:
        prefix: one of `PREFIXES`.
    """
    pid = os.getpid()
    place = Path(tempfile.mkdtemp(prefix=f"{prefix}-{pid_namespace()}-{pid}-{started(pid)}-"))
    try:
        yield place
    finally:
        remove_tree(place)


def remove_left() -> int:
    """Remove this user's folders whose process is gone, and say how many there were."""
    removed = 0
    for prefix in PREFIXES:
        for place in Path(tempfile.gettempdir()).glob(f"{prefix}-*-*-*-*"):
            space, pid, start = place.name.removeprefix(f"{prefix}-").split("-")[:3]
            if space != str(pid_namespace()) or not pid.isdigit() or started(int(pid)) == start:
                continue
            with contextlib.suppress(OSError):
                if not place.is_symlink() and place.stat().st_uid == os.geteuid():
                    remove_tree(place)
                    removed += 1
    return removed
