"""Small tables with known answers."""

from __future__ import annotations

import itertools
import random
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyarrow import parquet

from cambrian.agents.benching.benchmark import Benchmark, Options, open_benchmark

OPERATIONS = ("none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3")
EDGES = ("e01", "e02", "e12", "e03", "e13", "e23")
WORTH = {"conv": 3.0, "pool": 1.0, "none": 0.0, "sep": 2.0, "skip": 1.5}


def write(path: Path, columns: dict[str, Any]) -> Path:
    parquet.write_table(pa.table(columns), path)
    return path


def layers(path: Path, *, keep: float = 0.7) -> Path:
    """Three layers, a width, a list of links: `acc` is a sum that the best row has alone; some rows lack.

    `test` follows `acc` closely, `ms` is a cost, `proxy` a noisy view of `acc`; `noted` is text.
    """
    rng = random.Random(0)
    rows = []
    for *ops, width, link in itertools.product(*[WORTH] * 3, (8, 16, 32, 64), ([0, 0], [0, 1])):
        best = all(op == "conv" for op in ops) and width == 64 and link == [0, 1]
        if rng.random() > keep and not best:
            continue
        score = sum(WORTH[op] for op in ops) + width / 64 + 0.3 * link[1] + (ops[0] == ops[1]) * 0.5
        rows.append({"op0": ops[0], "op1": ops[1], "op2": ops[2], "width": float(width), "link": link}
                    | {"acc": score, "test": score + rng.gauss(0, 0.05), "ms": width / 8 + len(ops[0])}
                    | {"proxy": score + rng.gauss(0, 1.0), "noted": "text"})  # fmt: skip
    rng.shuffle(rows)
    return write(path, {name: [row[name] for row in rows] for name in rows[0]})


GENES = ("op0", "op1", "op2", "width", "link")


def flat_benchmark(folder: Path, **options: Any) -> Benchmark:
    given: dict[str, Any] = {"metric": "acc", "genotype_columns": GENES} | options
    return open_benchmark(Options(files=(layers(folder / "layers.parquet"),), **given))


def cells(path: Path, n: int = 300) -> Path:
    """`n` cells, by their string and by their edges; `acc` counts what is on the edges."""
    rng = random.Random(1)
    drawn = list(dict.fromkeys(tuple(rng.choices(OPERATIONS, k=6)) for _ in range(n)))
    columns: dict[str, list[Any]] = {edge: [cell[i] for cell in drawn] for i, edge in enumerate(EDGES)}
    columns["arch_str"] = [f"|{a}~0|+|{b}~0|{c}~1|+|{d}~0|{e}~1|{f}~2|" for a, b, c, d, e, f in drawn]
    columns["acc"] = [
        sum(OPERATIONS.index(op) == 3 for op in cell) + 0.01 * i for i, cell in enumerate(drawn)
    ]
    return write(path, columns)
