"""The published tables as encodings and scores."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd  # type: ignore[import-untyped]

from cambrian.agents.evaluator.encoding import PROXY, Encoder, Encoding
from cambrian.search_spaces import SPACES
from cambrian.search_spaces.declarative.motifs import Operations, Terms

Floats = np.ndarray[Any, np.dtype[np.float64]]

CELL, PROXIES, GRAPH = "nb201.parquet", "nb201_zc.parquet", "nasbench_graph.parquet"
EDGES = ["e01", "e02", "e12", "e03", "e13", "e23"]
DATASET = "cifar10"


class Problem(NamedTuple):
    """Candidates and what is to be ranked.

    Attributes:
        name: of the table and of what is predicted.
        encodings: one a candidate.
        one_hot: the genotype's columns, one column a value, shape (candidates, columns).
        targets: scores, shape (candidates,).
        proxies: published zero-cost proxies by name, where there are any.
    """

    name: str
    encodings: list[Encoding]
    one_hot: Floats
    targets: Floats
    proxies: dict[str, Floats]

    def with_proxies(self) -> Problem:
        """The same with the published proxies among the numbers."""
        names = list(self.proxies)
        rows = np.column_stack([self.proxies[name] for name in names])
        encodings = [
            Encoding(
                {**e.numbers, **{PROXY + n: float(v) for n, v in zip(names, row, strict=True)}}, e.motifs
            )
            for e, row in zip(self.encodings, rows, strict=True)
        ]
        return self._replace(encodings=encodings)


def cells(data: Path, metrics: dict[str, str]) -> dict[str, Problem]:
    """NAS-Bench-201 by metric: `metrics` gives a name to a column; all 15,625 cells, dead ones included."""
    table = pd.read_parquet(data / CELL)
    encoder = Encoder(SPACES.create("cell"))
    encodings = [encoder(genotype) for genotype in table[EDGES].to_dict("records")]
    one_hot = pd.get_dummies(table[EDGES]).to_numpy(dtype=np.float64)
    return {
        name: Problem(name, encodings, one_hot, table[column].to_numpy(dtype=np.float64), {})
        for name, column in metrics.items()
    }


def cells_with_proxies(data: Path, problem: Problem) -> Problem:
    """The 9,445 cells that NAS-Bench-Suite-Zero has proxies of: those without unreachable operations."""
    table = pd.read_parquet(data / PROXIES)
    table = table[table["arch_index"].isin(range(len(problem.targets)))]
    names = [c for c in table.columns if c.startswith(f"{DATASET}_")]
    table = table.dropna(subset=names)
    places = table["arch_index"].to_numpy()
    proxies = {name.removeprefix(f"{DATASET}_"): table[name].to_numpy(dtype=np.float64) for name in names}
    return Problem(
        f"{problem.name}, proxied",
        [problem.encodings[i] for i in places],
        problem.one_hot[places],
        problem.targets[places],
        proxies,
    )


def graphs(data: Path) -> Problem:
    """NAS-Bench-Graph: 26,206 graph networks on Cora, by test accuracy.

    No space of ours has them; their encodings hold the columns' values, and the structure that the columns
    write down: each of four nodes takes the input or an earlier node, and what nobody takes is joined.
    """
    table = pd.read_parquet(data / GRAPH)
    columns = ["link", "op0", "op1", "op2", "op3"]
    one_hot = pd.get_dummies(table[columns])
    encodings = []
    for row, hot in zip(table[columns].itertuples(index=False), one_hot.to_numpy(float), strict=True):
        numbers = dict(zip(one_hot.columns, map(float, hot), strict=True))
        encodings.append(_graph(numbers, [int(p) for p in row.link.split("-")], list(row[1:])))
    targets = 100 * table["test_perf"].to_numpy(dtype=np.float64)
    return Problem("Graph, Cora", encodings, one_hot.to_numpy(np.float64), targets, {})


def _graph(numbers: dict[str, float], parents: list[int], words: list[str]) -> Encoding:
    operations = Operations()
    leaving: dict[int, Terms] = {0: (0,)}
    for node, (parent, word) in enumerate(zip(parents, words, strict=True), start=1):
        taken = leaving[parent]
        leaving[node] = taken if word == "skip" else operations.add(word, taken, weighted=True)
    ends = [leaving[node] for node in leaving if node and node not in parents]
    joined = tuple(sorted(term for end in ends for term in end))
    summary = operations.summary(operations.add("concat", joined) if len(ends) > 1 else joined)
    live = {
        "live.deepest": summary.deepest,
        "live.shallowest": summary.shallowest,
        "live.mean": summary.mean,
        "live.log_paths": summary.log_paths,
        "live.skips": float(summary.skips),
        "live.blocks": float(len(summary.live)),
    }
    return Encoding({**numbers, **live}, summary.motifs)
