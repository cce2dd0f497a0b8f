from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from cambrian.agents.benching.benchmark import Limit, Options, open_benchmark
from cambrian.agents.benching.members import TableSpace
from cambrian.agents.errors import ProposalError, UnknownNameError, UserError
from cambrian.agents.evaluator.encoding import encode
from cambrian.search_spaces import Task
from tests.agents.benching.tables import EDGES, cells, flat_benchmark, write


def test_a_flat_benchmark(tmp_path: Path) -> None:
    bench = flat_benchmark(tmp_path, report="test", cost="ms")
    (best,) = bench.best_rows
    assert bench.space.members()[best] == {
        "op0": "conv", "op1": "conv", "op2": "conv", "width": 64, "link": "[0, 1]"
    }  # fmt: skip
    assert bench.metric[best] == bench.metric.max() and bench.maximize
    assert bench.cost is not None and bench.cost[best] == 12
    assert bench.notes == () and isinstance(bench.task, Task)
    assert bench.best_report == bench.report.max()


def test_lower_can_be_better(tmp_path: Path) -> None:
    bench = flat_benchmark(tmp_path, metric="ms", minimize=True)
    assert bench.metric[min(bench.best_rows)] == bench.metric.min() == bench.best_report
    assert len(bench.best_rows) > 1


def test_two_directions_are_noted(tmp_path: Path) -> None:
    path = write(tmp_path / "t.parquet", {"a": [1, 2, 3, 4], "loss": [4.0, 3, 2, 1], "acc": [1.0, 2, 3, 4]})
    options = Options(files=(path,), metric="loss", report="acc", minimize=True, genotype_columns=("a",))
    assert any("rank correlation of -1.00" in note for note in open_benchmark(options).notes)


def test_limits_are_hard(tmp_path: Path) -> None:
    bench = flat_benchmark(tmp_path, constraints=(Limit.parse("ms <= 8"),))
    free = flat_benchmark(tmp_path)
    assert not bench.feasible[min(free.best_rows)] and not bench.known_before.any()
    best = min(bench.best_rows)
    assert bench.feasible[best] and bench.metric[best] == bench.metric[bench.feasible].max()
    known = flat_benchmark(tmp_path, constraints=(Limit.parse("ms<=8"),), features=("ms",))
    assert (known.known_before == ~known.feasible).all() and known.known_before.any()
    with pytest.raises(UserError, match="no row keeps ms <= 0"):
        flat_benchmark(tmp_path, constraints=(Limit.parse("ms <= 0"),))


@pytest.mark.parametrize(
    ("text", "bound"), [("latency <= 5", 5), ("params<2.5M", 2.5e6), (" a b >= -1e3 ", -1000)]
)
def test_limits_as_text(text: str, bound: float) -> None:
    assert Limit.parse(text).bound == bound


@pytest.mark.parametrize("text", ["latency", "latency = 5", "<= 5", "latency <= many", "a <= 1.2.3"])
def test_limits_that_are_none(text: str) -> None:
    with pytest.raises(UserError, match="--constraint"):
        Limit.parse(text)


def test_rows_without_a_result_are_no_members(tmp_path: Path) -> None:
    columns = {
        "a": [1, 2, 3, 4, None],
        "b": ["x", "y", "x", "y", "x"],
        "val": [1.0, None, 3.0, 4.0, 5.0],
        "test": [1.0, 2.0, 3.0, None, 5.0],
    }
    path = write(tmp_path / "t.parquet", columns)
    bench = open_benchmark(Options(files=(path,), metric="val", report="test", genotype_columns=("a", "b")))
    assert bench.space.members() == [{"a": 1, "b": "x"}, {"a": 3, "b": "x"}]
    lacking = [note.split(":")[0] for note in bench.notes]
    assert lacking == [f"1 of 5 rows have no {what}" for what in ("genotype", "val", "test")]
    with pytest.raises(ProposalError):
        bench.space.validate({"a": 2, "b": "y"})


def test_rows_of_one_genotype_are_averaged(tmp_path: Path) -> None:
    path = write(tmp_path / "t.parquet", {"a": [1, 2, 1], "acc": [1.0, 5.0, 3.0], "seed": [0, 0, 1]})
    bench = open_benchmark(Options(files=(path,), metric="acc", genotype_columns=("a",)))
    assert bench.metric.tolist() == [2.0, 5.0] and "averaged" in bench.notes[0]


def test_gaps_in_features_are_filled_and_told(tmp_path: Path) -> None:
    columns = {
        "a": [1, 2, 3, 4],
        "acc": [1.0, 2, 3, 4],
        "full": [9.0, 8, 7, 6],
        "p": [1.0, None, 5, 9],
        "q": [2.0, float("nan"), 4, 8],
    }
    path = write(tmp_path / "t.parquet", columns)
    options = Options(files=(path,), metric="acc", genotype_columns=("a",), features=("full", "p", "q"))
    bench = open_benchmark(options)
    found = [encode(bench.space, genotype).numbers for genotype in bench.space.members()]
    assert [numbers["proxy.p"] for numbers in found] == [1.0, 5.0, 5.0, 9.0]
    assert [numbers["proxy.q"] for numbers in found] == [2.0, 4.0, 4.0, 8.0]
    assert [numbers["proxy.p.missing"] for numbers in found] == [0.0, 1.0, 0.0, 0.0]
    assert "proxy.q.missing" not in found[0] and "proxy.full.missing" not in found[0]
    assert "median" in bench.notes[0]


