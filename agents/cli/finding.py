"""One line of `cambrian doctor`."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict


class Finding(BaseModel):
    """One line of `doctor`.

    Attributes:
        status: `ok`, `absent` (something works without it) or `broken` (a run would fail).
        means: what this changes for the user.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    what: str
    status: Literal["ok", "absent", "broken"]
    detail: str
    means: str
