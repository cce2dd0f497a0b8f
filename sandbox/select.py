"""Which sandbox a run gets."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from cambrian.sandbox.errors import InfrastructureError
from cambrian.sandbox.process import ProcessSandbox
from cambrian.sandbox.protocol import Sandbox
from cambrian.sandbox.table import TableSandbox
from cambrian.search_spaces import Splits, TabularTask, Task, UserError

ENGINE_S = 1.5
"""Seconds that an engine has to answer before it counts as absent."""


class EngineStatus(BaseModel):
    """Whether a container engine answers.

    Attributes:
        version: of the engine, empty when there is none.
        detail: one line for people.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    available: bool
    version: str = ""
    detail: str


def engine_status(timeout_s: float = ENGINE_S) -> EngineStatus:
    """Ask the engine that the environment names (`DOCKER_HOST`), or the local one. Never raises."""
    try:
        import docker

        client = docker.from_env(timeout=timeout_s)  # type: ignore[arg-type]  # the stubs know ints only
        try:
            version = str(client.version()["Version"])
        finally:
            client.close()
    except ImportError as error:
        return EngineStatus(available=False, detail=f"the package {error.name!r} is not installed")
    except Exception as error:  # the SDK lets errors of requests, urllib3, paramiko and sockets through
        return EngineStatus(available=False, detail=f"no engine answers: {_reason(error)}")
    return EngineStatus(available=True, version=version, detail=f"Docker engine {version}")


def _reason(error: BaseException) -> str:
    text = str(error)
    for known in ("Permission denied", "No such file or directory", "Connection refused", "timed out"):
        if known in text:
            return known.lower()
    return " ".join(text.split())[:160] or type(error).__name__


def kind_for(kind: str, task: Task | None) -> str:
    """The kind of sandbox for a task: `auto` becomes `table` for one that has a table.

    Raises:
        UserError: a table for a task without one, or another sandbox for a task that has nothing to train on.
    """
    if kind == "table":
        TableSandbox(task)
    elif isinstance(task, TabularTask):
        if kind != "auto":
            raise UserError(
                f"sandbox {kind!r}: task {task.name!r} is a table, which has nothing to train on",
                hint="set 'sandbox.kind: table' or 'auto' in the run file",
            )
        kind = "table"
    return kind


async def open_sandbox(
    kind: str,
    *,
    run_id: str,
    folder: Path,
    splits: Splits,
    slots: int,
    task: Task | None = None,
    space: Path | None = None,
    plugins: Sequence[Path] = (),
    base_image: str | None = None,
    progress: Callable[[str], None] | None = None,
) -> tuple[Sandbox, str | None]:
    """An open sandbox.

    Args:
        kind: `auto` takes the table of a task that has one, else Docker where an engine answers and the image
            is there or can be built, else a process; any other registered name is taken at its word.
        run_id: see `Sandbox.open`.
        folder: see `Sandbox.open`.
        splits: see `Sandbox.open`.
        slots: see `Sandbox.open`.
        task: whose data `splits` are; only a table needs it.
        space: see `Sandbox.open`.
        plugins: folders on the workers' import path, for spaces of code that are not installed.
        base_image: what the image is built from; None leaves the choice to `sandbox.image`.
        progress: told, line by line, what takes long.

    Returns:
        The sandbox, and one line why `auto` had to make do with a process, else None.

    Raises:
        UnknownNameError: no sandbox of that name.
        UserError: a table for a task without one, or another sandbox for a task that has nothing to train on.
        InfrastructureError: the sandbox that was asked for by name cannot be had.
    """
    from cambrian.sandbox import SANDBOXES

    note: str | None = None
    sandbox: Sandbox
    kind = kind_for(kind, task)
    if kind == "table":
        sandbox = TableSandbox(task)
    elif kind in ("auto", "docker"):
        status = await asyncio.to_thread(engine_status)
        if status.available:
            from cambrian.sandbox.container import ContainerSandbox

            sandbox = ContainerSandbox(base_image=base_image, plugins=plugins, progress=progress)
            try:
                await sandbox.open(run_id, folder, splits, slots, space)
                return sandbox, None
            except InfrastructureError as error:
                await sandbox.close()
                if kind == "docker":
                    raise
                note = f"candidates run as processes, without a container: {error.message}"
        elif kind == "docker":
            raise InfrastructureError(
                f"sandbox 'docker': {status.detail}",
                hint="start a Docker engine, or set 'sandbox.kind: process' in the run file",
            )
        else:
            note = f"candidates run as processes, without a container: {status.detail}"
        sandbox = ProcessSandbox(plugins=plugins)
    else:
        sandbox = SANDBOXES.create(kind, **({"plugins": plugins} if plugins else {}))
    await sandbox.open(run_id, folder, splits, slots, space)
    return sandbox, note
