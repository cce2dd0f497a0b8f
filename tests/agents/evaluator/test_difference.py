"""What differs is said in a few words, on any genotype."""

from __future__ import annotations

import random
from typing import Any

import pytest

from cambrian.agents.evaluator.difference import LONGEST, difference
from cambrian.search_spaces import SPACES


def stage(**genes: Any) -> dict[str, Any]:
    return {"block": "conv", "width": 16, "depth": 1, "kernel": 3, **genes}


def net(*stages: dict[str, Any], **stem: Any) -> dict[str, Any]:
    return {"stem": {"width": 16, **stem}, "stages": list(stages)}


SOURCE = "import torch\n\nclass Network:\n    width = 8\n    depth = 2\n"


@pytest.mark.parametrize(
    ("earlier", "later", "words"),
    [
        (net(stage()), net(stage()), ""),
        (net(stage()), net(stage(width=24)), "stages[0].width 16 -> 24"),
        (net(stage(), stage()), net(stage(), stage(width=32), width=24),
         "stem.width 16 -> 24, stages[1].width 16 -> 32"),
        (net(stage(width=8), stage()), net(stage(width=8), stage(block="residual", width=64), stage()),
         "+stages[1] residual 64"),
        (net(stage(width=8), stage(width=64, kernel=5), stage()), net(stage(width=8), stage()),
         "-stages[1] conv 64"),
        ({"layers": [{"kind": "dense", "width": 8, "gated": True}]},
         {"layers": [{"kind": "kan", "width": 5}]},
         "layers[0] dense -> kan, layers[0].width 8 -> 5"),
        ({"a": None, "b": [1, 2]}, {"a": 0.5, "b": [1, 3]}, "a none -> 0.5, b[1] 2 -> 3"),
        ({"kind": "x"}, {"kind": "y"}, "kind x -> y"),
        ({"architecture": net(stage()), "recipe": {"learning_rate": 0.001}},
         {"architecture": net(stage(depth=2)), "recipe": {"learning_rate": 0.003}},
         "stages[0].depth 1 -> 2, recipe.learning_rate 0.001 -> 0.003"),
        ({"source": SOURCE}, {"source": SOURCE.replace("8", "16")}, "source line 4: width = 8 -> width = 16"),
        ({"source": SOURCE}, {"source": SOURCE + "    more = 1\n"}, "source +1 line at 6: more = 1"),
        ({"source": SOURCE}, {"source": SOURCE.replace("    depth = 2\n", "")}, "source -1 line at 5"),
    ],
)  # fmt: skip
def test_words(earlier: dict[str, Any], later: dict[str, Any], words: str) -> None:
    assert difference(earlier, later) == words


def test_a_long_difference_is_cut_and_says_so() -> None:
    other = stage(block="inverted", width=128, depth=4, kernel=7)
    words = difference(net(stage(), stage(), stage()), net(other, other, other, width=24))
    assert words.startswith("stem.width 16 -> 24, ") and words.endswith("more") and len(words) <= LONGEST


def test_foreign_text_stays_on_one_line_and_short() -> None:
    words = difference({"a": "x" * 500}, {"a": "y\u202e" * 500 + "\x1b[31m"})
    assert len(words) <= LONGEST and words.isprintable()


@pytest.mark.parametrize("name", ["convnet", "mlp", "grammar", "cell"])
def test_mutations_differ_in_words_and_equals_do_not(name: str) -> None:
    space, rng = SPACES.create(name), random.Random(3)
    for _ in range(30):
        genotype = space.sample(rng)
        mutated, _ = space.mutate(genotype, rng)
        assert 0 < len(difference(genotype, mutated)) <= LONGEST
        assert difference(genotype, space.validate(genotype)) == ""
