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

from cambrian.agents.benching.asked import llm_section, models_of
from cambrian.agents.benching.benchmark import Benchmark
from cambrian.agents.benching.loop import Trace
from cambrian.agents.benching.rubbish import NAME as RUBBISH
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
        model: that the arm `llm` asks; empty without that arm.
    """

    name: str
    weights: Mapping[str, float]
    model: str = ""

    @property
    def single(self) -> bool:
        """Whether it is one arm by itself."""
        return len(self.weights) == 1


def default_weights() -> dict[str, float]:
    """The weights of a run file that names none, without the arm that asks a model."""
    arms = RunConfig.model_fields["arms"].get_default(call_default_factory=True)
    return {name: arm.weight for name, arm in arms.items() if name != ASKS_MODEL and arm.weight > 0}


def parse_arms(text: str | None, models: Sequence[str] = ()) -> list[Searcher]:
    """Read `--arms`: names and portfolios separated by commas, such as `default,mutation,mutation+local:0.5`.

    None stands for the default portfolio, each of its arms alone, and the peers; with a model for the default
    portfolio without and with the arm that asks it. A searcher with that arm becomes one a model, and what it
    is without the arm is searched as well, for comparison.

    Args:
        text: the option.
        models: of `--llm`.

    Raises:
        UserError: not of that form, or an arm that needs a model and none is given, or the other way round.
        UnknownNameError: no such arm or peer; near names are told.
    """
    if text is None and models:
        text = f"{DEFAULT},{DEFAULT}+{ASKS_MODEL}"
    if text is None:
        text = ",".join([DEFAULT, *default_weights(), *PEERS])
    found: dict[str, Searcher] = {}
    for part in (part.strip() for part in text.split(",")):
        if part in PEERS:
            found[part] = Searcher(part, {})
        elif part:
            weights = _weights(part)
            if ASKS_MODEL not in weights:
                found[part] = Searcher(part, weights)
                continue
            if not models:
                raise UserError(
                    f"--arms: arm {ASKS_MODEL!r} asks a model for its proposals: say which",
                    hint=f"--llm local is a small one on this machine, --llm {RUBBISH} a useless one",
                )
            without = without_model(weights)
            known = any(each.weights == without for each in found.values())
            if without and not known:
                alone = "+".join(each for each in part.split("+") if each.partition(":")[0] != ASKS_MODEL)
                found.setdefault(alone, Searcher(alone, without))
            for model in models:
                name = part if len(models) == 1 else f"{part} ({model})"
                found[name] = Searcher(name, weights, model)
    if not found:
        raise UserError("--arms: names no arm", hint=f"known: {', '.join(_names())}")
    if models and not any(each.model for each in found.values()):
        raise UserError(
            f"--llm: no searcher has the arm {ASKS_MODEL!r}", hint=f"--arms {DEFAULT}+{ASKS_MODEL} has it"
        )
    return list(found.values())


def without_model(weights: Mapping[str, float]) -> dict[str, float]:
    """The weights of a portfolio without the arm that asks a model."""
    return {name: weight for name, weight in weights.items() if name != ASKS_MODEL}


def _names() -> list[str]:
    return [DEFAULT, *ARMS.names(), *PEERS]


def _model_weight() -> float:
    """The weight of the arm that asks a model beside `default_weights`."""
    arms = RunConfig.model_fields["arms"].get_default(call_default_factory=True)
    return float(arms[ASKS_MODEL].weight)


def _weights(text: str) -> dict[str, float]:
    found: dict[str, float] = {}
    for part in text.split("+"):
        name, colon, number = part.strip().partition(":")
        if name == DEFAULT and not colon and not found:
            found = default_weights()
            continue
        if name not in ARMS.names():
            raise UnknownNameError(f"--arms: unknown arm {name!r}", hint=near_names(name, _names()))
        if colon and not re.fullmatch(r"\d*\.?\d+", number):
            raise UserError(f"--arms: {part!r}: {number!r} is no weight", hint="write NAME:0.3")
        usual = _model_weight() if name == ASKS_MODEL and text.startswith(DEFAULT) else 1.0
        weight = float(number) if colon else usual
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
        "llm": llm_section(searcher.model) if searcher.model else {},
    }
    return RunConfig.model_validate(data | ({} if warmup is None else {"warmup": warmup}))


async def search(benchmark: Benchmark, searcher: Searcher, config: RunConfig) -> Trace:
    """One search."""
    from cambrian.agents.benching.loop import Clock, TableLoop

    if not searcher.weights:
        return _run_peer(benchmark, searcher.name, config)
    clock = Clock()
    if not searcher.model:
        return await TableLoop(benchmark, config, build_arms(config, None), clock).run()
    async with models_of(searcher.model, config, benchmark.space, clock) as (config, models, exchanges):
        trace = await TableLoop(benchmark, config, build_arms(config, models), clock).run()
        trace.calls, trace.tokens = exchanges.calls, exchanges.tokens
        return trace


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


def twin_of(searchers: Sequence[Searcher], of: Searcher) -> Searcher | None:
    """The one that is `of` without the arm that asks a model; None where nobody is, or it has no such arm."""
    without = without_model(of.weights)
    twins = (each for each in searchers if each.weights == without)
    return next(twins, None) if of.model and without else None
