"""NAS-Bench-201 as a table (Dong and Yang, arXiv:2001.00326): 15,625 cells, trained by its authors.

Latency comes from HW-NAS-Bench (Li et al., arXiv:2103.10584) and HELP (Lee et al., arXiv:2106.08630).
"""

from __future__ import annotations

import functools
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cambrian.search_spaces.errors import MissingDataError, ProposalError, UserError
from cambrian.search_spaces.registry import near_names
from cambrian.search_spaces.space import Genotype, Signature
from cambrian.search_spaces.tasks.base import chosen_rungs
from cambrian.search_spaces.tasks.files import find, missing, places
from cambrian.search_spaces.tasks.task import Array, Loss, Recipe, Rung, SplitName, Splits, TableRow

ACCURACY, HARDWARE = "nb201.parquet", "nb201_hw.parquet"
EDGES = ("e01", "e02", "e12", "e03", "e13", "e23")
OPERATIONS = ("none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3")
EPOCHS = (12, 200)
CLASSES = {"cifar10": 10, "cifar100": 100}
VALIDATION = {"cifar10": 25_000, "cifar100": 5_000}
DEVICES = {
    "edgegpu": "NVIDIA Jetson TX2",
    "raspi4": "Raspberry Pi 4",
    "pixel3": "Google Pixel 3",
    "1080ti": "NVIDIA GTX 1080 Ti",
    "2080ti": "NVIDIA RTX 2080 Ti",
    "titanx": "NVIDIA Titan X",
    "gold-6226": "Intel Xeon Gold 6226",
    "silver-4114": "Intel Xeon Silver 4114",
    "pixel2": "Google Pixel 2",
    "samsung-a50": "Samsung Galaxy A50",
    "essential-ph-1": "Essential PH-1",
}
"""Names of devices; latency is that of one image."""

# HW-NAS-Bench measured these for each data set; the others are HELP's, for one input of 3x32x32
_OF_EACH = ("edgegpu", "raspi4", "pixel3")
_SINGLE = ("1080ti", "2080ti", "titanx")
_HINT = (
    f"set task.data or CAMBRIAN_DATA to a folder with {ACCURACY} and {HARDWARE}: one row a cell, joined by "
    "arch_index, with the columns e01 .. e23, cifar10_val_acc_12ep, cifar10_edgegpu_latency and so on"
)


