"""Where the files of tasks are looked for."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from cambrian.search_spaces.errors import MissingDataError, UserError

VARIABLE = "CAMBRIAN_DATA"
"""Environment variable with folders of data, separated as in `PATH`."""


def places(task: str, data: str | os.PathLike[str] | None, more: Iterable[Path] = ()) -> list[Path]:
    """Where to look: at `data` alone when it is given, else in `CAMBRIAN_DATA`, `./data` and `more`.

    Raises:
        UserError: `data` is no path.
    """
    if data is not None:
        if not isinstance(data, str | os.PathLike):
            raise UserError(f"task {task}: data: {data!r} is not a path", hint="name a file or a folder")
        return [Path(data).expanduser()]
    named = [part for part in os.environ.get(VARIABLE, "").split(os.pathsep) if part]
    return [*(Path(part).expanduser() for part in named), Path("data"), *more]


def find(looked: Iterable[Path], *names: str) -> Path | None:
    """The first file that is there: a place itself, or one of `names` in it."""
    for place in looked:
        for path in (place, *(place / name for name in names)):
            if path.is_file():
                return path
    return None


def missing(task: str, looked: Iterable[Path], hint: str) -> MissingDataError:
    """The error of a task that found no data."""
    return MissingDataError(f"task {task}: no data in {', '.join(map(str, looked))}", hint=hint)
