"""What `--arms` means: portfolios of registered arms, and two published searches for comparison.

The peers propose by the space's own samples and edits, see the same look-ups, and pay for none twice:

* `regularized-evolution`: Real et al., Regularized Evolution for Image Classifier Architecture Search, AAAI
  2019: a queue of the youngest, the best of a random sample of it is mutated, the oldest dies.
* `local-search`: White et al., Exploring the Loss Landscape in Neural Architecture Search, UAI 2021:
  neighbours of the best so far in random order until one is better; from a new random row where none is.
"""

from __future__ import annotations

import contextlib
import random
import re
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cambrian.agents.benching.benchmark import Benchmark
from cambrian.agents.benching.loop import Trace
from cambrian.agents.errors import UnknownNameError, UserError
from cambrian.agents.planner import ARMS
from cambrian.agents.planner.portfolio import build_arms
from cambrian.agents.population.model import CONTROL_ARM
from cambrian.agents.runfile import RunConfig
from cambrian.search_spaces import Genotype, near_names

DEFAULT = "default"
ASKS_MODEL = "llm"
QUEUE, SAMPLE = 20, 5
"""Regularized evolution's population and sample: a tenth of Real et al.'s, as budgets are a hundredth."""
IDLE_LIMIT = 1000
"""Look-ups in a row that a peer had made before, after which it counts as stuck."""


@dataclass(frozen=True)
class Searcher:
    """One line of the result.

    Attributes:
        name: as it is shown.
        weights: by arm; empty for a peer.
        single: a portfolio of one arm.
    """

    name: str
    weights: Mapping[str, float]

    @property
    def single(self) -> bool:
        """Whether it is one arm by itself."""
        return len(self.weights) == 1


def default_weights() -> dict[str, float]:
    """The weights of a run file that names none, without the arm that asks a model."""
    arms = RunConfig.model_fields["arms"].get_default(call_default_factory=True)
    return {name: arm.weight for name, arm in arms.items() if name != ASKS_MODEL and arm.weight > 0}


def parse_arms(text: str | None) -> list[Searcher]:
    """Read `--arms`: names and portfolios separated by commas, such as `default,mutation,mutation+model:0.5`.

    None stands for the default portfolio, each of its arms alone, and the peers.

    Raises:
        UserError: not of that form, or an arm that needs a model.
        UnknownNameError: no such arm or peer; near names are told.
    """
    if text is None:
        text = ",".join([DEFAULT, *default_weights(), *PEERS])
    found: dict[str, Searcher] = {}
    for part in (part.strip() for part in text.split(",")):
        if part in PEERS:
            found[part] = Searcher(part, {})
        elif part == DEFAULT:
            found[part] = Searcher(part, default_weights())
        elif part:
            found[part] = Searcher(part, _weights(part))
    if not found:
        raise UserError("--arms: names no arm", hint=f"known: {', '.join(_names())}")
    return list(found.values())


def _names() -> list[str]:
    return [DEFAULT, *(name for name in ARMS.names() if name != ASKS_MODEL), *PEERS]


def _weights(text: str) -> dict[str, float]:
    found: dict[str, float] = {}
    for part in text.split("+"):
        name, colon, number = part.strip().partition(":")
        if name == ASKS_MODEL:
            raise UserError(
                f"--arms: arm {name!r} asks a model for every proposal: too dear for many seeds",
                hint="search a table with it by `cambrian run runs/cell-table.yaml`",
            )
        if name not in ARMS.names():
            raise UnknownNameError(f"--arms: unknown arm {name!r}", hint=near_names(name, _names()))
        if colon and not re.fullmatch(r"\d*\.?\d+", number):
            raise UserError(f"--arms: {part!r}: {number!r} is no weight", hint="write NAME:0.3")
        weight = float(number) if colon else 1.0
        if weight <= 0 or name in found:
            problem = "stands there twice" if name in found else "has no weight"
            raise UserError(f"--arms: {text!r}: {name!r} {problem}", hint="write mutation+crossover:0.3")
        found[name] = weight
    return found


