"""Fresh processes, forked from a clean one."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from typing import Any


class Fresh:
    """Calls a function in a fresh process that has torch and the measuring code imported."""

    def __init__(self) -> None:
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(["tests.benchmarks.latency.inside"])

    def call(self, function: Callable[..., Any], *arguments: object) -> Any:
        """What `function` returns there."""
        reader, writer = self._context.Pipe(duplex=False)
        process = self._context.Process(target=_send, args=(writer, function, arguments))
        process.start()
        writer.close()
        try:
            return reader.recv()
        finally:
            process.join()


def _send(writer: Any, function: Callable[..., Any], arguments: tuple[object, ...]) -> None:
    writer.send(function(*arguments))
