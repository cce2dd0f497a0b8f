"""The host's end of the link to a keeper: one job from its order to its ending.

Blocking, for a thread of its own. Everything that comes over the link is checked to come from the keeper.
What the keeper passes on from the worker is data that nobody believes yet: it goes to the job's folder,
capped, and `JobFolder` judges it.
"""

from __future__ import annotations

import contextlib
import math
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from typing import Protocol

from pydantic import ValidationError

from cambrian.sandbox.held_out import Giver, HeldOut
from cambrian.sandbox.job_folder import JobFolder
from cambrian.sandbox.protocol import Job
from cambrian.sandbox.worker.channel import (
    CHUNK,
    TO_HOST,
    TO_KEEPER,
    ChannelBroken,
    Frame,
    Reader,
    Seal,
    new_key,
    pack,
)
from cambrian.sandbox.worker.messages import Ending, Order

QUIET_S = 60.0
"""How long a job may have the cores of a measurement to itself."""


class Link(Protocol):
    """A stream of bytes to a keeper and back."""

    def send(self, data: bytes) -> None:
        """Send all of `data`; raises `OSError` when the other end is gone."""
        ...

    def receive(self, size: int, timeout_s: float | None) -> bytes:
        """Up to `size` bytes; none at the end of the stream.

        Raises:
            TimeoutError: nothing came in time.
            OSError: the stream broke.
        """
        ...

    def close(self) -> None:
        """Close both directions. Safe to call twice, and from another thread."""
        ...


class Quiet(Protocol):
    """What a job holds of the machine while it runs; see `cores.Place`."""

    cores: tuple[int, ...]

    @property
    def paused_s(self) -> float:
        """Seconds that the job was stopped for the sake of others."""
        ...

    def alone(self) -> AbstractContextManager[bool]:
        """Has nothing else of ours run on the same cores; whether that worked."""
        ...


class Conversation:
    """Talks to one keeper.

    Args:
        link: to it.
    """

    def __init__(self, link: Link) -> None:
        self._link = link
        key = new_key()
        self._key, self._seal, self._reader = key, Seal(key, TO_KEEPER), Reader(Seal(key, TO_HOST))
        self._waiting: list[Frame] = []
        self._sending = threading.Lock()
        self.first_step: float | None = None
        self._on_first_step: Callable[[], None] = lambda: None

    def greet(self) -> None:
        """Give the keeper the key; before any candidate code can be there."""
        self._link.send(self._key)

    def ready(self, timeout_s: float) -> None:
        """Wait until the keeper can take an order.

        Raises:
            TimeoutError: it does not answer in time.
            ChannelBroken: something else answers.
            EOFError: it ended.
        """
        frame = self._receive(time.monotonic() + timeout_s)
        if "ready" not in frame.header:
            raise ChannelBroken("the keeper does not say that it is ready")

    def run(
        self,
        job: Job,
        folder: JobFolder,
        held_out: HeldOut,
        place: Quiet,
        on_first_step: Callable[[], None] = lambda: None,
    ) -> Ending:
        """See `job` to its end; what is handed in goes to `folder`.

        Args:
            job: what to do.
            folder: prepared for it.
            held_out: inputs that the job may ask for.
            place: what it runs on.
            on_first_step: called once, when training has begun; must not block.

        Returns:
            How it ended. Ending its processes after that is the caller's.

        Raises:
            InfrastructureError: the disk failed.
            OSError: the link broke.
        """
        self._on_first_step = on_first_step
        exchange = _Exchange(self, job, folder, held_out, place)
        self.send(_order(job, folder, place))
        with exchange.quiet:
            while True:
                try:
                    ending = exchange.take(self._receive(exchange.patience()))
                except TimeoutError:
                    ending = exchange.waited_long()
                except EOFError:
                    ending = Ending(why="gone")
                except ChannelBroken:
                    ending = Ending(why="forged")
                if ending is not None:
                    return ending

    def pause(self, stop: bool) -> None:
        """Have the keeper stop or continue its worker; from any thread."""
        with contextlib.suppress(OSError):
            self.send(Frame({"pause": stop}))

    def stop(self) -> None:
        """Have the keeper end its worker and say so; from any thread."""
        with contextlib.suppress(OSError):
            self.send(Frame({"stop": True}))

    def close(self) -> None:
        """Close the link, from any thread: the keeper ends its worker and itself."""
        self._link.close()

    def training_began(self) -> None:
        """Note the time; what is said more than once is heard once."""
        if self.first_step is None:
            self.first_step = time.monotonic()
            self._on_first_step()

    def send(self, frame: Frame) -> None:
        """Send one frame; from any thread."""
        with self._sending:
            self._link.send(pack(frame, self._seal))

    def _receive(self, deadline: float) -> Frame:
        while not self._waiting:
            left = deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError
            data = self._link.receive(CHUNK, left)
            if not data:
                raise EOFError
            self._reader.feed(data)
            self._waiting.extend(self._reader.frames())
        return self._waiting.pop(0)


