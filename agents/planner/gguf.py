"""What a GGUF file says of the model in it, read without the library that serves it.

Only the header is read: key-value pairs, and which tensor lies where. That is enough to refuse a file that is
something else or was cut short, which the library itself would say in one sentence about its parameters.
"""

from __future__ import annotations

import math
import mmap
import struct
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from cambrian.agents.errors import UserError

MAGIC = b"GGUF"
REPACKED, WORKING_BYTES = 1.7, 100 * 2**20
"""Of the weights, those that suit the processor better in another order are in memory twice: measured with
models of 0.1 and 1.1 GB."""
_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_STRING, _ARRAY = 8, 9
_MOST_PAIRS, _MOST_TENSORS, _MOST_DIMENSIONS, _MOST_TEXT = 10_000, 1_000_000, 8, 16 * 2**20
_BLOCKS = {
    0: (1, 4), 1: (1, 2), 2: (32, 18), 3: (32, 20), 6: (32, 22), 7: (32, 24), 8: (32, 34), 9: (32, 36),
    10: (256, 84), 11: (256, 110), 12: (256, 144), 13: (256, 176), 14: (256, 210), 15: (256, 292), 30: (1, 2),
}  # fmt: skip
"""Weights and bytes of a block, by kind of tensor; a kind that is not here is taken to fit."""


class GGUFModel(BaseModel):
    """A model file.

    Attributes:
        name: that of the file, which tells the quantisation too, without its ending.
        bytes: size of the file.
        parameters: number of weights.
        context: tokens that it was trained to take in at once; None when it does not say.
        token_bytes: memory that one token in the context takes, in bytes, at 16 bits a value; 0 when it does
            not say enough.
        chat: whether it brings a chat template, as models that follow instructions do.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    path: Path
    name: str
    architecture: str
    bytes: int
    parameters: int
    context: int | None
    token_bytes: int
    chat: bool

    def memory_bytes(self, context: int) -> int:
        """About what serving it takes with a context of `context` tokens: weights, context, working space."""
        return int(REPACKED * self.bytes) + context * self.token_bytes + WORKING_BYTES


def read_gguf(path: Path) -> GGUFModel:
    """The header of a model file.

    Raises:
        UserError: it cannot be read, is no GGUF file, or ends before its last tensor.
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            if file.read(4) != MAGIC:
                raise UserError(f"{path} is no GGUF file", hint="a model file for llama.cpp begins with GGUF")
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                pairs, ends, parameters = _Reader(data).header()
    except OSError as error:
        raise UserError(
            f"model file {path} cannot be read: {error.strerror}", hint="give the path of a GGUF file"
        ) from error
    except (struct.error, ValueError, KeyError, UnicodeDecodeError, OverflowError) as error:
        raise UserError(f"model file {path} is damaged: its header cannot be read", hint=_ANEW) from error
    if ends > size:
        raise UserError(f"model file {path} is cut short: {size} of at least {ends} bytes", hint=_ANEW)
    architecture = str(pairs.get("general.architecture", ""))
    if not architecture or not parameters:
        raise UserError(f"{path} holds no language model", hint="give the GGUF file with the model's weights")
    return GGUFModel(
        path=path,
        name=path.stem,
        architecture=architecture,
        bytes=size,
        parameters=parameters,
        context=_count(pairs, f"{architecture}.context_length") or None,
        token_bytes=_token_bytes(pairs, architecture),
        chat="tokenizer.chat_template" in pairs,
    )


_ANEW = "fetch it anew and compare its checksum"


class _Reader:
    """Walks over the header; every number in it is foreign and may be wrong."""

    def __init__(self, data: mmap.mmap) -> None:
        self._data = data
        self._at = 4

    def header(self) -> tuple[dict[str, Any], int, int]:
        """Key-value pairs, where the last tensor ends, and how many weights there are."""
        if not 2 <= self._number("I") <= 3:
            raise ValueError("version")
        n_tensors, n_pairs = self._number("Q"), self._number("Q")
        if n_tensors > _MOST_TENSORS or n_pairs > _MOST_PAIRS:
            raise ValueError("counts")
        pairs = {self._text(): self._value(self._number("I")) for _ in range(n_pairs)}
        last = parameters = 0
        for _ in range(n_tensors):
            self._text()
            if (dimensions := self._number("I")) > _MOST_DIMENSIONS:
                raise ValueError("dimensions")
            weights = math.prod(self._number("Q") for _ in range(dimensions))
            per_block, in_bytes = _BLOCKS.get(self._number("I"), (1, 0))
            last = max(last, self._number("Q") + weights // per_block * in_bytes)
            parameters += weights
        alignment = _count(pairs, "general.alignment") or 32
        return pairs, -(-self._at // alignment) * alignment + last, parameters

    def _number(self, code: str) -> int:
        return int(self._scalar(code))

    def _scalar(self, code: str) -> Any:
        (value,) = struct.unpack_from("<" + code, self._data, self._at)
        self._at += struct.calcsize("<" + code)
        return value

    def _text(self) -> str:
        size = self._number("Q")
        if size > _MOST_TEXT or self._at + size > len(self._data):
            raise ValueError("text")
        text = self._data[self._at : self._at + size]
        self._at += size
        return text.decode(errors="replace")

    def _value(self, kind: int) -> Any:
        if kind == _STRING:
            return self._text()
        if kind != _ARRAY:
            return self._scalar(_SCALARS[kind])
        inner, n = self._number("I"), self._number("Q")
        if inner in _SCALARS:
            self._at += n * struct.calcsize("<" + _SCALARS[inner])
        elif inner == _STRING:
            for _ in range(n):  # the vocabulary: only its end is wanted
                self._at += struct.unpack_from("<Q", self._data, self._at)[0] + 8
        else:
            raise ValueError("array")
        return None


def _count(pairs: dict[str, Any], key: str) -> int:
    value = pairs.get(key)
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else 0


def _token_bytes(pairs: dict[str, Any], architecture: str) -> int:
    heads = _count(pairs, f"{architecture}.attention.head_count")
    kv_heads = _count(pairs, f"{architecture}.attention.head_count_kv") or heads
    width = _count(pairs, f"{architecture}.attention.key_length")
    if not width and heads:
        width = _count(pairs, f"{architecture}.embedding_length") // heads
    return 2 * 2 * _count(pairs, f"{architecture}.block_count") * kv_heads * width
