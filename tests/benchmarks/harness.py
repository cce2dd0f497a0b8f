"""What every benchmark does at its end: print a table, write `runs/bench/<name>.json`."""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

Row = Mapping[str, Any]


def publish(name: str, rows: Sequence[Row], *, note: str = "", folder: Path = Path("runs/bench")) -> Path:
    """Print `rows` as a table and write them with the machine they were measured on.

    Args:
        name: of the benchmark, and of the file.
        rows: one mapping a line; the first row's keys are the columns.
        note: what a reader must know to read the numbers, printed below.
        folder: where the JSON goes.

    Returns:
        The JSON file.
    """
    table = Table(title=name, title_justify="left", box=None, pad_edge=False, header_style="bold")
    for column in rows[0]:
        table.add_column(str(column), justify="left" if isinstance(rows[0][column], str) else "right")
    for row in rows:
        table.add_row(*(_text(value) for value in row.values()))
    console = Console(width=140)
    console.print(table)
    if note:
        console.print(note, highlight=False)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.json"
    path.write_text(
        json.dumps({"benchmark": name, "machine": machine(), "rows": list(rows), "note": note}, indent=2)
    )
    console.print(f"written to {path}", highlight=False)
    return path


def machine() -> dict[str, Any]:
    """The machine and its load, for whoever compares two files."""
    return {
        "python": platform.python_version(),
        "cores": os.cpu_count(),
        "load": os.getloadavg()[0],
        "when": time.strftime("%Y-%m-%d %H:%M:%S"),
    }


def _text(value: object) -> str:
    return f"{value:.2f}" if isinstance(value, float) else str(value)
