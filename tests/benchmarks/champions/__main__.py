"""Was it luck? Train a run's best network, the control arm's best and the baselines again, with fresh seeds.

A search picks the best of many noisy scores, so the winner's own score flatters it. This trains each champion
anew with seeds that the run has not used, under the run's own recipe at its highest rung and in its own
sandbox, and prints mean and spread on validation and test.

    make bench NAME=champions ARGS="--run last --seeds 5"
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import tempfile
from collections.abc import Sequence
from pathlib import Path

from cambrian.agents.checking import make_task
from cambrian.agents.evaluator.ranking import rank_key
from cambrian.agents.evaluator.scoring import evaluate
from cambrian.agents.population.model import BASELINE_ARM, CONTROL_ARM, Candidate, Evaluation
from cambrian.agents.runfile import RunConfig, parse_config
from cambrian.agents.workspace import Workspace
from cambrian.sandbox import Job, JobLimits, LatencySpec
from cambrian.sandbox.select import open_sandbox
from cambrian.search_spaces import Task
from tests.benchmarks.harness import Row, publish

FIRST_SEED = 1_000_003


def champions(candidates: Sequence[Candidate], maximize: bool) -> dict[str, Candidate]:
    """The best of the guided arms, the best of the control arm, and every baseline, by what they are."""
    found: dict[str, Candidate] = {}
    ranked = [(key, c) for c in candidates if (key := rank_key(c, maximize)) is not None]
    for _, candidate in sorted(ranked, key=lambda entry: entry[0]):
        arm = candidate.proposal.arm
        if arm == BASELINE_ARM:
            found.setdefault(f"baseline {candidate.proposal.edit}", candidate)
        else:
            found.setdefault(
                "best of random" if arm == CONTROL_ARM else "best of the agent's arms", candidate
            )
    return found


async def train_again(
    chosen: dict[str, Candidate], config: RunConfig, task: Task, seeds: int
) -> dict[str, list[Evaluation]]:
    """Evaluations of each champion at the highest rung, one for each fresh seed."""
    rung = len(task.rungs) - 1
    done: dict[str, list[Evaluation]] = {name: [] for name in chosen}
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        sandbox, _ = await open_sandbox(
            config.sandbox.kind,
            run_id="champions",
            folder=folder,
            splits=task.load(),
            slots=config.slots,
            task=task,
        )
        gate = asyncio.Semaphore(config.slots)

        async def one(name: str, candidate: Candidate, seed: int) -> None:
            job = Job(
                id=f"{candidate.id}-s{seed}",
                run_id="champions",
                candidate_id=candidate.id,
                space=config.space,
                genotype=candidate.genotype,
                signature=task.signature,
                recipe=task.recipe,
                epochs=task.rungs[rung].epochs,
                seed=seed,
                loss=task.loss,
                limits=JobLimits(wall_s=config.sandbox.wall_s, memory_mb=config.sandbox.memory_mb),
                latency=LatencySpec(),
            )
            async with gate:
                outcome = await sandbox.run(job)
            done[name].append(evaluate(candidate, rung, job, outcome, folder / "jobs" / job.id, task))

        try:
            async with asyncio.TaskGroup() as group:
                for seed in range(FIRST_SEED, FIRST_SEED + seeds):
                    for name, candidate in chosen.items():
                        group.create_task(one(name, candidate, seed))
        finally:
            await sandbox.close()
    return done


def row(name: str, candidate: Candidate, evaluations: Sequence[Evaluation], metric: str) -> Row:
    """One line of the table; scores in per cent, as mean and standard deviation over seeds."""
    val = [100 * e.metrics[metric] for e in evaluations if e.metrics]
    test = [100 * e.test_metrics[metric] for e in evaluations if e.test_metrics]
    latency = [e.latency.median_ms for e in evaluations if e.latency is not None]
    return {
        "network": name,
        "id": candidate.id,
        "architecture": candidate.summary,
        "seeds": len(val),
        "validation %": statistics.fmean(val),
        "+-": statistics.stdev(val),
        "test %": statistics.fmean(test),
        "+- ": statistics.stdev(test),
        "latency ms": statistics.median(latency),
        "parameters": candidate.static.parameters if candidate.static else 0,
    }


def main() -> None:
    """Train the champions of one run again."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--run", default="last", help="id of a finished run")
    parser.add_argument("--seeds", type=int, default=5, help="fresh seeds for each, at least 2")
    options = parser.parse_args()
    store = Workspace().open(options.run)
    config = parse_config(store.run.config, f"run {store.run.run_id}")
    task = make_task(config, f"run {store.run.run_id}")
    chosen = champions(store.candidates(), task.maximize)
    done = asyncio.run(train_again(chosen, config, task, max(2, options.seeds)))
    publish(
        "champions",
        [row(name, chosen[name], evaluations, task.metric) for name, evaluations in done.items()],
        note=f"run {store.run.run_id}, {task.rungs[-1].epochs} epochs, seeds the run has not used",
    )


if __name__ == "__main__":
    main()
