"""The keeper: the trusted process between the host and the worker that runs the candidate.

It gives the worker its order, passes on what the worker asks for and hands in, caps it, keeps the clock, and
is the only one that can talk to the host. It never looks into what it passes on: judging is the host's.

What candidate code can do: claim whatever it likes in the worker's name, because it shares the worker's
process. What it cannot do: kill or stop the keeper (it is process 1 of its container, or outside of the job's
process ids), read its memory and files (it is not dumpable, so `ptrace` and `/proc/PID` are closed to the
same user), speak to the host in its name (`channel.Seal`), turn its clocks, get inputs of the test split
before the trained weights were handed in, exceed the caps. A kernel exploit would give it all of that; so
would a process sandbox on a kernel without namespaces, which says so.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import selectors
import socket
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cambrian.sandbox.worker.channel import (
    CHUNK,
    KEY_BYTES,
    TO_HOST,
    TO_KEEPER,
    ChannelBroken,
    Frame,
    Reader,
    Seal,
    chunks,
    pack,
)
from cambrian.sandbox.worker.messages import Ending, Order, Why
from cambrian.sandbox.worker.stopwatch import Stopwatch

WATCH_S = 0.05
"""Seconds between looks at what the kernel does not enforce: what a candidate can exceed its limits by."""
WORKER_HEADER = 1 << 16
MOST_SAID = 2000
MOST_CALLS = 1_000_000
SAID = {"first-step", "loud"}
ASKED = {"quiet", "val", "test", "weights", "challenge"}
_PR_SET_DUMPABLE = 4


class HostGone(Exception):
    """The host closed its end: nobody waits for the job any more."""


def set_dumpable(wanted: bool) -> None:
    """Whether processes of the same user may look into this one (`ptrace`, `/proc/PID/mem`, `fd`)."""
    ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, int(wanted), 0, 0, 0)


class HostLink:
    """The keeper's end of the link to the host.

    Args:
        incoming: file descriptor to read from.
        outgoing: file descriptor to write to; both are made blocking.
    """

    def __init__(self, incoming: int, outgoing: int) -> None:
        self.incoming, self._outgoing = incoming, outgoing
        for fd in (incoming, outgoing):
            os.set_blocking(fd, True)
        key = b""
        while len(key) < KEY_BYTES:
            part = os.read(incoming, KEY_BYTES - len(key))
            if not part:
                raise HostGone
            key += part
        self._reader = Reader(Seal(key, TO_KEEPER))
        self._seal = Seal(key, TO_HOST)

    def send(self, header: dict[str, Any], payload: bytes = b"") -> None:
        """Send one frame; raises `HostGone` when nobody reads."""
        data = memoryview(pack(Frame(header, payload), self._seal))
        try:
            while data:
                data = data[os.write(self._outgoing, data) :]
        except OSError as error:
            raise HostGone from error

    def receive(self) -> list[Frame]:
        """What has come, waiting for at least some bytes; raises `HostGone` at the end of the stream."""
        data = os.read(self.incoming, CHUNK)
        if not data:
            raise HostGone
        self._reader.feed(data)
        return list(self._reader.frames())

    def order(self) -> Order:
        """Wait for the order."""
        while True:
            for frame in self.receive():
                return Order.model_validate(frame.header["order"])


class Keeper:
    """Keeps one worker until it has ended, or must be ended.

    Args:
        link: to the host.
        order: what the worker does.
        worker: our end of the worker's channel.
        log: read end of the pipe that is the worker's standard output and error.
        ended: a file descriptor that can be read once the worker has ended.
        watch: looked at every `WATCH_S`; says which limit is broken.
        on_pause: stops and continues the worker, where the host asks for it.
        stopwatch: times the worker.
    """

    def __init__(
        self,
        link: HostLink,
        order: Order,
        worker: socket.socket,
        log: int,
        ended: int,
        watch: Callable[[], Why | None] = lambda: None,
        on_pause: Callable[[bool], None] = lambda _stop: None,
        stopwatch: Stopwatch | None = None,
    ) -> None:
        self._link, self._order, self._worker, self._ended = link, order, worker, ended
        self._watch, self._on_pause = watch, on_pause
        self._log, self._log_fd = _Log(order.job.limits.log_kb << 10), log
        self._reader = Reader(header_limit=WORKER_HEADER)
        order_for_worker = pack(Frame({"order": order.model_dump(mode="json")}))
        self._to_worker: deque[memoryview] = deque([memoryview(order_for_worker)])
        self._asked = False  # the worker waits for the host; until then nothing is read of it
        self._handed_in: dict[str, int] = {}
        self._closed: set[str] = set()
        self._challenge: _Challenge | None = None
        self._stopwatch = stopwatch or Stopwatch()
        self._block: int | None = None
        self._said = 0
        self._timed: list[tuple[int, float]] = []
        self._selector = selectors.DefaultSelector()
        worker.setblocking(False)
        os.set_blocking(log, False)

    def run(self) -> Why:
        """Serve the worker until it ends.

        Raises:
            HostGone: nobody waits for the job any more.
        """
        with self._selector:
            for fd in (self._link.incoming, self._log_fd, self._ended):
                self._selector.register(fd, selectors.EVENT_READ)
            self._listen()
            try:
                why = self._serve()
            except ChannelBroken:
                return "flood" if self._flooded() else "forged"
        return why

    def finish(self, ending: Ending) -> None:
        """Tell the host how the job ended, the log first."""
        self._log.drain(self._log_fd)
        for frame in chunks({"file": "log.txt"}, self._log.content()):
            self._link.send(frame.header, frame.payload)
        answers = self._challenge.seconds if self._challenge is not None else ()
        facts = {"timed": tuple(self._timed), "answers_s": tuple(answers)}
        self._link.send({"ended": ending.model_copy(update=facts).model_dump(mode="json")})

    # -- inside -------------------------------------------------------------------------------------

    def _serve(self) -> Why:
        next_look = time.monotonic() + WATCH_S
        while True:
            events = self._selector.select(max(0.0, next_look - time.monotonic()))
            ready = {key.fileobj: mask for key, mask in events}
            if self._log_fd in ready and not self._log.drain(self._log_fd):
                self._selector.unregister(self._log_fd)
            if self._worker in ready:
                if ready[self._worker] & selectors.EVENT_WRITE:
                    self._write()
                if ready[self._worker] & selectors.EVENT_READ:
                    self._read()
            if self._link.incoming in ready and self._from_host():
                return "stopped"
            if self._ended in ready:
                self._read_rest()
                return "exit"
            if time.monotonic() >= next_look:
                if (why := self._watch()) is not None:
                    return why
                next_look = time.monotonic() + WATCH_S

    def _listen(self) -> None:
        """Have the selector wait for what can happen next with the worker."""
        # one that does not take its answers is not listened to, or they would pile up
        events = 0 if self._asked or self._to_worker else selectors.EVENT_READ
        events |= selectors.EVENT_WRITE if self._to_worker else 0
        known = self._worker in self._selector.get_map()
        if events and known:
            self._selector.modify(self._worker, events)
        elif events:
            self._selector.register(self._worker, events)
        elif known:
            self._selector.unregister(self._worker)

    def _read(self) -> bool:
        """Read some of the worker's words; False when there are none left."""
        try:
            data = self._worker.recv(CHUNK)
        except BlockingIOError:
            return False
        except OSError:
            data = b""
        if not data:
            self._asked = True  # it closed its end: only its exit is awaited
            self._listen()
            return False
        arrived = time.monotonic()
        self._reader.feed(data)
        for frame in self._reader.frames():
            self._from_worker(frame, arrived)
        return True

    def _read_rest(self) -> None:
        """What the worker said before it ended; a process that it left behind may go on for ever."""
        for _ in range(sum(self._order.caps.values()) // CHUNK + 64):
            if self._asked or not self._read():
                break

    def _write(self) -> None:
        try:
            while self._to_worker:
                sent = self._worker.send(self._to_worker[0])
                self._to_worker[0] = self._to_worker[0][sent:]
                if not self._to_worker[0]:
                    self._to_worker.popleft()
        except BlockingIOError:
            pass
        except OSError:  # it closed its end
            self._to_worker.clear()
        self._listen()

    def _from_worker(self, frame: Frame, arrived: float) -> None:
        header = frame.header
        if "file" in header:
            self._pass_file(str(header["file"]), bool(header.get("last")), frame.payload)
        elif "answer" in header and self._challenge is not None:
            self._challenge.answered(frame.payload, arrived)
            self._next_question()
        elif "ask" in header:
            self._asks(str(header["ask"]))
        else:
            self._says(str(header.get("say")), header.get("calls"), arrived)

    def _asks(self, what: str) -> None:
        if what not in ASKED:
            raise ChannelBroken("the worker asked for what there is not")
        self._asked = True
        self._link.send({"ask": what})
        self._listen()

    def _says(self, what: str, calls: object, arrived: float) -> None:
        self._said += 1
        if self._said > MOST_SAID:
            raise ChannelBroken("the worker talks without end")
        if what == "begin" and isinstance(calls, int) and 1 <= calls <= MOST_CALLS:
            self._block = calls
            self._heard(self._stopwatch.start)
        elif what == "end" and self._block is not None:
            self._timed.append((self._block, self._stopwatch.stop(arrived)))
            self._block = None
            self._heard()
        elif what in SAID:
            self._link.send({"say": what})
        else:
            raise ChannelBroken("the worker said something that no worker says")

    def _heard(self, before: Callable[[], None] = lambda: None) -> None:
        """Let the worker go on: it waits, so that where both share a core the clock is looked at in time."""
        self._to_worker.append(memoryview(pack(Frame({"heard": True}))))
        before()
        self._write()

    def _pass_file(self, name: str, last: bool, content: bytes) -> None:
        if name not in self._order.caps or name in self._closed:
            raise ChannelBroken("the worker handed in what nobody asked for")
        if not last and len(content) < CHUNK:
            raise ChannelBroken("the worker hands in crumbs")
        self._handed_in[name] = self._handed_in.get(name, 0) + len(content)
        if self._flooded():
            raise ChannelBroken("the worker handed in too much")
        if last:
            self._closed.add(name)
        self._link.send({"file": name, "last": last}, content)

    def _flooded(self) -> bool:
        return any(size > self._order.caps[name] for name, size in self._handed_in.items())

    def _from_host(self) -> bool:
        """Pass on what the host sent; whether it asks us to stop."""
        for frame in self._link.receive():
            header = frame.header
            if "stop" in header:
                return True
            if "pause" in header:
                self._on_pause(bool(header["pause"]))
                continue
            if header.get("give") == "challenge":
                if self._challenge is None:
                    self._challenge = _Challenge(header, self._stopwatch)
                self._challenge.content += frame.payload
                if header.get("last"):
                    self._next_question()
                continue
            self._to_worker.append(memoryview(pack(frame)))
            self._asked = not header.get("last")
        self._listen()
        return False

    def _next_question(self) -> None:
        """Send the worker the next rows of the challenge; after the last one the answers go to the host."""
        challenge = self._challenge
        assert challenge is not None
        question = challenge.next()
        if question is None:
            for frame in chunks({"file": "answers"}, bytes(challenge.answers)):
                self._link.send(frame.header, frame.payload)
            question = Frame({"over": True, "last": True})
        self._to_worker.append(memoryview(pack(question)))
        self._asked = False
        self._write()


class _Challenge:
    """Inputs that the worker gets one after the other, and the time that each answer takes.

    Args:
        header: `rows` questions of `row_bytes` bytes, `answer_bytes` each; dtype and shape are the worker's.
        stopwatch: times the worker.
    """

    def __init__(self, header: dict[str, Any], stopwatch: Stopwatch) -> None:
        self._stopwatch = stopwatch
        self._row_bytes, self._answer_bytes = int(header["row_bytes"]), int(header["answer_bytes"])
        self._facts = {"dtype": header["dtype"], "shape": header["shape"]}
        self._left = int(header["rows"])
        self.content = bytearray()
        self.answers = bytearray()
        self.seconds: list[float] = []
        self._open = False

    def next(self) -> Frame | None:
        """The next question, None after the last."""
        if self._left == 0:
            self._open = False
            return None
        self._left -= 1
        row = bytes(self.content[: self._row_bytes])
        del self.content[: self._row_bytes]
        self._open = True
        self._stopwatch.start()
        return Frame({"question": True, **self._facts}, row)

    def answered(self, content: bytes, arrived: float) -> None:
        """Take an answer."""
        if not self._open or len(content) != self._answer_bytes:
            raise ChannelBroken("an answer that nobody asked for, or of a wrong size")
        self.seconds.append(self._stopwatch.stop(arrived))
        self.answers += content


class _Log:
    """The first bytes of what the job prints; the rest is read and forgotten."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._kept = bytearray()
        self._cut = False

    def drain(self, pipe: int) -> bool:
        """Take what is there, up to a megabyte; False at the end of the stream."""
        for _ in range(16):
            try:
                chunk = os.read(pipe, 1 << 16)
            except (BlockingIOError, InterruptedError):
                return True
            if not chunk:
                return False
            room = self._limit - len(self._kept)
            self._kept += chunk[:room]
            self._cut = self._cut or len(chunk) > room
        return True

    def content(self) -> bytes:
        """What is kept."""
        note = f"\n[only the first {self._limit >> 10} KiB are kept]\n".encode() if self._cut else b""
        return bytes(self._kept) + note


def oom_kills() -> int:
    """How often the kernel has killed a process of our memory cgroup for want of memory; 0 where unknown."""
    for path in ("/sys/fs/cgroup/memory.events", "/sys/fs/cgroup/memory/memory.oom_control"):
        with contextlib.suppress(OSError, ValueError):
            for line in Path(path).read_text().splitlines():
                name, _, value = line.partition(" ")
                if name == "oom_kill":
                    return int(value)
    return 0
