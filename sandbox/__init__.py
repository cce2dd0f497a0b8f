"""Sandboxes: where candidates are built, measured and trained, apart from the host's secrets."""

from cambrian.sandbox.errors import InfrastructureError
from cambrian.sandbox.protocol import (
    Isolation,
    Job,
    JobLimits,
    JobState,
    LatencySpec,
    Outcome,
    Sandbox,
)
from cambrian.sandbox.reports import Latency, WorkerReport
from cambrian.search_spaces import Registry

SANDBOXES: Registry[Sandbox] = Registry(
    "sandbox",
    "cambrian.sandboxes",
    {
        "docker": "cambrian.sandbox.container:ContainerSandbox",
        "process": "cambrian.sandbox.process:ProcessSandbox",
        "table": "cambrian.sandbox.table:TableSandbox",
    },
)
"""Factories take no required arguments."""

__all__ = [
    "SANDBOXES",
    "InfrastructureError",
    "Isolation",
    "Job",
    "JobLimits",
    "JobState",
    "Latency",
    "LatencySpec",
    "Outcome",
    "Sandbox",
    "WorkerReport",
]
