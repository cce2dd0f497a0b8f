"""The rules that bind several genes: `require`, typing, and limits on size."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from cambrian.search_spaces.declarative.definition import Definition
from cambrian.search_spaces.declarative.grammar import KIND, Domain, Options, Record, Repeat, walk
from cambrian.search_spaces.declarative.plan import depth, leaves
from cambrian.search_spaces.declarative.planning import plan
from cambrian.search_spaces.errors import ProposalError
from cambrian.search_spaces.space import Genotype, Signature

Rule = Callable[[Any, Mapping[str, Any]], "tuple[str, str] | None"]
"""Of (value, fields of the records around it): the place and message of the first broken rule."""


class Problem(NamedTuple):
    """A rule that a folded genotype breaks.

    Attributes:
        text: in words; for a limit without the part that is to blame, which takes a whole plan to find.
        limit: the limit that is exceeded, such as `params`; empty for other rules.
        rule: the message of the `require` that is broken, without its place; empty for limits and typing.
    """

    text: str
    limit: str = ""
    rule: str = ""


def complaint(definition: Definition, genotype: Genotype) -> str | None:
    """The rule over several genes that a folded genotype breaks, in words, or None.

    The cheap rules come first: `require` of every record, then typing at every signature of the definition
    and the limits, which are read at the first.
    """
    found = problem(definition, genotype)
    if found is None:
        return None
    return found.text + _advice(definition, genotype, found.limit) if found.limit else found.text


def problem(definition: Definition, genotype: Genotype) -> Problem | None:
    """What `complaint` is about, without the advice."""
    rules = definition.cached("rules")
    if "start" not in rules:
        rules["start"] = _Compiler(definition.grammar.start).rule(definition.grammar.start)
    if rules["start"] is not None and (broken := rules["start"](genotype, {})) is not None:
        place, message = broken
        return Problem(f"{place.lstrip('.')}: {message}" if place else message, rule=message)
    limits = definition.file.limits
    try:
        for signature in definition.signatures:
            planned = plan(definition, genotype, signature)
            if signature is not definition.file.reference:
                continue
            for name, size in (("params", planned.params), ("macs", planned.macs), ("depth", None)):
                most = getattr(limits, name)
                if most is None:
                    continue
                found = depth(planned) if size is None else size
                if found > most:
                    at = f" on {_an_input(signature)}" if name != "depth" else ""
                    a, b = _pair(found, most)
                    return Problem(f"{a} {_NOUNS[name]}{at}; at most {b} are allowed", name)
    except ProposalError as error:
        return Problem(f"{error.message} ({error.hint})" if error.hint else error.message)
    return None


_NOUNS = {
    "params": "parameters",
    "macs": "multiply-accumulates",
    "depth": "layers with weights on the longest path",
}


def _an_input(signature: Signature) -> str:
    if signature.graph is not None:
        return "the graph"
    return f"a {'x'.join(map(str, signature.input_shape))} input"


def _advice(definition: Definition, genotype: Genotype, limit: str) -> str:
    """`: reduce stages[2], the heaviest`, where there is one."""
    sizes: Counter[str] = Counter()
    for leaf in leaves(plan(definition, genotype, definition.file.reference)):
        size = {"params": leaf.params, "macs": leaf.macs, "depth": int(leaf.params > 0)}[limit]
        sizes[leaf.gene] += size
    gene, _ = max(sizes.items(), key=lambda item: item[1])
    if not gene:
        return ""
    return f": reduce {gene}, the {'deepest' if limit == 'depth' else 'heaviest'}"


def human(count: int) -> str:
    """`3.4M` for 3,412,000."""
    for unit, size in (("G", 10**9), ("M", 10**6), ("k", 10**3)):
        if count >= size:
            return f"{count / size:.1f}".removesuffix(".0") + unit
    return str(count)


def _pair(found: int, most: int) -> tuple[str, str]:
    """Both in short, or both in full where the short forms are equal."""
    short = human(found), human(most)
    return short if short[0] != short[1] else (f"{found:,}", f"{most:,}")


class _Compiler:
    """Turns domains into closures; a domain without `require` below it needs none."""

    def __init__(self, start: Domain) -> None:
        self.ruled = {
            id(domain)
            for domain in walk(start)
            if any(isinstance(each, Record) and each.requires for each in walk(domain))
        }
        self.made: dict[int, Rule] = {}

    def rule(self, domain: Domain) -> Rule | None:
        if id(domain) not in self.ruled:
            return None
        if id(domain) not in self.made:
            # a rule that contains itself finds this forwarder instead of itself half-made
            self.made[id(domain)] = lambda value, outer: self.made[id(domain)](value, outer)
            self.made[id(domain)] = self.compile(domain)
        return self.made[id(domain)]

    def compile(self, domain: Domain) -> Rule:
        if isinstance(domain, Repeat):
            return self.list_(domain)
        if isinstance(domain, Options):
            cases = {name: self.rule(case) for name, case in domain.cases.items()}

            def option(value: Any, outer: Mapping[str, Any]) -> tuple[str, str] | None:
                case = cases[value[KIND]]
                return case(value, outer) if case is not None else None

            return option
        assert isinstance(domain, Record)
        return self.record(domain)

    def list_(self, domain: Repeat) -> Rule:
        item = self.rule(domain.item)
        assert item is not None

        def check(value: Any, outer: Mapping[str, Any]) -> tuple[str, str] | None:
            for index, part in enumerate(value):
                if (broken := item(part, outer)) is not None:
                    return f"[{index}]{broken[0]}", broken[1]
            return None

        return check

    def record(self, domain: Record) -> Rule:
        inner = [(field.name, rule) for field in domain.fields if (rule := self.rule(field.domain))]
        requires = domain.requires

        def check(value: Any, outer: Mapping[str, Any]) -> tuple[str, str] | None:
            scope = {**outer, **value}
            for require in requires:
                if not require.rule(scope):
                    return "", require.message
            for name, rule in inner:
                if (broken := rule(value[name], scope)) is not None:
                    return f".{name}{broken[0]}", broken[1]
            return None

        return check
