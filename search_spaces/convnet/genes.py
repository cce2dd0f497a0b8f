"""The genotype of `convnet`: value tables, validation, and the one canonical form of each member.

A genotype is a stem, one to five stages and a head. Genes that a block ignores are *inactive* and folded to a
fixed value, so that equal networks written differently become equal dicts.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from pydantic_core import ErrorDetails, PydanticCustomError

from cambrian.search_spaces.convnet.program import compile_program
from cambrian.search_spaces.errors import ProposalError
from cambrian.search_spaces.registry import near_names
from cambrian.search_spaces.space import Genotype, Signature

BLOCKS = ("conv", "separable", "inverted", "residual", "attention")
WIDTHS = (8, 12, 16, 24, 32, 48, 64, 96, 128)
DEPTHS = (1, 2, 3, 4)
KERNELS = (3, 5, 7)
EXPANSIONS = (1, 2, 3, 4, 6)
SE_RATIOS = (0.0, 0.125, 0.25, 0.5)
ACTIVATIONS = ("relu", "silu", "gelu", "hardswish")
STAGE_DOWNSAMPLES = ("none", "first", "last")
STEM_WIDTHS = (8, 12, 16, 24, 32, 48, 64)
STEM_DOWNSAMPLES = ("none", "stride", "pool")
POOLS = ("avg", "max", "avgmax", "grid")
HIDDENS = (0, 32, 64, 128, 256)
DROPOUTS = (0.0, 0.1, 0.2, 0.3, 0.5)

MAX_STAGES = 5
MAX_STRIDE = 8
MAX_PARAMS = 3_000_000
MAX_MACS = 100_000_000
REFERENCE = Signature(input_shape=(3, 32, 32), n_outputs=10)
"""Where the limits on parameters and multiply-accumulates are read, whatever the task."""

STEM_GENES: dict[str, tuple[Any, ...]] = {
    "kernel": KERNELS,
    "width": STEM_WIDTHS,
    "downsample": STEM_DOWNSAMPLES,
    "activation": ACTIVATIONS,
}
STAGE_GENES: dict[str, tuple[Any, ...]] = {
    "block": BLOCKS,
    "width": WIDTHS,
    "depth": DEPTHS,
    "kernel": KERNELS,
    "expansion": EXPANSIONS,
    "se": SE_RATIOS,
    "activation": ACTIVATIONS,
    "downsample": STAGE_DOWNSAMPLES,
}
HEAD_GENES: dict[str, tuple[Any, ...]] = {"pool": POOLS, "hidden": HIDDENS, "dropout": DROPOUTS}

FOLDED: dict[str, dict[str, Any]] = {
    "conv": {"expansion": 1},
    "separable": {"expansion": 1},
    "inverted": {},
    "residual": {"expansion": 1},
    "attention": {"kernel": 3, "se": 0.0},
}
"""The genes that each kind of block ignores, and the value they are folded to."""


def _one_of(allowed: tuple[Any, ...]) -> Callable[[object], Any]:
    """A validator that maps a value to the equal member of `allowed`; `8.0` is 8, but `true` is not 1."""

    def check(value: object) -> Any:
        for member in allowed:
            if not isinstance(value, bool) and isinstance(value, int | float | str) and value == member:
                return member
        listed = ", ".join(str(member) for member in allowed)
        raise PydanticCustomError("gene", "{shown} is not allowed; allowed: {listed}", {
            "shown": _shown(value), "listed": listed,
        })  # fmt: skip

    return check


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 40 else text[:37] + "..."


class _Genes(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Stem(_Genes):
    """One convolution from the image to the first map."""

    kernel: Annotated[int, BeforeValidator(_one_of(KERNELS))] = 3
    width: Annotated[int, BeforeValidator(_one_of(STEM_WIDTHS))] = 16
    downsample: Annotated[str, BeforeValidator(_one_of(STEM_DOWNSAMPLES))] = "none"
    activation: Annotated[str, BeforeValidator(_one_of(ACTIVATIONS))] = "relu"


class Stage(_Genes):
    """A run of `depth` equal blocks; at most one of them halves the map."""

    block: Annotated[str, BeforeValidator(_one_of(BLOCKS))]
    width: Annotated[int, BeforeValidator(_one_of(WIDTHS))]
    depth: Annotated[int, BeforeValidator(_one_of(DEPTHS))] = 1
    kernel: Annotated[int, BeforeValidator(_one_of(KERNELS))] = 3
    expansion: Annotated[int, BeforeValidator(_one_of(EXPANSIONS))] = 4
    se: Annotated[float, BeforeValidator(_one_of(SE_RATIOS))] = 0.0
    activation: Annotated[str, BeforeValidator(_one_of(ACTIVATIONS))] = "relu"
    downsample: Annotated[str, BeforeValidator(_one_of(STAGE_DOWNSAMPLES))] = "none"


class Head(_Genes):
    """Pooling, an optional hidden layer, dropout, classifier."""

    pool: Annotated[str, BeforeValidator(_one_of(POOLS))] = "avg"
    hidden: Annotated[int, BeforeValidator(_one_of(HIDDENS))] = 0
    dropout: Annotated[float, BeforeValidator(_one_of(DROPOUTS))] = 0.0


class ConvNetGenotype(_Genes):
    """One member of the space, before folding and before the rules that bind several genes."""

    stem: Stem = Stem()
    stages: tuple[Stage, ...] = Field(min_length=1, max_length=MAX_STAGES)
    head: Head = Head()


_MODELS: dict[str, type[BaseModel]] = {"stem": Stem, "stages": Stage, "head": Head}


def validate(data: object) -> Genotype:
    """The canonical genotype that `data` stands for.

    Raises:
        ProposalError: names every bad gene (five at most) with what is allowed.
    """
    if not isinstance(data, Mapping):
        raise ProposalError(
            f"a genotype is an object with stem, stages and head, not {_shown(data)}",
            hint="answer with one JSON object",
        )
    try:
        model = ConvNetGenotype.model_validate(dict(data))
    except ValidationError as error:
        found = [_explain(detail) for detail in error.errors(include_url=False)]
        more = f"; and {len(found) - 5} more" if len(found) > 5 else ""
        raise ProposalError("; ".join(found[:5]) + more) from None
    genotype = fold(model.model_dump())
    genotype["stages"] = list(genotype["stages"])
    if complaint := broken_rule(genotype):
        raise ProposalError(complaint)
    return genotype


def _explain(detail: ErrorDetails) -> str:
    """One pydantic error in the words of a gene: `stages[1].width: 33 is not allowed; allowed: 8, 12`."""
    where = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in detail["loc"]).strip(".")
    kind = detail["type"]
    if kind == "extra_forbidden":
        *path, name = detail["loc"]
        known = list(_MODELS[str(path[0])].model_fields) if path else list(_MODELS)
        return f"{where}: no such gene; {near_names(str(name), known)}"
    if kind == "missing":
        return f"{where}: missing"
    if kind in ("too_short", "too_long"):
        return f"{where}: needs 1 to {MAX_STAGES} stages, not {len(detail['input'])}"
    if kind == "gene":
        return f"{where}: {detail['msg']}"
    what = "a list of stages" if where == "stages" else "an object"
    return f"{where}: must be {what}, not {_shown(detail['input'])}"


def fold(genotype: Genotype) -> Genotype:
    """Set inactive genes to their fixed value, in place; returns the same dict."""
    for stage in genotype["stages"]:
        stage.update(FOLDED[stage["block"]])
        if stage["depth"] == 1 and stage["downsample"] == "last":
            stage["downsample"] = "first"
    return genotype


def copy_of(genotype: Genotype) -> Genotype:
    """A deep copy, several times faster than `copy.deepcopy`."""
    return {
        "stem": copy.copy(genotype["stem"]),
        "stages": [copy.copy(stage) for stage in genotype["stages"]],
        "head": copy.copy(genotype["head"]),
    }


def total_stride(genotype: Genotype) -> int:
    """How many input pixels one pixel of the last map stands for, along a side."""
    halvings = (genotype["stem"]["downsample"] != "none") + sum(
        stage["downsample"] != "none" for stage in genotype["stages"]
    )
    return int(2**halvings)


def broken_rule(genotype: Genotype) -> str | None:
    """The rule over several genes that a folded genotype breaks, in words, or None."""
    stride = total_stride(genotype)
    if stride > MAX_STRIDE:
        halvings, most = stride.bit_length() - 1, MAX_STRIDE.bit_length() - 1
        return (
            f"the map is halved {halvings} times; at most {most} times are allowed over stem and stages: set "
            "some downsample to none"
        )
    layers = compile_program(genotype, REFERENCE)
    params = sum(layer.params for layer in layers)
    macs = sum(layer.macs for layer in layers)
    if params <= MAX_PARAMS and macs <= MAX_MACS:
        return None
    by_params = params > MAX_PARAMS
    heaviest = max(layers, key=lambda layer: layer.params if by_params else layer.macs)
    size, limit, what = (
        (params, MAX_PARAMS, "parameters") if by_params else (macs, MAX_MACS, "multiply-accumulates")
    )
    return (
        f"{size / 1e6:.1f}M {what} on a 3x32x32 image; at most {limit / 1e6:.0f}M are allowed: "
        f"reduce width, depth or kernel of {heaviest.gene}, the heaviest"
        + ("" if by_params else ", or downsample earlier")
    )
