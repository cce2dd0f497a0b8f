"""The `Task` protocol: data, metric, training recipe and fidelity rungs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, runtime_checkable

from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from cambrian.search_spaces.space import Genotype, Signature

Array = NDArray[Any]
SplitName = Literal["val", "test"]
Loss = Literal["cross-entropy", "squared-error"]
"""What training minimises: of logits and classes, or of values."""


class Recipe(BaseModel):
    """How every candidate of a task is trained; the same for all arms, so that architectures compare.

    Attributes:
        optimizer: `adamw`, `sgd` (with Nesterov momentum 0.9), or `adam`.
        learning_rate: the peak of the schedule.
        schedule: `one-cycle`, `cosine` or `constant` over all steps of the rung.
        weight_decay: decoupled (Loshchilov and Hutter, arXiv:1711.05101), but for `adam` an L2 penalty in the
            gradient; not applied to biases and norms.
        label_smoothing: 0 to 1; for cross-entropy only.
        augment: what is done to each training batch, in order.
        gradient_clip: maximum gradient norm; 0 means none.
        precision: of training steps. `bfloat16` is torch's autocast, with weights, loss and optimizer in
            float32; latency and predictions are always float32's.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    optimizer: Literal["adamw", "sgd", "adam"] = "adamw"
    learning_rate: float = Field(default=3e-3, gt=0)
    schedule: Literal["one-cycle", "cosine", "constant"] = "one-cycle"
    weight_decay: float = Field(default=0.01, ge=0)
    batch_size: int = Field(default=64, ge=1)
    label_smoothing: float = Field(default=0.0, ge=0, lt=1)
    augment: tuple[Literal["shift", "flip"], ...] = ()
    gradient_clip: float = Field(default=1.0, ge=0)
    precision: Literal["float32", "bfloat16"] = "float32"


class Rung(BaseModel):
    """One fidelity: how long a candidate is trained before its score is read.

    Attributes:
        epochs: passes over the training split.
        promote: the best share of this rung's candidates that goes on to the next one (ignored on the last).
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    epochs: int = Field(ge=0)
    promote: float = Field(default=0.25, gt=0, le=1)


@dataclass(frozen=True)
class Splits:
    """A task's data.

    Inputs have the shape `(n, *input_shape)`: float32, normalised, or int64 ids where the signature has a
    vocabulary. Ids of nodes are int64 `(n,)`. Targets are int64 classes `(n,)` for cross-entropy, and float32
    `(n, n_outputs)`, standardised with mean and deviation of the training split, for squared error.

    The targets of `val` and `test` stay on the host: a sandbox gets the other four arrays and the context.

    Attributes:
        context: constants of the task that networks hold as buffers, by name. A graph has `features`, float32
            `(nodes, features)`, and `edges`, int64 `(2, edges)`: row 0 has the sources, row 1 the targets,
            both directions of an undirected edge are there and no self-loops are.
    """

    x_train: Array
    y_train: Array
    x_val: Array
    y_val: Array
    x_test: Array
    y_test: Array
    context: Mapping[str, Array] = field(default_factory=dict)


@runtime_checkable
class Task(Protocol):
    """Data, metric, recipe and rungs. `load` may be called often and must be cheap after the first time."""

    name: str
    version: str
    """Changes when scores stop being comparable; part of what an evaluation is keyed by."""
    signature: Signature
    metric: str
    """Name of the number in `score` that candidates are ranked by."""
    maximize: bool
    loss: Loss
    recipe: Recipe
    rungs: tuple[Rung, ...]

    def load(self) -> Splits:
        """The data.

        Raises:
            MissingDataError: files are not there or not readable; the hint says how to get them.
        """
        ...

    def score(self, outputs: Array, split: SplitName) -> dict[str, float]:
        """Metrics of raw network outputs `(n, n_outputs)` on a held-out split, by trusted code.

        Raises:
            ValueError: wrong shape or non-finite values.
        """
        ...

    def preprocessing(self) -> str:
        """How raw samples become a network's inputs, in one line, for whoever uses a network elsewhere."""
        ...

    def describe(self) -> str:
        """The task in prose for a planner: data, sizes, metric, recipe."""
        ...


class TableRow(BaseModel):
    """What a table says of one architecture: somebody else trained it, long ago.

    Attributes:
        metrics: on the validation split, by name.
        test_metrics: the same on the test split.
        latency_ms: of one sample on `device`, None when not known.
        device: what latency was measured on.
        train_s: seconds that the training took, where it was made.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    metrics: dict[str, float]
    test_metrics: dict[str, float]
    latency_ms: float | None = Field(default=None, gt=0)
    device: str = ""
    train_s: float = Field(default=0.0, ge=0)


@runtime_checkable
class TabularTask(Task, Protocol):
    """A task whose every training was made already, and whose results are looked up.

    `load` gives empty arrays of the signature's shapes, after a check that the table is there; `score` has
    nothing to score and raises `ValueError`.
    """

    validation_samples: int
    """How many samples stand behind a validation metric."""
    rows: int
    """How many architectures the table holds."""

    def lookup(self, genotype: Genotype, epochs: int, seed: int) -> TableRow:
        """What is known of the canonical `genotype` after `epochs`.

        Tables hold few seeds or none: equal arguments give equal rows, and so may other seeds.

        Raises:
            ProposalError: not in the table; the message says what is.
            MissingDataError: the table is not there.
        """
        ...


def validation_samples(task: Task) -> int:
    """How many samples a validation metric of the task is read from."""
    return task.validation_samples if isinstance(task, TabularTask) else len(task.load().x_val)


def extent(task: Task) -> str:
    """How much data a task has, in a few words; loads it.

    Raises:
        MissingDataError: see `Task.load`.
    """
    splits = task.load()
    if isinstance(task, TabularTask):
        return f"a table of {task.rows} architectures"
    sizes = f"{len(splits.x_train)} train, {len(splits.x_val)} validation, {len(splits.x_test)} test samples"
    graph = task.signature.graph
    return sizes + (f" of a graph of {graph.nodes} nodes" if graph is not None else "")
