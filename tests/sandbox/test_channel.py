"""Frames: whole or not at all, and on a sealed link from nobody but its other end."""

from __future__ import annotations

import random
import socket
import struct
import threading

import pytest

from cambrian.sandbox.worker.channel import (
    CHUNK,
    TO_HOST,
    TO_KEEPER,
    Channel,
    ChannelBroken,
    Frame,
    Reader,
    Seal,
    chunks,
    new_key,
    pack,
)

FRAMES = [Frame({"say": "x", "n": i}, bytes([i]) * (i * 1000)) for i in range(5)]


@pytest.mark.parametrize("sealed", [False, True])
def test_frames_come_whole_however_the_bytes_are_cut(sealed: bool) -> None:
    key = new_key()
    seal = Seal(key, TO_HOST) if sealed else None
    stream = b"".join(pack(frame, seal) for frame in FRAMES)
    reader = Reader(Seal(key, TO_HOST) if sealed else None)
    found, rng = [], random.Random(0)
    while stream:
        size = rng.randint(1, 700)
        reader.feed(stream[:size])
        stream = stream[size:]
        found += list(reader.frames())
    assert found == FRAMES


def tampered(kind: str, key: bytes) -> bytes:
    """Two frames of the keeper, and what somebody who cannot know the key makes of them."""
    seal = Seal(key, TO_HOST)
    first, second = (pack(Frame({"say": word}, b"payload"), seal) for word in ("one", "two"))
    return {
        "changed": first + second[:-1] + b"X",
        "repeated": first + first,
        "left out": second,
        "swapped": second + first,
        "added": first + pack(Frame({"say": "mine"})) + second,
        "sent back": pack(Frame({"say": "one"}), Seal(key, TO_KEEPER)),
        "another key": pack(Frame({"say": "one"}), Seal(new_key(), TO_HOST)),
    }[kind]


@pytest.mark.parametrize(
    "kind", ["changed", "repeated", "left out", "swapped", "added", "sent back", "another key"]
)
def test_what_is_not_from_the_keeper_breaks_the_link(kind: str) -> None:
    key = new_key()
    reader = Reader(Seal(key, TO_HOST))
    reader.feed(tampered(kind, key) + bytes(100))
    with pytest.raises(ChannelBroken):
        list(reader.frames())


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (struct.pack(">II", 1 << 30, 0), "claims"),
        (struct.pack(">II", 2, CHUNK + 1), "claims"),
        (struct.pack(">II", 3, 0) + b"{]}", "not JSON"),
        (struct.pack(">II", 2, 0) + b"[]", "not an object"),
        (struct.pack(">II", 60000, 0) + b"[" * 60000, "not JSON"),
    ],
)
def test_what_is_no_frame_is_refused(data: bytes, words: str) -> None:
    reader = Reader(header_limit=1 << 16)
    reader.feed(data)
    with pytest.raises(ChannelBroken, match=words):
        list(reader.frames())


def test_large_content_goes_in_parts_and_comes_together() -> None:
    ours, theirs = socket.socketpair()
    content = random.Random(1).randbytes(3 * CHUNK + 17)

    def give() -> None:
        for frame in chunks({"give": "val", "dtype": "<f4"}, content):
            ours.sendall(pack(frame))

    with ours, theirs:
        giver = threading.Thread(target=give)
        giver.start()
        header, received = Channel(theirs).ask("val")
        giver.join()
    assert bytes(received) == content
    assert header["dtype"] == "<f4"


def test_nothing_is_one_part_too() -> None:
    assert [(f.header, f.payload) for f in chunks({"file": "log.txt"}, b"")] == [
        ({"file": "log.txt", "last": True}, b"")
    ]


def test_a_keeper_that_is_gone_is_told() -> None:
    ours, theirs = socket.socketpair()
    ours.close()
    with theirs, pytest.raises((ChannelBroken, BrokenPipeError)):
        Channel(theirs).ask("val")
