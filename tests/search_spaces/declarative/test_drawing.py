"""Pictures: well-formed, self-contained, inside their frame, and true to the plan."""

from __future__ import annotations

import random
import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

from cambrian.search_spaces.declarative import svg
from cambrian.search_spaces.declarative.definition import Definition
from cambrian.search_spaces.declarative.drawing import draw, sheet
from cambrian.search_spaces.declarative.labels import summarise
from cambrian.search_spaces.declarative.loading import load
from cambrian.search_spaces.declarative.plan import Composite, leaves
from cambrian.search_spaces.declarative.planning import plan
from cambrian.search_spaces.declarative.repetition import Run, runs
from cambrian.search_spaces.declarative.sampling import sample
from cambrian.search_spaces.declarative.wiring import _lanes
from cambrian.search_spaces.space import Genotype
from tests.search_spaces.declarative.folder import write_layout
from tests.search_spaces.declarative.spaces import stages, trees
from tests.search_spaces.declarative.test_words import SHIPPED

NAMESPACE = "{http://www.w3.org/2000/svg}"


def texts(picture: str) -> list[str]:
    return [each.text or "" for each in ElementTree.fromstring(picture).iter(f"{NAMESPACE}text")]


def place(root: ElementTree.Element) -> list[tuple[float, float, str]]:
    """Where each text begins, groups' translations and scales applied."""
    found: list[tuple[float, float, str]] = []

    def walk(element: ElementTree.Element, x: float, y: float, by: float) -> None:
        move = re.match(r"translate\(([-\d.]+) ([-\d.]+)\)", element.get("transform", ""))
        scale = re.match(r"scale\(([\d.]+)\)", element.get("transform", ""))
        if move:
            x, y = x + by * float(move[1]), y + by * float(move[2])
        if scale:
            by *= float(scale[1])
        if element.tag == f"{NAMESPACE}text":
            found.append(
                (x + by * float(element.get("x", 0)), y + by * float(element.get("y", 0)), element.text or "")
            )
        for child in element:
            walk(child, x, y, by)

    walk(root, 0, 0, 1)
    return found


def layout(folder: Path, body: str, **keywords: str) -> tuple[Definition, Genotype]:
    definition = load(write_layout(folder, body, **keywords))
    return definition, {"width": 8}


def picture_of(definition: Definition, genotype: Genotype) -> str:
    return draw(definition, genotype, definition.file.reference)


@pytest.mark.parametrize("folder", SHIPPED, ids=lambda folder: folder.name)
def test_shipped_spaces(folder: Path) -> None:
    definition = load(folder)
    rng = random.Random(4)
    genotypes = [*definition.baselines.values(), *(sample(definition, rng) for _ in range(15))]
    for index, genotype in enumerate(genotypes):
        signature = definition.signatures[index % len(definition.signatures)]
        root = ElementTree.fromstring(draw(definition, genotype, signature))
        assert root.tag == f"{NAMESPACE}svg" and root.get("width") == "800"
        height = float(root.get("height", "0"))
        for element in root.iter():
            assert not element.tag.endswith(("}script", "}image", "}foreignObject"))
            assert not any(name.endswith("href") for name in element.attrib)
            assert not any("nan" in value or "inf" in value for value in element.attrib.values())
        for x, y, words in place(root):
            assert 0 <= x <= 800 and 0 <= y <= height, words


def test_groups_are_the_parts_of_the_genotype(tmp_path: Path) -> None:
    definition = stages(tmp_path)
    common = {"depth": 1, "expansion": 1, "halve": False, "activation": "relu"}
    genotype = {
        "stem": 8,
        "stages": [{"block": "conv", "width": 8, **common}, {"block": "inverted", "width": 16, **common}],
        "head": {"dropout": 0.0, "wide": False},
    }
    words = texts(picture_of(definition, genotype))
    order = ["input", "stem", "conv width 8 relu", "inverted width 16", "head"]
    at = [words.index(heading) for heading in order]
    assert at == sorted(at)
    for shape in ("3x12x10", "8x12x10", "16x12x10"):
        assert shape.replace("x", svg.TIMES) in words


