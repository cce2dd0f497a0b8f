"""Headers of model files, written by hand: what is told of them, and which files are refused."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from cambrian.agents.errors import UserError
from cambrian.agents.planner.gguf import read_gguf

FACTS: dict[str, object] = {
    "general.architecture": "llama",
    "llama.context_length": 2048,
    "llama.block_count": 3,
    "llama.embedding_length": 64,
    "llama.attention.head_count": 8,
    "llama.attention.head_count_kv": 2,
    "tokenizer.ggml.tokens": ["a", "bc", "def"],
    "tokenizer.ggml.scores": [0.5, 1.5],
    "tokenizer.chat_template": "{{ messages }}",
}
F32, Q4_0, UNHEARD_OF = 0, 2, 99


def text(value: str) -> bytes:
    return struct.pack("<Q", len(value.encode())) + value.encode()


def pair(key: str, value: object) -> bytes:
    if isinstance(value, str):
        return text(key) + struct.pack("<I", 8) + text(value)
    if isinstance(value, int):
        return text(key) + struct.pack("<II", 4, value)
    assert isinstance(value, list)
    if isinstance(value[0], str):
        return text(key) + struct.pack("<IIQ", 9, 8, len(value)) + b"".join(map(text, value))
    return text(key) + struct.pack("<IIQ", 9, 6, len(value)) + struct.pack(f"<{len(value)}f", *value)


def gguf(
    facts: Mapping[str, object] = FACTS,
    tensors: Sequence[tuple[tuple[int, ...], int, int]] = (((64, 10), F32, 0), ((64, 4), Q4_0, 2560)),
    version: int = 3,
) -> bytes:
    """A file with tensors of (shape, kind, offset), and room for the two of the default."""
    head = b"GGUF" + struct.pack("<IQQ", version, len(tensors), len(facts))
    head += b"".join(pair(key, value) for key, value in facts.items())
    for number, (shape, kind, offset) in enumerate(tensors):
        head += text(f"blk.{number}") + struct.pack(f"<I{len(shape)}Q", len(shape), *shape)
        head += struct.pack("<IQ", kind, offset)
    head += b"\0" * (-len(head) % 32)
    return head + b"\0" * (2560 + 64 * 4 // 32 * 18)


def write(folder: Path, data: bytes) -> Path:
    path = folder / "tiny.Q4_0.gguf"
    path.write_bytes(data)
    return path


def test_what_a_header_tells(tmp_path: Path) -> None:
    path = write(tmp_path, gguf())
    model = read_gguf(path)
    assert (model.name, model.architecture, model.path) == ("tiny.Q4_0", "llama", path)
    assert model.bytes == path.stat().st_size
    assert model.parameters == 64 * 10 + 64 * 4
    assert model.context == 2048 and model.chat
    # keys and values of 2 heads of 8 numbers in 3 layers, 2 bytes each
    assert model.token_bytes == 2 * 2 * 3 * 2 * 8
    assert model.memory_bytes(2000) - model.memory_bytes(1000) == 1000 * model.token_bytes


def test_what_a_header_does_not_tell(tmp_path: Path) -> None:
    model = read_gguf(write(tmp_path, gguf({"general.architecture": "new"}, [((7,), UNHEARD_OF, 0)])))
    assert (model.context, model.token_bytes, model.chat, model.parameters) == (None, 0, False, 7)


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"", "no GGUF file"),
        (b"PK\x03\x04" + b"\0" * 100, "no GGUF file"),
        (b"GGUF", "damaged"),
        (gguf(version=9), "damaged"),
        (gguf()[:200], "damaged"),
        (gguf()[:-1], "cut short"),
        (gguf()[:8] + b"\xff" * 16 + gguf()[24:], "damaged"),
        (gguf(tensors=[((2,) * 9, F32, 0)]), "damaged"),
        (gguf(tensors=[((64,), F32, 10**9)]), "cut short"),
        (gguf(tensors=[]), "no language model"),
        (gguf({"general.name": "x"}), "no language model"),
    ],
)
def test_files_that_are_refused(tmp_path: Path, data: bytes, problem: str) -> None:
    path = write(tmp_path, data)
    with pytest.raises(UserError, match=problem) as refusal:
        read_gguf(path)
    assert str(path) in refusal.value.message and refusal.value.hint


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"none\.gguf cannot be read: No such file"):
        read_gguf(tmp_path / "none.gguf")
    with pytest.raises(UserError, match="cannot be read: Is a directory"):
        read_gguf(tmp_path)


def test_any_damaged_header_is_refused_or_read(tmp_path: Path) -> None:
    """Whatever byte is wrong, nothing but a `UserError` comes out."""
    whole = gguf()
    read = 0
    for place in range(0, len(whole) - 2704, 2):
        for value in (0, 0xFF):
            try:
                read_gguf(write(tmp_path, whole[:place] + bytes([value]) + whole[place + 1 :]))
                read += 1
            except UserError:
                continue
    assert read > 100
