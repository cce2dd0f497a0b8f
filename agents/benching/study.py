"""Every searcher with every seed, on all cores."""

from __future__ import annotations

import asyncio
import gc
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass

from cambrian.agents.benching.benchmark import Benchmark, Options, open_benchmark
from cambrian.agents.benching.loop import Trace
from cambrian.agents.benching.members import Known
from cambrian.agents.benching.searchers import Searcher, run_config, search
from cambrian.agents.benching.table import Floats
from cambrian.agents.errors import InfrastructureError
from cambrian.agents.evaluator.encoding import Structure
from cambrian.agents.population.model import CONTROL_ARM

FEATURES_PER_EVALUATION = 8
"""Members whose features a guided search asks for, for each evaluation: the predictor's pool."""
MOST_PREPARED = 50_000
"""Members up to which features are read before the searches begin; else they are when they are asked for."""
LEAST_SHARED = 2000
"""Members from which on processes share that."""
FORKS = sys.platform == "linux"
"""Whether processes start with all that this one has in memory."""


@dataclass(frozen=True)
class Plan:
    """How much is searched.

    Attributes:
        searchers: who searches.
        seeds: searches of each, with the seeds from `first_seed` on.
        evaluations: look-ups that a search may make.
        warmup: random proposals at the start of a portfolio; None is a run file's default.
        predictor: whether portfolios have the predictor choose and refuse proposals.
    """

    searchers: tuple[Searcher, ...]
    seeds: int
    evaluations: int
    first_seed: int = 0
    warmup: int | None = None
    predictor: bool = True

    def work(self) -> list[tuple[int, int]]:
        """(index of the searcher, seed) of every search."""
        seeds = range(self.first_seed, self.first_seed + self.seeds)
        return [(index, seed) for seed in seeds for index in range(len(self.searchers))]


def run_study(
    benchmark: Benchmark, plan: Plan, jobs: int, done: Callable[[str, int], None] = lambda _name, _seed: None
) -> list[list[Trace]]:
    """All searches of the plan.

    Args:
        benchmark: what is searched.
        plan: by whom, how often.
        jobs: processes; 1 searches in this one.
        done: told the searcher and the seed of each search that has ended.

    Returns:
        One list a searcher, with one trace a seed; the same whatever `jobs` is.
    """
    found: dict[tuple[int, int], Trace] = {}
    _prepare(benchmark, plan, jobs)
    here = ((item, _search(benchmark, plan, item)) for item in plan.work())
    for item, trace in here if jobs == 1 else _in_processes(benchmark, plan, jobs):
        found[item] = trace
        done(plan.searchers[item[0]].name, item[1])
    seeds = sorted({seed for _, seed in found})
    return [[found[index, seed] for seed in seeds] for index in range(len(plan.searchers))]


def _prepare(benchmark: Benchmark, plan: Plan, jobs: int) -> None:
    """Read the features of all members, where the searches together will ask for about as many."""
    space = benchmark.space
    portfolios = sum(bool(each.weights.keys() - {CONTROL_ARM}) for each in plan.searchers)
    asked = portfolios * plan.seeds * plan.evaluations * FEATURES_PER_EVALUATION
    if not space.size <= min(asked, MOST_PREPARED):
        return
    if jobs == 1 or not FORKS or space.size < LEAST_SHARED:
        space.prepare()
        return
    size = -(-space.size // (4 * jobs))
    ranges = [range(at, min(at + size, space.size)) for at in range(0, space.size, size)]
    with _pool(benchmark, plan, jobs) as pool:
        space.prepare(pool.map(_read, ranges))


def _search(benchmark: Benchmark, plan: Plan, item: tuple[int, int]) -> Trace:
    searcher = plan.searchers[item[0]]
    config = run_config(searcher, item[1], plan.evaluations, warmup=plan.warmup, predictor=plan.predictor)
    return asyncio.run(search(benchmark, searcher, config))


# -- processes -------------------------------------------------------------------------------------------

_shared: tuple[Benchmark, Plan] | None = None
"""What a worker searches: inherited where processes are forked, else made by `_begin`."""


def _in_processes(benchmark: Benchmark, plan: Plan, jobs: int) -> Iterator[tuple[tuple[int, int], Trace]]:
    with _pool(benchmark, plan, jobs) as pool:
        futures = {pool.submit(_work, item): item for item in plan.work()}
        for future in as_completed(futures):
            yield futures[future], future.result()


@contextmanager
def _pool(benchmark: Benchmark, plan: Plan, jobs: int) -> Iterator[ProcessPoolExecutor]:
    global _shared
    _shared = (benchmark, plan)
    context = multiprocessing.get_context("fork" if FORKS else "spawn")
    options = None if FORKS else benchmark.options
    pool = ProcessPoolExecutor(jobs, context, initializer=_begin, initargs=(options, plan))
    try:
        yield pool
    except BrokenProcessPool as error:
        raise InfrastructureError(
            "a process that searched was killed", hint="it may have run out of memory: try fewer --jobs"
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)
        _shared = None


def _begin(options: Options | None, plan: Plan) -> None:
    global _shared
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C reaches all of us: only the first says something
    threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()
    gc.freeze()  # what all processes share would be walked, and so copied, by each collection
    if options is not None:
        _shared = (open_benchmark(options), plan)


def _end_with(parent: int) -> None:
    """Exit when `parent` is gone: a pool's workers would wait for ever."""
    while os.getppid() == parent:
        time.sleep(1.0)
    os._exit(1)


def _read(rows: range) -> tuple[Floats, list[Structure | None]]:
    assert _shared is not None
    features, structures = _shared[0].space.read(rows)
    return features, [None if s is None else Known(dict(s.totals), dict(s.motifs)) for s in structures]


def _work(item: tuple[int, int]) -> Trace:
    assert _shared is not None
    return _search(*_shared, item)
