"""Is the identity exact, and what does it cost? Every cell of NAS-Bench-201 against its algebra.

    make bench NAME=identity                        # all 15,625 cells
    make bench NAME=identity ARGS="--sample 400"    # a random part, whole classes at a time
    make bench NAME=identity ARGS="--side 8"        # on pictures of 8x8 instead of 32x32

Networks are those of the space `cell`: 15 cells in the published skeleton. Two cells are equal when their
symbolic forms are (see `symbolic`), which know nothing of hashes. Beside the identity stand what one would
otherwise take: the text of the genotype, the Weisfeiler-Lehman hash of the cell's graph by networkx, and the
unique strings of NATS-Bench where `CAMBRIAN_DATA` has them.

A false merge is one form too many under one hash: a candidate refused that nobody had evaluated. A false
split is one hash too many of one form: an evaluation paid twice.
"""

from __future__ import annotations

import argparse
import itertools
import json
import random
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import torch

from cambrian.sandbox.examination.identity import identity
from cambrian.sandbox.examination.static import check
from cambrian.search_spaces import SPACES, Signature
from cambrian.search_spaces.tasks.files import find, places
from tests.benchmarks.harness import Row, publish
from tests.benchmarks.identity.symbolic import EDGES, OPERATIONS, symbolic

Cell = Mapping[str, str]
OUTPUT = Path("runs/bench/identity.parquet")
TARGET_MS = 5.0


def all_cells() -> list[Cell]:
    """All cells of the space."""
    return [dict(zip(EDGES, made, strict=True)) for made in itertools.product(OPERATIONS, repeat=len(EDGES))]


def chosen(cells: Sequence[Cell], forms: Sequence[str], n: int, seed: int = 0) -> list[int]:
    """About `n` of the cells: some of each of randomly drawn classes, so that splits can be seen."""
    classes: dict[str, list[int]] = defaultdict(list)
    for index, form in enumerate(forms):
        classes[form].append(index)
    rng = random.Random(seed)
    order = sorted(classes)
    rng.shuffle(order)
    # dead cells first, and those with several convolutions side by side
    order.sort(key=lambda form: not form.startswith("out=0"))
    taken: list[int] = []
    for form in order:
        if len(taken) >= n:
            break
        taken += rng.sample(classes[form], min(8, len(classes[form])))
    return sorted(taken[:n])


def mistakes(forms: Iterable[str], hashes: Iterable[str]) -> tuple[int, int]:
    """False merges and false splits."""
    of_hash: dict[str, set[str]] = defaultdict(set)
    of_form: dict[str, set[str]] = defaultdict(set)
    for form, text in zip(forms, hashes, strict=True):
        of_hash[text].add(form)
        of_form[form].add(text)
    return tuple(sum(len(each) - 1 for each in found.values()) for found in (of_hash, of_form))  # type: ignore[return-value]


def timed(call: Callable[[Cell], str], cells: Sequence[Cell]) -> tuple[list[str], float]:
    """What `call` says of each cell, and its median milliseconds of processor time."""
    found, times = [], []
    for cell in cells:
        started = time.thread_time()
        found.append(call(cell))
        times.append(time.thread_time() - started)
    return found, 1000 * statistics.median(times)


def text_of(cell: Cell) -> str:
    """The cell in the words of the benchmark."""
    return "|{e01}~0|+|{e02}~0|{e12}~1|+|{e03}~0|{e13}~1|{e23}~2|".format(**cell)


def by_graph(cell: Cell) -> str:
    """networkx's Weisfeiler-Lehman hash: one node an operation that is not `none`, and one a sum."""
    import networkx

    graph = networkx.DiGraph()
    for node in range(4):
        graph.add_node(f"n{node}", op=("input", "sum", "sum", "output")[node])
    for edge, operation in cell.items():
        if operation != "none":
            graph.add_node(edge, op=operation)
            graph.add_edge(f"n{edge[1]}", edge)
            graph.add_edge(edge, f"n{edge[2]}")
    return str(networkx.weisfeiler_lehman_graph_hash(graph, node_attr="op", iterations=6))


