"""The command of a container: `python -m cambrian.sandbox.worker DATA SCRATCH`.

Imports torch, waits on standard input for the host's key and one order, keeps the worker that carries it out,
and ends. It ends as well when the host closes its standard input: a host that is gone leaves nothing behind.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
import threading
from pathlib import Path

from cambrian.sandbox.worker.keeper import HostGone, HostLink, Keeper, oom_kills, set_dumpable
from cambrian.sandbox.worker.launch import become_worker, warm_up
from cambrian.sandbox.worker.messages import Ending
from cambrian.sandbox.worker.stopwatch import Stopwatch, processes


def main(arguments: list[str]) -> int:
    """Keep one worker; the exit code is 0 when the host was told how it ended."""
    if len(arguments) != 2:
        sys.stderr.write("usage: python -m cambrian.sandbox.worker DATA SCRATCH\n")
        return 64
    set_dumpable(False)
    # As process 1 we get no signal from inside but those that we handle, and Python handles this one.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    incoming, outgoing = os.dup(0), os.dup(1)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(2, 1)  # what libraries print is no frame
    warm_up()
    ours, theirs = socket.socketpair()
    log_read, log_write = os.pipe()
    worker = os.fork()
    if worker == 0:
        for fd in (incoming, outgoing):
            os.close(fd)
        become_worker(theirs, log_write, Path(arguments[0]), Path(arguments[1]))
    theirs.close()
    os.close(log_write)
    try:
        keep(HostLink(incoming, outgoing), worker, ours, log_read)
    except HostGone:
        return 1
    return 0


def keep(link: HostLink, worker: int, channel: socket.socket, log: int) -> None:
    """See the worker, a child of ours, to its end.

    Args:
        link: to the host.
        worker: its process id.
        channel: our end.
        log: read end of what it prints.
    """
    killed_before = oom_kills()
    ended_read, ended_write = os.pipe()
    codes: list[int] = []

    def wait() -> None:
        """Reap whatever has ended, orphans of the worker too: we are process 1."""
        with contextlib.suppress(ChildProcessError):
            while True:
                pid, status = os.waitpid(-1, 0)
                if pid == worker:
                    codes.append(os.waitstatus_to_exitcode(status))
                    os.write(ended_write, b".")

    threading.Thread(target=wait, daemon=True).start()
    link.send({"ready": True})
    stopwatch = Stopwatch(lambda: worker, lambda: processes() - {os.getpid(), worker})
    keeper = Keeper(link, link.order(), channel, log, ended_read, stopwatch=stopwatch)
    why = keeper.run()
    if why == "exit" and codes[0] != 0 and oom_kills() > killed_before:
        why = "memory"
    keeper.finish(Ending(why=why, code=codes[0] if why == "exit" else None))


if __name__ == "__main__":
    # the engine ends what is left of the worker when this process, and with it the container, has ended
    code = main(sys.argv[1:])
    sys.stderr.flush()
    os._exit(code)
