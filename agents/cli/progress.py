"""One line on the terminal that tells how far something is."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

Told = Callable[[str, int, int], None]
"""Called with what is being done, how many are done, and of how many."""


@contextmanager
def progress(quiet: bool, first: str = "") -> Iterator[Told]:
    """Show the line on standard error until the end of the block.

    Args:
        quiet: show nothing.
        first: what the line says before anything is told.
    """
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=Console(stderr=True),
        transient=True,
        disable=quiet,
    )
    with bar:
        line = bar.add_task(first, total=None)
        yield lambda doing, done, of: bar.update(line, description=doing, completed=done, total=of)
