"""What a predictor sees of a candidate: numbers that all have, and counts of the motifs in its structure."""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable
from weakref import WeakKeyDictionary

from cambrian.search_spaces import Genotype, Space

PROXY = "proxy."
"""Before the name of a zero-cost proxy among the numbers."""
LIVE = "live."
"""Before the sizes of the part of a network that matters."""
PATH = "path|"
"""Before motifs that are whole paths."""
_KEPT = 50_000


@dataclass(frozen=True, slots=True)
class Encoding:
    """One candidate, for a predictor.

    Attributes:
        numbers: the same keys for all candidates of a space: `Space.features`, sizes of the part that matters
            (`live.log_params`, ...) where the space knows it, and proxies as `proxy.NAME`.
        motifs: how often each motif occurs, never negative; absent is 0. Motifs are labels of parts of the
            computation: blocks with what feeds them (Weisfeiler-Lehman) and paths.
    """

    numbers: Mapping[str, float]
    motifs: Mapping[str, float] = field(default_factory=dict)


class Structure(Protocol):
    """What a network computes, whatever is written beside it that its output does not depend on."""

    @property
    def totals(self) -> Mapping[str, float]:
        """Sizes of the part that matters; the same keys for all members of a space."""
        ...

    @property
    def motifs(self) -> Mapping[str, float]:
        """How often each motif occurs."""
        ...


@runtime_checkable
class HasStructure(Protocol):
    """A space that knows what its members compute without building them; an optional capability."""

    def structure(self, genotype: Genotype) -> Structure | None:
        """The structure of the network of the canonical `genotype`; None where it is not known after all."""
        ...


class Encoder:
    """Encodes the members of one space, each once.

    Args:
        space: gives the features, and the motifs where it can.
    """

    def __init__(self, space: Space) -> None:
        self._space = space
        self._known: OrderedDict[str, Encoding] = OrderedDict()

    def __call__(
        self,
        genotype: Genotype,
        *,
        proxies: Mapping[str, float] | None = None,
        motifs: Mapping[str, float] | None = None,
    ) -> Encoding:
        """The encoding of the canonical `genotype`.

        Args:
            genotype: a member of the space.
            proxies: zero-cost proxies by name, where they were computed.
            motifs: those of the computation graph, for spaces that have none of their own.
        """
        key = json.dumps(genotype, sort_keys=True)
        known = self._known.get(key)
        if known is None:
            known = self._known[key] = self._encoded(genotype)
            if len(self._known) > _KEPT:
                self._known.popitem(last=False)
        if not proxies and (not motifs or known.motifs):
            return known
        numbers = {**known.numbers, **{PROXY + name: value for name, value in (proxies or {}).items()}}
        return Encoding(numbers, known.motifs or motifs or {})

    def _encoded(self, genotype: Genotype) -> Encoding:
        numbers = self._space.features(genotype)
        if not isinstance(self._space, HasStructure):
            return Encoding(numbers)
        found = self._space.structure(genotype)
        if found is None:
            return Encoding(numbers)
        return Encoding({**numbers, **found.totals}, found.motifs)


_ENCODERS: WeakKeyDictionary[Space, Encoder] = WeakKeyDictionary()


def encode(space: Space, genotype: Genotype) -> Encoding:
    """The encoding of one canonical `genotype`, made once for each space object."""
    encoder = _ENCODERS.get(space)
    if encoder is None:
        encoder = _ENCODERS[space] = Encoder(space)
    return encoder(genotype)
