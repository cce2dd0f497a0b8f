"""The `Task` protocol: data, metric, training recipe and fidelity rungs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, runtime_checkable

from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from cambrian.search_spaces.space import Signature

Array = NDArray[Any]
SplitName = Literal["val", "test"]
Loss = Literal["cross-entropy", "squared-error"]
"""What training minimises: of logits and classes, or of values."""


class Recipe(BaseModel):
    """How every candidate of a task is trained; the same for all arms, so that architectures compare.

    Attributes:
        optimizer: `adamw` or `sgd` (with Nesterov momentum 0.9).
        learning_rate: the peak of the schedule.
        schedule: `one-cycle`, `cosine` or `constant` over all steps of the rung.
        weight_decay: decoupled, not applied to biases and norms.
        label_smoothing: 0 to 1; for cross-entropy only.
        augment: what is done to each training batch, in order.
        gradient_clip: maximum gradient norm; 0 means none.
        precision: of training steps. `bfloat16` is torch's autocast, with weights, loss and optimizer in
            float32; latency and predictions are always float32's.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    optimizer: Literal["adamw", "sgd"] = "adamw"
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
