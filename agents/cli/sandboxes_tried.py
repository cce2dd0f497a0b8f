"""`cambrian sandbox check`: honest and hostile candidates on the user's own machine or engine."""

from __future__ import annotations

import asyncio
import os
import secrets
import signal
import sys
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any

from rich.console import Console

from cambrian.agents.cli.app import emit
from cambrian.agents.cli.progress import Told, progress
from cambrian.agents.cli.sandboxes_image import check_address, check_environment, teller
from cambrian.agents.errors import CambrianError, UserError

if TYPE_CHECKING:
    from cambrian.sandbox.adversary.report import TrialReport

SLOTS = 2
MIN_WIDTH = 110
STOPPING = (signal.SIGINT, signal.SIGTERM)
OPENING_S = 20.0
"""Seconds that a sandbox may take to open after a signal."""


class CheckStopped(BaseException):
    """A signal asked us to stop; all was cleaned up.

    Attributes:
        number: the signal.
        hint: none, as there is nothing to go on with.
    """

    hint = ""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number


def check_command(
    kind: str, *, engine: str | None, runtime: str | None, base: str | None, full: bool, as_json: bool
) -> None:
    """Try a sandbox out and print what was found; exit code 2 when it does not do what it says.

    Raises:
        UserError: an option of containers for a process, or an address that is none.
        InfrastructureError: the sandbox cannot be opened.
    """
    check_address(engine)
    if kind == "process" and any(option is not None for option in (engine, runtime, base)):
        raise UserError(
            "--engine, --runtime and --base are options of containers", hint="leave out '--kind process'"
        )
    kind = _kind(kind, engine, runtime)
    from cambrian.sandbox.adversary.places import remove_left

    remove_left()
    with progress(as_json, "opening the sandbox") as told:
        report = asyncio.run(_stoppable(_try_out(kind, engine, runtime, base, full, told, teller(as_json))))
    if as_json:
        ok = {probe.name: probe.ok for probe in report.probes}
        emit(report.model_dump(mode="json") | {"passed": report.passed, "ok": ok})
    else:
        console = Console(highlight=False)
        (console if console.width >= MIN_WIDTH else Console(width=MIN_WIDTH, highlight=False)).print(report)
        for phrase in report.isolation.not_enforced:
            print(f"not enforced here: {phrase}")
    if not report.passed:
        sys.exit(2)


async def _stoppable(work: Coroutine[Any, Any, TrialReport]) -> TrialReport:
    """Do `work`; the first SIGINT or SIGTERM cancels it, later ones leave it to clean up.

    Raises:
        CheckStopped: one came.
    """
    task, loop = asyncio.ensure_future(work), asyncio.get_running_loop()
    caught: list[int] = []

    def handle(number: int) -> None:
        caught.append(number)
        if len(caught) == 1:
            task.cancel()

    for number in STOPPING:
        loop.add_signal_handler(number, handle, number)
    try:
        return await task
    except (asyncio.CancelledError, CambrianError):
        if caught:  # what else went wrong came of that
            raise CheckStopped(caught[0]) from None
        raise
    finally:
        for number in STOPPING:
            loop.remove_signal_handler(number)


async def _open(opening: Coroutine[Any, Any, None]) -> None:
    """Wait for a sandbox to open; if cancelled, some while longer: half open it cannot be closed well."""
    task = asyncio.ensure_future(opening)
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        done, _ = await asyncio.wait({task}, timeout=OPENING_S)
        for one in done:
            one.exception()  # or asyncio complains that nobody looked
        task.cancel()
        await asyncio.wait({task})
        raise


def _kind(kind: str, engine: str | None, runtime: str | None) -> str:
    """`auto` becomes what a run would take here."""
    if kind != "auto":
        return kind
    from cambrian.sandbox.select import engine_status

    if engine is None:
        check_environment()
    wanted = engine is not None or runtime is not None
    return "docker" if wanted or engine_status(engine=engine).available else "process"


async def _try_out(
    kind: str,
    engine: str | None,
    runtime: str | None,
    base: str | None,
    full: bool,
    told: Told,
    say: Callable[[str], None],
) -> TrialReport:
    from cambrian.sandbox import Sandbox
    from cambrian.sandbox.adversary.places import temporary
    from cambrian.sandbox.adversary.plugin import lay_out
    from cambrian.sandbox.adversary.probe import ORDINARY
    from cambrian.sandbox.adversary.probes import catalogue, short_suite
    from cambrian.sandbox.adversary.trial import Trial, engine_leftovers
    from cambrian.search_spaces import TASKS

    task = TASKS.create("digits")
    splits = task.load()
    run_id = f"check-{os.getpid()}-{secrets.token_hex(4)}"
    with temporary("cambrian-check") as place:
        plugin, folder = lay_out(place / "plugin"), place / "run"
        folder.mkdir()
        sandbox: Sandbox
        if kind == "docker":
            from cambrian.sandbox.container import ContainerSandbox

            sandbox = ContainerSandbox(
                base_image=base,
                runtime=runtime,
                engine=engine,
                plugins=[plugin],
                progress=say,
                limits=ORDINARY,
            )
        else:
            from cambrian.sandbox.process import ProcessSandbox

            # hostile code is what the check is about, and none of it is left to a sandbox that says it cannot
            # hold it
            sandbox = ProcessSandbox(plugins=[plugin], trust_generated_code=True)
        trial = Trial(
            sandbox,
            run_id,
            folder,
            splits,
            task.signature,
            slots=SLOTS,
            every=6 if kind == "docker" else 1,
            leftovers=engine_leftovers(run_id, engine) if kind == "docker" else lambda _job: [],
            told=lambda result, done, of: told(result.name, done, of),
        )
        try:
            await _open(sandbox.open(run_id, folder, splits, SLOTS))
            report = await trial.run(catalogue() if full else short_suite())
        finally:
            await sandbox.close()
        return await asyncio.to_thread(trial.after_closing, report)
