"""Blocks of the shelf `vectors`."""

from __future__ import annotations

from cambrian.search_spaces.declarative.catalogue.block import Block

BLOCKS: tuple[Block, ...] = ()
