"""`cambrian bench search`, as people and programs call it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cambrian.agents.cli.app import app
from tests.agents.benching.tables import cells, layers
from tests.support.command import assert_help_is_light, cambrian


@pytest.mark.parametrize("command", [("bench",), ("bench", "search")])
def test_help_imports_nothing_heavy(command: tuple[str, ...], tmp_path: Path) -> None:
    assert_help_is_light(*command, cwd=tmp_path)


def test_a_table_without_a_space(tmp_path: Path) -> None:
    layers(tmp_path / "t.parquet")
    options = ["--table", "t.parquet", "--genotype-columns", "op0,op1,op2,width,link", "--metric", "acc"]
    options += ["--report", "test", "--cost-column", "ms", "--feature-columns", "proxy", "--no-predictor"]
    size = [
        "--seeds",
        "3",
        "--evaluations",
        "40",
        "--arms",
        "mutation+crossover:0.5,crossover,mutation,local-search",
    ]
    told = cambrian("bench", "search", *options, *size, "--json", "--plot", "r.svg", cwd=tmp_path)
    study = json.loads(told.stdout)
    assert [line["name"] for line in study["lines"]] == [
        "mutation+crossover:0.5", "crossover", "mutation", "local-search"
    ]  # fmt: skip
    assert all(len(curve["report"]) == 40 for line in study["lines"] for curve in line["curves"])
    assert [each["evaluations"] for each in study["lines"][0]["incumbents"]] == [20, 40]
    assert {each["against"] for each in study["comparisons"]} <= {"crossover", "mutation"}
    assert "3 seeds can show no difference" in study["verdict"]
    assert (tmp_path / "r.svg").stat().st_size > 5000


def test_a_table_of_a_space(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for library in ("OMP", "OPENBLAS", "MKL"):  # the command sets them: put back what was
        monkeypatch.setenv(f"{library}_NUM_THREADS", "1")
    cells(tmp_path / "c.parquet", n=60)
    options = ["--table", str(tmp_path / "c.parquet"), "--space", "cell", "--metric", "acc", "--no-predictor"]
    size = ["--seeds", "2", "--evaluations", "15", "--jobs", "1", "--constraint", "acc <= 2"]
    arms = ["--arms", "mutation+random:0.5,mutation,regularized-evolution"]
    done = CliRunner().invoke(app, ["bench", "search", *options, *size, *arms])
    assert done.exit_code == 0
    told = done.output
    assert "of space cell; acc, higher is better" in told and "rows keep the limits" in told
    assert "regularized-evolution" in told and "after 15" in told
    assert "mutation+random:0.5 against its single arms: 2 seeds can show no difference" in told


def test_wrong_input_is_one_line_and_a_hint(tmp_path: Path) -> None:
    layers(tmp_path / "t.parquet")
    options = ["--table", "t.parquet", "--genotype-columns", "op0,op1,op2,width,link", "--metric", "accc"]
    failed = cambrian("bench", "search", *options, cwd=tmp_path, code=2)
    assert failed.stderr == "error: --metric: the table has no column 'accc'\nhint: did you mean acc?\n"