def test_costs_add_up(tmp_path: Path) -> None:
    definition, genotype = layout(
        tmp_path,
        "- ConvNorm: {out: =width, kernel: 3}\n- repeat: 9\n  body: [{residual: [BatchNorm]}]\n- GlobalPool",
    )
    network = plan(definition, genotype, definition.file.reference)
    words = texts(picture_of(definition, genotype))
    shown = [int(word.removesuffix(" params")) for word in words if re.fullmatch(r"\d+ params", word)]
    assert sum(shown) == network.params < 1000
    assert words.count(f"{svg.TIMES}9") == 1, "nine equal parts are drawn once"


def test_signs_of_merges_and_captions_of_routes(tmp_path: Path) -> None:
    body = """
    - ConvNorm: {out: =width, kernel: 3}
    - parallel: [[CellPool], [Identity]]
      merge: product
    - parallel: [[CellPool], [Identity]]
      merge: concat
    - residual: [CellPool]
    - route: tokens
      body: [LayerNorm, {SelfAttention: {heads: 4}}]
    - route: patches
      size: 2
      body: [LayerNorm]
    - GlobalPool
    """
    definition, genotype = layout(tmp_path, body)
    words = texts(picture_of(definition, genotype))
    for sign in (svg.TIMES, "\u2016", "+", "pixels as tokens", "patches of 2"):
        assert sign in words, sign


def test_a_graph_is_drawn_once_with_all_edges(tmp_path: Path) -> None:
    body = """
    - ConvNorm: {out: =width, kernel: 3}
    - repeat: 2
      body:
        - CellReduction: {out: =2 * input.channels}
        - repeat: 3
          body:
            - graph:
                nodes:
                  a: {input: [{CellConv: {kernel: 1}}]}
                  b: {input: [Zero], a: [{CellConv: {kernel: 3}}]}
                  c: {input: [Identity], a: [CellPool], b: [Identity]}
                output: [b, c]
            - Pointwise: {out: =input.channels // 2}
    - GlobalPool
    """
    definition, genotype = layout(tmp_path, body)
    words = texts(picture_of(definition, genotype))
    assert sum(word.startswith("A: each node is the sum") for word in words) == 1
    assert not any(word.startswith("B:") for word in words), "the same cell at other sizes is no other cell"
    assert words.count("skip") == 2 and words.count("zero") == 1
    assert {f"cell conv 1{svg.TIMES}1", f"cell conv 3{svg.TIMES}3", "a", "b", "c", "\u2016"} <= set(words)
    assert words.count(f"{svg.TIMES}3") == 2


def test_texts_are_escaped(tmp_path: Path) -> None:
    definition = stages(tmp_path)
    stage = definition.grammar.rules["stage"]
    stage.label = "<&{width}>"  # type: ignore[union-attr]
    assert any("<&" in word for word in texts(picture_of(definition, sample(definition, random.Random(0)))))


def test_deep_trees_are_wrapped(tmp_path: Path) -> None:
    definition = trees(tmp_path, depth=12)
    conv = {"kind": "conv", "width": 8}
    node: dict[str, object] = conv
    for kind in ("add", "chain", "add", "chain", "chain", "add", "chain"):
        first, second = ("left", "right") if kind == "add" else ("first", "second")
        node = {"kind": kind, first: node, second: node if kind != "add" else conv}
    network = plan(definition, {"body": node}, definition.file.reference)
    assert len(list(leaves(network))) > 40
    root = ElementTree.fromstring(picture_of(definition, {"body": node}))
    assert all(0 <= x <= 800 for x, _, _ in place(root))
    assert float(root.get("height", 0)) < 3000


