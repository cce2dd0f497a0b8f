"""Recipes as genes: any space, with parts of the training recipe chosen beside the architecture.

Searching architectures and recipes together finds pairs that neither search would find alone (FBNetV3,
arXiv 2006.02049). A genotype is `{"architecture": <of the inner space>, "recipe": {gene: value}}`.
"""

from __future__ import annotations

import ast
import copy
import hashlib
import json
import math
import random
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

from pydantic import ValidationError

from cambrian.search_spaces.declarative.grammar import Scalar
from cambrian.search_spaces.errors import ProposalError
from cambrian.search_spaces.recipe_genes import Value, concerns, field_of, gene_of, make_genes
from cambrian.search_spaces.registry import near_names
from cambrian.search_spaces.space import Genotype, HasOperators, Signature, Space
from cambrian.search_spaces.tasks.task import Recipe, Task

if TYPE_CHECKING:
    from torch import nn

ARCHITECTURE, RECIPE = "architecture", "recipe"
RECIPE_EDITS = 0.3
"""Share of mutations that change the recipe."""
STEP = 0.8
"""Share of edits of an ordered gene that go to a neighbour in its table."""
LINE = 100
"""Longest summary and longest words of an edit; see `Space`."""
_FORM = '{"architecture": {...}, "recipe": {...}}'
_SHORT = {"learning_rate": "lr", "weight_decay": "wd", "batch_size": "bs", "label_smoothing": "ls",
          "gradient_clip": "clip"}  # fmt: skip
_TRAINED_ALIKE = re.compile(r"All are trained alike: (?:[^.]|\.(?=\d))*\.\s*")
"""The sentence of our tasks about their recipe; a dot before a digit does not end it."""
_LOG = {"learning_rate": math.log10, "weight_decay": math.log10, "batch_size": math.log2}


def recipe_of(space: Space, genotype: Genotype) -> Mapping[str, Any]:
    """`Space.recipe`; empty for spaces written before there was such a method."""
    method = getattr(space, "recipe", None)
    return {} if method is None else method(genotype)


def architecture_of(space: Space, genotype: Genotype) -> Genotype:
    """What the space of this name, as a worker creates it, builds the network from."""
    return genotype[ARCHITECTURE] if isinstance(space, WithRecipe) else genotype


def recipe_for(space: Space, genotype: Genotype, default: Recipe) -> Recipe:
    """The whole recipe that a candidate is trained by: the task's, and what the genotype says over it.

    Raises:
        ProposalError: the space gave something that no recipe can have.
    """
    try:
        return Recipe.model_validate({**default.model_dump(), **recipe_of(space, genotype)})
    except ValidationError as error:
        first = error.errors()[0]
        raise ProposalError(f"recipe.{'.'.join(map(str, first['loc']))}: {first['msg']}") from None


def recipe_changes(space: Space, genotype: Genotype, default: Recipe) -> dict[str, Any]:
    """Fields in which the candidate's recipe differs from `default`, in the order of `Recipe`.

    Raises:
        ProposalError: as in `recipe_for`.
    """
    made = recipe_for(space, genotype, default)
    return {name: value for name, value in made if value != getattr(default, name)}


def task_in_words(task: Task, space: Space) -> str:
    """`Task.describe` for who proposes members of `space`: with recipe genes, not all are trained alike."""
    text = task.describe().strip()
    if not isinstance(space, WithRecipe):
        return text
    without = _TRAINED_ALIKE.sub("", text).strip()
    return f"{without} {space.training(task)}"


def split(genotype: Mapping[str, Any]) -> tuple[Genotype, dict[str, Value]] | None:
    """Architecture and recipe of a genotype that has the form of `WithRecipe`'s; None for all others."""
    if set(genotype) != {ARCHITECTURE, RECIPE}:
        return None
    parts = genotype[ARCHITECTURE], genotype[RECIPE]
    return parts if isinstance(parts[0], dict) and isinstance(parts[1], dict) else None


def with_recipe_genes(space: Space, given: Mapping[str, Any], task: Task) -> Space:
    """`space` with the recipe genes that a run file gives; `space` itself where it gives none.

    Raises:
        UserError: as in `make_genes`.
    """
    if not given or isinstance(space, WithRecipe):
        return space
    return WithRecipe(space, make_genes(given, task), task.recipe)


