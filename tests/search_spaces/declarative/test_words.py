"""A space in prose: what planners read."""

from __future__ import annotations

from pathlib import Path

import pytest

import cambrian.search_spaces as package
from cambrian.search_spaces.declarative.expression import Expression
from cambrian.search_spaces.declarative.grammar import Field, Scalar, walk
from cambrian.search_spaces.declarative.loading import load
from cambrian.search_spaces.declarative.phrases import condition, count, inputs, relevance, values
from cambrian.search_spaces.declarative.words import describe
from cambrian.search_spaces.space import GraphShape, Signature
from tests.search_spaces.declarative.folder import write_space
from tests.search_spaces.declarative.spaces import stages, trees

SHIPPED = sorted(path.parent for path in Path(next(iter(package.__path__))).glob("*/space.yaml"))


class TestDescribe:
    def test_fields_values_conditions_rules_and_limits(self, tmp_path: Path) -> None:
        text = describe(stages(tmp_path, limits="{params: 3M, depth: 20}", hints="Wide is good."))
        lines = text.splitlines()
        assert "- stages: list of 1 to 3 stage" in lines
        assert "- width: 4, 8, 16, 32 (channels of the stage)" in lines
        assert "- depth: 1, 2, 3" in lines
        assert "- expansion: 1, 2, 4 (ignored unless block is inverted)" in lines
        assert "- halve: true or false" in lines
        # inline records are told where they stand
        assert lines[lines.index("- head: an object") + 1] == "  - dropout: 0, 0.3"
        assert "Must hold: sum(s.halve for s in stages) <= 2 (else: at most 2 stages may halve)" in lines
        assert (
            "Limits for a 3x12x10 image and 5 outputs: at most 3M parameters and 20 layers with weights on "
            "the longest path." in lines
        )
        assert lines[-1] == "What tends to matter: Wide is good."

    def test_blocks_tell_what_nobody_else_does(self, tmp_path: Path) -> None:
        text = describe(stages(tmp_path))
        assert "  inverted: expand, depthwise convolution, project; residual where shapes agree" in text

    def test_options_and_recursion(self, tmp_path: Path) -> None:
        lines = describe(trees(tmp_path, depth=6)).splitlines()
        at = lines.index('node, one of these kinds (key "kind" first): part of the network')
        assert lines[at + 1] == "- conv: convolution without bias, then batch norm"
        assert lines[at + 2] == "  - width: 4, 8"
        assert "Rules nest at most 6 deep (node can contain itself)." in lines

    def test_values_that_many_fields_share_are_told_once(self, tmp_path: Path) -> None:
        rules = """
        network:
          fields: {a: kind, b: kind, c: kind}
          build: [GlobalPool, {Linear: {out: =n_outputs}}]
        """
        genes = "{kind: {choice: [red, green, blue], about: a colour}}"
        text = describe(load(write_space(tmp_path, rules, genes=genes)))
        assert text.count("red, green, blue") == 1 and text.count("values of a") == 2

    @pytest.mark.parametrize("folder", SHIPPED, ids=lambda folder: folder.name)
    def test_shipped_spaces(self, folder: Path) -> None:
        definition = load(folder)
        text = describe(definition)
        assert text == describe(load(folder)), "not deterministic"
        assert 200 < len(text) < 12_000
        for domain in walk(definition.grammar.start):
            for name in getattr(domain, "by_name", {}):
                assert f"- {name}: " in text
            for case in getattr(domain, "cases", {}):
                assert f"- {case}" in text


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("block == 'inverted'", "block is inverted"),
        ("block in ('a', 'b') and depth > 1", "block is a or b and depth is above 1"),
        ("not gated", "not gated"),
        ("stem.width >= 8 or deep", "stem.width is at least 8 or deep"),
        ("sum(widths) > 8", "sum(widths) > 8"),
        ("1 < depth < 3", "1 < depth < 3"),
    ],
)
def test_conditions(text: str, said: str) -> None:
    assert condition(Expression(text)) == said


@pytest.mark.parametrize(
    ("when", "said"),
    [
        ("block != 'a'", "ignored when block is a"),
        ("block not in ('a', 'b')", "ignored when block is a or b"),
        ("not gated", "ignored when gated"),
        ("block == 'a'", "ignored unless block is a"),
        ("depth > 1 or place != 'last'", "becomes first unless depth is above 1 or place is not last"),
    ],
)
def test_relevance(when: str, said: str) -> None:
    field = Field("place", Scalar(("first", "last")), when=Expression(when), otherwise="first")
    assert relevance(field) == said


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ((1, 2, 3, 4), "1 to 4"),
        ((8, 16, 24, 32), "8 to 32 in steps of 8"),
        ((8, 16, 32), "8, 16, 32"),
        ((False, True), "true or false"),
        ((0.0, 0.125, 1.0), "0, 0.125, 1"),
        (tuple(2**i for i in range(30)), "1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, ..., "
         "134217728, 268435456, 536870912"),
    ],
)  # fmt: skip
def test_values(table: tuple[float, ...], said: str) -> None:
    assert values(Scalar(table)) == said


def test_inputs_and_counts() -> None:
    graph = GraphShape(nodes=10, features=4, edges=20)
    assert inputs(Signature(input_shape=(), n_outputs=7, graph=graph)) == (
        "a graph of 10 nodes with 4 features and 7 outputs"
    )
    assert inputs(Signature(input_shape=(33,), n_outputs=65, vocabulary=66)) == (
        "33 ids of a vocabulary of 66 and 65 outputs"
    )
    assert inputs(Signature(input_shape=(5,), n_outputs=1)) == "a vector of 5 and 1 output"
    assert inputs(Signature(input_shape=(9, 4), n_outputs=2)) == "a sequence of 9 x 4 numbers and 2 outputs"
    assert [count(n) for n in (940, 12_345, 1_250_000, 2_000_000_000)] == ["940", "12.3k", "1.25M", "2G"]
