"""Milliseconds of our own per candidate, with a training that costs nothing.

Everything but training, model calls and container start is real: arms, portfolio, static checks, functional
hash, predictor, LangGraph checkpoints, population store, scoring. The population is filled to the wanted size
beforehand; then a stretch of new candidates goes through the loop with two slots. A candidate's cost is the
time between two landings, as the peers were measured: wall time of the loop by candidates. The recorder is
measured in a second pass, on a line of its own. Optuna, where it is installed, is measured in the same run.

    make bench NAME=overhead ARGS="--sizes 100 10000 --candidates 200"
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import random
import statistics
import tempfile
import time
from pathlib import Path

from cambrian.agents.population.model import Candidate, CandidateState, Evaluation, Proposal, candidate_id
from cambrian.agents.population.store import PopulationStore, RunRecord
from cambrian.agents.recorder.mlflow_recorder import RecorderStatus
from cambrian.agents.runfile import RunConfig, parse_config
from cambrian.agents.session import Watch, resume
from cambrian.agents.workspace import Workspace
from cambrian.sandbox import SANDBOXES, Isolation
from cambrian.search_spaces import SPACES, TASKS
from tests.benchmarks.harness import Row, publish
from tests.benchmarks.overhead.optuna_loop import measure_optuna
from tests.support.instant import InstantSandbox


def configuration(evaluations: int, slots: int, mlflow: bool) -> RunConfig:
    """A run of the default arms with a free training and no limit but the number of evaluations."""
    return parse_config(
        {
            "name": "overhead",
            "space": "convnet",
            "task": {"name": "digits", "rungs": [{"epochs": 1}]},
            "slots": slots,
            "budget": {"evaluations": evaluations},
            "arms": {"random": 0.25, "mutation": 0.5, "crossover": 0.25},
            "sandbox": {"kind": "instant"},
            "mlflow": {"enabled": mlflow},
        },
        "benchmark",
    )


def fill(store: PopulationStore, size: int) -> None:
    """Enter `size` evaluated candidates, as if they had gone through the loop."""
    space, rng = SPACES.create("convnet"), random.Random(1)
    arms = ["random", "mutation", "crossover"]
    with store._transaction():
        for index in range(size):
            genotype, score = space.sample(rng), 0.5 + 0.4 * rng.random()
            candidate = Candidate(
                id=candidate_id(index),
                index=index,
                proposal=Proposal(arm=arms[index % 3], genotype=genotype),
                genotype=genotype,
                state=CandidateState.EVALUATED,
                identity=f"filled:{index}",
                score=score,
                test_score=score,
                rung=0,
                tried_rung=0,
                rung_scores=(score,),
                latency_ms=rng.random(),
                cost=rng.random(),
                ended_s=float(index),
            )
            evaluation = Evaluation(
                candidate_id=candidate.id,
                rung=0,
                seed=0,
                epochs=1,
                state="trained",
                metrics={"accuracy": score},
                test_metrics={"accuracy": score},
                isolation=Isolation(level="process"),
            )
            store.add(candidate, draws=index + 1)
            store.add_evaluation(evaluation, candidate)
            store.land(candidate.id)
    store.delivered(store.outbox(size))


def measure(size: int, candidates: int, slots: int, mlflow: bool) -> Row:
    """Milliseconds between landings, over `candidates` evaluations on top of `size`."""
    with tempfile.TemporaryDirectory() as folder:
        workspace = Workspace(Path(folder))
        config = configuration(size + candidates, slots, mlflow)
        record = RunRecord(
            run_id="overhead",
            name="overhead",
            space="convnet",
            task="digits",
            metric="accuracy",
            maximize=True,
            cost=config.cost,
            created=time.time(),
            config=config.model_dump(mode="json"),
        )
        store = PopulationStore(workspace.root / "overhead", create=record)
        fill(store, size)
        store.close()
        landings: list[float] = []
        statuses: list[RecorderStatus] = []
        asyncio.run(
            resume(
                "overhead",
                workspace,
                Watch(
                    say=lambda _line: None,
                    recorded=lambda status: statuses.append(status),
                    landed=lambda _candidate: landings.append(time.perf_counter()),
                ),
            )
        )
        # The first tenth pays for first-time imports and the first fit of the predictor.
        steady = landings[len(landings) // 10 :]
        gaps = [1000 * (b - a) for a, b in itertools.pairwise(steady)]
        return {
            "population": size,
            "slots": slots,
            "loop": "Cambrian, recorded in MLflow" if mlflow else "Cambrian",
            "candidates": len(gaps),
            "median ms": statistics.median(gaps),
            "mean ms": statistics.fmean(gaps),
            "p95 ms": sorted(gaps)[int(0.95 * len(gaps))],
            "recorder's own ms": _recorder_ms(statuses),
        }


def _recorder_ms(statuses: list[RecorderStatus]) -> float:
    delivered = sum(status.delivered for status in statuses)
    return 1000 * sum(status.busy_s for status in statuses) / delivered if delivered else 0.0


def main() -> None:
    """Measure all sizes without and with the recorder."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[100, 10_000])
    parser.add_argument("--candidates", type=int, default=200)
    parser.add_argument("--slots", type=int, nargs="+", default=[2])
    options = parser.parse_args()
    SANDBOXES.register("instant", InstantSandbox)
    TASKS.create("digits").load()
    rows = [
        measure(size, options.candidates, slots, mlflow)
        for mlflow in (False, True)
        for slots in options.slots
        for size in options.sizes
    ]
    # Filling Optuna's storage takes longer than measuring it, so it is measured at the smallest size only.
    other = measure_optuna(min(options.sizes), options.candidates, options.slots[0])
    publish(
        "overhead",
        [*rows, other] if other else rows,
        note="time between two landings; training, model calls and container start excluded"
        + ("" if other else "; pip install optuna to compare with it"),
    )


if __name__ == "__main__":
    main()