class WithRecipe:
    """A space around a space, with genes for the recipe.

    Its name is that of the inner space, which is what workers, prompts and run files know.

    Args:
        space: declarative or code.
        genes: tables of values by field of `Recipe`, each with the default's value in it.
        default: the task's recipe: known networks, and genotypes that leave a gene out, are trained by it.
    """

    def __init__(self, space: Space, genes: Mapping[str, Scalar], default: Recipe) -> None:
        self.inner = space
        self.genes = dict(genes)
        self.defaults: dict[str, Value] = {name: gene_of(name, default) for name in self.genes}
        for name, table in self.genes.items():
            if self.defaults[name] not in table.values:
                raise ValueError(f"{name}: the default {self.defaults[name]} is not in its table")
        self.name = space.name
        self.kind: Literal["declarative", "code"] = space.kind
        tables = json.dumps([[name, table.values] for name, table in sorted(self.genes.items())])
        self.version = f"{space.version}+recipe-{hashlib.sha256(tables.encode()).hexdigest()[:8]}"
        self._columns = {name: _columns(name, table) for name, table in self.genes.items()}

    def __getattr__(self, name: str) -> Any:
        """What else the inner space has, such as the folder that it was made from."""
        if name == "inner":  # not there yet, while a copy is being made
            raise AttributeError(name)
        return getattr(self.inner, name)

    def schema(self) -> dict[str, Any]:
        """See `Space.schema`."""
        inner = dict(self.inner.schema())
        definitions = inner.pop("$defs", None)
        genes = {name: _gene_schema(table) for name, table in self.genes.items()}
        found = _object({ARCHITECTURE: inner, RECIPE: _object(genes)})
        return found if definitions is None else {**found, "$defs": definitions}

    def validate(self, data: object) -> Genotype:
        """See `Space.validate`; a missing gene of the recipe means the task's own value."""
        if not isinstance(data, Mapping):
            raise ProposalError(f"a {type(data).__name__} is no genotype: write {_FORM}")
        _refuse_unknown("", data, (ARCHITECTURE, RECIPE))
        if ARCHITECTURE not in data:
            raise ProposalError(f"architecture: is missing, write {_FORM}")
        try:
            architecture = self.inner.validate(data[ARCHITECTURE])
        except ProposalError as error:
            joint = "." if re.match(r"[a-z_]\w*(\[|\.\w|:)", error.message) else ": "
            raise ProposalError(f"architecture{joint}{error.message}", hint=error.hint) from None
        recipe = data.get(RECIPE, {})
        if not isinstance(recipe, Mapping):
            raise ProposalError(f"recipe: {recipe!r} is no object of genes")
        _refuse_unknown("recipe.", recipe, tuple(self.genes))
        chosen = {
            name: _member(name, recipe.get(name, self.defaults[name]), table)
            for name, table in self.genes.items()
        }
        return {ARCHITECTURE: architecture, RECIPE: chosen}

    def sample(self, rng: random.Random) -> Genotype:
        """See `Space.sample`: architecture and recipe are drawn independently."""
        architecture = self.inner.sample(rng)
        recipe = {name: _draw(table, rng) for name, table in self.genes.items()}
        return {ARCHITECTURE: architecture, RECIPE: recipe}

    def mutate(self, genotype: Genotype, rng: random.Random) -> tuple[Genotype, str]:
        """See `Space.mutate`: one edit of the architecture or, with probability `RECIPE_EDITS`, of a gene."""
        return self.mutate_by(genotype, rng, self.operators())[:2]

    def operators(self) -> Mapping[str, float]:
        """See `HasOperators.operators`: those of the inner space, and one for the genes of the recipe."""
        inner = self.inner.operators() if isinstance(self.inner, HasOperators) else {}
        total = sum(inner.values()) or 1.0
        architecture = inner or {ARCHITECTURE: 1.0}
        shares = {name: (1 - RECIPE_EDITS) * weight / total for name, weight in architecture.items()}
        return shares | {RECIPE: RECIPE_EDITS}

    def mutate_by(
        self, genotype: Genotype, rng: random.Random, weights: Mapping[str, float]
    ) -> tuple[Genotype, str, str]:
        """See `HasOperators.mutate_by`."""
        recipe = dict(genotype[RECIPE])
        if rng.random() >= weights[RECIPE] / sum(weights.values()):
            architecture, words, kind = self._edited(genotype[ARCHITECTURE], rng, weights)
            return {ARCHITECTURE: architecture, RECIPE: recipe}, words, kind
        name = rng.choice(list(self.genes))
        before = recipe[name]
        recipe[name] = _other(self.genes[name], before, rng)
        words = f"recipe {name} {_text(before)} -> {_text(recipe[name])}"
        return {ARCHITECTURE: copy.deepcopy(genotype[ARCHITECTURE]), RECIPE: recipe}, words, RECIPE

    def _edited(
        self, architecture: Genotype, rng: random.Random, weights: Mapping[str, float]
    ) -> tuple[Genotype, str, str]:
        if isinstance(self.inner, HasOperators) and (names := self.inner.operators()):
            return self.inner.mutate_by(architecture, rng, {name: weights[name] for name in names})
        return *self.inner.mutate(architecture, rng), ARCHITECTURE

    def crossover(self, first: Genotype, second: Genotype, rng: random.Random) -> tuple[Genotype, str]:
        """See `Space.crossover`: each gene of the recipe comes from either parent."""
        architecture, words = self.inner.crossover(first[ARCHITECTURE], second[ARCHITECTURE], rng)
        recipe = {name: rng.choice((first, second))[RECIPE][name] for name in self.genes}
        taken = (
            "the first" if recipe == first[RECIPE] else "the second" if recipe == second[RECIPE] else "both"
        )
        return {ARCHITECTURE: architecture, RECIPE: recipe}, _joined(words, f"; recipe of {taken}")

    def build(self, genotype: Genotype, signature: Signature) -> nn.Module:
        """See `Space.build`."""
        return self.inner.build(genotype[ARCHITECTURE], signature)

    def recipe(self, genotype: Genotype) -> Mapping[str, Any]:
        """See `Space.recipe`."""
        return {name: field_of(name, value) for name, value in genotype[RECIPE].items()}

    def structure(self, genotype: Genotype) -> Any:
        """What the architecture computes, where the inner space knows; None otherwise."""
        known = getattr(self.inner, "structure", None)
        return None if known is None else known(genotype[ARCHITECTURE])

    def features(self, genotype: Genotype) -> dict[str, float]:
        """See `Space.features`: the inner ones, rates by their logarithm, and one column a named value."""
        found = dict(self.inner.features(genotype[ARCHITECTURE]))
        for name, value in genotype[RECIPE].items():
            found.update(self._columns[name][value])
        return found

    def describe(self) -> str:
        """See `Space.describe`."""
        lines = [
            f"A genotype is {_FORM}: an architecture and genes of the recipe that trains it. A change of the "
            "recipe alone is an experiment, too.",
            "",
            "What architecture is (up to the recipe, `genotype` means the value of architecture alone):",
            "",
            self.inner.describe().rstrip(),
            "",
            "What recipe is, the task's own value of each gene marked *:",
        ]
        for name, table in self.genes.items():
            values = ", ".join(
                f"{_text(value)}{'*' if value == self.defaults[name] else ''}" for value in table.values
            )
            lines.append(f"- {name} ({values}): {table.about}")
        return "\n".join(lines)

    def summarise(self, genotype: Genotype) -> str:
        """See `Space.summarise`: the inner line, then what the recipe has other than the task's."""
        line = self.inner.summarise(genotype[ARCHITECTURE])
        return _joined(line, f" | {self.recipe_text(genotype)}")

    def recipe_text(self, genotype: Genotype) -> str:
        """The recipe in short, such as `lr 0.006 sgd`; `default recipe` where it is the task's."""
        words = [
            f"{_SHORT[name]} {_text(value)}" if name in _SHORT
            else "no augmentation" if (name, value) == ("augment", "none") else _text(value)
            for name, value in genotype[RECIPE].items()
            if value != self.defaults[name]
        ]  # fmt: skip
        text = " ".join(words) or "default recipe"
        return text if len(text) <= LINE // 2 else text[: LINE // 2 - 1].rstrip() + "…"

    def draw(self, genotype: Genotype, signature: Signature) -> str:
        """See `Space.draw`; the drawing is the architecture's."""
        return self.inner.draw(genotype[ARCHITECTURE], signature)

    def source(self, genotype: Genotype, signature: Signature) -> str:
        """See `Space.source`; its docstring names the recipe."""
        genes = ", ".join(f"{name} {_text(value)}" for name, value in genotype[RECIPE].items())
        source = self.inner.source(genotype[ARCHITECTURE], signature)
        return _with_note(source, f"Recipe of its training: {genes}.")

    def baselines(self) -> Mapping[str, Genotype]:
        """See `Space.baselines`: the inner ones under the task's recipe."""
        return {
            name: {ARCHITECTURE: copy.deepcopy(known), RECIPE: dict(self.defaults)}
            for name, known in self.inner.baselines().items()
        }

    def training(self, task: Task) -> str:
        """What of the training is fixed for all candidates and what is a gene, in one sentence."""
        fixed = [
            f"{name} {_text(gene_of(name, task.recipe))}"
            for name in Recipe.model_fields
            if name not in self.genes and concerns(name, task)
        ]
        epochs = ", then ".join(str(rung.epochs) for rung in task.rungs)
        rest = f"; the same for all: {', '.join(fixed)}" if fixed else ""
        return f"All are trained for {epochs} epochs. Genes of the recipe: {', '.join(self.genes)}{rest}."

    def combine(self, architecture: Genotype, recipe: Genotype | None) -> Genotype:
        """The architecture of one genotype with the recipe of another; None means the task's recipe."""
        chosen = self.defaults if recipe is None else recipe[RECIPE]
        return {ARCHITECTURE: copy.deepcopy(architecture[ARCHITECTURE]), RECIPE: dict(chosen)}


