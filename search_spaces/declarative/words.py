"""A space in words: the text that planners and people read, made from its file."""

from __future__ import annotations

from collections import Counter

from cambrian.search_spaces.declarative.catalogue import Block
from cambrian.search_spaces.declarative.definition import Definition
from cambrian.search_spaces.declarative.grammar import (
    Domain,
    Field,
    Options,
    Record,
    Repeat,
    Scalar,
    children,
    walk,
)
from cambrian.search_spaces.declarative.labels import label, summarise
from cambrian.search_spaces.declarative.layout import (
    BlockPart,
    Part,
    SequencePart,
    SwitchPart,
    parts_of,
)
from cambrian.search_spaces.declarative.phrases import count, inputs, relevance, span, values

__all__ = ["describe", "label", "limits", "summarise"]


def describe(definition: Definition) -> str:
    """The space in prose for a planner: what it is, its choices, rules, limits and hints."""
    file = definition.file
    lines = [f"{file.name}: {file.title}.", *_paragraphs(file.about), ""]
    lines += [f"A genotype is one {definition.grammar.start.name}. Its fields and their values:"]
    lines += _Rules(definition).lines()
    lines += ["", *limits(definition)]
    if file.hints.strip():
        lines += ["", f"What tends to matter: {' '.join(_paragraphs(file.hints))}"]
    return "\n".join(lines)


class _Rules:
    """The text of all rules, each told once, in the order in which they are met from the start."""

    def __init__(self, definition: Definition) -> None:
        self.definition = definition
        start = definition.grammar.start
        uses = Counter(
            id(each.domain)
            for record in walk(start)
            if isinstance(record, Record)
            for each in record.fields
            if isinstance(each.domain, Scalar) and len(each.domain.values) > 2
        )
        self.shared = {key for key, n in uses.items() if n > 2}
        self.told: dict[int, str] = {}
        self.explained = " ".join([definition.file.about, definition.file.hints])

    def lines(self) -> list[str]:
        order: list[Record | Options] = []
        todo: list[Domain] = [self.definition.grammar.start]
        while todo:
            domain = todo.pop(0)
            if isinstance(domain, Record | Options) and "." not in domain.name:
                if domain in order:
                    continue
                order.append(domain)
            # what lies inside a rule's own text (lists, inline records, options) leads to the next rules
            todo = [*children(domain), *todo] if not isinstance(domain, Scalar) else todo
        return [line for rule in order for line in self.rule(rule)]

    def rule(self, rule: Record | Options) -> list[str]:
        about = f": {_clean(rule.about)}" if rule.about else ""
        if isinstance(rule, Record):
            return [f"{rule.name}{about}", *self.record(rule, "")]
        lines = [f'{rule.name}, one of these kinds (key "kind" first){about}']
        for name, case in rule.cases.items():
            told = _clean(case.about) or self.blocks_about(case.layout, name)
            lines.append(f"- {name}: {told}" if told else f"- {name}")
            lines += self.record(case, "  ")
        return lines

    def record(self, record: Record, indent: str) -> list[str]:
        lines = []
        for each in record.fields:
            lines += self.field(each, record, indent)
        rules = [f"{each.rule.text} (else: {_clean(each.message)})" for each in record.requires]
        return [*lines, *(f"{indent}Must hold: {rule}" for rule in rules)]

    def field(self, each: Field, record: Record, indent: str) -> list[str]:
        domain, inner = each.domain, None
        if isinstance(domain, Record) and "." in domain.name:
            what, inner = "an object", domain
        elif isinstance(domain, Repeat):
            what = f"list of {span(domain)} {self.noun(domain.item)}"
            inner = domain.item if isinstance(domain.item, Record) and "." in domain.item.name else None
        elif isinstance(domain, Scalar):
            what = self.table(domain, each.name)
        else:
            what = domain.name
        notes = [_clean(each.about)] if each.about and each.about != getattr(domain, "about", "") else []
        if isinstance(domain, Scalar) and domain.about and id(domain) not in self.shared and not notes:
            notes.append(_clean(domain.about))
        if each.when is not None:
            notes.append(relevance(each))
        lines = [f"{indent}- {each.name}: {what}" + (f" ({'; '.join(notes)})" if notes else "")]
        if isinstance(domain, Scalar):
            lines += self.meanings(each, domain, record, indent + "  ")
        return lines + (self.record(inner, indent + "  ") if inner is not None else [])

    def noun(self, item: Domain) -> str:
        if isinstance(item, Record) and "." in item.name:
            return "objects"
        if isinstance(item, Record | Options):
            return item.name
        return f"values, each of {values(item)}" if isinstance(item, Scalar) else "lists"

    def table(self, domain: Scalar, name: str) -> str:
        if id(domain) not in self.shared:
            return values(domain)
        if id(domain) in self.told:
            return f"values of {self.told[id(domain)]}" if self.told[id(domain)] != name else "as above"
        self.told[id(domain)] = name
        return values(domain) + (f" [{_clean(domain.about)}]" if domain.about else "")

    def meanings(self, each: Field, domain: Scalar, record: Record, indent: str) -> list[str]:
        """What the values build, where nobody has told it: one line a value."""
        if self.told.get(id(domain), each.name) != each.name:
            return []
        texts = [v for v in domain.values if isinstance(v, str)]
        explained = f"{self.explained} {each.about} {domain.about} {record.about}"
        if not texts or sum(text in explained for text in texts) >= len(texts) / 2:
            return []
        found = []
        for part in [domain.layout, record.layout]:
            on = "value" if part is domain.layout else each.name
            for switch in parts_of(part):
                if isinstance(switch, SwitchPart) and switch.on.text == on:
                    cases = [(value, self.blocks_about(case, "")) for value, case in switch.cases]
                    often = Counter(about for _, about in cases)
                    found += [
                        f"{indent}{value}: {about}" for value, about in cases if often[about] == 1 and about
                    ]
        return found

    def blocks_about(self, part: Part | None, name: str) -> str:
        """What `part` is when it is one or two blocks only, unless the file's text speaks of `name`."""
        if name and name in self.explained:
            return ""
        parts = part.parts if isinstance(part, SequencePart) else (part,)
        blocks: dict[str, Block] = {}
        for each in parts:
            if not isinstance(each, BlockPart):
                return ""
            blocks.setdefault(each.block.name, each.block)
        return ", then ".join(block.about for block in blocks.values()) if len(blocks) <= 2 else ""


