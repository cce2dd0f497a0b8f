"""A folder of text behind the `Space` protocol; each method's work is done by a module beside this one."""

from __future__ import annotations

import random
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from cambrian.search_spaces.declarative import (
    drawing,
    edits,
    export,
    features,
    membership,
    sampling,
    schema,
    structure,
    words,
)
from cambrian.search_spaces.declarative.loading import load
from cambrian.search_spaces.declarative.planning import plan
from cambrian.search_spaces.space import Genotype, Signature

if TYPE_CHECKING:
    from torch import nn


class DeclarativeSpace:
    """The space that a folder with a `space.yaml` describes; LANGUAGE.md is the manual.

    Args:
        folder: where `space.yaml` lies.

    Raises:
        SpaceFileError: the file is missing, unreadable or wrong; the message names the place.
    """

    kind: Literal["declarative", "code"] = "declarative"

    def __init__(self, folder: Path) -> None:
        self.definition = load(folder)
        self.folder = self.definition.folder
        self.name = self.definition.file.name
        self.version = self.definition.file.version

    def schema(self) -> dict[str, Any]:
        """See `Space.schema`."""
        return schema.schema(self.definition)

    def validate(self, data: object) -> Genotype:
        """See `Space.validate`."""
        return membership.validate(self.definition, data)

    def sample(self, rng: random.Random) -> Genotype:
        """See `Space.sample`."""
        return sampling.sample(self.definition, rng)

    def mutate(self, genotype: Genotype, rng: random.Random) -> tuple[Genotype, str]:
        """See `Space.mutate`."""
        return edits.mutate(self.definition, genotype, rng)

    def operators(self) -> Mapping[str, float]:
        """See `HasOperators.operators`: the typed edits."""
        return edits.WEIGHTS

    def mutate_by(
        self, genotype: Genotype, rng: random.Random, weights: Mapping[str, float]
    ) -> tuple[Genotype, str, str]:
        """See `HasOperators.mutate_by`."""
        return edits.mutate_by(self.definition, genotype, rng, weights)

    def crossover(self, first: Genotype, second: Genotype, rng: random.Random) -> tuple[Genotype, str]:
        """See `Space.crossover`."""
        return edits.crossover(self.definition, first, second, rng)

    def build(self, genotype: Genotype, signature: Signature) -> nn.Module:
        """See `Space.build`."""
        return export.build(plan(self.definition, genotype, signature))

    def recipe(self, genotype: Genotype) -> Mapping[str, Any]:
        """See `Space.recipe`: genes here are of the architecture only."""
        return {}

    def features(self, genotype: Genotype) -> dict[str, float]:
        """See `Space.features`."""
        return features.features(self.definition, genotype)

    def structure(self, genotype: Genotype) -> structure.Structure:
        """What the genotype computes: motifs and functional sizes, for predictors and similarity."""
        return structure.structure(self.definition, genotype)

    def describe(self) -> str:
        """See `Space.describe`."""
        return words.describe(self.definition)

    def summarise(self, genotype: Genotype) -> str:
        """See `Space.summarise`."""
        return words.summarise(self.definition, genotype)

    def draw(self, genotype: Genotype, signature: Signature) -> str:
        """See `Space.draw`."""
        return drawing.draw(self.definition, genotype, signature)

    def source(self, genotype: Genotype, signature: Signature) -> str:
        """See `Space.source`."""
        return export.source(self.definition, genotype, signature)

    def baselines(self) -> Mapping[str, Genotype]:
        """See `Space.baselines`."""
        return self.definition.baselines
