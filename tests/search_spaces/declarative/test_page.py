"""Documentation pages made from space files and from the catalogue."""

from __future__ import annotations

from pathlib import Path

import pytest

from cambrian.search_spaces.declarative.catalogue import catalogue
from cambrian.search_spaces.declarative.grammar import walk
from cambrian.search_spaces.declarative.loading import load
from cambrian.search_spaces.declarative.page import blocks_page, page
from tests.search_spaces.declarative.folder import write_layout
from tests.search_spaces.declarative.spaces import stages
from tests.search_spaces.declarative.test_words import SHIPPED

BASELINE = """
  small:
    about: one stage
    source: A | B 2020
    genotype:
      stages: [{block: conv, width: 8, activation: relu}]
      head: {wide: false}
"""


def test_page_of_a_space(tmp_path: Path) -> None:
    text = page(stages(tmp_path, baselines=BASELINE, tasks="[digits]"), "About 4,000 designs.")
    for line in (
        "# A space of a test",
        "About 4,000 designs.",
        "| `stages` | list of 1 to 3 `stage` |  |",
        "| `head.dropout` | 0, 0.3 |  |",
        "| `expansion` | 1, 2, 4 | ignored unless block is inverted |",
        "- `width < 32 or depth < 3`, else: stages of width 32 have at most 2 blocks",
        "Tasks that fit: `digits`.",
    ):
        assert line in text.splitlines(), line
    small = next(line for line in text.splitlines() if line.startswith("| `small`"))
    assert "| one stage |" in small and small.endswith("| 3 | A \\| B 2020 |")


def test_layouts_are_trees(tmp_path: Path) -> None:
    body = """
    - ConvNorm: {out: =width, kernel: 3}
    - repeat: 2
      index: i
      body:
        - residual: [{ConvNorm: {out: =width, kernel: 1}}]
          shortcut: project
    - if: width > 8
      then: [Identity]
    - parallel: [[CellPool], [BatchNorm, CellPool]]
      merge: mean
    - route: tokens
      body: [LayerNorm]
    - graph:
        nodes: {a: {input: [CellPool]}, b: {input: [Identity], a: [BatchNorm, CellPool]}}
    - GlobalPool
    """
    text = page(load(write_layout(tmp_path, body)))
    built = text.split("```text\n")[1].split("\n```")[0]
    assert (
        built
        == """network:
  ConvNorm(out=width, kernel=3)
  2 times (i counts from 0):
    x + f(x), x projected where shapes differ, f:
      ConvNorm(out=width, kernel=1)
  if width is above 8:
    Identity
  in parallel, averaged:
    - CellPool
    - BatchNorm
      CellPool
  on the pixels as tokens:
    LayerNorm
  a graph whose nodes are their edges, summed; output b:
    input to a: CellPool
    input to b: Identity
    a to b:
      BatchNorm
      CellPool
  GlobalPool
  Linear(out=n_outputs)"""
    )


@pytest.mark.parametrize("folder", SHIPPED, ids=lambda folder: folder.name)
def test_shipped_spaces(folder: Path) -> None:
    definition = load(folder)
    text = page(definition)
    assert text.startswith(f"# {definition.file.title}\n") and text.count("```") % 2 == 0
    for name in (*definition.baselines, *definition.file.tasks):
        assert f"`{name}`" in text
    for domain in walk(definition.grammar.start):
        for field in getattr(domain, "by_name", {}):
            assert f"{field}`" in text
    tables = [line.replace("\\|", "") for line in text.splitlines() if line.startswith("|")]
    assert all(line.endswith("|") for line in tables)


def test_page_of_blocks() -> None:
    text = blocks_page()
    for name, block in catalogue().items():
        assert f"- `{name}` (takes " in text
        for argument in block.arguments:
            assert f"  - `{argument}" in text
    assert "  - `kernel = 3`: odd side of the window (1, 3, 5, 7, 9, 11, 13)" in text.splitlines()
