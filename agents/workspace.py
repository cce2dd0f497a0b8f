"""The folder that runs are kept in: finding a run or a candidate, naming a new run, listing them all.

A run whose space is a folder keeps a copy of it in `<run folder>/space`: whoever edits the space's files
changes later runs only.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

from cambrian.agents.errors import UnknownNameError, UserError
from cambrian.agents.population.store import PopulationStore
from cambrian.search_spaces import SPACES, Space, near_names
from cambrian.search_spaces.finding import FILE, copy_folder, folder_of, open_folder

SPACE = "space"
"""Where a run keeps the copy of its space."""


def keep_space(space: Space, run_folder: Path) -> None:
    """Copy the folder of `space` into the run's; a space that has none is found by its name again.

    Raises:
        UserError: it is too large or holds no text.
        OSError: the disk failed.
    """
    folder = folder_of(space)
    if folder is not None:
        copy_folder(folder, run_folder / SPACE)


def kept_space(run_folder: Path) -> Path | None:
    """The run's copy of its space's folder; None when it has none."""
    folder = run_folder / SPACE
    return folder if (folder / FILE).is_file() else None


def space_of(store: PopulationStore) -> Space:
    """The space of a run: its copy, else the one of that name.

    Raises:
        UserError: as `SPACES.create`.
    """
    folder = kept_space(store.folder)
    return open_folder(folder) if folder is not None else SPACES.create(store.run.space)


class Workspace:
    """Runs and what belongs to all of them.

    Args:
        root: the folder; None takes `CAMBRIAN_RUNS` from the environment, else `runs` here.
    """

    def __init__(self, root: Path | None = None) -> None:
        self.root = (root or Path(os.environ.get("CAMBRIAN_RUNS", "runs"))).absolute()

    @property
    def tracking_uri(self) -> str:
        """Where MLflow records when the run file names no server: SQLite beside the runs."""
        return f"sqlite:///{self.root / 'mlflow.db'}"

    @property
    def artifacts(self) -> Path:
        """Where MLflow's artifacts lie when it records to SQLite."""
        return self.root / "mlflow-artifacts"

    def new_folder(self, name: str) -> Path:
        """A folder for a new run: the name and the time, and a number if two start in one second."""
        try:
            self.root.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(
                f"cannot make the folder {self.root}: {error.strerror}", hint="set CAMBRIAN_RUNS or --runs"
            ) from error
        stem = f"{name}-{time.strftime('%Y%m%d-%H%M%S')}"
        for suffix in ("", *(f"-{n}" for n in range(2, 1000))):
            folder = self.root / f"{stem}{suffix}"
            try:
                folder.mkdir()
            except FileExistsError:
                continue
            except OSError as error:
                raise UserError(
                    f"cannot make the folder {folder}: {error.strerror}", hint="set CAMBRIAN_RUNS or --runs"
                ) from error
            return folder
        raise UserError(f"no free name for a run like {stem}", hint="wait a second")

    def run_ids(self) -> list[str]:
        """All runs, oldest first."""
        found = [path.parent for path in self.root.glob("*/population.sqlite")]
        return [folder.name for folder in sorted(found, key=lambda f: (f.stat().st_ctime, f.name))]

    def folder(self, run: str) -> Path:
        """The folder of a run by its id, the start of it, its path, or `last`.

        Raises:
            UnknownNameError: none or several fit; the hint lists the near ones.
        """
        ids = self.run_ids()
        if run == "last" and ids:
            newest = max(ids, key=lambda i: (self.root / i / "population.sqlite").stat().st_mtime)
            return self.root / newest
        as_path = Path(run)
        if (as_path / "population.sqlite").exists():
            return as_path.absolute()
        fitting = [run] if run in ids else [i for i in ids if i.startswith(run)]
        if len(fitting) == 1:
            return self.root / fitting[0]
        if fitting:
            raise UnknownNameError(
                f"{run!r} fits {len(fitting)} runs", hint=f"say which: {', '.join(fitting)}"
            )
        if not ids:
            hint = "start one: cambrian run runs/first-light.yaml; or name the folder with --runs"
            raise UnknownNameError(f"no runs in {self.root} yet, so no {run!r}", hint=hint)
        raise UnknownNameError(f"no run {run!r} in {self.root}", hint=near_names(run, ids))

    def open(self, run: str) -> PopulationStore:
        """The store of a run, for looking only."""
        return PopulationStore(self.folder(run), readonly=True)

    def split_candidate(self, name: str) -> tuple[str, str] | None:
        """Run and candidate id of `RUN/c-0012` or `c-0012` (of the last run); None for any other name."""
        run, _, cid = name.rpartition("/")
        if not (cid.startswith("c-") and cid[2:].isdigit()):
            return None
        return run or "last", cid
