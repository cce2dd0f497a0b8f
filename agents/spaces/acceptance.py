"""Which raw draws of a space are refused, and why; and what is refused whenever it is drawn."""

from __future__ import annotations

import re

_NUMBER = re.compile(r"(?<![A-Za-z_\d])\d+(?:[,.x]\d+)*[kMG]?(?![A-Za-z_])")


def numberless(reason: str) -> str:
    """`reason` with a sign for every number in it, so that equal faults with other counts are equal."""
    return _NUMBER.sub("#", reason)
