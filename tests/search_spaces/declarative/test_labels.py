"""Names of records, and the line that a person knows a design by."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from cambrian.search_spaces.declarative.definition import Definition
from cambrian.search_spaces.declarative.expression import ExpressionError
from cambrian.search_spaces.declarative.grammar import Record
from cambrian.search_spaces.declarative.labels import label, label_at, locate, summarise
from cambrian.search_spaces.declarative.loading import load
from cambrian.search_spaces.declarative.membership import validate
from cambrian.search_spaces.declarative.sampling import sample
from cambrian.search_spaces.declarative.templates import words_of
from cambrian.search_spaces.space import Genotype
from tests.search_spaces.declarative.folder import write_space
from tests.search_spaces.declarative.spaces import HEAD, flat, stages, trees

LABELLED = f"""
network:
  fields:
    stem: {{choice: [8, 16]}}
    stages: {{repeat: stage, min: 0, max: 9}}
    head: {{use: head}}
  label: "{{stem}} > {{stages}} > {{head}}"
  build: {HEAD.replace("          ", "    ")}
stage:
  fields:
    block: [convolution, contraction, attention]
    width: [16, 32, 64]
    se: [0.0, 0.25, 0.5]
    gated: {{boolean: true}}
  label: "{{block}} {{width}} {{'se%g' % se if se else ''}} {{gated}}"
head:
  fields: {{pool: [none, grid], rate: [0.0, 0.1]}}
  label: "{{'' if pool == 'none' else pool}} {{rate:.2f}}"
"""


@pytest.fixture(scope="module")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> Definition:
    return load(
        write_space(tmp_path_factory.mktemp("labelled"), LABELLED.replace("build: -", "build:\n    -"))
    )


def stage(
    block: str = "attention", width: int = 16, se: float = 0.0, gated: bool = False
) -> dict[str, object]:
    return {"block": block, "width": width, "se": se, "gated": gated}


class TestTemplates:
    def test_values_conditions_and_nested_records(self, labelled: Definition) -> None:
        genotype = {
            "stem": 8,
            "stages": [stage("convolution", 32, 0.25), stage(gated=True)],
            "head": {"pool": "grid", "rate": 0.1},
        }
        assert summarise(labelled, genotype) == "8 > convolution 32 se0.25 > attention 16 gated > grid 0.10"

    def test_equal_neighbours_are_folded(self, labelled: Definition) -> None:
        genotype = {"stem": 8, "stages": [stage()] * 3, "head": {"pool": "none", "rate": 0.0}}
        assert summarise(labelled, genotype) == "8 > 3*(attention 16) > 0.00"

    def test_a_separator_beside_nothing_goes(self, labelled: Definition) -> None:
        genotype = {"stem": 8, "stages": [], "head": {"pool": "grid", "rate": 0.0}}
        assert summarise(labelled, genotype) == "8 > grid 0.00"

    def test_words_are_abbreviated_where_a_line_is_long(self, labelled: Definition) -> None:
        rows = [
            stage("convolution", 64, 0.25, True),
            stage("attention", 16, 0.5),
            stage("contraction", 32, 0.5),
        ]
        genotype = {"stem": 16, "stages": [*rows, rows[0]], "head": {"pool": "grid", "rate": 0.0}}
        line = summarise(labelled, genotype)
        assert len(line) <= 100
        # "con" would not tell the first two apart
        assert (
            line == "16 > conv 64 se.25 gated > att 16 se.5 > cont 32 se.5 > conv 64 se.25 gated > grid 0.00"
        )

    def test_label_of_a_record_in_its_scope(self, labelled: Definition) -> None:
        record = labelled.grammar.rules["stage"]
        assert isinstance(record, Record)
        assert label(record, {"stem": 8, **stage("convolution", 64)}) == "convolution 64"

    def test_a_hole_may_hold_quotes_braces_and_colons(self) -> None:
        ((hole,),) = words_of("{'{%d:}' % width:s}")
        assert not isinstance(hole, str)
        assert hole.expression({"width": 3}) == "{3:}" and hole.spec == "s"

    @pytest.mark.parametrize("template", ["{width", "{}", "{width +}"])
    def test_broken_templates_are_refused(self, template: str) -> None:
        with pytest.raises(ExpressionError):
            words_of(template)


class TestWithoutTemplates:
    def test_defaults_and_meaningless_fields_are_left_out(self, tmp_path: Path) -> None:
        definition = stages(tmp_path)
        genotype = validate(
            definition,
            {
                "stages": [
                    {"block": "conv", "width": 8, "expansion": 1, "activation": "gelu"},
                    {"block": "inverted", "width": 16, "expansion": 4, "activation": "relu", "halve": True},
                ],
                "head": {"dropout": 0.3, "wide": False},
            },
        )
        line = summarise(definition, genotype)
        assert line == ("conv width 8 gelu > inverted width 16 expansion 4 halve relu | dropout 0.3")
        assert label_at(definition, genotype, "stages[1]") == "inverted width 16 expansion 4 halve relu"

    def test_options_are_told_by_kind(self, tmp_path: Path) -> None:
        definition = trees(tmp_path)
        conv = {"kind": "conv", "width": 8}
        genotype = {
            "body": {"kind": "chain", "first": conv, "second": {"kind": "add", "left": conv, "right": conv}}
        }
        assert summarise(definition, genotype) == "chain(conv width 8, add(conv width 8, conv width 8))"

    def test_a_design_of_defaults_only_still_has_a_name(self, tmp_path: Path) -> None:
        definition = flat(tmp_path, "width: {choice: [4, 8], default: 8}")
        assert summarise(definition, {"width": 8}) == "network"
        assert summarise(definition, {"width": 4}) == "width 4"


class TestSummaries:
    def test_large_trees_keep_the_limit_and_are_told_apart(self, tmp_path: Path) -> None:
        definition = trees(tmp_path, depth=9)
        rng = random.Random(5)
        found: dict[str, Genotype] = {}
        for _ in range(300):
            genotype = sample(definition, rng)
            line = summarise(definition, genotype)
            assert 0 < len(line) <= 100 and "\n" not in line
            found.setdefault(line, genotype)
            assert found[line] == genotype
        assert any("#" in line for line in found), "no tree was large enough to be shortened"

    @pytest.mark.parametrize("name", ["convnet", "cell", "encoder", "grammar", "gnn", "mlp", "hybrid"])
    def test_shipped_spaces(self, name: str) -> None:
        import cambrian.search_spaces as package

        definition = load(Path(next(iter(package.__path__))) / name)
        rng = random.Random(1)
        genotypes = {str(g): g for g in (sample(definition, rng) for _ in range(150))}
        lines = [summarise(definition, genotype) for genotype in genotypes.values()]
        assert max(map(len, lines)) <= 100
        assert len(set(lines)) > 0.95 * len(lines)


def test_locate(tmp_path: Path) -> None:
    definition = stages(tmp_path)
    genotype = sample(definition, random.Random(0))
    domain, value, scope = locate(definition, genotype, "stages[0].width")
    assert value == genotype["stages"][0]["width"] and value in getattr(domain, "values")  # noqa: B009
    assert scope["depth"] == genotype["stages"][0]["depth"] and scope["stem"] == genotype["stem"]
    assert locate(definition, genotype, "")[1] is genotype
    with pytest.raises(KeyError):
        locate(definition, genotype, "stem[0]")
