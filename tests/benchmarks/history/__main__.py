"""Does the planner use the history that it is shown, or would it propose the same without?

    make bench NAME=history
    make bench NAME=history ARGS="--model FILE.gguf --contexts 40 --minutes 60"
    make bench NAME=history ARGS="--endpoint http://localhost:8000/v1 --model NAME --contexts 100"

Adam and Lorraine (arXiv 1904.00438) found that a celebrated controller proposed as well when its history was
taken away. Here a real model is asked for cells of NAS-Bench-201, whose accuracies are all known, by the real
prompts, in the same situation three times:

- true: with the history as it was measured;
- emptied: before anything was measured;
- shuffled: with the scores dealt out anew among the candidates.

In each situation the known cells that a run begins with, a few random ones and some mutations of the best
were evaluated. The model answers without randomness (temperature 0), so that what differs comes of the
history; `again` asks the true question twice, to show how much differs by itself. What is proposed is looked
up: the share of all 15,625 cells whose validation accuracy after 200 epochs is worse. A cell that was
evaluated before is worth nothing, whatever its accuracy, because no run would train it again; nor is an
answer that holds no cell. Differences are paired by situation, with a bootstrap interval and Wilcoxon's
signed-rank test.

Part of what a history is worth comes of what the planner makes of it before a model is asked: `start` is the
value of the network to start from, `any offer` that of a change drawn from those which the model may choose
from, `first offer` that of the one which the measurements speak for most, and `any change` that of one drawn
from all. What the model itself adds is the difference of `worth` to these.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import functools
import random
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from cambrian.agents.errors import ProposalError
from cambrian.agents.planner import ProposalContext
from cambrian.agents.planner.answers import parse_answers
from cambrian.agents.planner.changes import Change, changed, genes
from cambrian.agents.planner.client import ModelRequest
from cambrian.agents.planner.context import offers_of
from cambrian.agents.planner.evidence import Offer
from cambrian.agents.planner.exchange import Exchange, ExchangeLog
from cambrian.agents.planner.local_model import LocalModel
from cambrian.agents.planner.openai_client import OpenAIClient
from cambrian.agents.planner.questions import Questions
from cambrian.agents.planner.templates import Templates
from cambrian.agents.population.model import Candidate, CandidateState, Proposal, candidate_id
from cambrian.agents.population.view import Population
from cambrian.agents.runfile import parse_config
from cambrian.agents.sections import LLMSection
from cambrian.search_spaces import SPACES, TASKS, Genotype
from cambrian.search_spaces.tasks.nasbench201 import EDGES, OPERATIONS
from tests.benchmarks.harness import publish

EPOCHS = 200
TRUE, EMPTIED, SHUFFLED, AGAIN = "true", "emptied", "shuffled", "again"
PARALLEL = 3
"""Questions that a model file's server answers at a time: in one batch they cost little more than one."""
TEXT_LIMIT = 80
"""Characters of each text in an answer: they cost most of the time and are not what is measured."""


@dataclass(frozen=True)
class Asked:
    """One question and what came of it.

    Attributes:
        start: share of all cells worse than the one that the model was asked to start from.
        without: what changes that no model chose are worth; None where none were asked for.
        better: share of all cells worse than the proposed one; None when the answer was no cell.
        known: whether the proposed cell was in the history.
    """

    context: int
    condition: str
    focus: str
    start: float | None
    without: WithoutModel | None
    genotype: Genotype | None
    accuracy: float | None
    better: float | None
    known: bool
    tokens: int
    seconds: float

    @property
    def worth(self) -> float:
        """`better` of a new cell, 0 to 1; nothing of any other answer."""
        return 0.0 if self.known or self.better is None else self.better


@dataclass(frozen=True)
class Situation:
    """One question.

    Attributes:
        focus: what the proposal is to attempt.
        ids: candidates to start from, the first is changed.
        offers: changes that the model may choose from.
    """

    request: ModelRequest
    focus: str
    ids: tuple[str, ...]
    offers: Sequence[Offer]


@dataclass(frozen=True)
class WithoutModel:
    """What one change is worth that no model chose: any, any that is offered, and the first of these."""

    change: float
    offer: float
    first: float


