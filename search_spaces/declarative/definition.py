"""A space, compiled from its folder: what every module of this package works on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cambrian.search_spaces.declarative.catalogue import Block
from cambrian.search_spaces.declarative.expression import Expression
from cambrian.search_spaces.declarative.grammar import Grammar
from cambrian.search_spaces.declarative.model import SpaceFile
from cambrian.search_spaces.space import Genotype, Signature


@dataclass(eq=False)
class Definition:
    """A space file and what was compiled from it.

    Attributes:
        folder: where `space.yaml` lies.
        file: its content.
        grammar: its choices; records carry their layouts.
        blocks: shipped blocks and those of the folder's `blocks.py`, by name.
        feature_hints: the file's own features, over the fields of the start.
        baselines: canonical genotypes by name; empty until the loader has validated them.
    """

    folder: Path
    file: SpaceFile
    grammar: Grammar
    blocks: Mapping[str, Block]
    feature_hints: Mapping[str, Expression] = field(default_factory=dict)
    baselines: dict[str, Genotype] = field(default_factory=dict)

    @property
    def signatures(self) -> tuple[Signature, ...]:
        """What every design must be well-typed for; limits are read at the first."""
        return (self.file.reference, *self.file.also_fits)

    def cached(self, key: str) -> dict[Any, Any]:
        """A scratch dictionary of the module that calls itself `key`, living as long as the definition."""
        caches: dict[str, dict[Any, Any]] = self.__dict__.setdefault("_caches", {})
        return caches.setdefault(key, {})
