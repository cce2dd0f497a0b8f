"""Typed edits of one genotype, each told in terms of the genotype, such as `stem.width 8 -> 12`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from cambrian.search_spaces.declarative.draft import Draft, same, value_key
from cambrian.search_spaces.declarative.grammar import (
    KIND,
    Domain,
    Options,
    Record,
    Repeat,
    Scalar,
)
from cambrian.search_spaces.declarative.membership import copied_value
from cambrian.search_spaces.declarative.sampling import draw
from cambrian.search_spaces.declarative.sites import Site, depths_of, sites_of
from cambrian.search_spaces.declarative.telling import cut, place, told

STEP_SHARE = 0.8
"""Share of edits of an ordered value that go to a neighbour in its table."""


Operator = Callable[[Draft], "str | None"]
"""Edits the draft and says how; None when there is nothing to edit. The draft may be invalid afterwards."""


def change_value(draft: Draft) -> str | None:
    """One value: an ordered one mostly by one step, any other to any other value."""
    site = draft.one_of(draft.values)
    if site is None:
        return None
    old, values = site.value, site.domain.values
    if site.domain.ordered and draft.rng.random() < STEP_SHARE:
        near = _neighbours(values, old)
    else:
        near = [value for value in values if not same(value, old)]
    return _set(draft, site, draft.one_of(near))


def _set(draft: Draft, site: Site, new: Any) -> str:
    old = site.value
    site.owner[site.key] = new
    woken = draft.woken(site.field.name) if site.field is not None else ""
    return f"{place(site.path)} {told(old)} -> {told(new)}{woken}"


def switch_option(draft: Draft) -> str | None:
    """Another option; fields that both have keep their values."""
    depths = depths_of(draft.definition)
    found = []
    for site in draft.sites:
        if isinstance(site.domain, Options) and len(site.domain.cases) > 1:
            inside = depths.inside(site.domain, site.left)
            fit = [c for c in site.domain.cases.values() if depths.needs[id(c)] <= inside]
            if fit := [case for case in fit if case.kind != site.value[KIND]]:
                found.append((site, site.domain, fit))
    chosen = draft.one_of(found)
    if chosen is None:
        return None
    site, domain, fit = chosen
    return _switch(draft, site, domain, draft.one_of(fit))


def _switch(draft: Draft, site: Site, domain: Options, case: Record) -> str:
    old = site.value
    before = {field.name: field for field in domain.cases[old[KIND]].fields}
    left = depths_of(draft.definition).inside(domain, site.left)
    made: dict[str, Any] = {KIND: case.kind}
    for field in case.fields:
        was = before.get(field.name)
        keep = was is not None and alike(was.domain, field.domain)
        made[field.name] = old[field.name] if keep else draw(draft.definition, field.domain, draft.rng, left)
    site.owner[site.key] = made
    where = f"{site.path}.{KIND}" if site.path else KIND
    return f"{place(where)} {old[KIND]} -> {case.kind}"


def redraw(draft: Draft) -> str | None:
    """A record, option or list drawn anew."""
    found = [site for site in draft.sites if site.path and not isinstance(site.domain, Scalar)]
    site = draft.one_of(found)
    if site is None:
        return None
    site.owner[site.key] = draw(draft.definition, site.domain, draft.rng, site.left)
    return f"{place(site.path)} redrawn: {draft.brief(site.path, site.domain)}"


def insert_item(draft: Draft) -> str | None:
    """A freshly drawn item in a list."""
    needs = depths_of(draft.definition).needs
    chosen = draft.one_of(
        [(s, d) for s, d in draft.lists() if len(s.value) < d.most and needs[id(d.item)] <= s.left]
    )
    if chosen is None:
        return None
    site, domain = chosen
    at = int(draft.rng.random() * (len(site.value) + 1))
    site.value.insert(at, draw(draft.definition, domain.item, draft.rng, site.left))
    return f"{place(site.path)}[{at}] inserted: {draft.brief(f'{site.path}[{at}]', domain.item)}"


def duplicate_item(draft: Draft) -> str | None:
    """An item of a list twice."""
    chosen = draft.one_of([(s, d) for s, d in draft.lists() if 0 < len(s.value) < d.most])
    if chosen is None:
        return None
    site, domain = chosen
    at = int(draft.rng.random() * len(site.value))
    site.value.insert(at + 1, copied_value(site.value[at]))
    return f"{place(site.path)}[{at}] duplicated: {draft.brief(f'{site.path}[{at}]', domain.item)}"


def remove_item(draft: Draft) -> str | None:
    """A list without one of its items."""
    chosen = draft.one_of([(s, d) for s, d in draft.lists() if len(s.value) > d.least])
    if chosen is None:
        return None
    site, domain = chosen
    return _remove(draft, site, domain, int(draft.rng.random() * len(site.value)))


def swap_items(draft: Draft) -> str | None:
    """Two neighbours in a list exchanged."""
    chosen = draft.one_of([site for site, _ in draft.lists() if len(site.value) > 1])
    if chosen is None:
        return None
    items = chosen.value
    at = int(draft.rng.random() * (len(items) - 1))
    items[at], items[at + 1] = items[at + 1], items[at]
    return f"{place(chosen.path)}[{at}] and [{at + 1}] swapped"


def swap_values(draft: Draft) -> str | None:
    """The values of one gene exchanged between two places."""
    group = draft.one_of([g for g in draft.groups() if len({value_key(site.value) for site in g}) > 1])
    if group is None:
        return None
    first = draft.one_of(group)
    second = draft.one_of([site for site in group if not same(site.value, first.value)])
    a, b = first.value, second.value
    first.owner[first.key], second.owner[second.key] = b, a
    one, other = (first, second) if group.index(first) < group.index(second) else (second, first)
    if first.key == second.key and first.field is not None:
        owners = [
            place(site.path.removesuffix(site.key).rstrip("."), 32) or "the start" for site in (one, other)
        ]
        return f"{first.key} swapped between {owners[0]} and {owners[1]}"
    return f"{place(one.path)} and {place(other.path)} swapped"


def shift_values(draft: Draft) -> str | None:
    """An ordered gene one step up or down in all places of a list, or everywhere that it is shared."""
    group = draft.one_of([g for g in draft.groups() if _table(g[0]).ordered])
    if group is None:
        return None
    step = 1 if draft.rng.random() < 0.5 else -1
    for site in group:
        values = _table(site).values
        at = _index(values, site.value) + step
        site.owner[site.key] = values[min(max(at, 0), len(values) - 1)]
    return f"{_all(group)} one step {'up' if step > 0 else 'down'}"


def spread_value(draft: Draft) -> str | None:
    """One value of a gene in all places of a list, or everywhere that it is shared."""
    group = draft.one_of(draft.groups())
    if group is None:
        return None
    value = draft.one_of(list(_table(group[0]).values))
    for site in group:
        site.owner[site.key] = value
    return f"{_all(group)} all {told(value)}"


def wrap(draft: Draft) -> str | None:
    """A node within a freshly drawn one of its own rule."""
    definition, depths = draft.definition, depths_of(draft.definition)
    site = draft.one_of(draft.recursive())
    if site is None:
        return None
    old = site.value
    used = depths.used(site.domain, old)
    for _ in range(8):
        site.owner[site.key] = draw(definition, site.domain, draft.rng, site.left)
        inner = [
            each
            for each in sites_of(definition, draft.genotype)
            if each.domain is site.domain and used <= each.left < site.left and _within(each.path, site.path)
        ]
        if inner:
            shallow = [each for each in inner if each.left == max(e.left for e in inner)]
            chosen = draft.one_of(shallow)
            chosen.owner[chosen.key] = old
            new = site.value
            name = new[KIND] if isinstance(site.domain, Options) else site.domain.name
            return f"{place(site.path) or 'the whole'} wrapped in {name}, as its {_inside(chosen, site)}"
    site.owner[site.key] = old
    return None


def shrink(draft: Draft) -> str | None:
    """A node replaced by one of its descendants of the same rule."""
    nodes = draft.recursive()
    found = [
        (outer, inner)
        for outer in nodes
        for inner in nodes
        if inner.domain is outer.domain and inner.left < outer.left and _within(inner.path, outer.path)
    ]
    chosen = draft.one_of(found)
    if chosen is None:
        return None
    outer, inner = chosen
    outer.owner[outer.key] = inner.value
    return f"{place(outer.path) or 'the whole'} replaced by its part {_inside(inner, outer)}"


def _inside(site: Site, outer: Site) -> str:
    return place(site.path.removeprefix(outer.path).lstrip("."), 30)


def _within(path: str, outer: str) -> bool:
    return path.startswith(outer) and (not outer or path[len(outer) : len(outer) + 1] in (".", "["))


OPERATORS: tuple[tuple[Operator, int], ...] = (
    (change_value, 48), (switch_option, 14), (insert_item, 6), (duplicate_item, 5), (remove_item, 7),
    (swap_items, 3), (shift_values, 5), (swap_values, 5), (redraw, 4), (spread_value, 2), (wrap, 5),
    (shrink, 5),
)  # fmt: skip
"""All edits and how often each is tried; those that find nothing to edit leave their share to the others."""


def all_small_edits(draft: Draft) -> Iterator[Callable[[Draft], str]]:
    """Every change of one value, every other option, every removal, for other drafts of the same parent."""
    for index, site in enumerate(draft.sites):
        if isinstance(site.domain, Scalar):
            for value in site.domain.values:
                if not same(value, site.value):
                    yield lambda d, i=index, v=value: _set(d, d.sites[i], v)  # type: ignore[misc]
        elif isinstance(site.domain, Options):
            inside = depths_of(draft.definition).inside(site.domain, site.left)
            for case in site.domain.cases.values():
                if case.kind != site.value[KIND] and depths_of(draft.definition).needs[id(case)] <= inside:
                    yield lambda d, i=index, o=site.domain, c=case: _switch(d, d.sites[i], o, c)  # type: ignore[misc]
        elif isinstance(site.domain, Repeat) and len(site.value) > site.domain.least:
            for at in range(len(site.value)):
                yield lambda d, i=index, o=site.domain, a=at: _remove(d, d.sites[i], o, a)  # type: ignore[misc]


def _remove(draft: Draft, site: Site, domain: Repeat, at: int) -> str:
    gone = draft.brief(f"{site.path}[{at}]", domain.item)
    del site.value[at]
    return f"{place(site.path)}[{at}] removed ({gone})"


def _table(site: Site) -> Scalar:
    assert isinstance(site.domain, Scalar)
    return site.domain


def _all(group: list[Site]) -> str:
    if len({site.star for site in group}) == 1 and group[0].star:
        return place(group[0].star)
    names = list(dict.fromkeys(str(site.key) for site in group))
    return f"{names[0]} everywhere" if len(names) == 1 else cut(", ".join(names), 60)


def _index(values: tuple[Any, ...], value: Any) -> int:
    return next(index for index, each in enumerate(values) if same(each, value))


def _neighbours(values: tuple[Any, ...], value: Any) -> list[Any]:
    at = _index(values, value)
    return [values[i] for i in (at - 1, at + 1) if 0 <= i < len(values)]


def alike(first: Domain, second: Domain) -> bool:
    """Whether a derivation of `first` is one of `second`, as far as can be told at a glance."""
    if isinstance(first, Scalar) and isinstance(second, Scalar):
        return list(map(value_key, first.values)) == list(map(value_key, second.values))
    return first is second