def hashed(cells: Sequence[Cell], side: int) -> tuple[list[str], float, float]:
    """Identities, and median milliseconds of an identity and of the static check before it."""
    space = SPACES.create("cell")
    signature = Signature(input_shape=(3, side, side), n_outputs=10)
    found, times, checks = [], [], []
    for index, cell in enumerate(cells):
        genotype = space.validate(dict(cell))
        start = time.thread_time()
        check(space, genotype, signature, 64)
        between = time.thread_time()
        found.append(identity(space, genotype, signature))
        times.append(time.thread_time() - between)
        checks.append(between - start)
        if index % 1000 == 999:
            print(f"{index + 1} cells", file=sys.stderr, flush=True)
    return found, 1000 * statistics.median(times), 1000 * statistics.median(checks)


def unique_strings(cells: Sequence[Cell]) -> list[str] | None:
    """The benchmark's own groups of cells with one unique string; None without its table."""
    path = find(places("nasbench201", None), "nb201.parquet")
    if path is None:
        return None
    from pyarrow import parquet

    table = parquet.read_table(path, columns=["arch_str", "iso_group"]).to_pydict()
    groups = dict(zip(table["arch_str"], table["iso_group"], strict=True))
    return [str(groups[text_of(cell)]) for cell in cells]


def write(cells: Sequence[Cell], hashes: Sequence[str]) -> None:
    """`OUTPUT`: one row a cell."""
    import pyarrow
    from pyarrow import parquet

    OUTPUT.parent.mkdir(parents=True, exist_ok=True)
    columns = {"arch_str": [text_of(cell) for cell in cells], "hash": list(hashes)}
    parquet.write_table(pyarrow.table(columns), OUTPUT)


def main() -> int:
    """Measure, print, write the table and `OUTPUT`; 1 when a merge or a split is false."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sample", type=int, help="cells; all 15,625 when left out")
    parser.add_argument("--side", type=int, default=32, help="of the pictures that the networks take")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    cells = all_cells()
    forms, form_ms = timed(symbolic, cells)
    if arguments.sample is not None and arguments.sample < len(cells):
        taken = chosen(cells, forms, arguments.sample)
        cells, forms = [cells[i] for i in taken], [forms[i] for i in taken]
    hashes, ms, check_ms = hashed(cells, arguments.side)
    rows: list[Row] = []

    def row(method: str, found: Sequence[str], cost: float | str) -> None:
        merges, splits = mistakes(forms, found)
        rows.append(
            {
                "method": method,
                "classes": len(set(found)),
                "false merges": merges,
                "false splits": splits,
                "ms": cost,
            }
        )

    row("symbolic form (the judge)", forms, form_ms)
    row("Cambrian's identity", hashes, ms)
    row("text of the genotype", *timed(lambda cell: json.dumps(cell, sort_keys=True), cells))
    row("Weisfeiler-Lehman (networkx)", *timed(by_graph, cells))
    strings = unique_strings(cells)
    if strings is not None:
        row("unique strings of NATS-Bench", strings, "-")
    if arguments.sample is None:
        write(cells, hashes)
    publish(
        "identity",
        rows,
        note=f"{len(cells)} cells, pictures of {arguments.side}x{arguments.side}. Median milliseconds of one "
        f"thread for a candidate; the static check before the identity takes {check_ms:.1f} ms more, and is "
        f"not repeated for it. Target: at most {TARGET_MS:.0f} ms."
        + (f" Hashes of all cells: {OUTPUT}" if arguments.sample is None else ""),
    )
    wrong = mistakes(forms, hashes)
    print("exact" if wrong == (0, 0) else f"NOT EXACT: {wrong[0]} false merges, {wrong[1]} false splits")
    return int(wrong != (0, 0))


if __name__ == "__main__":
    sys.exit(main())
