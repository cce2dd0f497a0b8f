"""The documentation pages that follow from space files and from the catalogue of blocks, as Markdown."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby

from cambrian.search_spaces.declarative.catalogue import REQUIRED, Block, catalogue
from cambrian.search_spaces.declarative.definition import Definition
from cambrian.search_spaces.declarative.grammar import (
    Domain,
    Field,
    Options,
    Record,
    Repeat,
    Scalar,
    children,
)
from cambrian.search_spaces.declarative.labels import summarise
from cambrian.search_spaces.declarative.layout_words import tree
from cambrian.search_spaces.declarative.phrases import count, relevance, scalar, span, values
from cambrian.search_spaces.declarative.plan import depth
from cambrian.search_spaces.declarative.planning import plan
from cambrian.search_spaces.declarative.words import limits


def page(definition: Definition, size_line: str = "") -> str:
    """The page of a space: its choices, rules, limits, what it builds, its baselines, how to run it.

    `size_line` says what is known of the number of designs, a sentence.
    """
    file = definition.file
    parts = [f"# {file.title}", f"`{file.name}`, version {file.version}.", _text(file.about)]
    if size_line:
        parts.append(size_line)
    parts += ["## Choices", *_choices(definition)]
    parts += ["## Limits", "\n".join(f"- {each}" for each in limits(definition))]
    parts += ["## What is built", *_layouts(definition)]
    if definition.baselines:
        parts += ["## Baselines", _baselines(definition)]
    if file.hints.strip():
        parts += ["## What tends to matter", _text(file.hints)]
    parts += ["## Use", _use(definition)]
    return "\n\n".join(part for part in parts if part) + "\n"


def blocks_page() -> str:
    """All shipped blocks as Markdown, by what they take: arguments with their defaults, and what they are."""
    parts = [
        "# Blocks for space files",
        "Layouts name these. An argument without a default must be given; expressions begin with `=`.",
    ]
    blocks = sorted(catalogue().values(), key=lambda block: (block.family, block.name))
    for family, members in groupby(blocks, key=lambda block: block.family):
        parts.append(f"## {family.capitalize()}")
        parts.append("\n".join(line for block in members for line in _block(block)))
    return "\n\n".join(parts) + "\n"


def _block(block: Block) -> Iterator[str]:
    takes = "anything" if len(block.takes) == 5 else ", ".join(block.takes)
    yield f"- `{block.name}` (takes {takes}): {block.about}"
    for name, argument in block.arguments.items():
        default = "" if argument.default is REQUIRED else f" = {scalar(argument.default)}"
        allowed = f" ({', '.join(map(scalar, argument.allowed))})" if argument.allowed else ""
        yield f"  - `{name}{default}`: {argument.about}{allowed}"


# Choices --------------------------------------------------------------------------------------------------


def _rules(definition: Definition) -> list[Record | Options]:
    """All rules, the start first, each before those that it leads to."""
    order: list[Record | Options] = []
    todo: list[Domain] = [definition.grammar.start]
    seen: set[int] = set()
    while todo:
        domain = todo.pop(0)
        if id(domain) in seen:
            continue
        seen.add(id(domain))
        if isinstance(domain, Record | Options) and "." not in domain.name:
            order.append(domain)
        todo = [*children(domain), *todo]
    return order


def _choices(definition: Definition) -> Iterator[str]:
    start = definition.grammar.start
    for rule in _rules(definition):
        role = " (a genotype is one)" if rule is start else ""
        yield f"### {rule.name}{role}"
        yield _text(rule.about)
        if isinstance(rule, Record):
            yield from _record(rule)
            continue
        yield "One of these, named by `kind`:"
        rows, requires = [], []
        for name, case in rule.cases.items():
            fields = "<br>".join(
                f"`{field}`: {what}" + (f" ({about})" if about else "")
                for field, what, about in _rows(case, "")
            )
            rows.append([f"`{name}`", fields, _text(case.about)])
            requires += [f"- `{each.rule.text}`: {_text(each.message)}" for each in case.requires]
        yield _table(["kind", "fields", "meaning"], rows)
        yield "\n".join(requires)


def _record(record: Record) -> Iterator[str]:
    rows = [[f"`{name}`", what, about] for name, what, about in _rows(record, "")]
    if rows:
        yield _table(["field", "values", "meaning"], rows)
    if record.requires:
        lines = [f"- `{each.rule.text}`, else: {_text(each.message)}" for each in record.requires]
        yield "\n".join(["Must hold:", "", *lines])


def _rows(record: Record, prefix: str) -> Iterator[tuple[str, str, str]]:
    """Name, values and meaning of each field; inline records are opened."""
    for each in record.fields:
        name, domain = f"{prefix}{each.name}", each.domain
        inner = domain.item if isinstance(domain, Repeat) else domain
        yield name, _values(domain), _meaning(each)
        if isinstance(inner, Record) and "." in inner.name:
            yield from _rows(inner, f"{name}{'[]' if isinstance(domain, Repeat) else ''}.")


def _values(domain: Domain) -> str:
    if isinstance(domain, Scalar):
        return values(domain)
    if isinstance(domain, Repeat):
        return f"list of {span(domain)} {_values(domain.item)}"
    return "an object" if "." in domain.name else f"`{domain.name}`"


def _meaning(each: Field) -> str:
    notes = [_text(each.about)] if each.about else []
    if each.when is not None:
        notes.append(relevance(each))
    return "; ".join(notes)


# The rest -------------------------------------------------------------------------------------------------


def _layouts(definition: Definition) -> Iterator[str]:
    lines: list[str] = []

    def add(record: Record) -> None:
        if record.layout is not None:
            lines.extend([f"{record.name}:", *(f"  {line}" for line in tree(record.layout))])
        for each in record.fields:
            inner = each.domain.item if isinstance(each.domain, Repeat) else each.domain
            if isinstance(inner, Record) and "." in inner.name:
                add(inner)
            if isinstance(inner, Scalar) and inner.layout is not None and id(inner) not in told:
                told.add(id(inner))
                lines.extend([f"{each.name} (a value):", *(f"  {line}" for line in tree(inner.layout))])

    told: set[int] = set()
    for rule in _rules(definition):
        for record in rule.cases.values() if isinstance(rule, Options) else [rule]:
            add(record)
    yield "Blocks in the order of the flow; `<field>` stands for what that field builds."
    yield "\n".join(["```text", *lines, "```"])


def _baselines(definition: Definition) -> str:
    rows = []
    for name, genotype in definition.baselines.items():
        network = plan(definition, genotype, definition.file.reference)
        said = definition.file.baselines[name]
        rows.append(
            [
                f"`{name}`", _text(said.about), f"`{summarise(definition, genotype)}`",
                count(network.params), count(network.macs), str(depth(network)), _text(said.source),
            ]
        )  # fmt: skip
    heads = ["name", "", "design", "parameters", "multiply-accumulates", "depth", "source"]
    return _table(heads, rows)


def _use(definition: Definition) -> str:
    file = definition.file
    tasks = ", ".join(f"`{task}`" for task in file.tasks)
    commands = [
        (f"cambrian spaces sample {file.name}", "random designs"),
        (f"cambrian spaces check {file.name}", "validity, sizes, pace, drawings"),
        ("cambrian run RUNFILE.yaml", f"a run file that says `space: {file.name}`"),
    ]
    widest = max(len(command) for command, _ in commands)
    lines = [f"Tasks that fit: {tasks}.", ""] if tasks else []
    lines += ["```sh", *(f"{command:{widest}}  # {what}" for command, what in commands), "```", ""]
    lines += [
        f"To change it, `cambrian spaces new MY-SPACE --from {file.name}` writes a copy with its prompts; "
        "edit `space.yaml` there and run `cambrian spaces check` on the folder. `LANGUAGE.md` is the manual.",
    ]
    return "\n".join(lines)


def _table(heads: list[str], rows: list[list[str]]) -> str:
    def line(cells: list[str]) -> str:
        shown = [cell.replace("|", "\\|") for cell in cells]
        return f"| {' | '.join(shown)} |"

    return "\n".join([line(heads), f"|{' --- |' * len(heads)}", *map(line, rows)])


def _text(text: str) -> str:
    return " ".join(text.split())
