"""The compiler of space files: choices to domains, layouts to parts, with every name checked."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from cambrian.search_spaces.declarative.catalogue import Block
from cambrian.search_spaces.declarative.expression import Expression, ExpressionError
from cambrian.search_spaces.declarative.grammar import (
    KIND,
    NOTHING,
    Domain,
    Field,
    Grammar,
    Options,
    Record,
    Repeat,
    Require,
    Scalar,
    children,
    cumulated,
    log_integers,
    log_numbers,
    walk,
)
from cambrian.search_spaces.declarative.layouting import GLOBALS, LayoutCompiler
from cambrian.search_spaces.declarative.model import ChoiceModel, RecordModel, RuleModel, SpaceFile
from cambrian.search_spaces.declarative.templates import Hole, words_of
from cambrian.search_spaces.errors import UserError
from cambrian.search_spaces.registry import near_names

MAX_VALUES = 10_000


class CompileError(UserError):
    """A space file says something that cannot be; the message begins with the place."""


def compile_grammar(file: SpaceFile, blocks: Mapping[str, Block]) -> Grammar:
    """The domains of a space file, layouts included.

    Raises:
        UserError: the first thing that is wrong, after its place in the file.
    """
    return _Compiler(file, blocks).grammar()


class _Compiler:
    def __init__(self, file: SpaceFile, blocks: Mapping[str, Block]) -> None:
        self.file, self.blocks = file, blocks
        self.genes: dict[str, Domain] = {}
        self.rules: dict[str, Record | Options] = {}
        self.builds: list[tuple[Record, Any, str]] = []
        self.scalars: dict[int, tuple[Scalar, Record]] = {}

    def grammar(self) -> Grammar:
        for name, rule in self.file.rules.items():
            self.rules[name] = Options(name) if rule.options is not None else Record(name)
        for name, choice in self.file.genes.items():
            if choice.kind in ("repeat", "fields", "use"):
                raise CompileError(
                    f"genes.{name}: is a {choice.kind}, but shared choices are values",
                    hint="write it under rules",
                )
            if choice.when is not None:
                raise CompileError(
                    f"genes.{name}.when: a shared choice has no conditions",
                    hint="write them where it is used",
                )
            self.genes[name] = self.domain(choice, f"genes.{name}")
        for name, rule in self.file.rules.items():
            self.fill_rule(name, rule)
        start = self.rules[next(iter(self.file.rules))]
        self.check_reachable(start)
        _set_heights(list(walk(start)))
        scopes = _scopes(start)
        compiler = LayoutCompiler(self.blocks, self.builds, self.scalars)
        for record, build, where in self.builds:
            outer = scopes.get(id(record), frozenset({"value"}))
            record.layout = compiler.compile(record, build, where, outer)
        for scalar, holder in self.scalars.values():
            scalar.layout = holder.layout
        known = compiler.indices
        for domain in walk(start):
            if isinstance(domain, Record):
                self.check_expressions(domain, scopes[id(domain)] | {f.name for f in domain.fields} | known)
        if isinstance(start, Record) and start.layout is None:
            raise CompileError(f"rules.{start.name}: builds nothing", hint="give it a build")
        recursive = frozenset(name for name, rule in self.rules.items() if _contains_itself(rule))
        return Grammar(start, self.rules, self.file.max_depth, recursive)

    def fill_rule(self, name: str, rule: RuleModel) -> None:
        made = self.rules[name]
        if isinstance(made, Record):
            self.fill_record(made, rule, f"rules.{name}")
            return
        assert rule.options is not None
        made.about = rule.about
        for key, option in rule.options.items():
            case = Record(f"{name}.{key}", kind=key)
            self.fill_record(case, option, f"rules.{name}.options.{key}")
            made.cases[key] = case
        weights = tuple(option.weight for option in rule.options.values())
        if sum(weights) <= 0:
            raise CompileError(f"rules.{name}.options: all weights are 0", hint="give one a weight above 0")
        made.cumulative = cumulated(weights)

    def fill_record(self, record: Record, model: RecordModel | ChoiceModel, where: str) -> None:
        record.about, record.label = model.about, model.label
        if model.label is not None:
            _label(model.label, f"{where}.label")
        fields = []
        for name, choice in (model.fields or {}).items():
            place = f"{where}.fields.{name}"
            if name == KIND or name in GLOBALS:
                raise CompileError(f"{place}: {name!r} has a meaning of its own", hint="choose another name")
            fields.append(self.field(name, choice, place, f"{record.name}.{name}"))
        record.fields = tuple(fields)
        record.by_name = {field.name: field for field in fields}
        record.requires = tuple(
            Require(_expression(rule.rule, f"{where}.require"), rule.else_) for rule in model.require
        )
        if model.build is not None:
            self.builds.append((record, model.build, f"{where}.build"))

    def field(self, name: str, choice: ChoiceModel, where: str, path: str) -> Field:
        domain = self.domain(choice, where, path)
        when = _expression(choice.when, f"{where}.when") if choice.when is not None else None
        about = choice.about or domain.about
        owner = choice
        if choice.use in self.genes and "default" not in choice.model_fields_set:
            owner = self.file.genes[str(choice.use)]
        default = owner.default if "default" in owner.model_fields_set else NOTHING
        made = Field(name, domain, about, default, when, choice.otherwise)
        fixed = [("default", default)] if default is not NOTHING else []
        fixed += [("otherwise", choice.otherwise)] if when is not None else []
        for key, value in fixed:
            if isinstance(domain, Scalar) and not any(_same(value, v) for v in domain.values):
                raise CompileError(
                    f"{where}.{key}: {value!r} is none of its values",
                    hint=f"one of {', '.join(map(str, domain.values))}",
                )
        if when is not None and not isinstance(domain, Scalar):
            raise CompileError(f"{where}.when: only values can be conditional", hint="use options instead")
        return made

    def domain(self, choice: ChoiceModel, where: str, path: str = "") -> Domain:
        if choice.use is not None:
            found = self.genes.get(choice.use) or self.rules.get(choice.use)
            if found is None:
                raise CompileError(
                    f"{where}: neither a gene nor a rule is called {choice.use!r}",
                    hint=near_names(choice.use, [*self.genes, *self.rules]),
                )
            return found
        if choice.fields is not None:
            record = Record(path or where)
            self.fill_record(record, choice, where)
            return record
        if choice.repeat is not None:
            item = self.domain(choice.repeat, f"{where}.repeat", path)
            cumulative = _weights(choice, choice.max - choice.min + 1, where)
            return Repeat(item, choice.min, choice.max, cumulative, choice.about)
        scalar = compile_scalar(choice, where)
        if choice.build is not None:
            # a record without fields stands for it while layouts are compiled
            holder = Record(f"{path or where}.value")
            self.scalars[id(scalar)] = (scalar, holder)
            self.builds.append((holder, choice.build, f"{where}.build"))
        return scalar

    def check_reachable(self, start: Record | Options) -> None:
        seen = {id(domain) for domain in walk(start)}
        for name, rule in self.rules.items():
            if id(rule) not in seen:
                raise CompileError(f"rules.{name}: no rule leads there from {start.name}", hint="remove it")

    def check_expressions(self, record: Record, known: frozenset[str] | set[str]) -> None:
        known = {*known, KIND} if record.kind is not None else set(known)
        for field in record.fields:
            if field.when is not None:
                _within(f"{record.name}.{field.name}.when", field.when, known)
        for require in record.requires:
            _within(f"{record.name}.require", require.rule, known)
        for word in words_of(record.label) if record.label is not None else ():
            for piece in word:
                if isinstance(piece, Hole):
                    _within(f"{record.name}.label", piece.expression, known)


def compile_scalar(choice: ChoiceModel, where: str) -> Scalar:
    """The table of a choice of values.

    Args:
        choice: any kind but `use`, `fields` and `repeat`.
        where: its place, for messages.

    Raises:
        CompileError: an empty range, too many values, or weights that do not fit.
    """
    values, ordered = _values(choice, where)
    if len(values) > MAX_VALUES:
        raise CompileError(f"{where}: {len(values)} values are too many", hint=f"at most {MAX_VALUES}")
    return Scalar(values, _weights(choice, len(values), where), ordered, choice.about)


def _weights(choice: ChoiceModel, n: int, where: str) -> tuple[float, ...] | None:
    if choice.weights is None:
        return None
    if len(choice.weights) != n or min(choice.weights) < 0 or sum(choice.weights) <= 0:
        raise CompileError(
            f"{where}.weights: {len(choice.weights)} weights for {n} values",
            hint="one weight a value, none negative, not all 0",
        )
    return cumulated(choice.weights)


def _within(where: str, expression: Expression, known: set[str]) -> None:
    try:
        expression.check_names(known)
    except ExpressionError as error:
        raise CompileError(f"{where}: {error.message}", hint=error.hint) from None


def _expression(text: object, where: str) -> Expression:
    try:
        return Expression(text, where)
    except ExpressionError as error:
        raise CompileError(f"{where}: {error.message}", hint=error.hint) from None


def _label(text: str, where: str) -> None:
    try:
        words_of(text)
    except ExpressionError as error:
        raise CompileError(f"{where}: {error.message}", hint=error.hint) from None


def _same(first: object, second: object) -> bool:
    return first == second and isinstance(first, bool) == isinstance(second, bool)


def _values(choice: ChoiceModel, where: str) -> tuple[tuple[Any, ...], bool]:
    kind = choice.kind
    if kind == "boolean":
        return (False, True), False
    if kind == "choice":
        values = choice.choice or ()
        if any(_same(a, b) for i, a in enumerate(values) for b in values[:i]):
            raise CompileError(f"{where}: a value stands there twice", hint="weights make one more likely")
        numbers = all(isinstance(v, int | float) and not isinstance(v, bool) for v in values)
        ordered = numbers if choice.ordered is None else choice.ordered
        return values, ordered
    low, high = getattr(choice, kind)
    if low > high or (kind.startswith("log") and low <= 0):
        raise CompileError(
            f"{where}.{kind}: [{low}, {high}] is empty",
            hint="low first, above 0 where the scale is a logarithm",
        )
    if kind == "log_integer":
        return log_integers(low, high, choice.per_octave, choice.multiple_of), True
    if kind == "log_number":
        return log_numbers(low, high, choice.per_decade), True
    step = choice.step if choice.step is not None else (1 if kind == "integer" else (high - low) / 10 or 1)
    count = math.floor((high - low) / step + 1e-9) + 1
    if kind == "integer":
        return tuple(range(low, high + 1, max(1, round(step)))), True
    return tuple(round(low + i * step, 10) for i in range(min(count, MAX_VALUES + 1))), True


def _set_heights(domains: list[Domain]) -> None:
    """Fill in `height` from below, until nothing changes; rules without an end are refused."""
    infinite = 1 << 30
    heights = {id(domain): infinite for domain in domains if not isinstance(domain, Scalar)}
    changed = True
    while changed:
        changed = False
        for domain in reversed(domains):
            below = [heights.get(id(child), 0) for child in children(domain)]
            if isinstance(domain, Options):
                height = min(below) + 1
            elif isinstance(domain, Record):
                height = max(below, default=0) + ("." not in domain.name)
            elif isinstance(domain, Repeat):
                height = below[0] if domain.least else 0
            else:
                continue
            if height < heights[id(domain)]:
                heights[id(domain)], changed = height, True
    for domain in domains:
        if isinstance(domain, Record | Options):
            domain.height = heights[id(domain)]
            if domain.height >= infinite:
                raise CompileError(
                    f"rules.{domain.name}: has no finite derivation", hint="give it an option that ends"
                )


def _scopes(start: Record | Options) -> dict[int, frozenset[str]]:
    """For each record the names of outer fields that are in scope however it is reached."""
    found: dict[int, frozenset[str]] = {}
    todo: list[tuple[Domain, frozenset[str]]] = [(start, frozenset())]
    while todo:
        domain, outer = todo.pop()
        known = found.get(id(domain))
        narrowed = outer if known is None else known & outer
        if known is not None and narrowed == known:
            continue
        found[id(domain)] = narrowed
        below = narrowed | {f.name for f in domain.fields} if isinstance(domain, Record) else narrowed
        todo.extend((child, below) for child in children(domain))
    return found


def _contains_itself(rule: Record | Options) -> bool:
    return any(domain is rule for child in children(rule) for domain in walk(child))
