"""Which sandbox a run gets."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict

from cambrian.sandbox.errors import InfrastructureError
from cambrian.sandbox.process import ProcessSandbox
from cambrian.sandbox.protocol import JobLimits, Sandbox
from cambrian.sandbox.table import TableSandbox
from cambrian.search_spaces import Splits, TabularTask, Task, UserError

if TYPE_CHECKING:
    from cambrian.sandbox.cores import Cores

ENGINE_S = 1.5
"""Seconds that an engine has to answer before it counts as absent."""
REMOTE_S = 10.0
"""The same for one that was named by its address, which may be far away."""


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


def engine_status(timeout_s: float = ENGINE_S, engine: str | None = None) -> EngineStatus:
    """Ask an engine; None is the one that the environment names, or the local one. Never raises."""
    try:
        from cambrian.sandbox.engine import connect, explain
    except ImportError as error:
        return EngineStatus(available=False, detail=f"the package {error.name!r} is not installed")
    try:
        client = connect(engine, timeout_s=timeout_s)
        try:
            version = str(client.version()["Version"])
        finally:
            client.close()
    except Exception as error:  # the SDK lets errors of requests, urllib3, paramiko and sockets through
        at = f" at {engine}" if engine is not None else ""
        ours = isinstance(error, InfrastructureError) and error.__cause__ is None
        text = str(error) if ours else explain(error.__cause__ or error)[0]
        return EngineStatus(available=False, detail=f"no engine answers{at}: {text}")
    return EngineStatus(available=True, version=version, detail=f"Docker engine {version}")


def machine_cores(kind: str, engine: str | None = None) -> Cores:
    """The cores of the machine where a sandbox of `kind` would run, for all sandboxes there to share.

    Those of this machine where the engine does not answer; opening the sandbox will say so.
    """
    from cambrian.sandbox.cores import shared_cores

    if kind != "process":
        from cambrian.sandbox.engine import connect, is_local

        with contextlib.suppress(InfrastructureError):
            client = connect(engine, timeout_s=REMOTE_S)
            try:
                return shared_cores(client.info(), is_local(engine))
            finally:
                client.close()
    return shared_cores()


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


def check_trust(kind: str, *, field: str, engine: str | None = None, how: str) -> None:
    """Refuse to run code that a model wrote where no container would hold it.

    Args:
        kind: of the sandbox.
        field: what set the kind, for the message.
        engine: address of the engine that `auto` would take.
        how: how the user says that the code is trusted.

    Raises:
        UserError: the sandbox would be a process.
    """
    if kind == "process":
        why = "a process cannot hold it"
    elif kind == "auto" and not (status := engine_status(engine=engine)).available:
        why = f"there is no container: {status.detail}"
    else:
        return
    raise UserError(
        f"{field} {kind!r}: the candidates of this space are generated code, and {why}",
        hint=f"start a Docker engine, or {how} if you trust all that the model may write",
    )


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
    runtime: str | None = None,
    engine: str | None = None,
    gpu: str | None = None,
    generated_code: bool = False,
    trust_generated_code: bool = False,
    cores: Cores | None = None,
    limits: JobLimits | None = None,
    progress: Callable[[str], None] | None = None,
) -> tuple[Sandbox, str | None]:
    """An open sandbox.

    Args:
        kind: `auto` takes the table of a task that has one, else Docker where an engine answers and the image
            is there or can be built, else a process, which has no base image, runtime, engine or GPU and does
            not take code that nobody trusts; any other registered name is taken at its word.
        run_id: see `Sandbox.open`.
        folder: see `Sandbox.open`.
        splits: see `Sandbox.open`.
        slots: see `Sandbox.open`.
        task: whose data `splits` are; only a table needs it.
        space: see `Sandbox.open`.
        plugins: folders on the workers' import path, for spaces of code that are not installed.
        base_image: what the image is built from; None leaves the choice to `sandbox.image`.
        runtime: of the engine, such as `runsc`.
        engine: address of the engine; None takes the one that the environment names, or the local one.
        gpu: number or UUID of the GPU that containers get.
        generated_code: whether a model writes what the candidates are built from.
        trust_generated_code: whether such code may run in a process.
        cores: shared by sandboxes on one machine, so that a measurement is alone on its cores.
        limits: of the jobs to come, so that containers are ready before the first one.
        progress: told, line by line, what takes long.

    Returns:
        The sandbox, and one line why `auto` had to make do with a process, else None.

    Raises:
        UnknownNameError: no sandbox of that name.
        UserError: a table for a task without one, another sandbox for a task that has nothing to train on, or
            generated code that only a process could take.
        InfrastructureError: the sandbox that was asked for cannot be had.
    """
    from cambrian.sandbox import SANDBOXES

    note: str | None = None
    sandbox: Sandbox
    kind = kind_for(kind, task)
    asked = any(option is not None for option in (base_image, runtime, engine, gpu))
    if kind == "auto" and (asked or (generated_code and not trust_generated_code)):
        kind = "docker"
    if kind == "table":
        sandbox = TableSandbox(task)
    elif kind in ("auto", "docker"):
        status = await asyncio.to_thread(engine_status, ENGINE_S if engine is None else REMOTE_S, engine)
        if status.available:
            from cambrian.sandbox.container import ContainerSandbox

            sandbox = ContainerSandbox(
                base_image=base_image,
                runtime=runtime,
                engine=engine,
                gpu=gpu,
                plugins=plugins,
                progress=progress,
                cores=cores,
                limits=limits,
            )
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
                hint="start a Docker engine"
                + ("" if asked else ", or set 'sandbox.kind: process' in the run file"),
            )
        else:
            note = f"candidates run as processes, without a container: {status.detail}"
        sandbox = ProcessSandbox(plugins=plugins, trust_generated_code=trust_generated_code, cores=cores)
    elif kind == "process":
        sandbox = ProcessSandbox(plugins=plugins, trust_generated_code=trust_generated_code, cores=cores)
    else:
        sandbox = SANDBOXES.create(kind, **({"plugins": plugins} if plugins else {}))
    await sandbox.open(run_id, folder, splits, slots, space)
    return sandbox, note
