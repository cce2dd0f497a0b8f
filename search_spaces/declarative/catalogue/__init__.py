"""The catalogue of shipped blocks: what each takes, gives and costs, known without torch."""

from __future__ import annotations

import functools
import importlib
from collections.abc import Mapping

from cambrian.search_spaces.declarative.catalogue.block import (
    REQUIRED,
    Argument,
    Block,
    Family,
    Planned,
)

_SHELVES = ("images", "cells", "primitives", "sequences", "vectors", "graphs")
"""Modules of this package, each with a tuple `BLOCKS`."""


@functools.cache
def catalogue() -> Mapping[str, Block]:
    """All shipped blocks by name."""
    found: dict[str, Block] = {}
    for shelf in _SHELVES:
        for block in importlib.import_module(f"{__name__}.{shelf}").BLOCKS:
            assert block.name not in found, f"two blocks are called {block.name}"
            found[block.name] = block
    return found


__all__ = ["REQUIRED", "Argument", "Block", "Family", "Planned", "catalogue"]
