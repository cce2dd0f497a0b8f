"""What the host orders of a keeper, and how a job's processes ended."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict

from cambrian.sandbox.protocol import Job

Why = Literal["exit", "timeout", "memory", "processes", "flood", "undue", "stopped", "forged", "gone", "lost"]


class _Message(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Order(_Message):
    """What a keeper is to do: one job.

    Attributes:
        cores: that the job may use; empty for all that its container has.
        caps: most bytes of each result file.
    """

    job: Job
    cores: tuple[int, ...] = ()
    caps: dict[str, int]


class Place(_Message):
    """Where a fork of the process sandbox works: folders of the host.

    Attributes:
        key: names the job in every later message of the fork server.
        link: where the host waits for the keeper: name of an abstract socket.
        token: what the keeper says first there, so that nobody else can take its place.
        data: the task's arrays.
        scratch: an empty folder, the job's home.
    """

    key: str
    link: str
    token: str
    data: Path
    scratch: Path


class Ending(_Message):
    """How a job's processes ended, before anyone looked at what they handed in.

    Attributes:
        why: `exit` when the worker ended by itself; `timeout`, `memory`, `processes`, `flood` (of results)
            for the limit that ended it; `undue` when it asked for held-out inputs too early; `stopped` on
            request; `forged` when somebody else wrote to the link or the worker's words are none; `gone` when
            the keeper ended without a word, as when the candidate kills it; `lost` when the fault is ours and
            the job may be run again.
        code: exit code, negative for a signal; None when we ended it.
        peak_mb: the most memory seen, in MiB; 0 when not watched.
        note: for people, when it was lost.
        timed: calls and seconds of each block that the worker said it was timing, by the keeper's clock.
        answers_s: seconds that each answer to the keeper's questions took, by the keeper's clock.
    """

    why: Why
    code: int | None = None
    peak_mb: float = 0.0
    note: str = ""
    timed: tuple[tuple[int, float], ...] = ()
    answers_s: tuple[float, ...] = ()
