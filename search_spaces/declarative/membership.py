"""Which data are members of a space: the walk along its grammar, and the rules that bind several genes."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from cambrian.search_spaces.declarative.definition import Definition
from cambrian.search_spaces.declarative.folding import fold
from cambrian.search_spaces.declarative.grammar import (
    KIND,
    NOTHING,
    Domain,
    Field,
    Options,
    Record,
    Repeat,
    Scalar,
)
from cambrian.search_spaces.declarative.rules import complaint
from cambrian.search_spaces.declarative.sites import Depths, depths_of, sites_of
from cambrian.search_spaces.errors import ProposalError
from cambrian.search_spaces.registry import near_names
from cambrian.search_spaces.space import Genotype

__all__ = ["canonical", "complaint", "copy_of", "fold", "validate"]

MAX_FAULTS = 5
"""Faults that are told one by one; the others are counted."""

Check = Callable[[Any, str, int, "Faults"], Any]
"""Of (data, path, rules that may still be nested, faults): the canonical value."""


class Faults:
    """What is wrong with data, in words, and which gaps are allowed only where a field is inactive."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.more = 0
        self.gaps: list[str] = []

    def add(self, path: str, text: str) -> None:
        """Note one fault."""
        if len(self.said) < MAX_FAULTS:
            self.said.append(f"{path}: {text}" if path else text)
        else:
            self.more += 1

    def error(self) -> ProposalError:
        """All faults as one error."""
        more = f"; and {self.more} more" if self.more else ""
        return ProposalError("; ".join(self.said) + more)


def validate(definition: Definition, data: object) -> Genotype:
    """The canonical genotype that `data` stands for; shares nothing with `data`.

    Numbers match by value (8.0 is 8), but true and 1 are different.

    Raises:
        ProposalError: names every bad gene (five at most) with what is allowed, or the rule that is broken.
    """
    genotype = canonical(definition, data)
    if problem := complaint(definition, genotype):
        raise ProposalError(problem)
    return genotype


def canonical(definition: Definition, data: object) -> Genotype:
    """As `validate`, without the rules over several genes, which take most of its time.

    Raises:
        ProposalError: names every bad gene (five at most) with what is allowed.
    """
    start = definition.grammar.start
    cache = definition.cached("membership")
    if "checks" not in cache:
        cache["checks"] = _Checks(depths_of(definition), definition.grammar.max_depth)
    if not isinstance(data, Mapping):
        names = [KIND] if isinstance(start, Options) else [field.name for field in start.fields]
        raise ProposalError(
            f"a genotype is an object with {_listed(names)}, not {shown(data)}",
            hint="answer with one JSON object",
        )
    faults = Faults()
    genotype: Genotype = cache["checks"].of(start)(data, "", definition.grammar.max_depth, faults)
    if faults.said:
        raise faults.error()
    fold(definition, genotype)
    if faults.gaps:
        gaps = set(faults.gaps)
        for site in sites_of(definition, genotype):
            if site.active and site.path in gaps:
                faults.add(site.path, "missing")
        if faults.said:
            raise faults.error()
    return genotype


def copy_of(genotype: Genotype) -> Genotype:
    """A deep copy of JSON data, several times faster than `copy.deepcopy`."""
    copied: Genotype = copied_value(genotype)
    return copied


def copied_value(value: Any) -> Any:
    """A deep copy of any part of a genotype."""
    if type(value) is dict:
        return {
            key: copied_value(part) if type(part) is dict or type(part) is list else part
            for key, part in value.items()
        }
    return [copied_value(part) for part in value] if type(value) is list else value


def shown(value: object) -> str:
    """`value` in an error, cut when it is long."""
    if isinstance(value, Mapping):
        return "an object"
    # a list of a million items must not be printed only to be cut
    try:
        text = f"a list of {len(value)}" if isinstance(value, list) and len(value) > 8 else repr(value)
    except (ValueError, RecursionError):  # thousands of digits, or of brackets
        text = f"a huge {type(value).__name__}"
    text = " ".join(text.split())
    return text if len(text) <= 40 else text[:37] + "..."


