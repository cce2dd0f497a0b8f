"""Summaries, prose, schema descriptions and pictures of convnet."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree

from cambrian.search_spaces import Signature
from cambrian.search_spaces.convnet import ConvNetSpace, genes

SPACE = ConvNetSpace()
SIGNATURE = Signature(input_shape=(1, 28, 28), n_outputs=10)


def test_the_summary_shows_what_a_person_looks_for() -> None:
    line = SPACE.summarise(SPACE.baselines()["mobilenet-like"])
    assert line == "16 /2 > inv 24x2 e4 > inv 32x2 e4 se.25 /2 > inv 48x2 e4 se.25 /2 > avg"


def test_the_longest_summary_fits() -> None:
    stage = {"block": "inverted", "width": 128, "depth": 4, "kernel": 7, "expansion": 2, "se": 0.125}
    small = {**stage, "width": 12}
    stages = [{**small, "downsample": "last"}] * 3 + [stage, small]
    genotype = SPACE.validate({"stages": stages, "head": {"pool": "avgmax", "hidden": 256}})
    line = SPACE.summarise(genotype)
    assert len(line) <= 100
    assert line.count(">") == 6


def test_the_prose_names_every_gene_value_and_limit() -> None:
    text = SPACE.describe()
    for owner, table in (
        ("stem", genes.STEM_GENES),
        ("stages[i]", genes.STAGE_GENES),
        ("head", genes.HEAD_GENES),
    ):
        for gene, values in table.items():
            assert f"{owner}.{gene}: {', '.join(map(str, values))}" in text
    assert "at most 3 times" in text and "3M parameters" in text


def test_the_schema_follows_the_tables() -> None:
    stage = SPACE.schema()["properties"]["stages"]["items"]
    assert stage["properties"]["width"]["enum"] == list(genes.WIDTHS)
    assert stage["properties"]["se"]["type"] == "number"
    assert all(part["description"] for part in stage["properties"].values())


def test_the_picture_shows_each_stage_with_its_size_and_cost() -> None:
    genotype = SPACE.baselines()["mobilenet-like"]
    root = ElementTree.fromstring(SPACE.draw(genotype, SIGNATURE))
    texts = [element.text or "" for element in root.iter("{http://www.w3.org/2000/svg}text")]
    for words in (
        "inverted \u00d72",
        "24\u00d714\u00d714",
        "48\u00d74\u00d74",
        "9.34k params",
        "dropout 0.1",
    ):
        assert words in texts, words
    assert any("99.7k parameters, 3.5M multiply-accumulates" in text for text in texts)


def test_nothing_is_drawn_outside_the_picture() -> None:
    """The widest member: five stages of depth four with long labels."""
    stage = {"block": "separable", "width": 128, "depth": 4, "se": 0.125, "activation": "hardswish"}
    genotype = SPACE.validate(
        {
            "stem": {"width": 64, "downsample": "stride", "activation": "hardswish"},
            "stages": [stage] * 5,
            "head": {"pool": "avgmax", "hidden": 256, "dropout": 0.5},
        }
    )
    picture = SPACE.draw(genotype, Signature(input_shape=(3, 64, 64), n_outputs=100))
    root = ElementTree.fromstring(picture)
    width = float(root.attrib["width"])
    assert width == 800
    for element in root.iter("{http://www.w3.org/2000/svg}text"):
        half = 3.1 * len(element.text or "") * float(element.attrib["font-size"]) / 11
        x = float(element.attrib["x"])
        if element.attrib["text-anchor"] == "middle":
            assert x - half > 0 and x + half < width, element.text
        else:
            assert x + 2 * half < width, element.text
    for start in re.findall(r'd="M([\d.]+)', picture):
        assert 0 < float(start) < width
