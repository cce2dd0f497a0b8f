"""Of proposals, half of them copies in other words: how many are trained twice, by identity and by text?

    make bench NAME=duplicates
    make bench NAME=duplicates ARGS="--proposals 5000 --spaces convnet cell"

Proposals go through the real admission and the real store; what is admitted counts as evaluated. Every second
one is an earlier candidate in other words (`tests.support.rewording`): stages split or joined, dead genes and
dead edges set anew, nodes renumbered, keys in another order; sources refactored. Functions are told apart by
normal forms that know of no hash. A peer that goes by the text of the genotype is the comparison: as its
author wrote it, or sorted and made canonical by the space, which folds what it knows to be dead.

The target is that at most 1 % of evaluations go to duplicates, and that nothing new is refused: what is
refused with another normal form must compute the same with the same weights.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import tempfile
import time
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from cambrian.agents.evaluator.admission import Admission
from cambrian.agents.population import Candidate, CandidateState, Proposal, candidate_id
from cambrian.agents.population.store import PopulationStore, RunRecord
from cambrian.agents.runfile import parse_config
from cambrian.search_spaces import SPACES, TASKS, Genotype
from tests.benchmarks.duplicates.code import measure_code
from tests.benchmarks.harness import publish
from tests.benchmarks.identity.symbolic import symbolic
from tests.support import rewording

FORMS: dict[str, tuple[rewording.Reword, Callable[[Genotype], Hashable]]] = {
    "convnet": (rewording.convnet, rewording.convnet_form),
    "cell": (rewording.cell, symbolic),
}
CODE = "code"
TARGET = 0.01


def main() -> None:
    """Measure the spaces that were asked for and publish one row for each."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.duplicates", description=__doc__)
    parser.add_argument("--proposals", type=int, default=1000, help="in each space")
    parser.add_argument("--spaces", nargs="+", choices=[*FORMS, CODE], default=[*FORMS, CODE])
    parser.add_argument("--trainings", type=int, default=30, help="of code, which is really run")
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    for name in asked.spaces:
        if name == CODE:
            rows.append(asyncio.run(measure_code(asked.trainings, asked.seed)))
            continue
        with tempfile.TemporaryDirectory() as folder:
            rows.append(measure(name, asked.proposals, asked.seed, Path(folder)))
    publish(
        "duplicates",
        rows,
        note=f"wasted: evaluations of what was evaluated already; target at most {TARGET:.0%}, and nothing "
        "new refused. By text: the same for a peer that compares genotypes as they were written, or made "
        "canonical by the space. Milliseconds are CPU time a proposal, static checks included; for code, "
        "what its examination in a sandbox took by the clock.",
    )


def measure(name: str, proposals: int, seed: int, folder: Path) -> dict[str, Any]:
    """Propose in the space `name`, and judge what was admitted and what was not."""
    reword, form = FORMS[name]
    space, task, rng = SPACES.create(name), TASKS.create("digits"), random.Random(seed)
    config = parse_config(
        {"name": "bench", "space": name, "task": "digits", "budget": {"evaluations": proposals}}, "bench"
    )
    record = RunRecord(
        run_id="bench", name="bench", space=name, task="digits", metric="accuracy", maximize=True,
        cost="params", created=0.0, config={},
    )  # fmt: skip
    store = PopulationStore(folder, create=record)
    admission = Admission(config, space, task, store)
    spent = {"admission": 0.0, "similarity": 0.0}
    relate = admission.similarity.relate

    def timed(candidate: Candidate, motifs: Any = None) -> Any:
        with clock(spent, "similarity"):
            return relate(candidate, motifs)

    admission.similarity.relate = timed  # type: ignore[method-assign]
    admitted: list[Candidate] = []
    refused: list[Candidate] = []
    copies = 0
    written: list[tuple[Hashable, str, str]] = []
    for index in range(proposals):
        genotype = copy_of(admitted, reword, rng) if rng.random() < 0.5 else None
        copies += genotype is not None
        proposed = space.sample(rng) if genotype is None else genotype
        candidate = Candidate(
            id=candidate_id(index),
            index=index,
            proposal=Proposal(arm="bench", genotype=proposed),
            genotype=proposed,
            state=CandidateState.PROPOSED,
        )
        store.add(candidate)
        with clock(spent, "admission"):
            candidate = admission.admit(candidate)
        store.update(candidate)
        (refused if candidate.state.ended else admitted).append(candidate)
        canonical = json.dumps(candidate.genotype, sort_keys=True)
        written.append((form(candidate.genotype), json.dumps(proposed), canonical))
    assert all(c.state is CandidateState.DUPLICATE for c in refused)
    by_id = {c.id: c for c in admitted}
    wrong = 0
    for candidate in refused:
        first = by_id[candidate.duplicate_of or ""].genotype
        if form(first) != form(candidate.genotype):
            wrong += not rewording.compute_alike(space, first, candidate.genotype, task.signature)
    store.close()
    return {
        "space": name,
        "proposals": proposals,
        "copies": copies,
        "functions": len({function for function, _, _ in written}),
        "evaluated": len(admitted),
        "wasted %": _wasted([form(c.genotype) for c in admitted]),
        "new refused": wrong,
        "by text %": _wasted(_first_of([(function, text) for function, text, _ in written])),
        "by canonical text %": _wasted(_first_of([(function, text) for function, _, text in written])),
        "identity ms": 1000 * (spent["admission"] - spent["similarity"]) / proposals,
        "similarity ms": 1000 * spent["similarity"] / max(len(admitted), 1),
    }


def copy_of(admitted: list[Candidate], reword: rewording.Reword, rng: random.Random) -> Genotype | None:
    """One of `admitted` in other words; None while there is none that could be written in another way."""
    for _ in range(min(len(admitted), 50)):
        if (made := reword(rng.choice(admitted).genotype, rng)) is not None:
            return made
    return None


def _first_of(written: list[tuple[Hashable, str]]) -> list[Hashable]:
    """The functions that are evaluated where equal texts are refused."""
    seen: dict[str, Hashable] = {}
    for function, text in written:
        seen.setdefault(text, function)
    return list(seen.values())


def _wasted(functions: list[Hashable]) -> float:
    return 100 * (1 - len(set(functions)) / len(functions))


@contextmanager
def clock(spent: dict[str, float], what: str) -> Iterator[None]:
    """Add the CPU time of the block to `spent[what]`."""
    began = time.process_time()
    try:
        yield
    finally:
        spent[what] += time.process_time() - began


if __name__ == "__main__":
    main()
