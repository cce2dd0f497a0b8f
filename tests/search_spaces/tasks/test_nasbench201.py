"""NAS-Bench-201: published values, and files that are not it."""

from __future__ import annotations

from pathlib import Path

import pytest
from pyarrow import parquet

from cambrian.search_spaces import MissingDataError, ProposalError, UserError
from cambrian.search_spaces.tasks.nasbench201 import (
    ACCURACY,
    DEVICES,
    EDGES,
    HARDWARE,
    NasBench201,
)
from tests.search_spaces.conftest import data_folder
from tests.support.nasbench import cell, write_tables


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tables(tmp_path_factory.mktemp("nas"))


def test_rows_are_joined_by_their_index_whatever_their_order(made: Path) -> None:
    task = NasBench201(data=made)
    for index in (0, 999, 1000, 15_624):
        row = task.lookup(cell(index), 12, 0)
        assert row.metrics == {"accuracy": pytest.approx(index / 20_000, abs=1e-6)}
        assert row.test_metrics["accuracy"] == pytest.approx(index / 20_000 + 0.01, abs=1e-6)
        assert row.latency_ms == index + 1
        assert row.train_s == pytest.approx(120 if index < 1000 else 60), (
            "measured where it was, else estimated"
        )
        assert task.lookup({"cell": cell(index)}, 12, 7) == row


def test_what_no_source_knows_is_said(made: Path) -> None:
    columns = parquet.read_table(made / HARDWARE)
    folder = made / "more"
    folder.mkdir(exist_ok=True)
    (folder / ACCURACY).write_bytes((made / ACCURACY).read_bytes())
    both = columns.append_column("cifar100_edgegpu_latency", columns["cifar10_edgegpu_latency"])
    parquet.write_table(both, folder / HARDWARE)
    task = NasBench201(data=folder, dataset="cifar100")
    assert [rung.epochs for rung in task.rungs] == [12]
    assert task.lookup(cell(724), 200, 0).metrics == {"accuracy": 0.5}
    with pytest.raises(ProposalError, match="no cifar100 accuracy of this cell after 200 epochs"):
        task.lookup(cell(725), 200, 0)


def test_a_lacking_column_is_named(made: Path) -> None:
    with pytest.raises(MissingDataError, match="has no column cifar10_raspi4_latency"):
        NasBench201(data=made, device="raspi4").load()


def test_other_files_are_refused(made: Path, tmp_path: Path) -> None:
    for name in (ACCURACY, HARDWARE):
        (tmp_path / name).write_bytes((made / name).read_bytes())
    table = parquet.read_table(made / ACCURACY)
    parquet.write_table(table.slice(0, 100), tmp_path / ACCURACY)
    with pytest.raises(MissingDataError, match="does not hold the 15625 cells"):
        NasBench201(data=tmp_path).load()
    (tmp_path / ACCURACY).write_bytes(b"PAR1 no table PAR1")
    with pytest.raises(MissingDataError, match="cannot be read"):
        NasBench201(data=tmp_path).load()


def test_missing_data_are_named_with_a_way_out(tmp_path: Path) -> None:
    with pytest.raises(MissingDataError) as caught:
        NasBench201(data=tmp_path).load()
    assert ACCURACY in caught.value.hint and HARDWARE in caught.value.hint


@pytest.mark.parametrize(
    ("options", "words"),
    [({"dataset": "cifar"}, "cifar10"), ({"device": "edge"}, "edgegpu"), ({"data": 3}, "data: 3")],
)
def test_bad_options_are_named(options: dict[str, object], words: str) -> None:
    with pytest.raises(UserError, match=words):
        NasBench201(**options)  # type: ignore[arg-type]


def test_what_is_compared_has_one_version() -> None:
    versions = [
        NasBench201(**options).version  # type: ignore[arg-type]
        for options in ({}, {"dataset": "cifar100"}, {"device": "pixel3"}, {"rungs": [{"epochs": 12}]})
    ]
    assert len(set(versions)) == 4
    assert NasBench201(rungs=[{"epochs": 12}, {"epochs": 200}]).version == versions[0]


class TestRealTable:
    @pytest.fixture(scope="class")
    def folder(self) -> Path:
        return data_folder(ACCURACY, HARDWARE)

    def test_the_best_cell_of_cifar10(self, folder: Path) -> None:
        """94.37 % is the published optimum."""
        task = NasBench201(data=folder)
        best = {**dict.fromkeys(EDGES, "nor_conv_3x3"), "e13": "nor_conv_1x1", "e03": "skip_connect"}
        row = task.lookup(best, 200, 0)
        assert row.test_metrics["accuracy"] == pytest.approx(0.94373, abs=1e-5)
        every = (task.lookup(cell(i), 200, 0).test_metrics["accuracy"] for i in range(0, 15_625, 5))
        assert row.test_metrics["accuracy"] >= max(every)

    def test_a_cell_without_a_path_is_at_chance(self, folder: Path) -> None:
        row = NasBench201(data=folder).lookup(dict.fromkeys(EDGES, "none"), 200, 0)
        assert row.test_metrics["accuracy"] == pytest.approx(0.1)

    @pytest.mark.parametrize("device", DEVICES)
    def test_every_device_has_a_latency(self, folder: Path, device: str) -> None:
        for dataset in ("cifar10", "cifar100"):
            row = NasBench201(data=folder, dataset=dataset, device=device).lookup(cell(15_000), 12, 0)
            assert row.latency_ms is not None and row.latency_ms > 0
            assert row.device == DEVICES[device]
