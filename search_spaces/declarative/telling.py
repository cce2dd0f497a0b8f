"""Edits in words: places and values of a genotype, short."""

from __future__ import annotations

from typing import Any


def told(value: Any) -> str:
    """A value in words."""
    return str(value).lower() if isinstance(value, bool) else cut(str(value), 24)


def place(path: str, most: int = 44) -> str:
    """A path, of which the end is kept when it is long."""
    return path if len(path) <= most else "..." + path[3 - most :]


def cut(text: str, most: int) -> str:
    """`text`, of which the beginning is kept when it is long."""
    return text if len(text) <= most else text[: most - 3] + "..."
