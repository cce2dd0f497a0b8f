"""A genotype that is being edited: its places, and what an edit needs to know of them."""

from __future__ import annotations

import random
from collections import defaultdict
from typing import Any

from cambrian.search_spaces.declarative.definition import Definition
from cambrian.search_spaces.declarative.folding import fold
from cambrian.search_spaces.declarative.grammar import Domain, Record, Repeat, Scalar, walk
from cambrian.search_spaces.declarative.labels import label_at, locate
from cambrian.search_spaces.declarative.sampling import draw
from cambrian.search_spaces.declarative.sites import Site, sites_of
from cambrian.search_spaces.declarative.telling import cut, told
from cambrian.search_spaces.space import Genotype


class Draft:
    """A copy of the parent that is being edited.

    Attributes:
        sites: its places before the edit, active ones.
        values: those that hold a value of which there are several.
    """

    def __init__(self, definition: Definition, genotype: Genotype, rng: random.Random) -> None:
        self.definition, self.rng = definition, rng
        everything = sites_of(definition, genotype)
        self.sites = [site for site in everything if site.active]
        self.asleep = {site.path for site in everything if not site.active}
        self.values = [s for s in self.sites if isinstance(s.domain, Scalar) and len(s.domain.values) > 1]

    @property
    def genotype(self) -> Genotype:
        """The copy, edited or not."""
        found: Genotype = self.sites[0].value  # the first place is the whole
        return found

    def lists(self) -> list[tuple[Site, Repeat]]:
        """The places that hold lists."""
        return [(site, site.domain) for site in self.sites if isinstance(site.domain, Repeat)]

    def recursive(self) -> list[Site]:
        """The places of rules that can contain themselves."""
        grammar = self.definition.grammar
        rules = {id(grammar.rules[name]) for name in grammar.recursive}
        return [site for site in self.sites if id(site.domain) in rules]

    def one_of(self, items: list[Any]) -> Any:
        """Any of `items`, or None when there are none."""
        return items[int(self.rng.random() * len(items))] if items else None

    def woken(self, changed: str) -> str:
        """Draw the genes that a change of gene `changed` has made active, and tell them."""
        if not self.asleep or changed not in mentioned(self.definition):
            return ""
        said = []
        for site in sites_of(self.definition, self.genotype):
            if site.active and site.path in self.asleep:
                site.owner[site.key] = draw(self.definition, site.domain, self.rng, site.left)
                said.append(f"{site.key} {told(site.value)}")
        return f" ({', '.join(said)})" if said else ""

    def brief(self, path: str, domain: Domain) -> str:
        """What stands at a place now, by its label; lists by their length."""
        fold(self.definition, self.genotype)
        if isinstance(domain, Repeat):
            n = len(locate(self.definition, self.genotype, path)[1])
            return f"{n} item{'s' if n != 1 else ''}"
        return cut(label_at(self.definition, self.genotype, path, 50), 50)

    def groups(self) -> list[list[Site]]:
        """Places that hold the same gene, two or more: by list, or wherever it is shared, at random."""
        by_list = self.rng.random() < 0.5
        groups: dict[Any, list[Site]] = defaultdict(list)
        for site in self.values:
            groups[(site.star, id(site.domain)) if by_list and site.star else id(site.domain)].append(site)
        return [group for group in groups.values() if len(group) > 1]


def mentioned(definition: Definition) -> frozenset[str]:
    """Names that conditions are about."""
    cache = definition.cached("mentioned")
    if "names" not in cache:
        records = [each for each in walk(definition.grammar.start) if isinstance(each, Record)]
        whens = [field.when for record in records for field in record.fields if field.when is not None]
        cache["names"] = frozenset(name for when in whens for name in when.names)
    found: frozenset[str] = cache["names"]
    return found


def value_key(value: Any) -> tuple[bool, Any]:
    """What equal values of one table have in common; true is not 1."""
    return isinstance(value, bool), value


def same(first: Any, second: Any) -> bool:
    """Equal values of one table; true is not 1."""
    return value_key(first) == value_key(second)