def _refuse_unknown(prefix: str, data: Mapping[Any, Any], known: tuple[str, ...]) -> None:
    for key in data:
        if key not in known:
            raise ProposalError(
                f"{prefix}{str(key)[:40]}: unknown gene", hint=near_names(str(key), list(known))
            )


def _member(name: str, value: object, table: Scalar) -> Value:
    """The table's value that `value` stands for: a number may be written 0 for 0.0, 6e-3 for 0.006."""
    for known in table.values:
        if isinstance(known, str) or isinstance(value, str) or not isinstance(value, int | float):
            if known == value and isinstance(value, str):
                return known
        elif not isinstance(value, bool) and math.isclose(known, value, rel_tol=1e-9):
            return known
    allowed = ", ".join(_text(known) for known in table.values[:20])
    raise ProposalError(f"recipe.{name}: {str(value)[:40]!r} is not one of {allowed}")


def _draw(table: Scalar, rng: random.Random) -> Value:
    if table.cumulative is None:
        return rng.choice(table.values)
    return rng.choices(table.values, cum_weights=table.cumulative)[0]


def _other(table: Scalar, value: Value, rng: random.Random) -> Value:
    """Another value of the table, a neighbour most of the time where they are ordered."""
    at, last = table.values.index(value), len(table.values) - 1
    if table.ordered and rng.random() < STEP:
        return table.values[rng.choice([i for i in (at - 1, at + 1) if 0 <= i <= last])]
    return rng.choice([each for each in table.values if each != value])


