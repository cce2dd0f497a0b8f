"""A run's store, and an empty MLflow database to record it in."""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from cambrian.agents.population.store import PopulationStore
from cambrian.agents.recorder.mlflow_recorder import MLflowRecorder
from cambrian.agents.recorder.tracking import Tracking
from cambrian.search_spaces import SPACES, TASKS, Space, Task
from tests.agents.recorder.making import run_record
from tests.agents.recorder.reading import Launch


@pytest.fixture(scope="session")
def space() -> Space:
    return SPACES.create("convnet")


@pytest.fixture(scope="session")
def task() -> Task:
    return TASKS.create("digits")


@pytest.fixture
def store(tmp_path: Path) -> Iterator[PopulationStore]:
    record = run_record()
    opened = PopulationStore(tmp_path / "runs" / record.run_id, create=record)
    yield opened
    opened.close()


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty MLflow database: making one costs seconds, copying it nothing."""
    path = tmp_path_factory.mktemp("mlflow") / "template.db"
    Tracking(f"sqlite:///{path}", "template", path.parent / "artifacts")
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")  # all of it into the one file that is copied
    return path


@pytest.fixture
def database(tmp_path: Path, template: Path) -> Path:
    path = tmp_path / "runs" / "mlflow.db"
    path.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(template, path)
    return path


@pytest.fixture
def launch(
    store: PopulationStore, space: Space, task: Task, database: Path, tmp_path: Path
) -> Iterator[Launch]:
    """Starts recorders on the run's store; they are closed at the end."""
    started: list[MLflowRecorder] = []

    def launch(uri: str | None = None) -> MLflowRecorder:
        root = None if uri and uri.startswith("http") else tmp_path / "artifacts"
        recorder = MLflowRecorder(store, space, task, uri or f"sqlite:///{database}", root)
        recorder.start()
        started.append(recorder)
        return recorder

    yield launch
    for recorder in started:
        recorder.close(0)
