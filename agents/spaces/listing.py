"""What spaces there are, told without compiling any."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict

from cambrian.agents.spaces.fit import listed_tasks
from cambrian.search_spaces import SPACES, CambrianError
from cambrian.search_spaces.finding import Found


class SpaceRow(BaseModel):
    """One space of the list.

    Attributes:
        tasks: those that it says it fits.
        origin: `shipped`, `registered` (a class or a package), `yours` (your config folder) or `here`
            (`search_spaces` of the working directory).
        shadows: the origin of a space of the same name that is hidden by this one.
        problem: why it cannot be used; empty when it can, as far as its file shows without compiling it.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    version: str = ""
    kind: str = ""
    title: str = ""
    tasks: list[str] = []
    baselines: list[str] = []
    origin: str
    folder: Path | None = None
    shadows: str | None = None
    problem: str = ""


def space_rows() -> list[SpaceRow]:
    """Every space that a name reaches, by name; a broken one is a row that says so."""
    return [_row(SPACES.find(name)) for name in SPACES.names()]


def _row(found: Found) -> SpaceRow:
    about = {
        "name": found.name,
        "origin": found.origin,
        "folder": found.folder,
        "shadows": found.shadows,
    }
    try:
        facts = _of_folder(found.folder) if found.folder is not None else _of_space(found.name)
    except CambrianError as error:
        facts = {"problem": error.message}
    except Exception as error:  # of a package that somebody else wrote: the others are still to be listed
        facts = {"problem": f"{type(error).__name__}: {error}"}
    return SpaceRow.model_validate(about | facts)


def _of_folder(folder: Path) -> dict[str, object]:
    from cambrian.search_spaces.declarative.loading import read

    file = read(folder)
    return {
        "version": file.version,
        "kind": "declarative",
        "title": file.title,
        "tasks": list(file.tasks),
        "baselines": list(file.baselines),
    }


def _of_space(name: str) -> dict[str, object]:
    space = SPACES.create(name)
    title = getattr(space, "title", None) or getattr(
        getattr(getattr(space, "definition", None), "file", None), "title", ""
    )
    return {
        "version": space.version,
        "kind": space.kind,
        "title": title,
        "tasks": listed_tasks(space),
        "baselines": list(space.baselines()),
    }
