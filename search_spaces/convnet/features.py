"""Numbers that describe a member of `convnet` to a predictor."""

from __future__ import annotations

import math

from cambrian.search_spaces.convnet import genes
from cambrian.search_spaces.convnet.program import compile_program
from cambrian.search_spaces.space import Genotype

_DOWNSAMPLE = {"none": 0.0, "first": 1.0, "last": 2.0}


def features(genotype: Genotype) -> dict[str, float]:
    """Totals over the network, shares of each kind of block, and the genes of each stage.

    Sizes are those of the reference image 3x32x32 and logarithmic. Genes of absent stages are 0.
    """
    stem, stages, head = genotype["stem"], genotype["stages"], genotype["head"]
    layers = compile_program(genotype, genes.REFERENCE)
    depth = sum(stage["depth"] for stage in stages)
    body = [layer for layer in layers if len(layer.shape) == 3]
    found: dict[str, float] = {
        "log_params": math.log10(sum(layer.params for layer in layers)),
        "log_macs": math.log10(sum(layer.macs for layer in layers)),
        "log_head_params": math.log10(sum(layer.params for layer in layers if layer.gene == "head")),
        "log_activations": math.log10(sum(math.prod(layer.shape) for layer in body)),
        "stages": len(stages),
        "depth": depth,
        "halvings": math.log2(genes.total_stride(genotype)),
        "last_width": stages[-1]["width"],
        "widest": max(stage["width"] for stage in stages),
        "narrowest": min(stage["width"] for stage in stages),
        "kernel_mean": sum(stage["kernel"] * stage["depth"] for stage in stages) / depth,
        "se_mean": sum(stage["se"] * stage["depth"] for stage in stages) / depth,
        "stem_kernel": stem["kernel"],
        "stem_width": stem["width"],
        "head_hidden": head["hidden"],
        "head_dropout": head["dropout"],
    }
    for kind in genes.BLOCKS:
        found[f"share_{kind}"] = sum(s["depth"] for s in stages if s["block"] == kind) / depth
    for name in genes.ACTIVATIONS:
        found[f"share_{name}"] = sum(s["depth"] for s in stages if s["activation"] == name) / depth
    for name in genes.STEM_DOWNSAMPLES[1:]:
        found[f"stem_{name}"] = float(stem["downsample"] == name)
    for name in genes.POOLS:
        found[f"pool_{name}"] = float(head["pool"] == name)
    for index in range(genes.MAX_STAGES):
        stage = stages[index] if index < len(stages) else None
        for gene in ("width", "depth", "kernel", "expansion", "se"):
            found[f"stage{index + 1}_{gene}"] = stage[gene] if stage else 0.0
        found[f"stage{index + 1}_downsample"] = _DOWNSAMPLE[stage["downsample"]] if stage else 0.0
        for kind in genes.BLOCKS:
            found[f"stage{index + 1}_{kind}"] = float(stage is not None and stage["block"] == kind)
    return {name: float(value) for name, value in found.items()}