def test_colours_are_the_same_in_all_drawings_of_a_space(tmp_path: Path) -> None:
    definition = stages(tmp_path)
    found: dict[str, set[str]] = {}
    for seed in range(10):
        picture = picture_of(definition, sample(definition, random.Random(seed)))
        for colour, name in re.findall(r'fill="(#\w+)" rx="2"/><text [^>]*>(\w+)</text>', picture):
            found.setdefault(name, set()).add(colour)
    assert {"ConvBlock", "InvertedBlock"} <= set(found)
    assert all(len(colours) == 1 for colours in found.values())
    assert len({min(colours) for colours in found.values()}) == len(found)


def test_runs_of_equal_nodes(tmp_path: Path) -> None:
    body = """
    - ConvNorm: {out: =width, kernel: 3}
    - repeat: 4
      body: [{residual: [BatchNorm]}, {residual: [CellPool]}]
    - CellPool
    - CellPool
    - GlobalPool
    """
    definition, genotype = layout(tmp_path, body)
    network: Composite = plan(definition, genotype, definition.file.reference)
    assert runs(network.children) == [
        Run(0, 1, 1), Run(1, 2, 4), Run(9, 1, 1), Run(10, 1, 1), Run(11, 1, 1), Run(12, 1, 1)
    ]  # fmt: skip


def test_arcs_that_would_cross_lie_in_different_lanes() -> None:
    edges = [(a, b) for b in range(1, 6) for a in range(b)]
    lanes = _lanes(edges)
    for (first, lane), (second, other) in (
        ((e, m), (f, n)) for e, m in zip(edges, lanes, strict=True) for f, n in zip(edges, lanes, strict=True)
    ):
        if first != second and lane == other:
            assert first[1] <= second[0] or second[1] <= first[0]
    assert all(lane == 0 for (a, b), lane in zip(edges, lanes, strict=True) if b - a == 1)


class TestSheet:
    def test_drawings_stand_beside_and_below_one_another(self, tmp_path: Path) -> None:
        definition = stages(tmp_path)
        drawings = [
            (f"design {i}", picture_of(definition, sample(definition, random.Random(i)))) for i in range(5)
        ]
        root = ElementTree.fromstring(sheet(drawings, columns=2))
        inner = root.findall(f"{NAMESPACE}svg")
        assert [float(each.get("x", -1)) for each in inner] == [24, 848, 24, 848, 24]
        assert all(each.get("viewBox") for each in inner)
        lowest = max(float(each.get("y", 0)) + float(each.get("height", 0)) for each in inner)
        assert lowest < float(root.get("height", 0))
        assert {f"design {i}" for i in range(5)} <= set(texts(sheet(drawings)))

    def test_a_title_that_has_the_drawings_own_stands_once(self, tmp_path: Path) -> None:
        definition = stages(tmp_path)
        genotypes = [sample(definition, random.Random(i)) for i in range(3)]
        titles = [f"{i}: {summarise(definition, genotype)}" for i, genotype in enumerate(genotypes)]
        drawings = [picture_of(definition, genotype) for genotype in genotypes]
        picture = sheet(list(zip(titles, drawings, strict=True)), columns=2)
        shown = texts(picture)
        assert [shown.count(title) for title in titles] == [1, 1, 1]
        assert not {summarise(definition, genotype) for genotype in genotypes} & set(shown)
        # rows are as high as the taller of their two, and 24 apart
        inner = [(float(e.get("y", 0)), float(e.get("height", 0)))
                 for e in ElementTree.fromstring(picture).findall(f"{NAMESPACE}svg")]  # fmt: skip
        assert inner[0][0] == inner[1][0] == 24
        assert inner[2][0] == pytest.approx(48 + max(inner[0][1], inner[1][1]), abs=0.1)

    def test_of_nothing(self) -> None:
        assert ElementTree.fromstring(sheet([])).tag == f"{NAMESPACE}svg"

    def test_what_is_no_drawing_is_refused(self) -> None:
        with pytest.raises(ValueError, match="first"):
            sheet([("first", "<svg/>")])