class World:
    """The table, the space of its cells, and situations in it."""

    def __init__(self, answers: str) -> None:
        self.by_changes = answers == "changes"
        self.space = SPACES.create("cell")
        self.task = TASKS.create("nasbench201", rungs=[{"epochs": EPOCHS}])
        self.templates = Templates.of(self.space)
        cells = (
            dict(zip(EDGES, self._operations(i), strict=True)) for i in range(len(OPERATIONS) ** len(EDGES))
        )
        self._sorted = np.sort([self.accuracy(cell) for cell in cells])

    @staticmethod
    def _operations(index: int) -> list[str]:
        return [
            OPERATIONS[index // len(OPERATIONS) ** place % len(OPERATIONS)] for place in range(len(EDGES))
        ]

    @functools.cache  # noqa: B019 - one world a process
    def _looked_up(self, key: tuple[str, ...]) -> float:
        return self.task.lookup(dict(zip(EDGES, key, strict=True)), EPOCHS, 0).metrics["accuracy"]

    def accuracy(self, genotype: Genotype) -> float:
        """Validation accuracy, 0 to 1."""
        return self._looked_up(tuple(genotype[edge] for edge in EDGES))

    def better(self, genotype: Genotype) -> float:
        """Share of all cells that are worse, 0 to 1."""
        return float(np.searchsorted(self._sorted, self.accuracy(genotype)) / len(self._sorted))

    def history(self, seed: int, size: int) -> list[Candidate]:
        """The space's known cells, random ones and mutations of the best, all different and evaluated."""
        rng, found, keys = random.Random(f"history/{seed}"), list[Candidate](), set[str]()
        for name, genotype in self.space.baselines().items():
            found.append(self._candidate(len(found), Proposal(arm="baseline", genotype=genotype, edit=name)))
            keys.add(str(sorted(genotype.items())))
        while len(found) < size:
            proposal: dict[str, Any] = {"arm": "random", "genotype": self.space.sample(rng)}
            if len(found) >= (size + len(self.space.baselines())) // 2:
                best = max(rng.sample(found, 3), key=lambda c: c.score or 0.0)
                genotype, edit = self.space.mutate(best.genotype, rng)
                proposal = {"arm": "mutation", "genotype": genotype, "parents": (best.id,), "edit": edit}
            if (key := str(sorted(proposal["genotype"].items()))) in keys:
                continue
            keys.add(key)
            found.append(self._candidate(len(found), Proposal(**proposal)))
        return found

    def worth(self, start: Genotype, gene: str, value: Any, history: Sequence[Candidate]) -> float:
        """What one change of `start` is worth, see `Asked.worth`."""
        made = changed(self.space, start, [Change(gene=gene, to=value)])
        return 0.0 if any(made == c.genotype for c in history) else self.better(made)

    def without_model(self, situation: Situation, history: Sequence[Candidate]) -> WithoutModel | None:
        """What changes of the same start are worth that no model chose; None where none were asked for."""
        if not situation.offers:
            return None
        start = next(c.genotype for c in history if c.id == situation.ids[0])
        every = [(g.path, value) for g in genes(self.space, start) for value in g.values or ()]
        offered = [(o.gene.path, o.to.value) for o in situation.offers if o.to is not None]
        first, *_ = listed = [self.worth(start, *each, history) for each in offered]
        return WithoutModel(mean([self.worth(start, *each, history) for each in every]), mean(listed), first)

    def _candidate(self, index: int, proposal: Proposal) -> Candidate:
        accuracy = self.accuracy(proposal.genotype)
        return Candidate(
            id=candidate_id(index),
            index=index,
            proposal=proposal,
            genotype=proposal.genotype,
            state=CandidateState.EVALUATED,
            summary=self.space.summarise(proposal.genotype),
            score=accuracy,
            rung=0,
            tried_rung=0,
            rung_scores=(accuracy,),
            cost=0.0,  # one aim, so that one number tells what a proposal is worth
            ended_s=float(index),
            ended_order=index,
        )

    def situation(self, history: Sequence[Candidate], seed: int, condition: str) -> Situation:
        """What is asked in one condition."""
        told = {TRUE: history, AGAIN: history, EMPTIED: (), SHUFFLED: shuffled(history, seed)}[condition]
        context = ProposalContext(
            index=seed,  # its number is all that tells questions without a history apart
            rng=random.Random(f"question/{seed}"),
            space=self.space,
            task=self.task,
            signature=self.task.signature,
            population=Population(maximize=True, candidates=told),
            budget_left=0.5,
        )
        questions = Questions(self.templates, context, by_changes=self.by_changes)
        request, focus = questions.question(), questions.variables["focus"]
        return Situation(
            replace(request, bounds=terse(request.bounds)),
            focus["kind"],
            tuple(focus["ids"]),
            offers_of(context, focus) if questions.variables["changes"] else [],
        )


def terse(bounds: Any) -> Any:
    """Bounds of an answer with no text longer than `TEXT_LIMIT`."""
    if not isinstance(bounds, dict):
        return bounds
    return {
        key: min(value, TEXT_LIMIT) if key == "maxLength" else terse(value) for key, value in bounds.items()
    }


def shuffled(history: Sequence[Candidate], seed: int) -> list[Candidate]:
    """The same candidates with each other's scores; at most a quarter may keep its own."""
    rng, scores = random.Random(f"shuffle/{seed}"), [c.score for c in history]
    while sum(c.score == score for c, score in zip(history, scores, strict=True)) > len(history) / 4:
        rng.shuffle(scores)
    return [
        c.model_copy(update={"score": score, "rung_scores": (score,)})
        for c, score in zip(history, scores, strict=True)
    ]


async def ask_all(world: World, client: OpenAIClient, asked: argparse.Namespace) -> list[Asked]:
    """Ask every question of every situation, those of one at the same time, until the time is up."""
    found: list[Asked] = []
    began = time.monotonic()
    for seed in range(asked.seed, asked.seed + asked.contexts):
        if time.monotonic() - began > asked.minutes * 60:
            print(f"the {asked.minutes:g} minutes are up after {seed - asked.seed} situations", flush=True)
            break
        history = world.history(seed, asked.history)
        again = [AGAIN] if seed < asked.seed + asked.again else []
        conditions = [TRUE, *again, *asked.against]
        situations = [world.situation(history, seed, condition) for condition in conditions]
        exchanges = await asyncio.gather(*(client.ask(each.request) for each in situations))
        for condition, situation, exchange in zip(conditions, situations, exchanges, strict=True):
            found.append(judged(world, exchange, seed, condition, situation, history))
            last = found[-1]
            value = "no cell" if last.better is None else f"{last.better:.3f} ({last.accuracy:.4f})"
            start, usage = last.start, exchange.usage
            print(
                f"{time.strftime('%H:%M:%S')} situation {seed} {condition:8} {situation.focus:7} start "
                f"{'-' if start is None else f'{start:.3f}'} -> {value}{' known' if last.known else ''}; "
                f"{usage.prompt_tokens} ({usage.cached_tokens} cached) + {usage.completion_tokens} tokens, "
                f"{exchange.seconds:.0f} s",
                flush=True,
            )
        if len({each.context for each in found}) > 1:
            report(found, asked)
    return found


def judged(
    world: World,
    exchange: Exchange,
    seed: int,
    condition: str,
    situation: Situation,
    history: Sequence[Candidate],
) -> Asked:
    """An answer, looked up."""
    by_id = {c.id: c.genotype for c in history}
    genotype: Genotype | None
    try:
        [(_, genotype)], _ = parse_answers(exchange.response or "", world.space, 1, by_id.get)
    except ProposalError as error:
        print(f"no cell: {error.message[:200]}", flush=True)
        genotype = None
    return Asked(
        context=seed,
        condition=condition,
        focus=situation.focus,
        start=world.better(by_id[situation.ids[0]]) if situation.ids else None,
        without=world.without_model(situation, history),
        genotype=genotype,
        accuracy=None if genotype is None else world.accuracy(genotype),
        better=None if genotype is None else world.better(genotype),
        known=genotype is not None and any(genotype == c.genotype for c in history),
        tokens=exchange.usage.tokens,
        seconds=exchange.seconds,
    )


def report(found: Sequence[Asked], asked: argparse.Namespace) -> None:
    """One row for each condition, written after each situation, so that a run cut short has told all."""
    of = {(each.context, each.condition): each for each in found}
    rows = []
    for condition in (TRUE, AGAIN, SHUFFLED, EMPTIED):
        mine = [each for each in found if each.condition == condition]
        if not mine:
            continue
        pairs = [(of[each.context, TRUE], each) for each in mine if (each.context, TRUE) in of]
        steps = np.array([a.worth - b.worth for a, b in pairs])
        valued = [each for each in mine if each.better is not None]
        without = [each.without for each in mine if each.without is not None]
        over = np.array([each.worth - each.without.offer for each in mine if each.without is not None])
        rows.append(
            {
                "history": condition,
                "asked": len(mine),
                "no cell": len(mine) - len(valued),
                "changed": f"{sum(a.genotype != b.genotype for a, b in pairs)}/{len(pairs)}",
                "distinct": len({str(each.genotype) for each in valued}),
                "known": sum(each.known for each in mine),
                "accuracy %": mean([100 * (each.accuracy or 0.0) for each in valued]),
                "better than": mean([each.better or 0.0 for each in valued]),
                "worth": mean([each.worth for each in mine]),
                "true is worth more": "-" if condition == TRUE else between(steps),
                "p": "-" if condition == TRUE else p_value(steps),
                "start": mean([each.start for each in mine if each.start is not None]),
                "any change": mean([each.change for each in without]),
                "any offer": mean([each.offer for each in without]),
                "first offer": mean([each.first for each in without]),
                "over any offer": f"{between(over)}, p {p_value(over)}" if len(over) else "-",
                "s a call": mean([each.seconds for each in mine]),
            }
        )
    publish(
        "history",
        rows,
        note=f"{asked.model}{' at ' + asked.endpoint if asked.endpoint else ''}; {asked.history} evaluated "
        "cells in each situation. changed: proposals other than with the true history; distinct: different "
        "ones among them; known: those that were in the history. better than: share of all cells that are "
        "worse than the proposed one (a random cell: 0.50); worth: that, 0 where it was known or no cell. "
        "true is worth more: paired difference in worth, with a bootstrap interval of 95 % (p: Wilcoxon). "
        "start: share of cells worse than the one it was to start from; any change, any offer, first offer: "
        "what these are worth without a model, from the same start; over any offer: the model's worth more.",
    )


def mean(values: Any) -> float:
    """The mean; NaN of nothing."""
    return float(np.mean(values)) if len(values) else float("nan")


def interval(differences: np.ndarray, draws: int = 10_000) -> tuple[float, float]:
    """95 % bootstrap interval of the mean of paired differences."""
    if len(differences) < 2:
        return float("nan"), float("nan")
    rng = np.random.default_rng(0)
    means = rng.choice(differences, (draws, len(differences))).mean(axis=1)
    low, high = np.quantile(means, [0.025, 0.975])
    return float(low), float(high)


def between(differences: np.ndarray) -> str:
    """Their mean and its interval."""
    low, high = interval(differences)
    return f"{mean(differences):+.2f} ({low:+.2f} to {high:+.2f})"


def p_value(differences: np.ndarray) -> str:
    """Two-sided, by Wilcoxon's signed-rank test; ties with zero are dropped."""
    from scipy.stats import wilcoxon

    kept = differences[differences != 0]
    return f"{wilcoxon(kept).pvalue:.2g}" if len(kept) > 4 else "too few"


@contextlib.asynccontextmanager
async def client_of(asked: argparse.Namespace, folder: Path) -> AsyncIterator[OpenAIClient]:
    """A client of the endpoint, or of the model file, which is served meanwhile."""
    llm = LLMSection(
        model=asked.model if asked.endpoint else None,
        base_url=asked.endpoint,
        local=None if asked.endpoint else asked.model,
        local_threads=asked.threads,
        temperature=0.0,
        max_tokens=700,
        timeout_s=7200.0,  # a starved core is slow, and nobody waits
        retries=0,
    )
    local = None if asked.endpoint else LocalModel(llm, parallel=PARALLEL)
    data = {"name": "bench", "space": "cell", "task": "nasbench201", "budget": 1}
    config = parse_config(data, "bench").model_copy(update={"llm": local.fitted(llm) if local else llm})
    endpoint, opening = (local.endpoint, local.open) if local else (None, None)
    client = OpenAIClient(config, ExchangeLog(folder), endpoint=endpoint, opening=opening)
    try:
        yield client
    finally:
        await client.close()
        if local is not None:
            await local.close()


async def main() -> None:
    """Ask, judge and publish."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.history", description=__doc__)
    parser.add_argument("--model", default="default", help="a GGUF file; with --endpoint, a model's name")
    parser.add_argument("--endpoint", help="base URL of a server; the key comes from OPENAI_API_KEY")
    parser.add_argument("--contexts", type=int, default=30, help="situations")
    parser.add_argument("--history", type=int, default=12, help="evaluated cells in each")
    parser.add_argument("--again", type=int, default=3, help="situations whose true question is asked twice")
    parser.add_argument(
        "--against",
        nargs="+",
        choices=[SHUFFLED, EMPTIED],
        default=[SHUFFLED, EMPTIED],
        help="other histories",
    )
    parser.add_argument("--minutes", type=float, default=60.0, help="no further situation after that")
    parser.add_argument("--threads", type=int, default=1, help="of a model file's server")
    parser.add_argument("--answers", choices=["changes", "genotype"], default="changes", help="llm.answers")
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        async with client_of(asked, Path(folder)) as client:
            found = await ask_all(World(asked.answers), client, asked)
    if found:
        report(found, asked)


if __name__ == "__main__":
    asyncio.run(main())
