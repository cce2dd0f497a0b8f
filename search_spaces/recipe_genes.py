"""Which fields of a training recipe can be genes, and the tables of their values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from cambrian.search_spaces.declarative.grammar import Scalar
from cambrian.search_spaces.declarative.model import ChoiceModel
from cambrian.search_spaces.errors import UserError
from cambrian.search_spaces.registry import near_names
from cambrian.search_spaces.tasks.task import Recipe, TabularTask, Task

Value = float | str

ABOUT: Mapping[str, str] = {
    "optimizer": "adamw, or sgd with Nesterov momentum 0.9, which wants a larger learning rate",
    "learning_rate": "the peak of the schedule",
    "schedule": "one-cycle rises for 30 % of the steps, then falls; cosine only falls; constant stays",
    "weight_decay": "decoupled (an L2 penalty for adam), not applied to biases and norms",
    "batch_size": "samples of a training step; smaller means more steps in the same epochs",
    "label_smoothing": "share of the target that is spread over all classes",
    "augment": "what is done to each training image; + joins, in order",
    "gradient_clip": "maximum norm of the gradient, 0 for none",
    "precision": "of training steps; bfloat16 is cheaper where the device has it",
}
DEFAULT_TABLES: Mapping[str, Any] = {
    "optimizer": ["adamw", "sgd"],
    "learning_rate": {"log_number": [3e-4, 3e-2], "per_decade": 3},
    "schedule": ["one-cycle", "cosine", "constant"],
    "weight_decay": [0.0, 0.001, 0.01, 0.05, 0.1],
    "batch_size": [32, 64, 128],
    "label_smoothing": [0.0, 0.05, 0.1],
    "augment": ["none", "shift", "flip", "shift+flip"],
    "gradient_clip": [0.0, 1.0, 5.0],
    "precision": ["float32", "bfloat16"],
}
"""What a gene may be where the run file gives its name only, in the language of space files."""
SAME = 1.3
"""Two numbers of this ratio are not both worth an evaluation."""
NO_AUGMENTATION = "none"


def parse_choice(name: str, raw: object) -> ChoiceModel:
    """The choice that a run file gives for the gene `name`; None means the default table.

    Raises:
        UserError: no such field of a recipe, or no choice of values.
    """
    if name not in Recipe.model_fields:
        raise UserError(f"{name}: a recipe has no such part", hint=near_names(name, list(DEFAULT_TABLES)))
    if raw is None:
        raw = DEFAULT_TABLES.get(name)
    if raw is None:
        raise UserError(f"{name}: has no table of its own", hint=f"write {name}: [value, value]")
    if not isinstance(raw, list | tuple | Mapping):
        raise UserError(f"{name}: {raw!r} is no choice", hint=f"write {name}: [value, value]")
    try:
        choice = ChoiceModel.model_validate(list(raw) if isinstance(raw, tuple) else raw)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in (name, *first["loc"]))
        message = str(first["msg"]).removeprefix("Value error, ")
        raise UserError(f"{place}: {message[:1].lower()}{message[1:]}") from None
    if choice.kind in ("use", "repeat", "fields", "boolean") or choice.when is not None:
        what = "a condition" if choice.when is not None else f"a {choice.kind}"
        raise UserError(f"{name}: {what} is no table of values", hint=f"write {name}: [value, value]")
    return choice


def make_genes(given: Mapping[str, Any], task: Task) -> dict[str, Scalar]:
    """The tables of a run's recipe genes, for one task.

    Args:
        given: name to choice, as the run file has it; see `parse_choice`.
        task: its recipe has the values that are the defaults. A default that is not in its table is added; in
            a table of `DEFAULT_TABLES` it stands for the nearest number, if that is about the same.

    Raises:
        UserError: the message begins with the gene: a value that no recipe can have, a table of one value,
            a gene that means nothing for this task.
    """
    if given and isinstance(task, TabularTask):
        raise UserError(
            f"{next(iter(given))}: task {task.name} is a table, whose trainings were all made by one recipe",
            hint="leave recipe genes out",
        )
    if "augment" in given and not concerns("augment", task):
        shape = task.signature.input_shape
        raise UserError("augment: is for images only", hint=f"inputs of task {task.name} have shape {shape}")
    if "label_smoothing" in given and not concerns("label_smoothing", task):
        raise UserError(
            "label_smoothing: is for classification only", hint=f"task {task.name} has no classes"
        )
    return {
        name: _table(name, parse_choice(name, raw), task.recipe, ours=raw is None)
        for name, raw in given.items()
    }


def concerns(name: str, task: Task) -> bool:
    """Whether the field `name` of a recipe means anything for the trainings of `task`."""
    if name == "augment":
        return len(task.signature.input_shape) == 3 and task.signature.n_ids is None
    return name != "label_smoothing" or task.loss == "cross-entropy"


def gene_of(name: str, recipe: Recipe) -> Value:
    """The value of gene `name` that stands for what `recipe` says."""
    found: Value | tuple[str, ...] = getattr(recipe, name)
    return ("+".join(found) or NO_AUGMENTATION) if isinstance(found, tuple) else found


def field_of(name: str, value: Value) -> Any:
    """What a gene's value means as a field of a recipe."""
    if name == "augment":
        return () if value == NO_AUGMENTATION else tuple(str(value).split("+"))
    return value