@pytest.mark.parametrize(
    ("options", "error", "says"),
    [
        ({"metric": "accc"}, UnknownNameError, "--metric: the table has no column 'accc'"),
        ({"metric": "noted"}, UserError, "--metric: column 'noted' holds no numbers"),
        ({"report": "tst"}, UnknownNameError, "--report"),
        ({"cost": "op0"}, UserError, "--cost-column: column 'op0'"),
        ({"features": ("prox",)}, UnknownNameError, "--feature-columns"),
        ({"genotype_columns": ("op0", "opp1")}, UnknownNameError, "--genotype-columns: .* 'opp1'"),
        ({"genotype_columns": ("proxy",)}, UserError, "different real numbers"),
        ({"space": "cell"}, UserError, "either --space or --genotype-columns"),
        ({"identity": "functional"}, UserError, "--identity functional"),
        ({"space": "cell", "genotype_columns": ()}, UserError, "--space cell: no column of the table"),
        ({"space": "cel", "genotype_columns": ()}, UnknownNameError, "cel"),
    ],
)
def test_wrong_options_are_told(
    tmp_path: Path, options: dict[str, Any], error: type[Exception], says: str
) -> None:
    with pytest.raises(error, match=says):
        flat_benchmark(tmp_path, **options)


# -- spaces that exist -----------------------------------------------------------------------------------


def test_cells_by_string_and_by_edges_are_the_same(tmp_path: Path) -> None:
    path = cells(tmp_path / "cells.parquet")
    whole = parquet.read_table(path)
    parquet.write_table(whole.drop_columns(["arch_str"]), tmp_path / "edges.parquet")
    renamed = whole.drop_columns(list(EDGES)).rename_columns(["cell", "acc"])
    parquet.write_table(renamed, tmp_path / "strings.parquet")
    texts = [json.dumps({edge: row[edge] for edge in EDGES}) for row in whole.to_pylist()]
    parquet.write_table(pa.table({"genotype": texts, "acc": whole.column("acc")}), tmp_path / "json.parquet")
    found = [
        open_benchmark(Options(files=(file,), metric="acc", space="cell")).space.members()
        for file in (path, *(tmp_path / f"{name}.parquet" for name in ("edges", "strings", "json")))
    ]
    assert len(found[0]) > 250 and all(members == found[0] for members in found)


def test_a_space_keeps_to_the_rows(tmp_path: Path) -> None:
    bench = open_benchmark(Options(files=(cells(tmp_path / "cells.parquet"),), metric="acc", space="cell"))
    space, rng = bench.space, random.Random(0)
    assert isinstance(space, TableSpace)
    members = space.members()
    genotype = space.sample(rng)
    for _ in range(60):
        child, _ = space.mutate(genotype, rng)
        assert child in members and child != genotype
        joint, _ = space.crossover(child, space.sample(rng), rng)
        assert joint in members
        genotype = child
    plain = space.inner.features(genotype)
    assert space.features(genotype) == plain
    before = encode(space, members[3])
    space.prepare()
    assert space.features(genotype) == plain
    structure = space.structure(members[3])
    assert structure is not None and dict(structure.motifs) == before.motifs


def test_a_row_that_is_no_member_is_named(tmp_path: Path) -> None:
    path = cells(tmp_path / "cells.parquet", n=3)
    table = parquet.read_table(path).to_pydict()
    table["arch_str"][1] = table["arch_str"][1].replace("~0|+", "~0|+|strange~9|", 1)
    with pytest.raises(UserError, match="row 1 is no member of space 'cell'"):
        open_benchmark(Options(files=(write(path, table),), metric="acc", space="cell"))


def test_functional_identity_merges_equal_cells(tmp_path: Path) -> None:
    base = dict.fromkeys(EDGES, "none") | {"e03": "nor_conv_3x3"}
    same = base | {"e01": "skip_connect"}  # leads nowhere
    other = base | {"e03": "nor_conv_1x1"}
    columns: dict[str, Any] = {edge: [cell[edge] for cell in (base, same, other)] for edge in EDGES}
    path = write(tmp_path / "t.parquet", columns | {"acc": [1.0, 2.0, 3.0]})
    functional = open_benchmark(Options(files=(path,), metric="acc", space="cell", identity="functional"))
    names = [functional.identity(row) for row in range(3)]
    assert names[0] == names[1] != names[2]
    plain = open_benchmark(Options(files=(path,), metric="acc", space="cell"))
    assert len({plain.identity(row) for row in range(3)}) == 3
    assert np.isfinite(plain.metric).all()