def run_config(
    searcher: Searcher, seed: int, evaluations: int, *, warmup: int | None, predictor: bool
) -> RunConfig:
    """The run file that a portfolio stands for."""
    data: dict[str, Any] = {
        "name": "bench",
        "space": "table",
        "task": "table",
        "seed": seed,
        "slots": 1,
        "budget": evaluations,
        "arms": dict(searcher.weights),
        "predictor": {"enabled": predictor and searcher.weights.keys() != {CONTROL_ARM}},
    }
    return RunConfig.model_validate(data | ({} if warmup is None else {"warmup": warmup}))


async def search(benchmark: Benchmark, searcher: Searcher, config: RunConfig) -> Trace:
    """One search."""
    from cambrian.agents.benching.loop import TableLoop

    if not searcher.weights:
        return _run_peer(benchmark, searcher.name, config)
    arms = build_arms(config, None)
    return await TableLoop(benchmark, config, arms).run()


# -- peers -----------------------------------------------------------------------------------------------


class _Spent(Exception):
    """All evaluations are made."""


class _Counter:
    """Looks rows up for a peer, each paid once; raises `_Spent` instead of paying for too many."""

    def __init__(self, benchmark: Benchmark, name: str, most: int) -> None:
        self.bench, self.trace, self._name = benchmark, Trace(), name
        self._most = min(most, benchmark.space.size)
        self._seen: dict[str, int] = {}
        self._idle = 0

    def fitness(self, genotype: Genotype) -> float:
        """Higher is better, whatever the metric's direction; a row that breaks a limit is the worst."""
        bench, trace = self.bench, self.trace
        row = bench.space.row_of(genotype)
        assert row is not None
        known = self._seen.get(bench.identity(row))
        if known is None and len(trace.rows) >= self._most:
            raise _Spent
        trace.proposals += 1
        if known is not None:
            trace.duplicates[self._name] = trace.duplicates.get(self._name, 0) + 1
            self._idle += 1
            if self._idle >= IDLE_LIMIT:
                trace.ended = f"the last {self._idle} proposals led to no evaluation"
                raise _Spent
            return self._value(known)
        self._idle = 0
        if bench.known_before[row]:
            trace.refused += 1
            return float("-inf")
        self._seen[bench.identity(row)] = row
        trace.rows.append(row)
        trace.arms.append(self._name)
        return self._value(row)

    def _value(self, row: int) -> float:
        return float(self.bench.sign * self.bench.metric[row]) if self.bench.feasible[row] else float("-inf")


def _run_peer(benchmark: Benchmark, name: str, config: RunConfig) -> Trace:
    began = time.process_time()
    counter = _Counter(benchmark, name, config.budget.evaluations or 0)
    with contextlib.suppress(_Spent):
        PEERS[name](counter, random.Random(f"{config.seed}/{name}"))
    counter.trace.seconds = time.process_time() - began
    return counter.trace


def _regularized_evolution(counter: _Counter, rng: random.Random) -> None:
    space = counter.bench.space
    queue: deque[tuple[float, Genotype]] = deque(maxlen=QUEUE)
    while True:
        if len(queue) < QUEUE:
            child = space.sample(rng)
        else:
            drawn = [queue[at] for at in rng.sample(range(QUEUE), SAMPLE)]
            child = space.mutate(max(drawn, key=lambda entry: entry[0])[1], rng)[0]
        queue.append((counter.fitness(child), child))


def _local_search(counter: _Counter, rng: random.Random) -> None:
    space = counter.bench.space
    while True:
        here = space.sample(rng)
        best = counter.fitness(here)
        improved = True
        while improved:
            improved = False
            near = space.neighbours(here)
            rng.shuffle(near)
            for neighbour in near:
                value = counter.fitness(neighbour)
                if value > best:
                    here, best, improved = neighbour, value, True
                    break


PEERS: Mapping[str, Callable[[_Counter, random.Random], None]] = {
    "regularized-evolution": _regularized_evolution,
    "local-search": _local_search,
}


def singles_of(searchers: Sequence[Searcher], of: Searcher) -> list[Searcher]:
    """Those that are one arm of the portfolio `of` alone."""
    return [
        each for each in searchers if each.single and each.weights.keys() <= of.weights.keys() and each != of
    ]
