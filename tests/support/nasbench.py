"""Files of NAS-Bench-201's form whose numbers are functions of the cell's index."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pyarrow as pa
from pyarrow import parquet

from cambrian.search_spaces.tasks.nasbench201 import ACCURACY, EDGES, HARDWARE, OPERATIONS

N_CELLS = 15_625
ESTIMATED_FROM = 1000
"""Cells from this index on have an estimated training time only."""


def cell(index: int) -> dict[str, str]:
    """The cell of this index in our files."""
    cells = itertools.islice(itertools.product(OPERATIONS, repeat=6), index, None)
    return dict(zip(EDGES, next(cells), strict=True))


def write_tables(folder: Path) -> Path:
    """Write both files, rows in another order than that of the index.

    Validation accuracy in per cent is index / 200, one more on test, two more after 200 epochs. Latency on
    the edge GPU for CIFAR-10 is the index plus 1, in ms; no other is known.
    """
    cells = list(itertools.product(OPERATIONS, repeat=6))
    order = np.random.default_rng(0).permutation(N_CELLS)
    columns: dict[str, object] = {"arch_index": order.astype(np.int32)}
    columns |= {edge: [cells[i][k] for i in order] for k, edge in enumerate(EDGES)}
    for dataset in ("cifar10", "cifar100"):
        for part, epochs in itertools.product(("val", "test"), (12, 200)):
            accuracy = order / 200 + (part == "test") + 2 * (epochs == 200)
            columns[f"{dataset}_{part}_acc_{epochs}ep"] = accuracy
        columns[f"{dataset}_train_time_200ep_s"] = np.where(order < ESTIMATED_FROM, 2000.0, np.nan)
        columns[f"{dataset}_train_time_200ep_s_est"] = np.full(N_CELLS, 1000.0)
    columns["cifar100_val_acc_200ep"] = np.where(order < 725, 50.0, np.nan)
    parquet.write_table(pa.table(columns), folder / ACCURACY)
    indices = np.arange(N_CELLS, dtype=np.int32)
    latency = {"arch_index": indices, "cifar10_edgegpu_latency": indices.astype(np.float32) + 1}
    parquet.write_table(pa.table(latency), folder / HARDWARE)
    return folder
