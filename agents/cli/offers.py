"""`cambrian doctor` and `cambrian ui`: what there is to use."""

from __future__ import annotations

import json
import os
import platform
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from cambrian.agents.cli.app import emit
from cambrian.agents.cli.finding import Finding
from cambrian.agents.cli.offered_models import model_findings
from cambrian.agents.errors import CambrianError
from cambrian.agents.runfile import RunConfig, load_run_file
from cambrian.agents.workspace import Workspace
from cambrian.search_spaces import TASKS


def doctor_command(run_file: Path | None, as_json: bool, runs: Path | None, measure: bool = False) -> None:
    """Print findings; exit code 2 when something a run needs is broken."""
    config = load_run_file(run_file) if run_file is not None else None
    findings = [
        _python(),
        _torch(),
        _docker(config),
        *model_findings(config, measure=measure),
        *_data(config, run_file),
        _disk(Workspace(runs)),
    ]
    if as_json:
        emit([finding.model_dump() for finding in findings])
    else:
        colours = {"ok": "green", "absent": "yellow", "broken": "red"}
        table = Table.grid(padding=(0, 2))
        for finding in findings:
            text = Text(finding.detail)
            if finding.means:
                text.append(f"\n{finding.means}", style="dim")
            table.add_row(
                Text(finding.status, style=colours[finding.status]), Text(finding.what, style="bold"), text
            )
        Console().print(table)
    if any(finding.status == "broken" for finding in findings):
        sys.exit(2)


def ui_command(port: int, as_json: bool, runs: Path | None) -> None:
    """Serve MLflow on what was recorded, until interrupted."""
    from cambrian.agents.recorder.server import serve

    workspace = Workspace(runs)

    def ready(url: str) -> None:
        if as_json:
            print(json.dumps({"url": url}), flush=True)
        else:
            print(f"MLflow on {workspace.root}: {url} (Ctrl-C ends it)", flush=True)

    serve(workspace.tracking_uri, workspace.artifacts, port=port, ready=ready)


def _finding(what: str, probe: Callable[[], tuple[bool, str]], otherwise: str) -> Finding:
    there, detail = probe()
    return Finding(
        what=what,
        status="ok" if there else "absent",
        detail=detail,
        means="" if there else otherwise,
    )


def _python() -> Finding:
    return Finding(
        what="python",
        status="ok",
        detail=f"{platform.python_version()} on {platform.system()} {platform.machine()}, "
        f"{os.cpu_count()} cores",
        means="",
    )


def _torch() -> Finding:
    import torch

    if torch.cuda.is_available():
        names = {torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())}
        return Finding(
            what="GPU", status="ok", detail=f"torch {torch.__version__}, {', '.join(sorted(names))}", means=""
        )
    return Finding(
        what="GPU",
        status="absent",
        detail=f"torch {torch.__version__}, no CUDA device",
        means="candidates train and are measured on the CPU: keep tasks and budgets small",
    )


def _docker(config: RunConfig | None) -> Finding:
    from cambrian.sandbox.select import engine_status

    engine = engine_status(engine=config.sandbox.engine if config is not None else None)
    return _finding(
        "Docker",
        lambda: (engine.available, engine.detail),
        "candidates run in the process sandbox, which holds what this kernel lets it hold ('cambrian sandbox "
        "check' tries that); code by a model only with 'sandbox.trust_generated_code: true'",
    )


def _data(config: RunConfig | None, run_file: Path | None) -> list[Finding]:
    from cambrian.agents.checking import make_task
    from cambrian.search_spaces.tasks import extent

    if config is not None:
        try:
            size = extent(make_task(config, str(run_file)))
        except CambrianError as error:
            return [Finding(what="data", status="broken", detail=error.message, means=error.hint)]
        return [Finding(what="data", status="ok", detail=f"{config.task.name}: {size}", means="")]
    findings = []
    for name in TASKS.names():
        try:
            detail = extent(TASKS.create(name))
        except TypeError:
            continue  # a task that cannot be made without options is the user's own
        except CambrianError as error:
            findings.append(
                Finding(what=f"data: {name}", status="absent", detail=error.message, means=error.hint)
            )
        else:
            findings.append(Finding(what=f"data: {name}", status="ok", detail=detail, means=""))
    return findings


def _disk(workspace: Workspace) -> Finding:
    import shutil

    place: Any = workspace.root
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free / 2**30
    writable = os.access(place, os.W_OK)
    if not writable:
        return Finding(
            what="runs folder",
            status="broken",
            detail=f"{workspace.root} cannot be written",
            means="set CAMBRIAN_RUNS or --runs to a folder of yours",
        )
    return Finding(
        what="runs folder",
        status="ok" if free > 1 else "absent",
        detail=f"{workspace.root}, {free:.1f} GiB free",
        means=""
        if free > 1
        else "less than 1 GiB: a run would stop when the disk is full, and can be resumed",
    )
