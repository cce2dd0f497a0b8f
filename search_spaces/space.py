"""The `Space` protocol: a set of architectures that can be proposed."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

from pydantic import BaseModel, ConfigDict

if TYPE_CHECKING:
    from torch import nn

Genotype = dict[str, Any]
"""One architecture as plain JSON data. Only its space knows the keys."""


class GraphShape(BaseModel):
    """The one graph that a task is about; networks hold it as constants (see `blocks.graph.set_context`).

    Attributes:
        nodes: number of nodes.
        features: numbers that describe a node.
        edges: directed edges; an undirected one counts twice.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    nodes: int
    features: int
    edges: int


class Signature(BaseModel):
    """What a network takes and gives, fixed by the task.

    Attributes:
        input_shape: shape of one sample without the batch dimension, such as `(1, 28, 28)`; `()` for the id
            of a node.
        n_outputs: number of outputs (classes, or values of a regression).
        vocabulary: inputs are int64 ids from 0 to this, exclusive; None means float32.
        graph: inputs are int64 ids of the nodes of this graph.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    input_shape: tuple[int, ...]
    n_outputs: int
    vocabulary: int | None = None
    graph: GraphShape | None = None

    @property
    def n_ids(self) -> int | None:
        """Inputs are int64 ids from 0 to this, exclusive; None when they are real numbers."""
        return self.graph.nodes if self.graph is not None else self.vocabulary


@runtime_checkable
class Space(Protocol):
    """A set of architectures: genotypes, the rules that make one valid, and how one becomes a module.

    Life of a genotype: `validate` turns what an author wrote into the canonical genotype (inactive genes
    folded to a fixed value, defaults filled in), and every other method takes canonical genotypes only.
    `sample`, `mutate` and `crossover` return canonical genotypes. All randomness comes from the `rng` that
    is passed in: equal generators give equal results on every machine.

    Implementations must import torch only inside `build`.
    """

    name: str
    version: str
    """Changes when a genotype's meaning changes; part of every identity."""
    kind: Literal["declarative", "code"]

    def schema(self) -> dict[str, Any]:
        """JSON schema of a genotype that strict structured-output back-ends accept.

        Only objects with `additionalProperties: false` and all properties required, arrays, enums, numbers,
        strings, booleans and `anyOf`: no `oneOf`, `prefixItems`, `patternProperties` or open objects.
        """
        ...

    def validate(self, data: object) -> Genotype:
        """The canonical genotype that `data` stands for.

        Raises:
            ProposalError: not a member; the message names the gene and what is allowed.
        """
        ...

    def sample(self, rng: random.Random) -> Genotype:
        """A random member: what the random control arm proposes."""
        ...

    def mutate(self, genotype: Genotype, rng: random.Random) -> tuple[Genotype, str]:
        """A neighbour that differs from `genotype`, and the edit in a few words."""
        ...

    def crossover(self, first: Genotype, second: Genotype, rng: random.Random) -> tuple[Genotype, str]:
        """A child of two parents, and where they were joined in a few words."""
        ...

    def build(self, genotype: Genotype, signature: Signature) -> nn.Module:
        """The module, with torch's default initialisation under the current seed and device.

        Raises:
            ProposalError: the genotype cannot take inputs of this shape (too many downsamplings, say).
        """
        ...

    def recipe(self, genotype: Genotype) -> Mapping[str, Any]:
        """Fields of the task's `Recipe` that this genotype is trained with instead; empty for none.

        `recipes.WithRecipe` gives any space genes for it.
        """
        ...

    def features(self, genotype: Genotype) -> dict[str, float]:
        """Numbers that a predictor learns from; the same keys for every member of the space."""
        ...

    def describe(self) -> str:
        """The space in prose for a planner: what each gene means and what tends to matter."""
        ...

    def summarise(self, genotype: Genotype) -> str:
        """One line, at most 100 characters, that a person recognises the architecture by."""
        ...

    def draw(self, genotype: Genotype, signature: Signature) -> str:
        """A self-contained SVG of the architecture."""
        ...

    def source(self, genotype: Genotype, signature: Signature) -> str:
        """A Python file that defines `build() -> nn.Module` and imports torch only, nothing of ours.

        The state dict of its module has the same keys and shapes as that of `build` above.
        """
        ...

    def baselines(self) -> Mapping[str, Genotype]:
        """Known networks by name, written as members of the space."""
        ...


@runtime_checkable
class Enumerable(Protocol):
    """A space that can list all its members; an optional capability, asked for with `isinstance`."""

    @property
    def size(self) -> int:
        """Number of members."""
        ...

    def members(self) -> Sequence[Genotype]:
        """All members, canonical, each once and always in the same order; not to be changed in place."""
        ...


@runtime_checkable
class HasOperators(Protocol):
    """A space whose mutations are of kinds that can be told apart; optional, asked for with `isinstance`."""

    def operators(self) -> Mapping[str, float]:
        """How often each kind is tried by `mutate`, by its name; empty where there are none after all."""
        ...

    def mutate_by(
        self, genotype: Genotype, rng: random.Random, weights: Mapping[str, float]
    ) -> tuple[Genotype, str, str]:
        """As `mutate`, with other weights, and the name of the kind, empty where it was none of them.

        Args:
            genotype: canonical.
            rng: as in `mutate`; with the weights of `operators`, both give the same.
            weights: by name, one for each of `operators`, not all 0.
        """
        ...
