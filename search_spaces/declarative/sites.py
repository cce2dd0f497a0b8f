"""The places of a genotype: where an edit can be made, and how deep rules are nested there."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from cambrian.search_spaces.declarative.definition import Definition
from cambrian.search_spaces.declarative.grammar import (
    KIND,
    Domain,
    Field,
    Options,
    Repeat,
    Scalar,
    children,
    walk,
)
from cambrian.search_spaces.space import Genotype


class Site(NamedTuple):
    """One place of a genotype.

    Attributes:
        owner: the object or list that holds the value.
        key: of the value in its owner.
        path: as errors and edits name it, such as `stages[1].width`.
        star: the path with the innermost index starred, `stages[*].width`; empty outside of lists.
        left: rules that may still be nested from here on.
        active: false where the field is folded.
        field: the field that it is; None for items of lists.
    """

    owner: Any
    key: Any
    domain: Domain
    path: str
    star: str
    left: int
    active: bool
    field: Field | None

    @property
    def value(self) -> Any:
        """What stands there now."""
        return self.owner[self.key]


class Depths:
    """How many named rules the derivations of each domain nest.

    Attributes:
        needs: rules nested in the shortest derivation of a domain, by its id.
        named: ids of the domains that are named rules.
    """

    def __init__(self, definition: Definition) -> None:
        grammar = definition.grammar
        self.named = frozenset({id(grammar.start), *map(id, grammar.rules.values())})
        domains = list(walk(grammar.start))
        self.needs = {id(domain): 0 if isinstance(domain, Scalar) else 1 << 30 for domain in domains}
        changed = True
        while changed:
            changed = False
            for domain in reversed(domains):
                if isinstance(domain, Scalar):
                    continue
                need = self._need(domain)
                if need < self.needs[id(domain)]:
                    self.needs[id(domain)], changed = need, True

    def _need(self, domain: Domain) -> int:
        below = [self.needs[id(child)] for child in children(domain)]
        if isinstance(domain, Repeat):
            return below[0] if domain.least else 0
        need = min(below) if isinstance(domain, Options) else max(below, default=0)
        return need + (id(domain) in self.named)

    def inside(self, domain: Domain, left: int) -> int:
        """Rules that may still be nested in `domain`, when `left` may be nested where it stands."""
        return left - 1 if id(domain) in self.named else left

    def used(self, domain: Domain, value: Any) -> int:
        """Rules nested in `value`, a derivation of `domain`, itself included."""
        if isinstance(domain, Scalar):
            return 0
        if isinstance(domain, Repeat):
            return max((self.used(domain.item, item) for item in value), default=0)
        record = domain.cases[value[KIND]] if isinstance(domain, Options) else domain
        below = (
            self.used(field.domain, value[field.name])
            for field in record.fields
            if not isinstance(field.domain, Scalar)
        )
        return max(below, default=0) + (id(domain) in self.named)


def depths_of(definition: Definition) -> Depths:
    """The definition's `Depths`, computed once."""
    cache = definition.cached("depths")
    if "depths" not in cache:
        cache["depths"] = Depths(definition)
    found: Depths = cache["depths"]
    return found


def sites_of(definition: Definition, genotype: Genotype) -> list[Site]:
    """All places of a canonical genotype, outer before inner; the whole is the first, under key 0.

    Nothing below an inactive field is listed.
    """
    start = definition.grammar.start
    root = Site([genotype], 0, start, "", "", definition.grammar.max_depth, True, None)
    found: list[Site] = []
    _collect(root, {}, depths_of(definition), found)
    return found


def _collect(site: Site, outer: Mapping[str, Any], depths: Depths, found: list[Site]) -> None:
    found.append(site)
    domain = site.domain
    if isinstance(domain, Scalar) or not site.active:
        return
    value = site.owner[site.key]
    left = depths.inside(domain, site.left)
    if isinstance(domain, Repeat):
        star = f"{site.path}[*]"
        for index in range(len(value)):
            _collect(
                Site(value, index, domain.item, f"{site.path}[{index}]", star, left, True, None),
                outer,
                depths,
                found,
            )
        return
    record = domain.cases[value[KIND]] if isinstance(domain, Options) else domain
    scope = {**outer, **value}
    dot = f"{site.path}." if site.path else ""
    for field in record.fields:
        name, below = field.name, field.domain
        star = f"{site.star}.{name}" if site.star else ""
        active = field.when is None or bool(field.when(scope))
        inner = Site(value, name, below, dot + name, star, left, active, field)
        if isinstance(below, Scalar):
            found.append(inner)
        else:
            _collect(inner, scope, depths, found)
