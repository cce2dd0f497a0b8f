"""What edits and joints do, beyond the contract."""

from __future__ import annotations

import random
import re

from cambrian.search_spaces.convnet import ConvNetSpace, genes

SPACE = ConvNetSpace()


def test_all_kinds_of_edit_occur_and_say_so() -> None:
    rng = random.Random(0)
    genotype = SPACE.baselines()["mobilenet-like"]
    words = {SPACE.mutate(genotype, rng)[1] for _ in range(2000)}
    for pattern in (
        r"stage 2 width 32 -> 48",
        r"stage \d depth 2 -> 3",
        r"stage \d block inverted -> \w+",
        r"stem \w+ ",
        r"head \w+ ",
        r"new stage \d: ",
        r"stage \d duplicated",
        r"stage \d removed",
        r"stages \d and \d swapped",
        r"all stages one step wider",
        r"downsampling moved from stage \d to stage \d",
        r"activation \w+ everywhere",
    ):
        assert any(re.fullmatch(pattern + ".*", line) for line in words), pattern


def test_an_edit_of_one_gene_changes_what_it_says() -> None:
    rng = random.Random(1)
    seen = 0
    for _ in range(500):
        parent = SPACE.sample(rng)
        child, words = SPACE.mutate(parent, rng)
        found = re.fullmatch(r"stage (\d) (width|depth|kernel) (\d+) -> (\d+)", words)
        if found:
            seen += 1
            index, gene = int(found[1]) - 1, found[2]
            assert parent["stages"][index][gene] == int(found[3])
            assert child["stages"][index][gene] == int(found[4])
            parent["stages"][index][gene] = int(found[4])
            assert genes.fold(parent) == child
    assert seen > 50


def test_a_kind_that_wakes_a_gene_gives_it_a_value() -> None:
    rng = random.Random(2)
    parent = SPACE.baselines()["small-resnet"]
    expansions = set()
    for _ in range(3000):
        child, words = SPACE.mutate(parent, rng)
        found = re.match(r"stage (\d) block residual -> inverted \(expansion (\d)\)", words)
        if found:
            expansions.add(child["stages"][int(found[1]) - 1]["expansion"])
            assert child["stages"][int(found[1]) - 1]["expansion"] == int(found[2])
    assert len(expansions) >= 3


def test_every_stage_of_a_child_comes_from_a_parent() -> None:
    rng = random.Random(3)
    for _ in range(500):
        first, second = SPACE.sample(rng), SPACE.sample(rng)
        child, _ = SPACE.crossover(first, second, rng)
        plain = [{**stage, "downsample": ""} for stage in (*first["stages"], *second["stages"])]
        assert all({**stage, "downsample": ""} in plain for stage in child["stages"])
        assert child["stem"] == first["stem"]
        assert child["head"] in (first["head"], second["head"])
        assert genes.total_stride(child) <= genes.MAX_STRIDE


def test_crossover_of_equals_may_return_them_but_says_where_it_cut() -> None:
    parent = SPACE.baselines()["small-resnet"]
    child, words = SPACE.crossover(parent, parent, random.Random(0))
    assert genes.validate(child) == child
    assert words.startswith("stages 1-")
