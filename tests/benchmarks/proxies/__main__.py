"""Our zero-cost proxies beside the published ones, on cells of NAS-Bench-201 as the space `cell` builds them.

    make bench NAME=proxies                                  # 60 cells, six minutes or so
    make bench NAME=proxies ARGS="--cells 200 --samples 64"
    make bench NAME=proxies ARGS="--images fashion-mnist"

Wants the folder of NAS-Bench-201's tables in CAMBRIAN_DATA (or `--data`): nb201.parquet, and nb201_zc.parquet
with one column a proxy (Krishnakumar et al. 2022, NAS-Bench-Suite-Zero). The published numbers were taken on
batches of CIFAR-10; ours are on what is at hand: standard normal noise, or Fashion-MNIST padded to 32x32 and
repeated in three channels.

Columns: `published` is Spearman's rank correlation of our numbers with the published ones; `accuracy` that
with the test accuracy after 200 epochs on CIFAR-10; `theirs` the same of the published numbers for the same
cells, `theirs, all` for all cells that they have. Each of these has its sampling error: 0.06 for 0.8 of 60
cells. Milliseconds are of the process, one thread, building included, each proxy alone.

A second table, see `trust`, tells what a filter by proxies that have proved themselves drops.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet
import torch
from scipy.stats import spearmanr
from torch import Tensor

from cambrian.sandbox.examination.proxies import PROXIES, compute
from cambrian.search_spaces import SPACES, TASKS, Signature
from cambrian.search_spaces.tasks.files import find, places
from cambrian.search_spaces.tasks.nasbench201 import EDGES
from tests.benchmarks.harness import publish
from tests.benchmarks.proxies.trust import FINAL, SEEN, simulate

PUBLISHED = {
    "fisher": "fisher",
    "flops": "flops",
    "grad_norm": "grad_norm",
    "jacob_cov": "jacov",
    "naswot": "nwot",
    "params": "params",
    "snip": "snip",
    "synflow": "synflow",
}
SIGNATURE = Signature(input_shape=(3, 32, 32), n_outputs=10)
TRUST_SEEDS = 20


def read_tables(folder: Path | None) -> dict[str, np.ndarray]:
    """Columns of all cells that have published proxies, in the order of their index."""
    found = [find(places("nasbench201", folder), name) for name in ("nb201_zc.parquet", "nb201.parquet")]
    if found[0] is None or found[1] is None:
        sys.exit("no nb201.parquet and nb201_zc.parquet; say where they are with --data or CAMBRIAN_DATA")
    columns = [f"cifar10_{name}" for name in PUBLISHED.values()]
    proxies = pyarrow.parquet.read_table(found[0], columns=["arch_index", *columns]).to_pandas()
    cells = pyarrow.parquet.read_table(found[1], columns=["arch_index", *EDGES, SEEN, FINAL]).to_pandas()
    joined = proxies.merge(cells, on="arch_index").dropna().sort_values("arch_index")
    return {name: joined[name].to_numpy() for name in joined}


def read_images(kind: str, n: int) -> tuple[Tensor, Tensor]:
    """A batch `(n, 3, 32, 32)` with classes 0 to 9."""
    if kind == "noise":
        return torch.randn(n, 3, 32, 32, generator=torch.Generator().manual_seed(0)), torch.arange(n) % 10
    splits = TASKS.create("fashion-mnist").load()
    images = torch.nn.functional.pad(torch.from_numpy(splits.x_train[:n]), (2, 2, 2, 2))
    return images.expand(-1, 3, -1, -1).contiguous(), torch.from_numpy(splits.y_train[:n])


def rho(first: np.ndarray, second: np.ndarray) -> float:
    """Spearman's rank correlation over the cells where both are known."""
    known = np.isfinite(first) & np.isfinite(second)
    return float(spearmanr(first[known], second[known]).statistic)


def main() -> None:
    """Compute, compare, publish."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--cells", type=int, default=60)
    parser.add_argument("--samples", type=int, default=32, help="in the batch")
    parser.add_argument("--images", choices=["noise", "fashion-mnist"], default="noise")
    parser.add_argument("--seed", type=int, default=0, help="of the choice of cells")
    parser.add_argument("--data", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)

    tables = read_tables(options.data)
    known = len(tables["arch_index"])
    chosen = np.random.default_rng(options.seed).choice(known, min(options.cells, known), replace=False)
    inputs, targets = read_images(options.images, options.samples)
    space = SPACES.create("cell")
    ours = {name: np.full(len(chosen), np.nan) for name in PUBLISHED}
    spent = {name: np.zeros(len(chosen)) for name in PUBLISHED}
    PROXIES.create("flops")  # what importing costs is nobody's in particular
    for at, row in enumerate(chosen):
        genotype = space.validate({edge: str(tables[edge][row]) for edge in EDGES})
        for name in PUBLISHED:
            start = time.process_time()
            found = compute(
                [name],
                lambda: space.build(genotype, SIGNATURE),  # noqa: B023
                inputs,
                targets,
                "cross-entropy",
            )
            spent[name][at] = 1000 * (time.process_time() - start)
            ours[name][at] = found.get(name, np.nan)
        print(f"\r{at + 1} of {len(chosen)} cells", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)

    accuracy = tables[FINAL]
    rows = []
    for name, column in PUBLISHED.items():
        theirs = tables[f"cifar10_{column}"]
        rows.append(
            {
                "proxy": name,
                "missing": int(np.isnan(ours[name]).sum()),
                "published": rho(ours[name], theirs[chosen]),
                "accuracy": rho(ours[name], accuracy[chosen]),
                "theirs": rho(theirs[chosen], accuracy[chosen]),
                "theirs, all": rho(theirs, accuracy),
                "ms": float(np.median(spent[name])),
            }
        )
    note = f"{len(chosen)} of {known} cells, {options.samples} samples of {options.images}"
    publish("proxies", rows, note=note)
    rows = simulate(tables, PUBLISHED, TRUST_SEEDS)
    publish("proxies-trust", rows, note=f"means of {TRUST_SEEDS} runs on published numbers")


if __name__ == "__main__":
    main()
