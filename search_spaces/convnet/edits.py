"""Random members, neighbours and children: what the arms without a language model propose."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

from cambrian.search_spaces.convnet import genes
from cambrian.search_spaces.convnet.genes import broken_rule, copy_of, fold
from cambrian.search_spaces.space import Genotype

_ORDERED = {"width", "depth", "kernel", "expansion", "se", "hidden", "dropout"}


def sample(rng: random.Random) -> Genotype:
    """A member drawn uniformly gene by gene, given that the rules of the space hold.

    The number of stages is uniform in 1..5; given that number, each gene is uniform over its values (which
    are spaced geometrically, so that sizes are about log-uniform). Draws that halve the map too often or
    exceed a limit on size are thrown away whole and drawn anew, which leaves the distribution of the others
    as it is. Nothing is tuned towards networks known to be good: this is the control that other arms are
    compared with.
    """
    n_stages = rng.randint(1, genes.MAX_STAGES)
    while True:
        stem = _random_genes(genes.STEM_GENES, rng)
        stages = [_random_genes(genes.STAGE_GENES, rng) for _ in range(n_stages)]
        genotype = {"stem": stem, "stages": stages, "head": _random_genes(genes.HEAD_GENES, rng)}
        if genes.total_stride(genotype) <= genes.MAX_STRIDE and broken_rule(fold(genotype)) is None:
            return genotype


def _random_genes(table: dict[str, tuple[Any, ...]], rng: random.Random) -> dict[str, Any]:
    # int(random() * n) is several times faster than choice(), and sampling has a rate to keep
    draw = rng.random
    return {name: values[int(draw() * len(values))] for name, values in table.items()}


def mutate(genotype: Genotype, rng: random.Random) -> tuple[Genotype, str]:
    """A neighbour of `genotype` by one typed edit, and that edit in words; stages count from 1.

    Single genes are changed most often, and numbers most often by one step of their table. Edits that break a
    rule of the space or change nothing are drawn anew.
    """
    while True:
        edit = rng.choices(_EDITS, _WEIGHTS)[0]
        child = copy_of(genotype)
        words = edit(child, rng)
        if words is not None and fold(child) != genotype and broken_rule(child) is None:
            return child, words


def _change(owner: dict[str, Any], gene: str, values: tuple[Any, ...], rng: random.Random) -> str:
    """Change one gene in place: an ordered one mostly by one step, any other to any other value."""
    old = owner[gene]
    if gene in _ORDERED and rng.random() < 0.8:
        at = values.index(old)
        near = [values[i] for i in (at - 1, at + 1) if 0 <= i < len(values)]
    else:
        near = [value for value in values if value != old]
    owner[gene] = rng.choice(near)
    return f"{gene} {old} -> {owner[gene]}"


def _edit_stage_gene(child: Genotype, rng: random.Random) -> str | None:
    index = rng.randrange(len(child["stages"]))
    stage = child["stages"][index]
    folded = genes.FOLDED[stage["block"]]
    gene = rng.choice([name for name in genes.STAGE_GENES if name not in folded and name != "block"])
    return f"stage {index + 1} {_change(stage, gene, genes.STAGE_GENES[gene], rng)}"


def _edit_block(child: Genotype, rng: random.Random) -> str | None:
    index = rng.randrange(len(child["stages"]))
    stage = child["stages"][index]
    asleep = genes.FOLDED[stage["block"]]
    words = _change(stage, "block", genes.BLOCKS, rng)
    awake = [gene for gene in asleep if gene not in genes.FOLDED[stage["block"]]]
    for gene in awake:
        stage[gene] = rng.choice(genes.STAGE_GENES[gene])
    detail = ", ".join(f"{gene} {stage[gene]}" for gene in awake)
    return f"stage {index + 1} {words}" + (f" ({detail})" if detail else "")


def _edit_stem(child: Genotype, rng: random.Random) -> str | None:
    gene = rng.choice(list(genes.STEM_GENES))
    return f"stem {_change(child['stem'], gene, genes.STEM_GENES[gene], rng)}"


def _edit_head(child: Genotype, rng: random.Random) -> str | None:
    gene = rng.choice(list(genes.HEAD_GENES))
    return f"head {_change(child['head'], gene, genes.HEAD_GENES[gene], rng)}"


def _insert_stage(child: Genotype, rng: random.Random) -> str | None:
    stages = child["stages"]
    if len(stages) == genes.MAX_STAGES:
        return None
    at = rng.randint(0, len(stages))
    stage = _random_genes(genes.STAGE_GENES, rng)
    stages.insert(at, stage)
    return f"new stage {at + 1}: {stage['block']} width {stage['width']} depth {stage['depth']}"


def _duplicate_stage(child: Genotype, rng: random.Random) -> str | None:
    stages = child["stages"]
    if len(stages) == genes.MAX_STAGES:
        return None
    at = rng.randrange(len(stages))
    stages.insert(at + 1, {**stages[at], "downsample": "none"})
    return f"stage {at + 1} duplicated"


def _remove_stage(child: Genotype, rng: random.Random) -> str | None:
    stages = child["stages"]
    if len(stages) == 1:
        return None
    at = rng.randrange(len(stages))
    gone = stages.pop(at)
    return f"stage {at + 1} removed ({gone['block']} width {gone['width']})"


def _swap_stages(child: Genotype, rng: random.Random) -> str | None:
    stages = child["stages"]
    if len(stages) == 1:
        return None
    at = rng.randrange(len(stages) - 1)
    stages[at], stages[at + 1] = stages[at + 1], stages[at]
    return f"stages {at + 1} and {at + 2} swapped"


def _scale_widths(child: Genotype, rng: random.Random) -> str | None:
    step = rng.choice((-1, 1))
    for stage in child["stages"]:
        at = genes.WIDTHS.index(stage["width"]) + step
        stage["width"] = genes.WIDTHS[min(max(at, 0), len(genes.WIDTHS) - 1)]
    return "all stages one step " + ("wider" if step > 0 else "narrower")


def _move_downsampling(child: Genotype, rng: random.Random) -> str | None:
    stages = child["stages"]
    sources = [i for i, stage in enumerate(stages) if stage["downsample"] != "none"]
    targets = [i for i, stage in enumerate(stages) if stage["downsample"] == "none"]
    if not sources or not targets:
        return None
    source, target = rng.choice(sources), rng.choice(targets)
    stages[target]["downsample"], stages[source]["downsample"] = stages[source]["downsample"], "none"
    return f"downsampling moved from stage {source + 1} to stage {target + 1}"


def _one_activation(child: Genotype, rng: random.Random) -> str | None:
    name = rng.choice(genes.ACTIVATIONS)
    for part in (child["stem"], *child["stages"]):
        part["activation"] = name
    return f"activation {name} everywhere"


_EDITS: tuple[Callable[[Genotype, random.Random], str | None], ...] = (
    _edit_stage_gene, _edit_block, _edit_stem, _edit_head, _insert_stage, _duplicate_stage, _remove_stage,
    _swap_stages, _scale_widths, _move_downsampling, _one_activation,
)  # fmt: skip
_WEIGHTS = (40, 10, 8, 8, 6, 5, 7, 3, 6, 5, 2)


def crossover(first: Genotype, second: Genotype, rng: random.Random) -> tuple[Genotype, str]:
    """The front of `first` joined to the back of `second` at random points, and where.

    The stem comes from `first`, the head from `second`. Where the two halve the map too often together, the
    latest downsamplings of the back are dropped. After 20 joints that exceed a limit on size the child is
    `first` with the head of `second`, or `first` itself.
    """
    for _ in range(20):
        front = rng.randint(1, len(first["stages"]))
        back = rng.randint(max(0, len(second["stages"]) - genes.MAX_STAGES + front), len(second["stages"]))
        stages = [*first["stages"][:front], *second["stages"][back:]]
        child = copy_of({"stem": first["stem"], "stages": stages, "head": second["head"]})
        _drop_late_downsampling(child)
        if broken_rule(child) is None:
            tail = f" + stages {back + 1}-{len(second['stages'])} of the second"
            return child, f"stages 1-{front} of the first{tail if len(stages) > front else ''}"
    child = copy_of({"stem": first["stem"], "stages": first["stages"], "head": second["head"]})
    if broken_rule(child) is None:
        return child, "the first with the head of the second"
    return copy_of(first), "the first unchanged: no joint of the two keeps the size limits"


def _drop_late_downsampling(child: Genotype) -> None:
    for stage in reversed(child["stages"]):
        if genes.total_stride(child) <= genes.MAX_STRIDE:
            return
        stage["downsample"] = "none"
