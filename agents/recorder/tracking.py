"""The few calls of MLflow that the recorder needs, with its switches set and its errors sorted."""

from __future__ import annotations

import contextlib
import logging
import os
import sqlite3
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from cambrian.agents.errors import UserError
from cambrian.search_spaces import near_names

_PER_BATCH_METRICS = 1000
_PER_BATCH_PAIRS = 100
_MAX_PARAM = 6000
_MAX_TAG = 8000

_SWITCHES = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",  # stdout belongs to our commands
    "MLFLOW_ENABLE_ASYNC_LOGGING": "false",  # delivered must mean written
    # A server that is down must be noticed soon: by default MLflow tries for minutes. We try again ourselves.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
}
_import_lock = threading.Lock()

# Codes of a request that can never succeed, however often it is repeated; all others are worth waiting for.
_HOPELESS = frozenset(
    {"INVALID_PARAMETER_VALUE", "BAD_REQUEST", "RESOURCE_DOES_NOT_EXIST", "INVALID_STATE", "NOT_IMPLEMENTED"}
)


class MetricPoint(NamedTuple):
    """One value of a metric; `at` in seconds since the epoch."""

    key: str
    value: float
    at: float
    step: int = 0


class RunInfo(NamedTuple):
    """What is needed of an MLflow run."""

    run_id: str
    name: str
    status: str
    deleted: bool
    artifact_uri: str
    tags: dict[str, str]


_SCHEMES = ["sqlite", "http", "https", "postgresql", "mysql", "mssql", "databricks"]


def check_tracking_uri(uri: str) -> str:
    """The URI, if MLflow can record there.

    Raises:
        UserError: a folder (MLflow has closed its file store) or no URI at all.
    """
    scheme, colon, _ = uri.partition(":")
    if colon and scheme.partition("+")[0] not in {*_SCHEMES, "file"}:
        raise UserError(
            f"mlflow.tracking_uri {uri!r}: MLflow knows no {scheme!r}", hint=near_names(scheme, _SCHEMES)
        )
    if not colon or scheme == "file":
        raise UserError(
            f"mlflow.tracking_uri {uri!r}: MLflow no longer records into folders",
            hint="write sqlite:///path/to/mlflow.db or http://host:5000",
        )
    return uri


def load_mlflow() -> Any:
    """The package `mlflow`, imported (2 s) with its switches set; values that the user has set stay."""
    with _import_lock:
        for key, value in _SWITCHES.items():
            os.environ.setdefault(key, value)
        import mlflow

        for name in ("mlflow", "alembic"):  # creating a database tells of every migration step
            logging.getLogger(name).setLevel(logging.WARNING)
        return mlflow


def is_hopeless(error: Exception) -> bool:
    """Whether repeating the request that raised `error` cannot help: it is at fault, not the server."""
    code = getattr(error, "error_code", None)
    if code is not None:
        return code in _HOPELESS
    return not isinstance(error, OSError)  # requests' errors are OSErrors


def is_missing(error: Exception) -> bool:
    """Whether the run that was asked for does not exist on this server."""
    return getattr(error, "error_code", None) == "RESOURCE_DOES_NOT_EXIST"