def limits(definition: Definition) -> list[str]:
    """Ceilings, inputs that must fit and the bound of recursion, a sentence each."""
    file = definition.file
    ceilings = [
        f"{count(bound)} {what}"
        for bound, what in (
            (file.limits.params, "parameters"),
            (file.limits.macs, "multiply-accumulates"),
            (file.limits.depth, "layers with weights on the longest path"),
        )
        if bound is not None
    ]
    lines = []
    if ceilings:
        lines.append(f"Limits for {inputs(file.reference)}: at most {_and(ceilings)}.")
    else:
        lines.append(f"Sizes are read for {inputs(file.reference)}.")
    if file.also_fits:
        lines.append(f"Every design must also fit {_and([inputs(each) for each in file.also_fits])}.")
    if definition.grammar.recursive:
        names = sorted(definition.grammar.recursive)
        them = "itself" if len(names) == 1 else "themselves"
        deep = definition.grammar.max_depth
        lines.append(f"Rules nest at most {deep} deep ({_and(names)} can contain {them}).")
    return lines


def _paragraphs(text: str) -> list[str]:
    """The paragraphs of a text of a file, each on one line."""
    return [" ".join(block.split()) for block in text.strip().split("\n\n") if block.strip()]


def _clean(text: str) -> str:
    return " ".join(text.split()).rstrip(".")


def _and(texts: list[str]) -> str:
    return texts[0] if len(texts) == 1 else f"{', '.join(texts[:-1])} and {texts[-1]}"
