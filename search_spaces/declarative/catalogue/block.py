"""What the language must know of a block: its arguments, and what it makes of a shape; without torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from cambrian.search_spaces.declarative.shape import Kind, Shape, ShapeError

Family = Literal[
    "convolution",
    "attention",
    "pooling",
    "linear",
    "norm",
    "activation",
    "graph",
    "embedding",
    "shape",
    "other",
]
"""What a block is in drawings and features."""

REQUIRED: Any = object()
"""The default of an argument that has none."""


class Planned(NamedTuple):
    """What a block will be, for one input shape.

    Attributes:
        args: positional arguments of its class, most often `(in_channels, out_channels)`.
        kwargs: keyword arguments of its class.
        shape: of its output.
        params: learned numbers, exactly.
        macs: multiply-accumulates of convolutions, linear maps and attention for one sample, as torch's
            `FlopCounterMode` counts them (its FLOPs are twice that).
    """

    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    shape: Shape
    params: int
    macs: int


@dataclass(frozen=True)
class Argument:
    """One argument that a layout gives a block.

    Attributes:
        kind: what it must be; an int passes for a float.
        default: taken when the layout does not give it; `REQUIRED` when it must.
        allowed: the only values, when not empty.
        minimum: the least number.
    """

    kind: type[int] | type[float] | type[str] | type[bool]
    about: str
    default: Any = REQUIRED
    allowed: tuple[Any, ...] = ()
    minimum: float | None = None


@dataclass(frozen=True)
class Block:
    """One block of the catalogue.

    Attributes:
        name: of its class, as layouts write it.
        module: where the class is, such as `cambrian.search_spaces.blocks.convolution`; blocks that torch
            itself has are `torch.nn`.
        takes: kinds of input that it accepts; checked before `plan` is called.
        plan: from the input's shape and all arguments (defaults filled in, types checked) to what it will be.
            Raises `ShapeError` when the shape does not fit.
        about: one line for the page of blocks.
    """

    name: str
    module: str
    family: Family
    takes: tuple[Kind, ...]
    about: str
    plan: Callable[[Shape, Mapping[str, Any]], Planned]
    arguments: Mapping[str, Argument] = field(default_factory=dict)

    def planned(self, shape: Shape, given: Mapping[str, Any]) -> Planned:
        """`plan` behind all checks.

        Raises:
            ShapeError: another kind of input than it takes, a wrong argument, or dimensions that do not fit.
        """
        if shape.kind not in self.takes:
            raise ShapeError(f"{self.name} takes {' or '.join(self.takes)}, not {shape}")
        arguments = self.arguments
        filled = {}
        for name, argument in arguments.items():
            value = given.get(name, argument.default)
            if value is REQUIRED:
                raise ShapeError(f"{self.name} needs the argument {name} ({argument.about})")
            filled[name] = value if value is argument.default else _checked(self.name, name, argument, value)
        if len(given) > len(filled) or not given.keys() <= arguments.keys():
            unknown = next(name for name in given if name not in arguments)
            raise ShapeError(
                f"{self.name} has no argument {unknown!r}; it has: {', '.join(arguments) or 'none'}"
            )
        return self.plan(shape, filled)


def _checked(block: str, name: str, argument: Argument, value: Any) -> Any:
    kind = argument.kind
    if type(value) is not kind:
        whole = kind is int and type(value) is float and value.is_integer()
        if whole or (kind is float and type(value) is int) or (kind is bool and value in (0, 1)):
            value = kind(value)
        else:
            raise ShapeError(f"{block}.{name} must be {kind.__name__}, not {value!r}")
    if argument.allowed and value not in argument.allowed:
        raise ShapeError(f"{block}.{name} is {value!r}; allowed: {', '.join(map(str, argument.allowed))}")
    if argument.minimum is not None and value < argument.minimum:
        raise ShapeError(f"{block}.{name} is {value!r}; it must be at least {argument.minimum:g}")
    return value
