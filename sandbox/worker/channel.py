"""How host, keeper and worker talk: frames of a JSON header and raw bytes.

Between worker and keeper frames are plain: candidate code shares the worker's process, so nothing that comes
from there is more than a claim. Between keeper and host each frame carries a counter and a keyed BLAKE2b tag.
The key is drawn by the host for one container and comes as the very first bytes, before any candidate code is
in it; so whoever else can write to the stream (a candidate may open `/proc/1/fd/1`) is found out by the first
byte that he adds, takes or repeats.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import secrets
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol

CHUNK = 1 << 20
"""Most raw bytes of one frame; what is larger goes in several."""
HEADER_LIMIT = 1 << 20
KEY_BYTES, TAG_BYTES = 32, 16
_LENGTHS = struct.Struct(">II")


class ChannelBroken(Exception):
    """What came is no frame, or not from whom it should be."""


@dataclass(frozen=True)
class Frame:
    """One message: `header` says what it is, `payload` holds raw bytes, at most `CHUNK`."""

    header: dict[str, Any]
    payload: bytes = b""


class Stream(Protocol):
    """What blocking frames go over; a socket is one."""

    def sendall(self, data: bytes, /) -> object:
        """Send all of `data`."""

    def recv(self, size: int, /) -> bytes:
        """Up to `size` bytes; none at the end of the stream."""


class Seal:
    """Makes and checks the tags of one direction of a link.

    Args:
        key: shared by both ends.
        direction: differs between the two directions, so that no frame can be sent back to its author.
    """

    def __init__(self, key: bytes, direction: str) -> None:
        self._key, self._person = key, direction.encode()
        self._counter = 0

    def tag(self, *parts: bytes) -> bytes:
        """The tag of the next frame, made of `parts`."""
        digest = hashlib.blake2b(key=self._key, person=self._person, digest_size=TAG_BYTES)
        digest.update(struct.pack(">Q", self._counter))
        self._counter += 1
        for part in parts:
            digest.update(part)
        return digest.digest()

    def check(self, tag: bytes, *parts: bytes) -> None:
        """Raise `ChannelBroken` unless `tag` is that of the next frame."""
        if not hmac.compare_digest(tag, self.tag(*parts)):
            raise ChannelBroken("a frame on the link is not from the keeper")


TO_KEEPER, TO_HOST = "cambrian-in", "cambrian-out"


def new_key() -> bytes:
    """The key of one link."""
    return secrets.token_bytes(KEY_BYTES)


def pack(frame: Frame, seal: Seal | None = None) -> bytes:
    """A frame as bytes, sealed where `seal` is given.

    Raises:
        ChannelBroken: header or payload are too large.
    """
    header = json.dumps(frame.header).encode()
    if len(header) > HEADER_LIMIT or len(frame.payload) > CHUNK:
        raise ChannelBroken(f"a frame of {len(header)} + {len(frame.payload)} bytes is too large")
    lengths = _LENGTHS.pack(len(header), len(frame.payload))
    tag = seal.tag(lengths, header, frame.payload) if seal is not None else b""
    return b"".join((lengths, tag, header, frame.payload))


@dataclass
class Reader:
    """Puts frames together from bytes as they come.

    Attributes:
        seal: of the frames' author; None takes plain ones.
        header_limit: longest header that is accepted.
    """

    seal: Seal | None = None
    header_limit: int = HEADER_LIMIT
    _buffer: bytearray = field(default_factory=bytearray)

    def feed(self, data: bytes) -> None:
        """Take `data`, which came next."""
        self._buffer += data

    def frames(self) -> Iterator[Frame]:
        """Every frame that is complete.

        Raises:
            ChannelBroken: what came is no frame, or its tag is wrong.
        """
        while (frame := self._next()) is not None:
            yield frame

    def _next(self) -> Frame | None:
        tag_bytes = TAG_BYTES if self.seal is not None else 0
        start = _LENGTHS.size + tag_bytes
        if len(self._buffer) < _LENGTHS.size:
            return None
        n_header, n_payload = _LENGTHS.unpack_from(self._buffer)
        if n_header > self.header_limit or n_payload > CHUNK:
            raise ChannelBroken(f"a frame claims {n_header} + {n_payload} bytes")
        end = start + n_header + n_payload
        if len(self._buffer) < end:
            return None
        lengths, tag = bytes(self._buffer[: _LENGTHS.size]), bytes(self._buffer[_LENGTHS.size : start])
        header = bytes(self._buffer[start : start + n_header])
        payload = bytes(memoryview(self._buffer)[start + n_header : end])
        del self._buffer[:end]
        if self.seal is not None:
            self.seal.check(tag, lengths, header, payload)
        try:
            parsed = json.loads(header)
        except (ValueError, RecursionError) as error:
            raise ChannelBroken("a frame's header is not JSON") from error
        if not isinstance(parsed, dict):
            raise ChannelBroken("a frame's header is not an object")
        return Frame(parsed, payload)


def chunks(header: dict[str, Any], content: bytes | memoryview) -> Iterator[Frame]:
    """`content` in frames of at most `CHUNK` bytes; each has `header`, the last one says so."""
    view = memoryview(content).cast("B") if not isinstance(content, bytes) else memoryview(content)
    starts = range(0, max(1, len(view)), CHUNK)
    for start in starts:
        part = bytes(view[start : start + CHUNK])
        yield Frame({**header, "last": start == starts[-1]}, part)


class Channel:
    """The worker's end: blocking, one frame after the other.

    Args:
        stream: to the keeper.
    """

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._reader = Reader()
        self._waiting: list[Frame] = []

    def tell(self, what: str, **facts: Any) -> None:
        """Say that something happened."""
        self._stream.sendall(pack(Frame({"say": what, **facts})))

    def put(self, name: str, content: bytes | memoryview) -> None:
        """Hand in the result file `name`."""
        for frame in chunks({"file": name}, content):
            self._stream.sendall(pack(frame))

    def ask(self, what: str) -> tuple[dict[str, Any], bytearray]:
        """Ask for something and wait until all of it has come.

        Returns:
            The header that came with it, and the bytes.

        Raises:
            ChannelBroken: the keeper is gone.
        """
        self._stream.sendall(pack(Frame({"ask": what})))
        content = bytearray()
        while True:
            frame = self.receive()
            content += frame.payload
            if frame.header.get("last"):
                return frame.header, content

    def ask_for_questions(self) -> None:
        """Ask for the keeper's questions; `receive` gives them one by one, the last one says `over`."""
        self._stream.sendall(pack(Frame({"ask": "challenge"})))

    def answer(self, content: bytes) -> None:
        """Answer the keeper's question with raw bytes."""
        self._stream.sendall(pack(Frame({"answer": True}, content)))

    def receive(self) -> Frame:
        """The next frame.

        Raises:
            ChannelBroken: the keeper is gone.
        """
        while not self._waiting:
            data = self._stream.recv(CHUNK)
            if not data:
                raise ChannelBroken("the keeper is gone")
            self._reader.feed(data)
            self._waiting.extend(self._reader.frames())
        return self._waiting.pop(0)
