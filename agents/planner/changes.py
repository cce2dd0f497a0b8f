"""Answers as changes of a parent: which genes a model may change, to what, and what comes of it.

A small model writes a whole genotype poorly: it copies what it read last, or loses itself half-way. Of a
parent's genes and their other values it has only to choose, each choice is a neighbour of a network that is
known to be good, and the answer is a few tokens long. Every list is read off the space's JSON schema and the
parent, so any space without source has it.
"""

from __future__ import annotations

import copy
import difflib
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from pydantic import BaseModel, ConfigDict

from cambrian.agents.errors import ProposalError
from cambrian.agents.planner.evolution import fingerprint
from cambrian.search_spaces import Genotype, Space

REMOVE, REPEAT = "remove", "repeat"
"""What can be done to an entry of a list as a whole."""
_STEP = re.compile(r"([^.\[\]]+)|\[(\d+)\]")
_NAMED = 12
"""Genes that a complaint names at most."""


class Change(BaseModel):
    """One change of an answer.

    Attributes:
        gene: where, such as `stages[1].width`.
        to: the new value; `remove` or `repeat` for an entry of a list.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    gene: str
    to: Any


@dataclass(frozen=True)
class Gene:
    """One place of a genotype that can be changed.

    Attributes:
        path: such as `stages[1].width`.
        now: its value.
        others: JSON schema of what it may become.
    """

    path: str
    now: Any
    others: Mapping[str, Any]

    @property
    def values(self) -> list[Any] | None:
        """What it may become, where these are single values; None where they are not listed."""
        cases = self.others.get("anyOf", [self.others])
        found = [value for case in cases for value in case.get("enum", ())]
        return found if all("enum" in case for case in cases) else None

    def only(self, values: Sequence[Any]) -> Gene:
        """The same, where it may become nothing but `values`, which are some of its own."""
        wanted = [(type(value) is bool, value) for value in values]
        cases = []
        for case in self.others.get("anyOf", [self.others]):
            if left := [value for value in case["enum"] if (type(value) is bool, value) in wanted]:
                cases.append(dict(case) | {"enum": left})
        return replace(self, others=cases[0] if len(cases) == 1 else {"anyOf": cases})


@dataclass(frozen=True)
class Start:
    """What an answer by changes starts from.

    Attributes:
        ids: of the parents; the first is the one that is changed.
        genes: of that one, those that are offered to be changed, with the values that are.
        most: changes that are asked for; a server that cannot be held to it may give more, which are taken.
    """

    ids: tuple[str, ...]
    genes: tuple[Gene, ...]
    most: int = 1


def genes(space: Space, genotype: Genotype) -> list[Gene]:
    """All that can be changed in a canonical genotype, in its own order.

    Whether several changes together give a member is for `Space.validate` to say.
    """
    schema = dict(space.schema())
    return list(_Walk(schema.pop("$defs", {})).genes("", schema, genotype))


def changes_schema(found: Sequence[Gene]) -> dict[str, Any]:
    """JSON schema of a list of changes to `found`, for strict structured output.

    Genes that may become the same share a case. Where values are listed, the one that a gene has is in none,
    so that nothing can be "changed" to what it is.
    """
    cases: dict[str, tuple[list[str], Mapping[str, Any]]] = {}
    for gene in found:
        cases.setdefault(json.dumps(gene.others), ([], gene.others))[0].append(gene.path)
    items = [
        {
            "type": "object",
            "additionalProperties": False,
            "required": ["gene", "to"],
            "properties": {"gene": {"type": "string", "enum": paths}, "to": dict(others)},
        }
        for paths, others in cases.values()
    ]
    return {"type": "array", "items": items[0] if len(items) == 1 else {"anyOf": items}}


def changed(space: Space, genotype: Genotype, changes: Iterable[Change]) -> Genotype:
    """The canonical genotype that comes of `genotype` by `changes`.

    Single values are set first, then entries are removed or repeated, the last ones first: a path means the
    place in `genotype`. Of several changes of one gene the last counts.

    Raises:
        ProposalError: there is no such gene, the result is no member, or it is `genotype` again.
    """
    wanted = {change.gene.strip(): change.to for change in changes}
    known = {gene.path for gene in genes(space, genotype)}
    if strange := next((path for path in wanted if path not in known), None):
        near = difflib.get_close_matches(strange, known, n=_NAMED) or sorted(known)[:_NAMED]
        raise ProposalError(f"changes: there is no gene {strange!r} to change; near are {', '.join(near)}")
    made: Any = copy.deepcopy(genotype)
    whole = {path: to for path, to in wanted.items() if path.endswith("]") and to in (REMOVE, REPEAT)}
    for path in sorted(wanted.keys() - whole.keys(), key=_steps):
        if within := next((other for other in wanted if _inside(path, other)), None):
            raise ProposalError(f"changes: {path} is a part of {within}, which is changed as a whole")
        place, key = _found(made, path)
        place[key] = copy.deepcopy(wanted[path])
    for path in sorted(whole, key=_steps, reverse=True):
        place, key = _found(made, path)
        place[key : key + 1] = [] if whole[path] == REMOVE else [place[key], copy.deepcopy(place[key])]
    member = space.validate(made)
    if fingerprint(member) == fingerprint(genotype):
        raise ProposalError("changes: with these the network stays what it is, change other genes")
    return member


class _Walk:
    """Goes through a schema and a member of it side by side."""

    def __init__(self, definitions: Mapping[str, Any]) -> None:
        self._definitions = definitions

    def genes(self, path: str, schema: Mapping[str, Any], value: Any) -> Iterator[Gene]:
        here = self._resolved(schema)
        if "anyOf" in here:
            yield from self._cases(path, schema, here, value)
        elif here.get("type") == "object" and isinstance(value, Mapping):
            for name, below in here["properties"].items():
                yield from self.genes(f"{path}.{name}" if path else name, below, value[name])
        elif here.get("type") == "array" and isinstance(value, list):
            yield from self._entries(path, here, value)
        elif others := _others(here, value):
            yield Gene(path, value, others)

    def _cases(
        self, path: str, schema: Mapping[str, Any], here: Mapping[str, Any], value: Any
    ) -> Iterator[Gene]:
        cases = [self._resolved(case) for case in here["anyOf"]]
        if all("enum" in case for case in cases):
            if left := [others for case in cases if (others := _others(case, value))]:
                yield Gene(path, value, left[0] if len(left) == 1 else {"anyOf": left})
            return
        own = next((i for i, case in enumerate(cases) if self._fits(case, value)), None)
        if "$ref" in schema:
            yield Gene(path, value, dict(schema))  # a reference stands alone, its own case with it
        else:
            left = [dict(case) for i, case in enumerate(here["anyOf"]) if i != own]
            if left:
                yield Gene(path, value, left[0] if len(left) == 1 else {"anyOf": left})
        if own is not None:
            yield from self.genes(path, cases[own], value)

    def _entries(self, path: str, here: Mapping[str, Any], value: list[Any]) -> Iterator[Gene]:
        verbs = [REMOVE] if len(value) > here.get("minItems", 0) else []
        verbs += [REPEAT] if len(value) < here.get("maxItems", len(value) + 1) else []
        for i, entry in enumerate(value):
            if verbs:
                yield Gene(f"{path}[{i}]", entry, {"type": "string", "enum": verbs})
            yield from self.genes(f"{path}[{i}]", here["items"], entry)

    def _resolved(self, schema: Mapping[str, Any]) -> Mapping[str, Any]:
        while "$ref" in schema:
            schema = self._definitions[schema["$ref"].removeprefix("#/$defs/")]
        return schema

    def _fits(self, case: Mapping[str, Any], value: Any) -> bool:
        """Whether `value` is of this case, as far as its fields and their only values tell."""
        if not isinstance(value, Mapping) or case.get("type") != "object":
            return False
        properties = case["properties"]
        only = {name: below["enum"] for name, below in properties.items() if len(below.get("enum", ())) == 1}
        return set(properties) == set(value) and all([value[name]] == enum for name, enum in only.items())


def _others(leaf: Mapping[str, Any], value: Any) -> dict[str, Any]:
    """The schema of a single value without `value`; nothing where there is no other."""
    without = {key: below for key, below in leaf.items() if key != "description"}
    if "enum" not in without:
        return without
    left = [each for each in without["enum"] if (each, type(each) is bool) != (value, type(value) is bool)]
    return without | {"enum": left} if left else {}


def _inside(path: str, whole: str) -> bool:
    return path.startswith((f"{whole}.", f"{whole}["))


def _steps(path: str) -> list[tuple[bool, int, str]]:
    """A path's steps, comparable; places in lists by their number."""
    return [(bool(index), int(index or 0), name) for name, index in _STEP.findall(path)]


def _found(genotype: Any, path: str) -> tuple[Any, Any]:
    """The object or list that holds `path`, and its key there."""
    keys = [name or int(index) for name, index in _STEP.findall(path)]
    for key in keys[:-1]:
        genotype = genotype[key]
    return genotype, keys[-1]