def _columns(name: str, table: Scalar) -> dict[Value, dict[str, float]]:
    """The features of each value of a gene."""
    if name == "augment":  # a combination is its parts
        parts = sorted({part for value in table.values for part in field_of(name, value)})
        return {
            value: {f"recipe.augment.{part}": float(part in field_of(name, value)) for part in parts}
            for value in table.values
        }
    if any(isinstance(value, str) for value in table.values):
        return {
            value: {f"recipe.{name}={other}": float(other == value) for other in table.values}
            for value in table.values
        }
    scale = _LOG.get(name, float)
    # zero has no logarithm: it counts as a tenth of the smallest value above it
    least = min((float(value) for value in table.values if float(value) > 0), default=1.0) / 10
    if scale is float:
        return {value: {f"recipe.{name}": float(value)} for value in table.values}
    return {value: {f"recipe.{name}": scale(float(value) or least)} for value in table.values}


def _gene_schema(table: Scalar) -> dict[str, Any]:
    kinds = {str: "string", int: "integer", float: "number"}
    return {"type": kinds[type(table.values[0])], "enum": list(table.values), "description": table.about}


def _object(properties: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def _text(value: Value) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _joined(line: str, ending: str) -> str:
    """`line` and `ending` in at most `LINE` characters; what is cut is of the line."""
    room = LINE - len(ending)
    return (line if len(line) <= room else line[: room - 1].rstrip() + "…") + ending


def _with_note(source: str, note: str) -> str:
    """`source` with a line at the end of its docstring, or as a comment above it where it has none."""
    first = ast.parse(source).body[0]
    lines = source.splitlines(keepends=True)
    if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and first.end_lineno is not None:
        last = lines[first.end_lineno - 1]
        at = last.rfind('"""')
        if at >= 0 and isinstance(first.value.value, str):
            gap = "" if last[:at].strip() == "" else "\n"
            lines[first.end_lineno - 1] = f"{last[:at]}{gap}{note}\n{last[at:]}"
            return "".join(lines)
    return f"# {note}\n{source}"
