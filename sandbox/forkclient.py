"""The host's end of the fork server."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cambrian.sandbox.errors import InfrastructureError
from cambrian.sandbox.outcome import disk
from cambrian.sandbox.worker.messages import HEAD_BYTES, Ending, Order, body_length, encode

START_S = 120.0
"""Seconds that the fork server may take to import torch; a busy disk can be that slow."""


class ServerDied(Exception):
    """The fork server is gone, and with it every job that it ran."""


class ForkClient:
    """Starts a fork server, hands it orders, and tells how they ended.

    Args:
        folder: for the server's log and its probe of the machine.
        environment: the whole environment of the server.
        plugins: folders for its import path.
        namespaces: whether jobs are to be confined by them where the kernel allows it.
    """

    def __init__(
        self, folder: Path, environment: Mapping[str, str], plugins: Sequence[Path], namespaces: bool
    ) -> None:
        self._folder = folder
        self._environment = dict(environment)
        self._probe = "probe" if namespaces else "none"
        self._plugins = [str(p.resolve()) for p in plugins]
        self._process: subprocess.Popen[bytes] | None = None
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._listener: asyncio.Task[None] | None = None
        self._orders: dict[str, asyncio.Future[Ending]] = {}

    async def start(self) -> tuple[str, ...]:
        """Start the server and wait until it is ready.

        Returns:
            What it cannot keep a job from on this machine.

        Raises:
            InfrastructureError: it ended or stayed silent; the message has the end of its log.
        """
        ours, theirs = socket.socketpair()
        # -s -P and an environment of our own isolate as -I does, but for the hash seed, which we set
        command = [sys.executable, "-s", "-P", "-m", "cambrian.sandbox.worker.forkserver"]
        command += [str(theirs.fileno()), self._probe, str(self._folder), *self._plugins]
        with theirs, disk("start the fork server"):
            log = (self._folder / "forkserver.log").open("ab")
            with log:
                self._process = subprocess.Popen(
                    command,
                    env=self._environment,
                    cwd=self._folder,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    pass_fds=(theirs.fileno(),),
                    start_new_session=True,
                )
        self._reader, self._writer = await asyncio.open_connection(sock=ours)
        try:
            ready = await asyncio.wait_for(self._receive(self._reader), START_S)
        except (TimeoutError, asyncio.IncompleteReadError) as error:
            await self.close()
            raise InfrastructureError(
                f"the process sandbox's fork server did not start: {self._last_words()}",
                hint="see 'cambrian doctor'; is torch installed?",
            ) from error
        except asyncio.CancelledError:
            await self.close()
            raise
        self._listener = asyncio.create_task(self._listen(self._reader))
        return tuple(str(phrase) for phrase in ready["missing"])

    def submit(self, order: Order) -> asyncio.Future[Ending]:
        """Start a job; the future holds its ending, or `ServerDied`."""
        future: asyncio.Future[Ending] = asyncio.get_running_loop().create_future()
        if self._writer is None or self._listener is None or self._listener.done():
            future.set_exception(ServerDied("it is not running"))
            return future
        self._orders[order.key] = future
        self._writer.write(encode({"start": order.model_dump(mode="json")}))
        return future

    def stop(self, key: str) -> None:
        """End the job of that key; its future tells when that is done."""
        if self._writer is not None and key in self._orders:
            self._writer.write(encode({"stop": key}))

    def kill(self) -> None:
        """End the server at once; the kernel ends its jobs."""
        if self._process is not None:
            self._process.kill()

    async def close(self) -> None:
        """End the server and all its jobs, and wait until they are gone. Safe to call twice."""
        writer, self._writer = self._writer, None
        if writer is not None:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()
        process, self._process = self._process, None
        if process is not None:
            try:
                await asyncio.to_thread(process.wait, 10)
            except subprocess.TimeoutExpired:
                process.kill()
                await asyncio.to_thread(process.wait)
        if self._listener is not None:
            await asyncio.wait({self._listener})

    async def _receive(self, reader: asyncio.StreamReader) -> dict[str, Any]:
        head = await reader.readexactly(HEAD_BYTES)
        message: dict[str, Any] = json.loads(await reader.readexactly(body_length(head)))
        return message

    async def _listen(self, reader: asyncio.StreamReader) -> None:
        try:
            while True:
                message = await self._receive(reader)
                future = self._orders.pop(str(message["key"]), None)
                if future is not None and not future.done():
                    future.set_result(Ending.model_validate(message["ended"]))
        except (asyncio.IncompleteReadError, OSError):
            pass
        finally:
            for future in self._orders.values():
                if not future.done():
                    future.set_exception(ServerDied(self._last_words()))
            self._orders.clear()

    def _last_words(self) -> str:
        with contextlib.suppress(OSError):
            lines = (self._folder / "forkserver.log").read_text(errors="replace").strip().splitlines()
            if lines:
                return lines[-1][:500]
        return "it left no message"