def _table(name: str, choice: ChoiceModel, recipe: Recipe, ours: bool) -> Scalar:
    from cambrian.search_spaces.declarative.compiling import compile_scalar  # not for `cambrian --help`

    drawn = compile_scalar(choice, name)
    values = [_canonical(name, value, recipe) for value in drawn.values]
    if len(set(values)) < len(values):
        raise UserError(f"{name}: a value stands there twice", hint="weights make one more likely")
    default = gene_of(name, recipe)
    if default not in values:
        if drawn.cumulative is not None:
            raise UserError(
                f"{name}: the task's own value {default} has no weight", hint=f"add {default} to the values"
            )
        if ours and (near := _near(default, values)) is not None:
            values.remove(near)  # a step between the two would be an experiment that shows nothing
        values.append(default)
    if len(values) < 2:
        raise UserError(f"{name}: {values[0]} is the only value, which is no choice", hint="give it another")
    ordered = drawn.ordered and all(isinstance(value, int | float) for value in values)
    if ordered and drawn.cumulative is None:
        values.sort(key=float)
    about = choice.about or ABOUT.get(name, "")
    return Scalar(tuple(values), drawn.cumulative, ordered, about)


def _near(default: Value, values: Sequence[Value]) -> Value | None:
    """The number of `values` that is about `default`: nearest, and within a factor of `SAME`."""
    if isinstance(default, str) or default <= 0:
        return None
    ratios = {v: max(v / default, default / v) for v in values if not isinstance(v, str) and v > 0}
    nearest = min(ratios, key=ratios.__getitem__, default=None)
    return nearest if nearest is not None and ratios[nearest] <= SAME else None


def _canonical(name: str, value: object, recipe: Recipe) -> Value:
    """The value as a recipe holds it, such as 1.0 for a learning rate of 1."""
    if isinstance(value, bool):
        raise UserError(f"{name}: {value!r} is not possible", hint="give numbers or names")
    if name == "augment":
        parts = str(value).split("+")
        if len(set(parts)) < len(parts):
            raise UserError(f"augment: {value!r} names one augmentation twice")
    try:
        field = field_of(name, value)  # type: ignore[arg-type]
        made = Recipe.model_validate({**recipe.model_dump(), name: field})
    except ValidationError as error:
        message = str(error.errors()[0]["msg"])
        raise UserError(f"{name}: {value!r} is not possible: {message[:1].lower()}{message[1:]}") from None
    return gene_of(name, made)
