"""What the host and the fork server say to each other, and how processes ended."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from cambrian.sandbox.protocol import JobLimits

HEAD_BYTES = 4
"""Length of a message's head."""


class Order(BaseModel):
    """What the host asks of the fork server for one job.

    Attributes:
        key: names the order in every later message.
        folder: where the worker finds `job.json` and leaves its results.
        log: file for what the job prints.
        data: where the arrays lie.
        scratch: an empty folder, the job's home.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    key: str
    folder: Path
    log: Path
    data: Path
    scratch: Path
    limits: JobLimits


class Ending(BaseModel):
    """How a job's processes ended, before anyone looked at its files.

    Attributes:
        why: `exit` when the worker ended by itself, else the limit that ended it; `stopped` on request;
            `lost` when what watched over it was killed.
        code: exit code, negative for a signal; None when we ended it.
        peak_mb: the most memory seen, in MiB; 0 when not watched.
        note: for people, when it was lost.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    why: Literal["exit", "timeout", "memory", "processes", "stopped", "lost"]
    code: int | None = None
    peak_mb: float = 0.0
    note: str = ""


def encode(message: dict[str, Any]) -> bytes:
    """One message: four bytes of length, big end first, then JSON."""
    body = json.dumps(message).encode()
    return struct.pack(">I", len(body)) + body


def body_length(head: bytes) -> int:
    """The length of the JSON that follows a head."""
    return int(struct.unpack(">I", head)[0])