class NasBench201:
    """Accuracies and latencies of all 15,625 cells: nothing is trained, results are looked up.

    After 12 epochs there is one training a cell. After 200 the accuracies are means of up to three; for
    CIFAR-100 the validation accuracy of 200 epochs is known for 725 cells only, so that by default its
    only rung is that of 12 epochs. Other seeds give the same row.

    Args:
        data: the folder; None looks into the folders of `CAMBRIAN_DATA` and `./data`.
        dataset: `cifar10` or `cifar100`.
        device: what latency is read of, one of `DEVICES`.
        rungs: mappings with `epochs`, 12 or 200, and `promote`.
    """

    def __init__(
        self,
        *,
        data: str | os.PathLike[str] | None = None,
        dataset: str = "cifar10",
        device: str = "edgegpu",
        rungs: Sequence[Mapping[str, Any]] | None = None,
    ) -> None:
        for option, value, known in (("dataset", dataset, CLASSES), ("device", device, DEVICES)):
            if value not in known:
                raise UserError(
                    f"task nasbench201: {option}: unknown {option} {value!r}",
                    hint=near_names(str(value), list(known)),
                )
        self.name = "nasbench201"
        self.version = f"1-{dataset}-{device}"
        self.signature = Signature(input_shape=(3, 32, 32), n_outputs=CLASSES[dataset])
        self.metric = "accuracy"
        self.maximize = True
        self.loss: Loss = "cross-entropy"
        self.recipe = Recipe(
            optimizer="sgd",
            learning_rate=0.1,
            schedule="cosine",
            weight_decay=5e-4,
            batch_size=256,
            augment=("flip", "shift"),
            gradient_clip=0.0,
        )
        default = EPOCHS if dataset == "cifar10" else EPOCHS[:1]
        self.rungs = (
            tuple(Rung(epochs=n) for n in default) if rungs is None else chosen_rungs(self.name, rungs)
        )
        for rung in self.rungs:
            if rung.epochs not in EPOCHS:
                raise UserError(
                    f"task nasbench201: rungs: the table knows no {rung.epochs} epochs", hint="12 and 200"
                )
        if self.rungs != tuple(Rung(epochs=n) for n in default):
            self.version += "+" + "-".join(str(rung.epochs) for rung in self.rungs)
        self.validation_samples = VALIDATION[dataset]
        self.rows = len(OPERATIONS) ** len(EDGES)
        self._dataset, self._device = dataset, device
        self._places = places("nasbench201", data)

    def load(self) -> Splits:
        """Empty arrays, once the table was found and read; see `TabularTask`."""
        _ = self._table
        return self._empty

    def score(self, outputs: Array, split: SplitName) -> dict[str, float]:
        """See `TabularTask`."""
        raise ValueError("nasbench201 is a table: there are no labels to score outputs by")

    def lookup(self, genotype: Genotype, epochs: int, seed: int) -> TableRow:
        """See `TabularTask`; `genotype` is the six edges of a cell, or has them under `cell`."""
        cell = genotype.get("cell", genotype)
        key = tuple(str(cell.get(edge)) for edge in EDGES) if isinstance(cell, Mapping) else ()
        if len(key) != len(EDGES) or any(operation not in OPERATIONS for operation in key):
            raise ProposalError(
                f"the genotype is no cell of NAS-Bench-201: its edges {', '.join(EDGES)} are {key}",
                hint=f"operations: {', '.join(OPERATIONS)}",
            )
        if epochs not in EPOCHS:
            raise ProposalError(f"the table knows no {epochs} epochs", hint="it knows 12 and 200")
        index, columns = self._table
        found = {name: float(column[index[key]]) for name, column in columns.items()}
        val, test = (found[f"{part}_acc_{epochs}ep"] for part in ("val", "test"))
        if np.isnan(val) or np.isnan(test):
            raise ProposalError(
                f"the table has no {self._dataset} accuracy of this cell after {epochs} epochs",
                hint="use the rung of 12 epochs",
            )
        seconds = found["train_time_200ep_s"]
        if np.isnan(seconds):
            seconds = found["train_time_200ep_s_est"]
        return TableRow(
            metrics={"accuracy": round(val / 100, 6)},
            test_metrics={"accuracy": round(test / 100, 6)},
            latency_ms=found["latency"],
            device=DEVICES[self._device],
            train_s=seconds * epochs / 200,
        )

    def preprocessing(self) -> str:
        """See `Task.preprocessing`."""
        return "pixels standardised by channel, as float32 of shape (n, 3, 32, 32)"

    def describe(self) -> str:
        """See `Task.describe`."""
        epochs = ", then ".join(str(rung.epochs) for rung in self.rungs)
        return (
            f"nasbench201: images of {self._dataset} (3x32x32, {self.signature.n_outputs} classes). Nothing "
            f"is trained: the accuracy of each of {self.rows} cells after {epochs} epochs was measured by "
            f"the authors of NAS-Bench-201, its latency on {DEVICES[self._device]} by others; both are "
            "looked up. Candidates are ranked by validation accuracy (higher is better)."
        )

    @functools.cached_property
    def _empty(self) -> Splits:
        x = np.zeros((0, *self.signature.input_shape), dtype=np.float32)
        y = np.zeros(0, dtype=np.int64)
        return Splits(x, y, x, y, x, y)

    @functools.cached_property
    def _table(self) -> tuple[dict[tuple[str, ...], int], dict[str, Array]]:
        """Rows by the operations of their edges, and the columns that `lookup` reads, each `(15625,)`."""
        accuracy, hardware = (find(self._places, name) for name in (ACCURACY, HARDWARE))
        if accuracy is None or hardware is None:
            raise missing("nasbench201", self._places, _HINT)
        names = [f"{part}_acc_{epochs}ep" for part in ("val", "test") for epochs in EPOCHS]
        names += ["train_time_200ep_s", "train_time_200ep_s_est"]
        columns = _read(accuracy, ["arch_index", *EDGES, *(f"{self._dataset}_{name}" for name in names)])
        latency = _latency_column(self._device, self._dataset)
        cost = _read(hardware, ["arch_index", latency])
        order, place = np.argsort(columns["arch_index"]), np.argsort(cost["arch_index"])
        expected = np.arange(self.rows)
        for path, found in ((accuracy, columns["arch_index"][order]), (hardware, cost["arch_index"][place])):
            if not np.array_equal(found, expected):
                raise MissingDataError(f"{path} does not hold the {self.rows} cells, each once", hint=_HINT)
        edges = zip(*(columns[edge][order].tolist() for edge in EDGES), strict=True)
        index = {key: row for row, key in enumerate(edges)}
        if len(index) != self.rows:
            raise MissingDataError(f"{accuracy} holds one cell twice", hint=_HINT)
        read = {name: columns[f"{self._dataset}_{name}"][order] for name in names}
        return index, read | {"latency": cost[latency][place]}


def _latency_column(device: str, dataset: str) -> str:
    if device in _OF_EACH:
        return f"{dataset}_{device}_latency"
    return f"help_{device.replace('-', '_')}" + ("_1" if device in _SINGLE else "")


def _read(path: Path, names: list[str]) -> dict[str, Array]:
    """Columns of a parquet file, by name."""
    import pyarrow
    from pyarrow import parquet

    try:
        known = parquet.read_schema(path).names
        lacking = [name for name in names if name not in known]
        if lacking:
            raise MissingDataError(f"{path} has no column {lacking[0]}", hint=_HINT)
        table = parquet.read_table(path, columns=names)
        return {name: table.column(name).to_numpy() for name in names}
    except (OSError, pyarrow.ArrowException) as error:
        raise MissingDataError(f"{path} cannot be read: {error}", hint="fetch the file again") from error
