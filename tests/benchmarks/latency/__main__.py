"""Whether latency can be believed: 12 networks, each measured 10 times beside a busy core.

    make bench NAME=latency                           # in sandbox jobs, over 5 minutes
    make bench NAME=latency ARGS="--docker"           # in containers
    make bench NAME=latency ARGS="--forks"            # in plain processes, without a sandbox
    make bench NAME=latency ARGS="--minutes 20 --core 1"

Every measurement is a job of its own, pinned to one core, while another process trains a network and copies
memory on another core. The order rotates. Beside each, in a fresh process, stands what one would otherwise
write: the mean of 50 calls after 10 to warm up.

Two repeats agree when they rank the networks alike: Spearman's and Kendall's correlation over all pairs of
repeats. CV is the coefficient of variation over the repeats of one network: standard deviation by mean.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import multiprocessing
import os
import statistics
import sys
import tempfile
import time
from contextlib import AsyncExitStack
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.stats import kendalltau, spearmanr

from cambrian.sandbox import SANDBOXES, Job, JobState, Latency, LatencySpec, Sandbox
from cambrian.sandbox.cores import Cores, host_cores
from cambrian.search_spaces import Recipe, Splits
from tests.benchmarks.harness import Row, publish
from tests.benchmarks.latency.fresh import Fresh
from tests.benchmarks.latency.inside import NETWORKS, SIGNATURE, Network, load, naive, ours

LEAST_CORRELATION = 0.98
MOST_CV = 0.03
REPEATS = 10


async def in_sandbox(sandbox: Sandbox, network: Network, repeat: int) -> Latency:
    """Measure `network` as a run does, in a job that does nothing else."""
    index = NETWORKS.index(network)
    outcome = await sandbox.run(
        Job(
            id=f"n{index}-r0-s{repeat}",
            run_id="bench-latency",
            candidate_id=f"n{index}",
            space=network.space,
            genotype=network.genotype(),
            signature=SIGNATURE,
            recipe=Recipe(),
            epochs=0,
            seed=0,
            latency=LatencySpec(throughput_batch=None),
            purpose="measure",
        )
    )
    if outcome.state is not JobState.MEASURED or outcome.report is None or outcome.report.latency is None:
        raise SystemExit(f"{network.name} was not measured: {outcome.state}: {outcome.reason}")
    return outcome.report.latency


def splits() -> Splits:
    """Noise of the networks' input shape; nothing is trained on it."""
    x = np.random.default_rng(0).normal(size=(8, *SIGNATURE.input_shape)).astype(np.float32)
    y = np.arange(8) % SIGNATURE.n_outputs
    return Splits(x, y, x, y, x, y)


async def collect(
    kind: str, core: int, minutes: float, repeats: int
) -> tuple[dict[Network, list[Latency]], dict[Network, list[float]]]:
    """All measurements: ours and the naive ones, by network, in the order of the repeats."""
    fresh = Fresh()
    found: dict[Network, list[Latency]] = {network: [] for network in NETWORKS}
    plain: dict[Network, list[float]] = {network: [] for network in NETWORKS}
    async with AsyncExitStack() as stack:
        sandbox: Sandbox | None = None
        if kind != "forks":
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            sandbox = SANDBOXES.create(kind, cores=Cores((core,)))
            stack.push_async_callback(sandbox.close)
            await sandbox.open("bench-latency", folder, splits(), 1)
        started = time.monotonic()
        for repeat in range(repeats):
            await asyncio.sleep(max(0.0, started + repeat * minutes * 60 / repeats - time.monotonic()))
            turn = repeat % len(NETWORKS)
            for network in NETWORKS[turn:] + NETWORKS[:turn]:
                if sandbox is None:
                    found[network].append(fresh.call(ours, network, core))
                else:
                    found[network].append(await in_sandbox(sandbox, network, repeat))
                plain[network].append(fresh.call(naive, network, core))
            print(f"repeat {repeat + 1} of {repeats} after {time.monotonic() - started:.0f} s", flush=True)
    return found, plain


def cv(values: list[float]) -> float:
    """Coefficient of variation: standard deviation of the sample by its mean."""
    return statistics.stdev(values) / statistics.mean(values)


