"""The space `convnet` behind the `Space` protocol; each method's work is done by a module beside this one."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

from cambrian.search_spaces.convnet import drawing, edits, export, genes, text
from cambrian.search_spaces.convnet.baselines import baselines
from cambrian.search_spaces.convnet.features import features
from cambrian.search_spaces.convnet.program import compile_program
from cambrian.search_spaces.space import Genotype, Signature

if TYPE_CHECKING:
    from torch import nn


class ConvNetSpace:
    """Staged image classifiers: stem, one to five stages of one kind of block each, head."""

    name = "convnet"
    version = "1"
    kind: Literal["declarative", "code"] = "declarative"

    def schema(self) -> dict[str, Any]:
        """See `Space.schema`."""
        return text.schema()

    def validate(self, data: object) -> Genotype:
        """See `Space.validate`."""
        return genes.validate(data)

    def sample(self, rng: random.Random) -> Genotype:
        """See `Space.sample`; `edits.sample` documents the distribution."""
        return edits.sample(rng)

    def mutate(self, genotype: Genotype, rng: random.Random) -> tuple[Genotype, str]:
        """See `Space.mutate`."""
        return edits.mutate(genotype, rng)

    def crossover(self, first: Genotype, second: Genotype, rng: random.Random) -> tuple[Genotype, str]:
        """See `Space.crossover`."""
        return edits.crossover(first, second, rng)

    def build(self, genotype: Genotype, signature: Signature) -> nn.Module:
        """See `Space.build`. Halving a map that is one pixel high or wide is the only way to fail."""
        return export.build(compile_program(genotype, signature))

    def recipe(self, genotype: Genotype) -> Mapping[str, Any]:
        """See `Space.recipe`: genes here are of the architecture only."""
        return {}

    def features(self, genotype: Genotype) -> dict[str, float]:
        """See `Space.features`."""
        return features(genotype)

    def describe(self) -> str:
        """See `Space.describe`."""
        return text.describe()

    def summarise(self, genotype: Genotype) -> str:
        """See `Space.summarise`."""
        return text.summarise(genotype)

    def draw(self, genotype: Genotype, signature: Signature) -> str:
        """See `Space.draw`."""
        return drawing.draw(genotype, signature, text.summarise(genotype))

    def source(self, genotype: Genotype, signature: Signature) -> str:
        """See `Space.source`."""
        return export.source(compile_program(genotype, signature), signature, text.summarise(genotype))

    def baselines(self) -> Mapping[str, Genotype]:
        """See `Space.baselines`."""
        return baselines()