def _order(job: Job, folder: JobFolder, place: Quiet) -> Frame:
    order = Order(job=job, cores=place.cores, caps=folder.caps)
    return Frame({"order": order.model_dump(mode="json")})


class _Exchange:
    """What is known of a job under way.

    Attributes:
        quiet: held while the job has its cores to itself.
    """

    def __init__(
        self, conversation: Conversation, job: Job, folder: JobFolder, held_out: HeldOut, place: Quiet
    ) -> None:
        self._conversation, self._job, self._folder, self._place = conversation, job, folder, place
        self._giver = Giver(job, folder, held_out)
        self._started = time.monotonic()
        self._waited_s = 0.0  # for its turn to measure: no fault of its own
        self._measured = False
        self._quiet_until: float | None = None
        self.quiet = ExitStack()

    def _deadline(self) -> float:
        return self._started + self._job.limits.wall_s + self._place.paused_s + self._waited_s

    def patience(self) -> float:
        """When the next frame must have come, on the clock of `time.monotonic`."""
        return min(self._deadline(), self._quiet_until or math.inf)

    def waited_long(self) -> Ending | None:
        """Nothing has come in time."""
        if time.monotonic() >= self._deadline():  # which may have moved: the job was paused meanwhile
            return Ending(why="timeout")
        if self._quiet_until is not None and time.monotonic() >= self._quiet_until:
            self._loud()
        return None

    def take(self, frame: Frame) -> Ending | None:
        """Do what a frame of the keeper asks for; an ending when it is the last one."""
        header = frame.header
        if "ended" in header:
            try:
                return Ending.model_validate(header["ended"])
            except ValidationError as error:
                return Ending(why="lost", note=f"the keeper's last words are malformed: {error}"[:300])
        if "file" in header:
            self._folder.receive(str(header["file"]), frame.payload, bool(header.get("last")))
        elif header.get("say") == "first-step":
            self._conversation.training_began()
        elif header.get("say") == "loud":
            self._loud()
        elif header.get("ask") == "quiet":
            self._have_quiet()
        elif "ask" in header:
            answer = self._giver.give(str(header["ask"]))
            if answer is None:
                return Ending(why="undue")
            for part in answer:
                self._conversation.send(part)
        return None

    def _have_quiet(self) -> None:
        """Once for a job: who could ask again and again would stop all others."""
        before, alone = time.monotonic(), False
        if not self._measured:
            self._measured = True
            alone = self.quiet.enter_context(self._place.alone())
            self._quiet_until = time.monotonic() + QUIET_S
        self._waited_s += time.monotonic() - before
        self._conversation.send(Frame({"give": "quiet", "alone": alone, "last": True}))

    def _loud(self) -> None:
        self.quiet.close()
        self._quiet_until = None