class _Checks:
    """One closure for each domain, made on first use."""

    def __init__(self, depths: Depths, max_depth: int) -> None:
        self.depths = depths
        self.max_depth = max_depth
        self.made: dict[int, Check] = {}

    def of(self, domain: Domain) -> Check:
        if id(domain) not in self.made:
            # a rule that contains itself finds this forwarder instead of itself half-made
            self.made[id(domain)] = lambda *args: self.made[id(domain)](*args)
            check = self.compile(domain)
            if id(domain) in self.depths.named:
                check = self.counted(check, self.depths.needs[id(domain)])
            self.made[id(domain)] = check
        return self.made[id(domain)]

    def counted(self, check: Check, needed: int) -> Check:
        def check_depth(data: Any, path: str, left: int, faults: Faults) -> Any:
            if left < needed:
                return faults.add(
                    path,
                    f"is nested too deep; at most {self.max_depth} rules may be nested: use a short option",
                )
            return check(data, path, left - 1, faults)

        return check_depth

    def compile(self, domain: Domain) -> Check:
        if isinstance(domain, Scalar):
            return _scalar(domain)
        if isinstance(domain, Repeat):
            return self.list_(domain)
        if isinstance(domain, Record):
            return self.record(domain)
        return self.options(domain)

    def list_(self, domain: Repeat) -> Check:
        least, most = domain.least, domain.most
        item = self.of(domain.item)
        bounds = f"{least}" if least == most else f"{least} to {most}"
        bounds += " item" if least == most == 1 else " items"

        def check(data: Any, path: str, left: int, faults: Faults) -> Any:
            if not isinstance(data, list | tuple):
                return faults.add(path, f"must be a list, not {shown(data)}")
            if not least <= len(data) <= most:
                return faults.add(path, f"needs {bounds}, not {len(data)}")
            return [item(part, f"{path}[{index}]", left, faults) for index, part in enumerate(data)]

        return check

    def record(self, domain: Record) -> Check:
        fields = [(each.name, self.of(each.domain), each) for each in domain.fields]
        known = {name for name, _, _ in fields} | ({KIND} if domain.kind is not None else set())

        def check(data: Any, path: str, left: int, faults: Faults) -> Any:
            if not isinstance(data, Mapping):
                return faults.add(path, f"must be an object, not {shown(data)}")
            dot = f"{path}." if path else ""
            if not known >= data.keys():
                for name in data:
                    if name not in known:
                        _unknown(domain, str(name), dot, known, faults)
            made: dict[str, Any] = {} if domain.kind is None else {KIND: domain.kind}
            for name, inner, field in fields:
                part = data.get(name, NOTHING)
                if part is NOTHING:
                    part = _stand_in(field, dot + name, faults)
                    if part is NOTHING:
                        continue
                made[name] = inner(part, dot + name, left, faults)
            return made

        return check

    def options(self, domain: Options) -> Check:
        cases = {name: self.of(case) for name, case in domain.cases.items()}
        listed = ", ".join(cases)

        def check(data: Any, path: str, left: int, faults: Faults) -> Any:
            if not isinstance(data, Mapping):
                return faults.add(path, f"must be an object, not {shown(data)}")
            place = f"{path}.{KIND}" if path else KIND
            if KIND not in data:
                return faults.add(place, f"missing; one of {listed}")
            kind = data[KIND]
            if not isinstance(kind, str) or kind not in cases:
                return faults.add(place, f"{shown(kind)} is not allowed; allowed: {listed}")
            return cases[kind](data, path, left, faults)

        return check


def _scalar(domain: Scalar) -> Check:
    truths = {value: value for value in domain.values if isinstance(value, bool)}
    plain = {value: value for value in domain.values if not isinstance(value, bool)}
    listed = ", ".join(map(str, domain.values[:20])) + (
        f", ... {domain.values[-1]}" if len(domain.values) > 20 else ""
    )

    def check(data: Any, path: str, left: int, faults: Faults) -> Any:
        if isinstance(data, int | float | str):
            found = truths.get(data, NOTHING) if isinstance(data, bool) else plain.get(data, NOTHING)
            if found is not NOTHING:
                return found
            if isinstance(data, float) and math.isfinite(data):
                # 0.30000000000000004 is what arithmetic makes of the 0.3 in a table
                for value in plain.values():
                    if isinstance(value, float) and math.isclose(data, value, rel_tol=1e-9):
                        return value
        return faults.add(path, f"{shown(data)} is not allowed; allowed: {listed}")

    return check


def _stand_in(field: Field, path: str, faults: Faults) -> Any:
    if field.default is not NOTHING:
        return field.default
    if field.when is not None:
        faults.gaps.append(path)  # fine when it turns out to be inactive
        return field.otherwise
    faults.add(path, "missing")
    return NOTHING


def _unknown(record: Record, name: str, dot: str, known: set[str], faults: Faults) -> None:
    of = f" of {record.kind}" if record.kind is not None else ""
    hint = near_names(name, [each for each in known if each != KIND]) if len(faults.said) < MAX_FAULTS else ""
    faults.add(dot + shown_name(name), f"no such gene{of}; {hint}")


def shown_name(name: str) -> str:
    """A key that somebody wrote, cut and on one line."""
    name = " ".join(name.split())
    return name if len(name) <= 40 else name[:37] + "..."


def _listed(names: list[str]) -> str:
    return (
        names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}" if names else "no fields"
    )
