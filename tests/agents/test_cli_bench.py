"""`cambrian bench search`, as people and programs call it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.agents.benching.tables import cells, layers
from tests.support.command import assert_help_is_light, cambrian


@pytest.mark.parametrize("command", [("bench",), ("bench", "search")])
def test_help_imports_nothing_heavy(command: tuple[str, ...], tmp_path: Path) -> None:
    assert_help_is_light(*command, cwd=tmp_path)


def test_a_table_without_a_space(tmp_path: Path) -> None:
    layers(tmp_path / "t.parquet")
    options = ["--table", "t.parquet", "--genotype-columns", "op0,op1,op2,width,link", "--metric", "acc"]
    options += ["--report", "test", "--cost-column", "ms", "--feature-columns", "proxy", "--no-predictor"]
    size = ["--seeds", "3", "--evaluations", "40", "--arms", "default,random,mutation,local-search"]
    told = cambrian("bench", "search", *options, *size, "--json", "--plot", "r.svg", cwd=tmp_path)
    study = json.loads(told.stdout)
    assert [line["name"] for line in study["lines"]] == ["default", "random", "mutation", "local-search"]
    assert all(len(curve["report"]) == 40 for line in study["lines"] for curve in line["curves"])
    assert [each["evaluations"] for each in study["lines"][0]["incumbents"]] == [20, 40]
    assert {each["searcher"] for each in study["comparisons"]} == {"default"} and study["verdict"]
    assert (tmp_path / "r.svg").stat().st_size > 5000


def test_a_table_of_a_space(tmp_path: Path) -> None:
    cells(tmp_path / "c.parquet", n=60)
    told = cambrian(
        "bench", "search", "--table", "c.parquet", "--space", "cell", "--metric", "acc", "--seeds", "2",
        "--evaluations", "15", "--arms", "mutation+random:0.5,mutation,regularized-evolution", "--jobs", "1",
        "--constraint", "acc <= 2", "--no-predictor", cwd=tmp_path,
    ).stdout  # fmt: skip
    assert "of space cell; acc, higher is better" in told and "rows keep the limits" in told
    assert "regularized-evolution" in told and "after 15" in told
    assert "mutation+random:0.5 is never significantly worse" in told


def test_wrong_input_is_one_line_and_a_hint(tmp_path: Path) -> None:
    layers(tmp_path / "t.parquet")
    options = ["--table", "t.parquet", "--genotype-columns", "op0,op1,op2,width,link", "--metric", "accc"]
    failed = cambrian("bench", "search", *options, cwd=tmp_path, code=2)
    assert failed.stderr == "error: --metric: the table has no column 'accc'\nhint: did you mean acc?\n"
