"""What MLflow holds of a run, as tests look at it."""

from __future__ import annotations

import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cambrian.agents.recorder.mlflow_recorder import MLflowRecorder

Launch = Callable[..., MLflowRecorder]


def children(recorder: MLflowRecorder) -> dict[str, list[Any]]:
    """MLflow's runs of candidates by candidate id."""
    found: dict[str, list[Any]] = {}
    for run in recorder.client.search_runs([recorder.experiment_id], max_results=1000):
        if "mlflow.parentRunId" in run.data.tags:
            found.setdefault(run.data.tags["cambrian.candidate"], []).append(run)
    return found


def only(recorder: MLflowRecorder, candidate_id: str) -> Any:
    (run,) = children(recorder)[candidate_id]
    return run


def parent(recorder: MLflowRecorder) -> Any:
    query = "tags.`cambrian.role` = 'run'"
    (run,) = recorder.client.search_runs([recorder.experiment_id], filter_string=query)
    return run


def artifacts(run: Any) -> dict[str, Path]:
    folder = Path(run.info.artifact_uri.removeprefix("file://"))
    return {path.name: path for path in folder.iterdir()}


def closed_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def traces(recorder: MLflowRecorder) -> dict[str, Any]:
    """Traces by exchange id, each of them once."""
    found = recorder.client.search_traces(locations=[recorder.experiment_id], max_results=500)
    by_exchange = {trace.info.client_request_id: trace for trace in found}
    assert len(by_exchange) == len(found)
    return by_exchange
