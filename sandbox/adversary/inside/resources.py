"""Acts that use up what there is, do not end, or end what they should not."""

from __future__ import annotations

import collections
import contextlib
import ctypes
import itertools
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

Act = Callable[[dict[str, Any]], Any]
FOREVER_S = 600


def hide(marker: str, seconds: int = 300) -> None:
    """Start a process that leaves our session, our group and our parentage, and ignores what it can."""
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            signal.signal(signal.SIGHUP, signal.SIG_IGN)
            code = f"import time; time.sleep({seconds})"
            os.execve(sys.executable, [sys.executable, "-S", "-c", code, marker], {})
        os._exit(0)
    os.wait()


def bomb() -> None:
    """Fork, and let every child fork."""
    while True:
        try:
            if os.fork() == 0:
                continue
        except OSError:
            time.sleep(0.01)


def threads() -> None:
    """Start threads until no more can be had."""
    while True:
        threading.Thread(target=time.sleep, args=(FOREVER_S,), daemon=True).start()


def eat(mb: int) -> None:
    """Take memory bit by bit."""
    kept = []
    for _ in range(mb // 16):
        kept.append(bytearray(os.urandom(1)) * (16 << 20))
        time.sleep(0.002)
    time.sleep(60)


def eat_by_children(mb: int) -> None:
    """Take memory in four processes, each of which stays below the limit."""
    for _ in range(4):
        if os.fork() == 0:
            eat(mb // 4)
    time.sleep(60)


def eat_memory_files(mb: int) -> None:
    """Take memory that belongs to no process: files that exist in memory only."""
    kept = [os.memfd_create(f"m{i}") for i in range(mb // 8)]
    for fd in kept:
        os.write(fd, b"x" * (8 << 20))
    time.sleep(0.5)
    raise RuntimeError(f"holds {8 * len(kept)} MiB in files without a name")


def fill_here(mb: int) -> None:
    """Write to our own folder in files of 8 MB, and keep them."""
    for i in range(mb // 8):
        Path(f"full-{i}").write_bytes(b"0" * (8 << 20))


def fill_with_files(mb: int) -> None:
    """Write many files, each below every limit, wherever one may."""
    written, problem = 0, ""
    for place in (Path.cwd(), Path("/dev/shm"), Path("/tmp"), Path("/var/tmp"), Path("/job"), Path("/data")):
        with contextlib.suppress(OSError):
            (place / "cambrian-filler").mkdir(exist_ok=True)
            try:
                for i in itertools.count():
                    if written >= mb:
                        raise RuntimeError(f"wrote {written} MiB in many files")
                    (place / "cambrian-filler" / str(i)).write_bytes(b"0" * (4 << 20))
                    written += 4
            except OSError as error:
                problem = str(error)
            finally:
                for path in (place / "cambrian-filler").iterdir():
                    path.unlink()
    raise RuntimeError(f"stopped after {written} MiB: {problem}")


def dig(depth: int) -> None:
    """Make folders in folders until no path reaches the last one, and names that are awkward to remove."""
    start = Path.cwd()
    for name in ("-rf", "new\nline", "\x1b[31m", "ünï", " "):
        (start / name).mkdir()
    for _ in range(depth):
        Path("d" * 50).mkdir()
        os.chdir("d" * 50)
    Path("last").write_text("x")
    os.chmod("last", 0)  # noqa: PTH101
    os.chdir(start)
    (start / ("d" * 50)).chmod(0)


def flood(stream: int, mb: int) -> None:
    """Write to a standard stream by its number, past anything that Python puts before it."""
    for _ in range(mb):
        with contextlib.suppress(OSError):
            os.write(stream, b"flood " * 170_000)


def ignore_signals() -> None:
    """Ignore and block every signal that can be, then stay."""
    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
        with contextlib.suppress(OSError, ValueError):
            signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    time.sleep(FOREVER_S)


def spin() -> None:
    """Never end, in Python."""
    while True:
        pass


def spin_in_c() -> None:
    """Never end, in C, without ever letting go of the interpreter's lock."""
    collections.deque(itertools.repeat(0), maxlen=0)


def kill_parents(number: int) -> None:
    """Send a signal to everyone above us, then to everyone whom we can see."""
    pid, above = os.getppid(), []
    while pid > 0:
        above.append(pid)
        try:
            pid = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
        except OSError:
            break
    for target in above:
        with contextlib.suppress(OSError):
            os.kill(target, number)
    if number == signal.SIGSTOP:
        time.sleep(FOREVER_S)


def kill_all() -> None:
    """Kill everything that can be killed, then ourselves."""
    with contextlib.suppress(OSError):
        os.kill(-1, signal.SIGKILL)
    time.sleep(0.2)
    os.kill(os.getpid(), signal.SIGKILL)


def open_everything() -> None:
    """Open files until no more can be had, and keep them."""
    kept = []
    while True:
        kept.append(os.open("/dev/null", os.O_RDONLY))


def close_everything() -> None:
    """Close every file, the channel to whoever waits for us among them."""
    os.closerange(0, 4096)


def raise_limits() -> list[str]:
    """Resource limits that we could raise."""
    import resource

    raised = []
    for name in ("RLIMIT_FSIZE", "RLIMIT_NOFILE", "RLIMIT_CORE", "RLIMIT_CPU", "RLIMIT_NPROC"):
        kind = getattr(resource, name)
        soft, hard = resource.getrlimit(kind)
        if hard == resource.RLIM_INFINITY:
            continue
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(kind, (soft, hard + 1))
            raised.append(name)
    return raised


def send_signal(genotype: dict[str, Any]) -> None:
    """End ourselves by a signal."""
    os.kill(os.getpid(), genotype["number"])
    time.sleep(60)


def hide_and_wait(genotype: dict[str, Any]) -> None:
    """Hide a process, then wait."""
    hide(genotype["marker"])
    time.sleep(genotype["seconds"])


def linger(genotype: dict[str, Any]) -> None:
    """Leave behind what keeps an interpreter from ending: a thread and a hook."""
    import atexit

    atexit.register(time.sleep, FOREVER_S)
    threading.Thread(target=time.sleep, args=(FOREVER_S,)).start()


def recurse(genotype: dict[str, Any]) -> None:
    """Overflow the stack of C."""
    sys.setrecursionlimit(1 << 30)
    threading.stack_size(0)
    nested: Any = []
    for _ in range(5_000_000):
        nested = [nested]
    repr(nested)
    kind: Any = type("Deep", (), {"__getattr__": lambda self, name: getattr(self, name + "x")})
    kind().x  # noqa: B018 - asked for its effect


RESOURCES: dict[str, Act] = {
    "quit": lambda genotype: sys.exit(5),
    "signal": send_signal,
    "exit": lambda genotype: os._exit(genotype["code"]),
    "abort": lambda genotype: os.abort(),
    "segfault": lambda genotype: ctypes.string_at(0),
    "hide": hide_and_wait,
    "bomb": lambda genotype: bomb(),
    "threads": lambda genotype: threads(),
    "eat": lambda genotype: eat(genotype["mb"]),
    "eat-by-children": lambda genotype: eat_by_children(genotype["mb"]),
    "eat-memory-files": lambda genotype: eat_memory_files(genotype["mb"]),
    "grab": lambda genotype: bytearray(genotype["mb"] << 20),
    "chat": lambda genotype: print("x" * (genotype["kb"] << 10), flush=True),
    "flood": lambda genotype: flood(genotype["stream"], genotype["mb"]),
    "write": lambda genotype: Path("big").write_bytes(b"0" * (genotype["mb"] << 20)),
    "fill-here": lambda genotype: fill_here(genotype["mb"]),
    "fill": lambda genotype: fill_with_files(genotype["mb"]),
    "dig": lambda genotype: dig(genotype["depth"]),
    "spin": lambda genotype: spin(),
    "spin-in-c": lambda genotype: spin_in_c(),
    "sleep": lambda genotype: time.sleep(FOREVER_S),
    "ignore-signals": lambda genotype: ignore_signals(),
    "kill-all": lambda genotype: kill_all(),
    "kill-parents": lambda genotype: kill_parents(genotype["number"]),
    "open-everything": lambda genotype: open_everything(),
    "close-everything": lambda genotype: close_everything(),
    "linger": linger,
    "recurse": recurse,
}
