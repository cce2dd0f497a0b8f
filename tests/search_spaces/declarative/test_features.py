"""Numbers that predictors learn from."""

from __future__ import annotations

import json
import math
import random
from pathlib import Path

import pytest

from cambrian.search_spaces.declarative.expression import ExpressionError
from cambrian.search_spaces.declarative.features import features
from cambrian.search_spaces.declarative.loading import load
from cambrian.search_spaces.declarative.planning import plan
from cambrian.search_spaces.declarative.sampling import sample
from tests.search_spaces.declarative.spaces import stages, trees
from tests.search_spaces.declarative.test_words import SHIPPED


def test_lists_are_collapsed_and_told_by_position(tmp_path: Path) -> None:
    definition = stages(tmp_path)
    common = {"depth": 1, "halve": False, "activation": "relu"}
    genotype = {
        "stem": 8,
        "stages": [
            {"block": "conv", "width": 8, "expansion": 1, **common},
            {"block": "inverted", "width": 32, "expansion": 4, **common, "halve": True},
        ],
        "head": {"dropout": 0.3, "wide": True},
    }
    found = features(definition, genotype)
    assert found["stem"] == 8 and found["head.dropout"] == 0.3 and found["head.wide"] == 1
    assert found["stages.length"] == 2
    assert found["stages.width.mean"] == 20 and found["stages.halve.mean"] == 0.5
    assert found["stages.block=conv"] == 0.5
    assert (found["stages[0].block=conv"], found["stages[1].block=conv"]) == (1, 0)
    assert (found["stages[0].width"], found["stages[1].width"], found["stages[2].width"]) == (8, 32, 0)
    network = plan(definition, genotype, definition.file.reference)
    assert found["log_params"] == math.log10(1 + network.params)
    assert found["downsampling"] == math.log2(12 * 10 / (6 * 5))
    assert found["channels.max"] == 32 and found["channels.min"] == 8
    assert sum(v for k, v in found.items() if k.startswith("params.")) == pytest.approx(1)


def test_rules_that_contain_themselves_are_counted(tmp_path: Path) -> None:
    definition = trees(tmp_path, depth=6)
    four, eight = {"kind": "conv", "width": 4}, {"kind": "conv", "width": 8}
    genotype = {
        "body": {"kind": "chain", "first": four, "second": {"kind": "add", "left": eight, "right": eight}}
    }
    found = features(definition, genotype)
    assert (found["node.kind=conv"], found["node.kind=chain"], found["node.kind=add"]) == (3, 1, 1)
    assert (found["node@0.kind=chain"], found["node@1.kind=conv"], found["node@2.kind=conv"]) == (1, 1, 2)
    assert found["nesting"] == 3
    assert found["node.conv.width.mean"] == pytest.approx(20 / 3)


def test_the_files_own_features(tmp_path: Path) -> None:
    definition = stages(tmp_path / "a", features="{widest: max(s.width for s in stages)}")
    genotype = sample(definition, random.Random(0))
    assert features(definition, genotype)["widest"] == max(s["width"] for s in genotype["stages"])
    wrong = stages(tmp_path / "b", features="{kind: 'stages[0].block'}")
    with pytest.raises(ExpressionError, match=r"features\.kind"):
        features(wrong, genotype)


@pytest.mark.parametrize("folder", SHIPPED, ids=lambda folder: folder.name)
def test_shipped_spaces(folder: Path) -> None:
    definition = load(folder)
    rng = random.Random(2)
    genotypes = [*definition.baselines.values(), *(sample(definition, rng) for _ in range(150))]
    rows = [features(definition, genotype) for genotype in genotypes]
    keys = list(rows[0])
    assert len(keys) < 400
    assert all(list(row) == keys for row in rows)
    assert all(type(value) is float and math.isfinite(value) for row in rows for value in row.values())
    different = len({json.dumps(genotype) for genotype in genotypes})
    assert len({tuple(row.values()) for row in rows}) > 0.95 * different
