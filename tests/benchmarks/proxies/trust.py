"""What a filter by proxies drops: published proxies and accuracies of NAS-Bench-201, nothing is run.

A run sees cells drawn at random, with their validation accuracy after 12 epochs. Once proxies have proved
themselves, other cells are put before the filter; what it drops is judged by their test accuracy after 200.
"""

from __future__ import annotations

import numpy as np

from cambrian.agents.evaluator.proxies import ProxyTrust
from tests.benchmarks.harness import Row

COUNTS = (25, 50, 100, 200)
JUDGED = 1500
SEEN, FINAL = "cifar10_val_acc_12ep", "cifar10_test_acc_200ep"


def simulate(tables: dict[str, np.ndarray], names: dict[str, str], seeds: int) -> list[Row]:
    """One line for each number of evaluations, means over the seeds.

    Args:
        tables: columns of all cells.
        names: of our proxies, and of their published columns.
        seeds: runs.
    """
    columns = {name: tables[f"cifar10_{column}"] for name, column in names.items()}
    cells = [
        {name: float(column[row]) for name, column in columns.items()} for row in range(len(tables[SEEN]))
    ]
    found: dict[int, list[tuple[float, ...]]] = {count: [] for count in COUNTS}
    for seed in range(seeds):
        order = np.random.default_rng(seed).permutation(len(cells))
        judged = order[COUNTS[-1] : COUNTS[-1] + JUDGED]
        final = tables[FINAL][judged]
        best = np.argsort(-final)
        trust = ProxyTrust(maximize=True)
        for count, row in enumerate(order[: COUNTS[-1]], start=1):
            trust.observe(cells[row], float(tables[SEEN][row]))
            if count in found:
                dropped = np.array([not trust.verdict(cells[row]).keep for row in judged])
                proved = sum(record.role == "filters" for record in trust.summary())
                found[count].append(
                    (
                        proved,
                        100 * dropped.mean(),
                        100 * dropped[best[: JUDGED // 100]].mean(),
                        100 * dropped[best[: JUDGED // 10]].mean(),
                        final[dropped].mean() if dropped.any() else np.nan,
                        final[~dropped].mean(),
                    )
                )
    heads = (
        "proved",
        "dropped %",
        "of the best 1 %",
        "of the best 10 %",
        "accuracy dropped",
        "accuracy kept",
    )
    return [
        {"evaluations": count, **dict(zip(heads, map(float, np.nanmean(lines, axis=0)), strict=True))}
        for count, lines in found.items()
    ]
