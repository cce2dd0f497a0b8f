"""A clean process that has imported torch once and forks a supervisor for each job.

A fresh interpreter spends seconds on importing torch; a fork of this one starts training within
milliseconds. It has one thread, no CUDA context, no open file but its socket, and an environment with
nothing of the host's in it, because all of that would be inherited.

Started as `python -s -P -m cambrian.sandbox.worker.forkserver SOCKET MODE FOLDER [PLUGINFOLDER ...]`,
where MODE is `probe`, or `none` for no namespaces, and FOLDER is for a trial of the confinement. Each packet
on the socket is a message in JSON. In: a `Place`, which names the socket where the host waits for the job's
keeper. (Passing a descriptor would fail while a candidate keeps too many of this user's in flight.) Out:
`{"ready": features, "missing": phrases}` once, `{"ended": key}` for each job when all its processes are gone.
It ends with its socket: a host that is gone leaves nothing behind.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import socket
import sys
import tempfile
import traceback
from collections.abc import Sequence
from pathlib import Path

from cambrian.sandbox.worker import confine
from cambrian.sandbox.worker.keeper import set_dumpable
from cambrian.sandbox.worker.launch import warm_up
from cambrian.sandbox.worker.messages import Place
from cambrian.sandbox.worker.mounts import needed
from cambrian.sandbox.worker.supervisor import kill_below, supervise

PACKET = 1 << 16
"""Longest message."""


class ForkServer:
    """The loop: places in, endings out.

    Args:
        control: the socket to the host.
        features: how jobs are confined.
        visible: files and folders that jobs may read.
        gpu: whether this torch has CUDA.
    """

    def __init__(
        self, control: socket.socket, features: frozenset[confine.Feature], visible: Sequence[Path], gpu: bool
    ) -> None:
        self._control, self._features, self._visible, self._gpu = control, features, visible, gpu
        self._selector = selectors.DefaultSelector()
        self._selector.register(control, selectors.EVENT_READ)
        self._jobs: dict[
            int, tuple[str, int]
        ] = {}  # a pipe that closes with the supervisor -> key, supervisor

    def serve(self) -> None:
        """Work until the host closes its end, then end every job."""
        try:
            while True:
                for event, _ in self._selector.select():
                    if event.fileobj is not self._control:
                        self._ended(event.fd)
                    elif not self._start():
                        return
        finally:
            for _, supervisor in self._jobs.values():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(supervisor, signal.SIGKILL)
            kill_below()

    def _start(self) -> bool:
        packet = self._control.recv(PACKET)
        if not packet:
            return False
        place = Place.model_validate_json(packet)
        alive, theirs = os.pipe()
        try:
            pid = os.fork()
        except OSError:
            os.close(alive)
            self._send({"ended": place.key})
        else:
            if pid == 0:
                os.dup2(theirs, 0)  # stays open as long as the supervisor lives, and is not passed on
                supervise(place, self._features, self._visible, self._gpu)
            self._jobs[alive] = (place.key, pid)
            self._selector.register(alive, selectors.EVENT_READ)
        finally:
            os.close(theirs)
        return True

    def _ended(self, pipe: int) -> None:
        key, supervisor = self._jobs.pop(pipe)
        self._selector.unregister(pipe)
        os.close(pipe)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(supervisor, 0)
        # where its own job could see and kill it, what it watched over is ours now
        kill_below(keep={supervisor for _, supervisor in self._jobs.values()})
        self._send({"ended": key})

    def _send(self, message: dict[str, object]) -> None:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self._control.send(json.dumps(message).encode())


def main(arguments: list[str]) -> None:
    """Entry point; see the module's docstring."""
    fd, mode, probe_folder, *plugins = arguments
    # not `die_with_parent`: a killed server could not end what hid below it, and the end of its socket
    # tells it as surely that the host is gone
    confine.adopt_orphans()
    os.umask(0o077)
    sys.path.extend(plugins)
    control = socket.socket(fileno=int(fd))
    with tempfile.TemporaryDirectory(dir=probe_folder) as folder:
        visible = needed(plugins)
        features = confine.probe(visible, Path(folder)) if mode == "probe" else frozenset()
    set_dumpable(False)
    warm_up()
    import torch

    control.send(json.dumps({"ready": sorted(features), "missing": list(confine.missing(features))}).encode())
    # a process that forks to `os._exit` would run none of the interpreter's cleanup; neither do we
    try:
        ForkServer(control, features, visible, torch.version.cuda is not None).serve()
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(0)


if __name__ == "__main__":
    main(sys.argv[1:])