class Tracking:
    """A connection to one experiment of one tracking server or database.

    Attributes:
        client: MLflow's own client.
        experiment_id: the experiment that runs are created in.

    Args:
        uri: tracking URI.
        experiment: name of the experiment; made when there is none, restored when it was deleted.
        artifact_root: folder of artifacts for databases; a server decides itself.
    """

    def __init__(self, uri: str, experiment: str, artifact_root: Path | None) -> None:
        mlflow = load_mlflow()
        self._entities = mlflow.entities
        self._uri = uri
        database = Path(uri.removeprefix("sqlite:///")) if uri.startswith("sqlite:///") else None
        if database is not None:
            database.parent.mkdir(parents=True, exist_ok=True)
        self.client = mlflow.MlflowClient(tracking_uri=uri)
        self.experiment_id = self._experiment(experiment, artifact_root)
        if database is not None:
            _let_readers_in(database)

    def _experiment(self, name: str, artifact_root: Path | None) -> str:
        found = self.client.get_experiment_by_name(name)
        if found is None:
            location = None
            if artifact_root is not None and not self._uri.startswith(("http://", "https://")):
                # Without it artifacts go to ./mlruns of whatever directory the process is in.
                location = (artifact_root.resolve() / name.replace("/", "-")).as_uri()
            try:
                return str(self.client.create_experiment(name, artifact_location=location))
            except Exception:
                found = self.client.get_experiment_by_name(name)  # another process was faster
                if found is None:
                    raise
        if found.lifecycle_stage != "active":
            self.client.restore_experiment(found.experiment_id)
        return str(found.experiment_id)

    def add_experiment_tags(self, tags: Mapping[str, str]) -> None:
        """Set those of `tags` that the experiment does not have: what a person has changed stays."""
        present = self.client.get_experiment(self.experiment_id).tags
        for key, value in tags.items():
            if key not in present:
                self.client.set_experiment_tag(self.experiment_id, key, value)

    def find(self, tags: Mapping[str, str]) -> str | None:
        """Id of the newest run that bears all `tags`."""
        runs = self.client.search_runs([self.experiment_id], filter_string=_where(tags), max_results=1)
        return str(runs[0].info.run_id) if runs else None

    def search(self, query: str) -> list[RunInfo]:
        """At most 1,000 runs that match a filter of MLflow's."""
        runs = self.client.search_runs([self.experiment_id], filter_string=query, max_results=1000)
        return [_info(run) for run in runs]

    def get(self, run_id: str) -> RunInfo:
        """The run as it is now."""
        return _info(self.client.get_run(run_id))

    def create(self, name: str, tags: Mapping[str, str], start: float) -> RunInfo:
        """A new run, its state RUNNING; `start` in seconds since the epoch."""
        made = self.client.create_run(
            self.experiment_id,
            start_time=round(start * 1000),
            tags=_tags_that_fit(tags),
            run_name=name,
        )
        return _info(made)

    def log(
        self,
        run_id: str,
        metrics: Sequence[MetricPoint] = (),
        params: Mapping[str, str] | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> None:
        """Write all of it in one request, unless it is more than MLflow takes in one.

        A parameter can be written once: when one has another value already, all parameters are left as
        they are and the rest is written.
        """
        entities = self._entities
        points = [entities.Metric(m.key, m.value, round(m.at * 1000), m.step) for m in metrics]
        pairs = [entities.Param(key, value[:_MAX_PARAM]) for key, value in (params or {}).items()]
        marks = [entities.RunTag(key, value) for key, value in _tags_that_fit(tags or {}).items()]
        while points or pairs or marks:
            now_pairs, pairs = pairs[:_PER_BATCH_PAIRS], pairs[_PER_BATCH_PAIRS:]
            now_marks, marks = marks[:_PER_BATCH_PAIRS], marks[_PER_BATCH_PAIRS:]
            room = _PER_BATCH_METRICS - len(now_pairs) - len(now_marks)
            now_points, points = points[:room], points[room:]
            try:
                self.client.log_batch(run_id, now_points, now_pairs, now_marks)
            except Exception as error:
                if not (now_pairs and "Changing param" in str(error)):
                    raise
                self.client.log_batch(run_id, now_points, (), now_marks)

    def set_status(self, run_id: str, status: str, end: float | None) -> None:
        """Set a run's status; `end` (seconds since the epoch) for those that have ended."""
        if end is None:
            self.client.update_run(run_id, status=status)
        else:
            self.client.set_terminated(run_id, status=status, end_time=round(end * 1000))

    def upload(self, artifact_uri: str, folder: Path) -> None:
        """Copy everything in `folder` to a run's artifacts."""
        from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

        # The client's own `log_artifacts` asks the database for the run first; we know where it is.
        get_artifact_repository(artifact_uri, tracking_uri=self._uri).log_artifacts(str(folder))


def _let_readers_in(database: Path) -> None:
    """Write ahead: whoever looks at MLflow's pages blocks no delivery, nor the other way round."""
    with contextlib.suppress(sqlite3.Error), contextlib.closing(sqlite3.connect(database)) as connection:
        connection.execute("PRAGMA journal_mode=WAL")


def _info(run: Any) -> RunInfo:
    return RunInfo(
        run_id=str(run.info.run_id),
        name=str(run.info.run_name),
        status=str(run.info.status),
        deleted=run.info.lifecycle_stage != "active",
        artifact_uri=str(run.info.artifact_uri),
        tags=dict(run.data.tags),
    )


def _where(tags: Mapping[str, str]) -> str:
    return " and ".join(f"tags.`{key}` = '{value}'" for key, value in tags.items())


def _tags_that_fit(tags: Mapping[str, str]) -> dict[str, str]:
    return {
        key: value if len(value) <= _MAX_TAG else value[: _MAX_TAG - 1] + "…" for key, value in tags.items()
    }
