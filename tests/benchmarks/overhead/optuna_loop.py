"""The same loop as a user would otherwise write it: Optuna, its TPE sampler, SQLite storage, two threads.

Optuna knows no sandbox, no identity and no checks, so this is the floor of a loop with a sampler and a store.
"""

from __future__ import annotations

import itertools
import random
import statistics
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

from tests.benchmarks.harness import Row

GENES = {f"gene{i}": 5 for i in range(20)}
"""As many categorical choices as a typical member of `convnet` has genes."""


def measure_optuna(size: int, candidates: int, slots: int) -> Row | None:
    """Milliseconds between two ends of trials with a free objective; None where Optuna is not installed."""
    try:
        import optuna
    except ModuleNotFoundError:
        return None
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.simplefilter("ignore")
    rng = random.Random(0)
    spread = {name: optuna.distributions.CategoricalDistribution(range(n)) for name, n in GENES.items()}

    def objective(trial: Any) -> float:
        for name, n in GENES.items():
            trial.suggest_categorical(name, range(n))
        return rng.random()

    with tempfile.TemporaryDirectory() as folder:
        study = optuna.create_study(
            storage=f"sqlite:///{Path(folder) / 'optuna.db'}", sampler=optuna.samplers.TPESampler(seed=0)
        )
        study.add_trials(
            [
                optuna.trial.create_trial(
                    params={name: rng.randrange(n) for name, n in GENES.items()},
                    distributions=spread,
                    value=rng.random(),
                )
                for _ in range(size)
            ]
        )
        ends: list[float] = []
        study.optimize(
            objective,
            n_trials=candidates,
            n_jobs=slots,
            callbacks=[lambda _study, _trial: ends.append(time.perf_counter())],
        )
    steady = ends[len(ends) // 10 :]
    gaps = [1000 * (b - a) for a, b in itertools.pairwise(steady)]
    return {
        "population": size,
        "slots": slots,
        "loop": f"Optuna {optuna.__version__}, TPE, SQLite",
        "candidates": len(gaps),
        "median ms": statistics.median(gaps),
        "mean ms": statistics.fmean(gaps),
        "p95 ms": sorted(gaps)[int(0.95 * len(gaps))],
        "recorder's own ms": 0.0,
    }
