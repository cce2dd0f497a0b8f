"""How fast each space is: samples, edits, joints, features, builds and identities a second, on one thread.

    make bench NAME=spaces                      # every registered space
    make bench NAME=spaces ARGS="convnet cell"
    make bench NAME=spaces ARGS="--others"      # beside ConfigSpace (pip install ConfigSpace)

A sample is a valid design: drawn, checked against all rules, typed, and within the limits on parameters and
operations. Times are those of the process, so that other work on the machine matters little.
"""

from __future__ import annotations

import argparse
import itertools
import random
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch

from cambrian.sandbox.examination.identity import identity
from cambrian.sandbox.examination.static import check
from cambrian.search_spaces import SPACES, Genotype, Signature
from cambrian.search_spaces.declarative.space import DeclarativeSpace
from tests.benchmarks.harness import Row, publish

ROUNDS = 5
TARGETS = {"samples/s": 2000, "edits/s": 1000}
"""What `cell` and `convnet` have to reach."""


def rate(call: Callable[[], object], seconds: float) -> float:
    """Median calls a second over `ROUNDS` rounds of about `seconds` each, by the process's own time."""
    call()
    rates = []
    for _ in range(ROUNDS):
        calls, start = 0, time.process_time()
        while (used := time.process_time() - start) < seconds:
            call()
            calls += 1
        rates.append(calls / used)
    return statistics.median(rates)


def measure(space: DeclarativeSpace, seconds: float) -> Row:
    """One line of the table."""
    rng = random.Random(0)
    designs = [space.sample(rng) for _ in range(400)]
    turn: Iterator[Genotype] = itertools.cycle(designs)
    signature: Signature = space.definition.file.reference

    def build_on_meta() -> None:
        check(space, next(turn), signature, 2)

    def build() -> None:
        space.build(next(turn), signature)

    return {
        "space": space.name,
        "samples/s": round(rate(lambda: space.sample(rng), seconds)),
        "edits/s": round(rate(lambda: space.mutate(next(turn), rng), seconds)),
        "joints/s": round(rate(lambda: space.crossover(next(turn), next(turn), rng), seconds)),
        "validations/s": round(rate(lambda: space.validate(next(turn)), seconds)),
        "features/s": round(rate(lambda: space.features(next(turn)), seconds)),
        "builds/s": round(rate(build, seconds)),
        "static checks/s": round(rate(build_on_meta, seconds)),
        "identities/s": round(rate(lambda: identity(space, next(turn), signature), seconds)),
    }


def measure_configspace(seconds: float) -> Row:
    """The genes of convnet in ConfigSpace, the library under SMAC and NePS, without limits on size.

    Stages beyond the drawn number are switched off by conditions, as are the genes that a kind of block
    ignores. ConfigSpace knows no networks, so that typing and limits are left out in its favour.
    """
    import ConfigSpace as cs

    space = cs.ConfigurationSpace(seed=0)

    def add(name: str, values: tuple[Any, ...]) -> Any:
        parameter = cs.CategoricalHyperparameter(name, values)
        space.add(parameter)
        return parameter

    definition = _open("convnet").definition
    tables = {
        rule: {field.name: field.domain.values for field in definition.grammar.rules[rule].fields}  # type: ignore[union-attr]
        for rule in ("stem", "stage", "head")
    }
    for owner in ("stem", "head"):
        for gene, values in tables[owner].items():
            add(f"{owner}.{gene}", values)
    number = add("stages", (1, 2, 3, 4, 5))
    for index in range(5):
        made = {gene: add(f"stage{index}.{gene}", values) for gene, values in tables["stage"].items()}
        here = [n for n in (1, 2, 3, 4, 5) if n > index]
        for gene, parameter in made.items():
            conditions = [cs.InCondition(parameter, number, here)] if index else []
            if gene == "expansion":
                conditions.append(cs.InCondition(parameter, made["block"], ["inverted", "attention"]))
            elif gene in ("kernel", "se"):
                conditions.append(cs.NotEqualsCondition(parameter, made["block"], "attention"))
            if len(conditions) == 2:
                space.add(cs.AndConjunction(*conditions))
            elif conditions:
                space.add(conditions[0])
    designs = [space.sample_configuration() for _ in range(50)]
    turn, seed = itertools.cycle(designs), itertools.count()

    def edit() -> None:
        next(iter(cs.util.get_one_exchange_neighbourhood(next(turn), seed=next(seed))))

    return {
        "space": f"ConfigSpace {cs.__version__}, convnet's genes",
        "samples/s": round(rate(space.sample_configuration, seconds)),
        "edits/s": round(rate(edit, seconds)),
    }


def _open(name: str) -> DeclarativeSpace:
    space = SPACES.create(name)
    if not isinstance(space, DeclarativeSpace):
        raise SystemExit(f"{name} is no space of files")
    return space


def main() -> int:
    """Measure, print, write `runs/bench/spaces.json`; 1 when a target is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help="spaces; all registered ones when none is named")
    parser.add_argument("--seconds", type=float, default=0.3, help="of each of the five rounds of a figure")
    parser.add_argument("--others", action="store_true", help="measure ConfigSpace beside ours")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rows = [measure(_open(name), arguments.seconds) for name in arguments.names or SPACES.names()]
    if arguments.others:
        theirs = measure_configspace(arguments.seconds)
        rows.append({column: theirs.get(column, "-") for column in rows[0]})
    publish(
        "spaces",
        rows,
        note="One thread, medians of five rounds. Samples, edits and joints are valid designs.",
    )
    slow = [
        f"{row['space']}: {row[column]} {column}, wanted are {least}"
        for row in rows
        for column, least in TARGETS.items()
        if row["space"] in ("cell", "convnet") and row[column] < least
    ]
    print("\n".join(slow) or "cell and convnet reach 2,000 samples and 1,000 edits a second")
    return int(bool(slow))


if __name__ == "__main__":
    sys.exit(main())