def agreement(measured: list[list[float]]) -> dict[str, float]:
    """How alike repeats rank the networks.

    Args:
        measured: one list of repeats for each network.
    """
    repeats: NDArray[np.float64] = np.array(measured).T
    pairs = list(itertools.combinations(repeats, 2))
    spearman = [float(spearmanr(a, b).statistic) for a, b in pairs]
    kendall = [float(kendalltau(a, b).statistic) for a, b in pairs]
    return {
        "Spearman": statistics.mean(spearman),
        "least": min(spearman),
        "Kendall": statistics.mean(kendall),
        "least ": min(kendall),
        "median CV %": 100 * statistics.median(cv(list(values)) for values in measured),
        "worst CV %": 100 * max(cv(list(values)) for values in measured),
    }


def main() -> int:
    """Measure, print, write `runs/bench/latency*.json`; 1 when a target is missed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    kinds = parser.add_mutually_exclusive_group()
    kinds.add_argument("--docker", action="store_true", help="in containers")
    kinds.add_argument("--forks", action="store_true", help="in plain processes")
    parser.add_argument(
        "--minutes", type=float, default=5.0, help="that the repeats are spread over, at least"
    )
    parser.add_argument("--repeats", type=int, default=REPEATS)
    parser.add_argument("--core", type=int, default=host_cores()[0], help="that the networks run on")
    parser.add_argument("--idle", action="store_true", help="no load on the other core, to compare with")
    arguments = parser.parse_args()
    if arguments.repeats < 2:
        parser.error("it takes two repeats to compare")
    others = [core for core in host_cores() if core != arguments.core]
    if not others and not arguments.idle:
        parser.error("there is no second core to load; --idle does without")
    kind = "docker" if arguments.docker else "forks" if arguments.forks else "process"
    # spawned: the load must not share pages with what is measured
    beside = multiprocessing.get_context("spawn").Process(
        target=load, args=(others[0], os.getpid()), daemon=True
    )
    if not arguments.idle:
        beside.start()
    try:
        found, plain = asyncio.run(collect(kind, arguments.core, arguments.minutes, arguments.repeats))
    finally:
        if not arguments.idle:
            beside.terminate()
            beside.join()
    return report(kind, found, plain)


def report(kind: str, found: dict[Network, list[Latency]], plain: dict[Network, list[float]]) -> int:
    """Print both tables and say plainly whether the targets were met."""
    rows: list[Row] = [
        {
            "network": network.name,
            "median ms": statistics.median(latency.median_ms for latency in found[network]),
            "IQR ms": statistics.median(latency.q3_ms - latency.q1_ms for latency in found[network]),
            "ratio": statistics.median(latency.ratio or 0.0 for latency in found[network]),
            "CV of ms %": 100 * cv([latency.median_ms for latency in found[network]]),
            "CV of ratio %": 100 * cv([latency.ratio or 0.0 for latency in found[network]]),
            "CV of naive %": 100 * cv(plain[network]),
            "noisy": sum(latency.noisy for latency in found[network]),
        }
        for network in NETWORKS
    ]
    publish(
        f"latency-{kind}",
        rows,
        note="Medians over the repeats; IQR: within a measurement; noisy: how many repeats were marked so.",
    )
    ratio = agreement([[latency.ratio or 0.0 for latency in found[network]] for network in NETWORKS])
    summary: list[Row] = [
        {"what": "ratio to the reference", **ratio},
        {
            "what": "median ms",
            **agreement([[one.median_ms for one in found[network]] for network in NETWORKS]),
        },
        {"what": "naive mean of 50 calls", **agreement([plain[network] for network in NETWORKS])},
    ]
    publish(
        f"latency-{kind}-agreement",
        summary,
        note="Over all pairs of repeats: mean and least rank correlation.",
    )
    missed = []
    if ratio["Spearman"] < LEAST_CORRELATION:
        missed.append(f"rank correlation of the ratio is {ratio['Spearman']:.3f}, wanted {LEAST_CORRELATION}")
    if ratio["median CV %"] > 100 * MOST_CV:
        missed.append(f"median CV of the ratio is {ratio['median CV %']:.1f} %, wanted {100 * MOST_CV:.0f} %")
    print("\n".join(f"MISSED: {line}" for line in missed) or "both targets are met")
    return int(bool(missed))


if __name__ == "__main__":
    sys.exit(main())
