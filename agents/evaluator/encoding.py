"""What a predictor sees of a candidate: numbers that all have, and counts of the motifs in its structure."""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from cambrian.search_spaces import Genotype, Space

PROXY = "proxy."
"""Before the name of a zero-cost proxy among the numbers."""
_KEPT = 50_000


@dataclass(frozen=True, slots=True)
class Encoding:
    """One candidate, for a predictor.

    Attributes:
        numbers: the same keys for all candidates of a space: `Space.features`, and proxies as `proxy.NAME`.
        motifs: how often each motif occurs, never negative; absent is 0. Motifs are labels of parts of the
            computation: blocks with what feeds them (Weisfeiler-Lehman) and paths.
    """

    numbers: Mapping[str, float]
    motifs: Mapping[str, float] = field(default_factory=dict)


@runtime_checkable
class HasMotifs(Protocol):
    """A space that knows the structure of its members without building them; an optional capability."""

    def motifs(self, genotype: Genotype) -> Mapping[str, float]:
        """How often each motif occurs in the network of the canonical `genotype`."""
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
            found = self._space.motifs(genotype) if isinstance(self._space, HasMotifs) else {}
            known = self._known[key] = Encoding(self._space.features(genotype), found)
            if len(self._known) > _KEPT:
                self._known.popitem(last=False)
        if not proxies and (not motifs or known.motifs):
            return known
        numbers = {**known.numbers, **{PROXY + name: value for name, value in (proxies or {}).items()}}
        return Encoding(numbers, known.motifs or motifs or {})


def encode(space: Space, genotype: Genotype) -> Encoding:
    """The encoding of one canonical `genotype`; an `Encoder` remembers those it has made."""
    return Encoder(space)(genotype)
