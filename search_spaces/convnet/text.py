"""`convnet` in words: the prose a planner reads, the line a person reads, the schema a model fills in."""

from __future__ import annotations

from typing import Any

from cambrian.search_spaces.convnet import genes
from cambrian.search_spaces.space import Genotype

_MEANING = {
    "stem.kernel": "side of the first convolution's window",
    "stem.width": "channels of the first map",
    "stem.downsample": "none; stride: the convolution moves by 2; pool: 2x2 max-pooling after it",
    "stem.activation": "activation after the first convolution",
    "stages.block": "kind of all blocks of the stage",
    "stages.width": "channels of the stage's maps",
    "stages.depth": "number of blocks",
    "stages.kernel": "side of the window; ignored by attention",
    "stages.expansion": "hidden channels per channel, of inverted and attention blocks; ignored by others",
    "stages.se": "hidden width of the squeeze-excite gate per channel, 0 for none; ignored by attention",
    "stages.activation": "activation of the blocks",
    "stages.downsample": "which block of the stage halves the map's sides, if any",
    "head.pool": "avg, max or both over the map, or grid: average to 4x4 cells and keep them all",
    "head.hidden": "width of a hidden linear layer before the classifier, 0 for none",
    "head.dropout": "share of the classifier's inputs dropped in training",
}


def schema() -> dict[str, Any]:
    """Objects with all properties required and no others, one array, enums: what strict back-ends accept."""
    stage = _object_schema("stages", genes.STAGE_GENES)
    return {
        "type": "object",
        "properties": {
            "stem": _object_schema("stem", genes.STEM_GENES),
            "stages": {
                "type": "array",
                "description": f"1 to {genes.MAX_STAGES} stages, from the image to the head",
                "items": stage,
                "minItems": 1,
                "maxItems": genes.MAX_STAGES,
            },
            "head": _object_schema("head", genes.HEAD_GENES),
        },
        "required": ["stem", "stages", "head"],
        "additionalProperties": False,
    }


def _object_schema(owner: str, table: dict[str, tuple[Any, ...]]) -> dict[str, Any]:
    kinds = {int: "integer", float: "number", str: "string"}
    return {
        "type": "object",
        "properties": {
            gene: {
                "type": kinds[type(values[0])],
                "enum": list(values),
                "description": _MEANING[f"{owner}.{gene}"],
            }
            for gene, values in table.items()
        },
        "required": list(table),
        "additionalProperties": False,
    }


def describe() -> str:
    """The space in prose for a planner."""
    lines = [
        "convnet: image classifiers made of a stem (one convolution), 1 to 5 stages and a head.",
        "A stage is `depth` blocks of one kind and width. Every convolution is followed by batch norm.",
        "",
        "Kinds of block:",
        "- conv: one convolution and an activation; halves by 2x2 max-pooling. Strong for its depth, dear in "
        "parameters (kernel^2 x in x out).",
        "- separable: depthwise, then 1x1 convolution; no shortcut. The fewest parameters; weak when narrow.",
        "- inverted: expand by `expansion`, depthwise, project, with a shortcut where shapes agree. Takes "
        "depth well; depthwise kernels of 5 or 7 cost little.",
        "- residual: two convolutions beside a shortcut. Trains fast and deep; twice the cost of conv.",
        "- attention: pre-norm self-attention over at most 64 averaged keys, then a perceptron, both "
        "residual. Sees the whole map; best on small maps (14x14 or less), after convolutional stages.",
        "",
        "Genes and their values:",
    ]
    for owner, table in (
        ("stem", genes.STEM_GENES),
        ("stages", genes.STAGE_GENES),
        ("head", genes.HEAD_GENES),
    ):
        where = "stages[i]" if owner == "stages" else owner
        lines += [
            f"- {where}.{gene}: {', '.join(map(str, values))} ({_MEANING[f'{owner}.{gene}']})"
            for gene, values in table.items()
        ]
    lines += [
        "",
        f"Rules: stem and stages together halve the map at most {genes.MAX_STRIDE.bit_length() - 1} times; "
        f"on a 3x32x32 image at most {genes.MAX_PARAMS / 1e6:.0f}M parameters and "
        f"{genes.MAX_MACS / 1e6:.0f}M multiply-accumulates.",
        "What tends to matter: the cost of a layer falls fourfold with each halving before it, so cheap "
        "networks halve early and widen afterwards; accuracy gains from shortcuts, from widths that grow "
        "with depth, and from squeeze-excite in the later stages. A grid head keeps coarse positions and "
        "trains in few epochs, but costs up to 16 times the parameters of avg. In short trainings, shallow "
        "and wide learns faster than deep and narrow, and dropout mostly hurts. Latency follows the number "
        "of layers as much as their arithmetic.",
    ]
    return "\n".join(lines)


_SHORT = {"conv": "conv", "separable": "sep", "inverted": "inv", "residual": "res", "attention": "att"}


def summarise(genotype: Genotype) -> str:
    """At most 100 characters, such as `16 > res 32x2 /2 > inv 64x3 k5 e4 se.25 > avg`.

    `/2` marks a halving; depths of 1, kernels of 3 and absent genes are left out. When the line would be too
    long, details are dropped: first gates and expansions, then kernels.
    """
    for detail in (2, 1, 0):
        stem = genotype["stem"]
        parts = [str(stem["width"]) + (" /2" if stem["downsample"] != "none" else "")]
        parts += [_stage_words(stage, detail) for stage in genotype["stages"]]
        head = genotype["head"]
        parts.append(head["pool"] + (f" {head['hidden']}" if head["hidden"] else ""))
        line = " > ".join(parts)
        if len(line) <= 100:
            break
    return line


def _stage_words(stage: dict[str, Any], detail: int) -> str:
    words = f"{_SHORT[stage['block']]} {stage['width']}" + (
        f"x{stage['depth']}" if stage["depth"] > 1 else ""
    )
    if detail >= 1 and stage["kernel"] != 3:
        words += f" k{stage['kernel']}"
    if detail >= 2 and stage["expansion"] > 1:
        words += f" e{stage['expansion']}"
    if detail >= 2 and stage["se"]:
        words += f" se{stage['se']:g}".replace("0.", ".")
    return words + (" /2" if stage["downsample"] != "none" else "")
