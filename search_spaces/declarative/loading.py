"""From a folder to a `Definition`: read `space.yaml`, check it, compile it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import ValidationError

from cambrian.search_spaces.declarative.catalogue import Block, catalogue
from cambrian.search_spaces.declarative.compiling import compile_grammar
from cambrian.search_spaces.declarative.definition import Definition
from cambrian.search_spaces.declarative.expression import Expression, ExpressionError
from cambrian.search_spaces.declarative.grammar import KIND, Record, walk
from cambrian.search_spaces.declarative.model import (
    BaselineModel,
    ChoiceModel,
    LimitsModel,
    PublishedModel,
    RecordModel,
    RequireModel,
    RuleModel,
    SpaceFile,
)
from cambrian.search_spaces.errors import ProposalError, UserError
from cambrian.search_spaces.registry import near_names
from cambrian.search_spaces.space import Signature
from cambrian.search_spaces.yaml_text import read_mapping

FILE = "space.yaml"
CUSTOM = "blocks.py"


class SpaceFileError(UserError):
    """A space file cannot be used; the message names the file and the place in it."""


def read(folder: Path) -> SpaceFile:
    """The content of the space file in `folder`, not yet compiled.

    Raises:
        SpaceFileError: the file is missing or unreadable, or a key is unknown or has a wrong value.
    """
    path = folder / FILE
    if not path.is_file():
        raise SpaceFileError(
            f"{folder} holds no {FILE}", hint="name the folder of a space; `cambrian spaces new` writes one"
        )
    data = read_mapping(path, "space file", SpaceFileError)
    try:
        return SpaceFile.model_validate(data)
    except ValidationError as error:
        raise SpaceFileError(f"{path}: " + "; ".join(_explain(dict(e)) for e in error.errors()[:5])) from None


def load(folder: Path) -> Definition:
    """Compile the space in `folder`.

    Raises:
        SpaceFileError: the file is missing or unreadable, a key is unknown, a name is not defined, a block or
            an argument does not exist, or a baseline is not a member; one line that names the place.
    """
    folder = Path(folder).resolve()
    path, file = folder / FILE, read(folder)
    try:
        blocks: dict[str, Block] = {**catalogue(), **_custom(folder)}
        grammar = compile_grammar(file, blocks)
        hints = {name: Expression(text, f"features.{name}") for name, text in file.features.items()}
        names = {each.name for each in grammar.start.fields} if isinstance(grammar.start, Record) else {KIND}
        for expression in hints.values():
            expression.check_names(names)
    except UserError as error:
        raise SpaceFileError(f"{path}: {error.message}", hint=error.hint) from error
    definition = Definition(folder, file, grammar, blocks, hints)
    _check_conditions(definition, path)
    _add_baselines(definition, path)
    return definition


def _custom(folder: Path) -> dict[str, Block]:
    if not (folder / CUSTOM).is_file():
        return {}
    from cambrian.search_spaces.declarative.custom import blocks_of  # imports torch

    return blocks_of(folder / CUSTOM)


def _check_conditions(definition: Definition, path: Path) -> None:
    """Refuse conditions that need each other: no order of folding would be right."""
    from cambrian.search_spaces.declarative.folding import in_order_of_need, outer_names

    start = definition.grammar.start
    outer = outer_names(start)
    for domain in walk(start):
        if isinstance(domain, Record):
            try:
                in_order_of_need(domain, outer)
            except ExpressionError as error:
                raise SpaceFileError(f"{path}: {error.message}", hint=error.hint) from None


def _add_baselines(definition: Definition, path: Path) -> None:
    from cambrian.search_spaces.declarative.membership import validate

    for name, baseline in definition.file.baselines.items():
        try:
            definition.baselines[name] = validate(definition, baseline.genotype)
        except (ProposalError, ExpressionError) as error:
            raise SpaceFileError(f"{path}: baselines.{name}: {error.message}", hint=error.hint) from error


_MODELS: dict[str, type[Any]] = {
    "rules": RuleModel, "options": RecordModel, "fields": ChoiceModel, "genes": ChoiceModel,
    "require": RequireModel, "repeat": ChoiceModel, "baselines": BaselineModel, "limits": LimitsModel,
    "reference": Signature, "also_fits": Signature, "at": PublishedModel,
}  # fmt: skip
"""Which model lies below which key, so that unknown keys can be told the near ones."""


_COUNTS = frozenset({*LimitsModel.model_fields, "parameters"})


def _explain(item: dict[str, Any]) -> str:
    place = [str(part) for part in item["loc"]]
    where = ".".join(place)
    if item["type"] == "extra_forbidden":
        owner = next((_MODELS[key] for key in reversed(place[:-1]) if key in _MODELS), SpaceFile)
        known = [field.alias or name for name, field in owner.model_fields.items()]
        return f"{where}: unknown key, {near_names(place[-1], known)}"
    message = str(item["msg"]).removeprefix("Value error, ")
    if item["type"] in ("model_type", "model_attributes_type"):
        message = "should be a mapping of keys to values"
    if item["type"] == "string_pattern_mismatch":
        message = "use lower-case letters, digits and underscores (hyphens in names of spaces and baselines)"
        if place == ["sampling"]:
            message = "weights or uniform"
    if item["type"].startswith("int_") and place[-1] in _COUNTS and place[0] in ("limits", "baselines"):
        message = "a number such as 300k or 3M"
    if item["type"] == "less_than_equal" and place[-1] == "max":
        message = f"a list has at most {item['ctx']['le']} items"
    given = item.get("input")
    shown = (
        f" (given {given!r})" if isinstance(given, str | int | float) and item["type"] != "missing" else ""
    )
    return f"{where}: {message[:1].lower()}{message[1:]}{shown}"
