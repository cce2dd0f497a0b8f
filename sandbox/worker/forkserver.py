"""A clean process that has imported torch once and forks a supervisor for each job.

A fresh interpreter spends seconds on importing torch; a fork of this one starts training within
milliseconds. It has one thread, no CUDA context, no open file but its socket, and an environment with
nothing of the host's in it, because all of that would be inherited.

Started as `python -s -P -m cambrian.sandbox.worker.forkserver SOCKET MODE FOLDER [PLUGINFOLDER ...]`,
where MODE is `probe`, or `none` for no namespaces, and FOLDER is on the file system that jobs write to.
Messages (see `messages`): in `{"start": Order}`, `{"stop": key}`; out
`{"ready": features, "missing": phrases}`, `{"ended": Ending, "key": key}`.
It ends with its socket: a host that is gone leaves nothing behind.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import selectors
import signal
import socket
import sys
import tempfile
import traceback
from pathlib import Path

from cambrian.sandbox.worker import confine
from cambrian.sandbox.worker.messages import HEAD_BYTES, Ending, Order, body_length, encode
from cambrian.sandbox.worker.supervisor import kill_below, supervise


class ForkServer:
    """The loop: orders in, endings out.

    Args:
        control: the socket to the host.
        features: how jobs are confined.
        gpu: whether this torch has CUDA.
    """

    def __init__(self, control: socket.socket, features: frozenset[confine.Feature], gpu: bool) -> None:
        self._control = control
        self._features = features
        self._gpu = gpu
        self._selector = selectors.DefaultSelector()
        self._selector.register(control, selectors.EVENT_READ)
        self._jobs: dict[int, tuple[str, int, bytes]] = {}  # result pipe -> key, supervisor, what was read
        self._buffer = b""

    def serve(self) -> None:
        """Work until the host closes its end, then end every job."""
        try:
            while True:
                for event, _ in self._selector.select():
                    if event.fileobj is self._control:
                        if not self._read_orders():
                            return
                    else:
                        self._read_result(event.fd)
        finally:
            for _, supervisor, _ in self._jobs.values():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(supervisor, signal.SIGKILL)
            kill_below()

    def _read_orders(self) -> bool:
        chunk = self._control.recv(65536)
        self._buffer += chunk
        while len(self._buffer) >= HEAD_BYTES:
            end = HEAD_BYTES + body_length(self._buffer[:HEAD_BYTES])
            if len(self._buffer) < end:
                break
            message = json.loads(self._buffer[HEAD_BYTES:end])
            self._buffer = self._buffer[end:]
            if "start" in message:
                self._start(Order.model_validate(message["start"]))
            else:
                self._stop(message["stop"])
        return bool(chunk)

    def _start(self, order: Order) -> None:
        result_read, result_write = os.pipe()
        try:
            pid = os.fork()
        except OSError as error:
            os.close(result_read)
            os.close(result_write)
            self._send({"ended": Ending(why="lost", note=str(error)).model_dump(), "key": order.key})
            return
        if pid == 0:
            supervise(order, self._features, self._gpu, result_write)
        os.close(result_write)
        self._jobs[result_read] = (order.key, pid, b"")
        self._selector.register(result_read, selectors.EVENT_READ)

    def _stop(self, key: str) -> None:
        for other, supervisor, _ in self._jobs.values():
            if other == key:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(supervisor, signal.SIGTERM)

    def _read_result(self, pipe: int) -> None:
        key, supervisor, known = self._jobs[pipe]
        chunk = os.read(pipe, 65536)
        if chunk:
            self._jobs[pipe] = (key, supervisor, known + chunk)
            return
        self._selector.unregister(pipe)
        os.close(pipe)
        del self._jobs[pipe]
        code = -signal.SIGKILL
        with contextlib.suppress(ChildProcessError):
            code = os.waitstatus_to_exitcode(os.waitpid(supervisor, 0)[1])
        if not known:  # killed, by its own job where that can see it: what it watched over is ours now
            kill_below(keep={supervisor for _, supervisor, _ in self._jobs.values()})
            known = Ending(why="exit", code=code).model_dump_json().encode()
        self._send({"ended": json.loads(known), "key": key})

    def _send(self, message: dict[str, object]) -> None:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self._control.sendall(encode(message))


def warm_up() -> None:
    """Import and touch what every job uses, so that forks find it done. No backward pass, no CUDA.

    A backward pass in a process that sees a GPU would start threads, which forks do not inherit.
    """
    import torch

    import cambrian.sandbox.worker.execute  # noqa: F401  (for the import alone)
    from cambrian.sandbox.worker.training import make_optimizer
    from cambrian.search_spaces import SPACES, Recipe
    from cambrian.search_spaces.declarative import space as _  # noqa: F401  (what builds from a folder)
    from cambrian.search_spaces.declarative.catalogue import catalogue

    torch.set_num_threads(1)
    module = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3), torch.nn.Flatten(), torch.nn.Linear(72, 2))
    outputs = module(torch.zeros(2, 1, 8, 8))
    torch.nn.functional.cross_entropy(outputs, torch.zeros(2, dtype=torch.long))
    for parameter in module.parameters():
        parameter.grad = torch.zeros_like(parameter)
    torch.nn.utils.clip_grad_norm_(module.parameters(), 1.0)
    optimizer = make_optimizer(module, Recipe())
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    for block in catalogue().values():
        importlib.import_module(block.module)
    for name in SPACES.names():
        with contextlib.suppress(Exception):  # a job that names it gets the error
            SPACES.get(name)


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
        job, scratch = Path(folder, "job"), Path(folder, "scratch")
        job.mkdir()
        scratch.mkdir()
        features = confine.probe(job, scratch) if mode == "probe" else frozenset()
    warm_up()
    import torch

    gc.collect()
    gc.freeze()  # or the collector would touch, and so copy, every page that forks share
    control.sendall(encode({"ready": sorted(features), "missing": list(confine.missing(features))}))
    # a process that forks to `os._exit` would run none of the interpreter's cleanup; neither do we
    try:
        ForkServer(control, features, torch.version.cuda is not None).serve()
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(0)


if __name__ == "__main__":
    main(sys.argv[1:])
