"""From a fork of the keeper to a worker: what is left behind on the way, the same in every sandbox."""

from __future__ import annotations

import contextlib
import os
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from cambrian.sandbox.worker.channel import Channel
from cambrian.sandbox.worker.keeper import set_dumpable
from cambrian.sandbox.worker.messages import Order

FIRST_TO_DIE = "1000"
"""Our own word to the kernel's out-of-memory killer: the worker before its keeper."""


def become_worker(
    channel: socket.socket,
    log: int,
    data: Path,
    scratch: Path,
    confine: Callable[[Order], None] = lambda _order: None,
) -> NoReturn:
    """Leave everything of the keeper's but `channel`, wait for an order, carry it out, end this process.

    Must be forked before the keeper knows the key of its link: candidate code can read this memory.

    Args:
        channel: to the keeper.
        log: becomes standard output and error.
        data: the folder of the task's arrays.
        scratch: becomes working directory and home.
        confine: called last before the job: takes away what this process may do.
    """
    code = 70
    try:
        set_dumpable(True)  # or it could not open its own /proc/self
        os.setsid()
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(log, 1)
        os.dup2(log, 2)
        close_files({channel.fileno()})
        with contextlib.suppress(OSError):
            Path("/proc/self/oom_score_adj").write_text(FIRST_TO_DIE)
        os.chdir(scratch)
        os.environ.update(HOME=str(scratch), TMPDIR=str(scratch))
        from cambrian.sandbox.worker.execute import execute

        own = Channel(channel)
        order = Order.model_validate(own.receive().header["order"])
        started = time.monotonic()
        if order.cores:
            os.sched_setaffinity(0, order.cores)
        confine(order)
        code = execute(own, order.job, data, started)
    finally:
        with contextlib.suppress(BaseException):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def close_files(keep: set[int]) -> None:
    """Close every file but the standard three and `keep`."""
    for fd in [int(entry.name) for entry in Path("/proc/self/fd").iterdir()]:
        if fd > 2 and fd not in keep:
            with contextlib.suppress(OSError):  # the one that listed the folder is closed by now
                os.close(fd)


def warm_up() -> None:
    """Import and touch what every job uses, so that forks find it done. No backward pass, no CUDA.

    A backward pass in a process that sees a GPU would start threads, which forks do not inherit.
    """
    import gc
    import importlib

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
    gc.collect()
    gc.freeze()  # or the collector would touch, and so copy, every page that forks share
