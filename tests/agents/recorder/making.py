"""Populations without training: the real space, made-up but plausible scores."""

from __future__ import annotations

import math
import random
from datetime import UTC, datetime
from typing import Any

from cambrian.agents.planner.exchange import Exchange, ExchangeLog, Message, Usage
from cambrian.agents.population.model import Candidate, CandidateState, Evaluation, Proposal
from cambrian.agents.population.model import candidate_id as id_of
from cambrian.agents.population.store import PopulationStore, RunRecord
from cambrian.sandbox import Isolation, Latency
from cambrian.sandbox.examination.report import StaticFacts
from cambrian.search_spaces import Space

BEGIN = 1_760_000_000.0


def run_record(**changes: Any) -> RunRecord:
    """The record of a run on digits."""
    values: dict[str, Any] = {
        "run_id": "first-light-20251009-120000",
        "name": "first-light",
        "space": "convnet",
        "task": "digits",
        "metric": "accuracy",
        "maximize": True,
        "cost": "latency_ms",
        "created": BEGIN,
        "config": {
            "name": "first-light",
            "seed": 0,
            "budget": {"evaluations": 60, "wall_s": 300.0, "tokens": None},
            "constraints": [{"name": "latency_ms", "op": "<=", "bound": 2.0}],
            "arms": {"random": {"weight": 0.25}, "mutation": {"weight": 0.45}},
        },
        "sandbox": "process",
    }
    return RunRecord(**values | changes)


def made(
    space: Space,
    index: int,
    *,
    state: CandidateState = CandidateState.EVALUATED,
    arm: str = "mutation",
    score: float | None = 0.9,
    cost: float | None = 0.5,
    genotype: dict[str, Any] | None = None,
    **changes: Any,
) -> Candidate:
    """A candidate with everything that a real one has."""
    genotype = genotype or space.sample(random.Random(index))
    proposal = Proposal(
        arm=arm,
        genotype=genotype,
        parents=changes.pop("parents", ()),
        edit=changes.pop("edit", "wider second stage"),
        hypothesis=changes.pop("hypothesis", ""),
        expected_effect=changes.pop("expected_effect", ""),
        exchange=changes.pop("exchange", None),
    )
    evaluated = state is CandidateState.EVALUATED
    values: dict[str, Any] = {
        "summary": space.summarise(genotype),
        "identity": f"v1:{index:064x}",
        "static": StaticFacts(parameters=9000 + 31 * index, flops=4_000_000, peak_memory_mb=7.5, depth=9),
        "prediction": None if score is None else score - 0.01,
        "score": score if evaluated else None,
        "test_score": score - 0.004 if evaluated and score is not None else None,
        "rung": 0 if evaluated else -1,
        "tried_rung": 0 if evaluated else -1,
        "rung_scores": (score,) if evaluated and score is not None else (),
        "latency_ms": cost if evaluated else None,
        "cost": cost if evaluated else None,
        "created_s": BEGIN + 3.0 * index,
        "ended_s": BEGIN + 3.0 * index + 5.0 if state.ended else None,
    }
    return Candidate(
        id=id_of(index), index=index, proposal=proposal, genotype=genotype, state=state, **values | changes
    )


def measured(candidate: Candidate, *, rung: int = 0, seed: int = 0, epochs: int = 4) -> Evaluation:
    """The evaluation behind a scored candidate."""
    score = candidate.score or 0.5
    return Evaluation(
        candidate_id=candidate.id,
        rung=rung,
        seed=seed,
        epochs=epochs,
        state="trained",
        metrics={"accuracy": score, "loss": 0.3},
        test_metrics={"accuracy": candidate.test_score or score, "loss": 0.31},
        val_curve=tuple(score * (1 - 0.5 ** (n + 1)) for n in range(epochs)),
        train_loss=tuple(2.3 * 0.6**n for n in range(epochs)),
        latency=Latency(
            device="Test CPU",
            threads=1,
            batch=1,
            warmup=10,
            repeats=50,
            median_ms=candidate.cost or 0.5,
            q1_ms=0.9 * (candidate.cost or 0.5),
            q3_ms=1.2 * (candidate.cost or 0.5),
        ),
        wall_s=5.0,
        train_s=4.0,
        peak_memory_mb=120.0,
        isolation=Isolation(level="process", not_enforced=("network", "reading other files")),
    )


def population(space: Space, n: int, seed: int = 0) -> list[Candidate]:
    """A population as a run leaves it: generations, five arms, duplicates, failures, a limit."""
    rng = random.Random(seed)
    found: list[Candidate] = []
    scored: list[Candidate] = []
    for index in range(n):
        arm = (
            "baseline"
            if index < 2
            else "random"
            if index < 8
            else rng.choice(["random", "mutation", "mutation", "llm", "crossover"])
        )
        best = sorted(scored, key=lambda c: -(c.score or 0))[:6]
        n_parents = {"mutation": 1, "llm": 1, "crossover": 2}.get(arm, 0) if len(best) > 1 else 0
        parents = tuple(c.id for c in rng.sample(best, n_parents))
        gain = rng.gauss(0.02, 0.05) if parents else rng.gauss(-0.15, 0.2)
        start = max((c.score or 0 for c in best if c.id in parents), default=0.8)
        logit = min(math.log(start / (1 - start)), 3.6) + 4 * gain
        score = 1 / (1 + math.exp(-logit))
        if rng.random() < 0.04:
            score = 0.1
        cost = math.exp(rng.gauss(-0.6, 0.75))
        state = CandidateState.EVALUATED
        extra: dict[str, Any] = {}
        if index > 8 and rng.random() < 0.15:
            state = rng.choice([CandidateState.DUPLICATE, CandidateState.SCREENED, CandidateState.FAILED])
            if state is CandidateState.DUPLICATE:
                extra["duplicate_of"] = scored[0].id
        if arm == "baseline":
            extra["edit"] = f"{['two-layer-cnn', 'mobilenet-like'][index]}"
        candidate = made(
            space,
            index,
            state=state,
            arm=arm,
            score=score,
            cost=cost,
            parents=parents,
            feasible=cost <= 2.0,
            **extra,
        )
        found.append(candidate)
        if state is CandidateState.EVALUATED and candidate.feasible:
            scored.append(candidate)
    return found


def exchanged(store: PopulationStore, number: int, **changes: Any) -> Exchange:
    """Put the record of an exchange with a model into the run's folder, as the client does."""
    values: dict[str, Any] = {
        "id": f"x-{number:04d}",
        "key": f"{number:032x}",
        "role": "propose",
        "place": f"d{number}",
        "model": "test-model",
        "messages": (
            Message(role="system", content="You design networks."),
            Message(role="user", content="Propose."),
        ),
        "schema_name": "proposal",
        "response": '{"hypothesis": "wider is better"}',
        "finish": "stop",
        "usage": Usage(prompt_tokens=1200, completion_tokens=80, cached_tokens=400),
        "money": 0.0021,
        "calls": 1,
        "seconds": 2.5,
        "templates": {},
        "created": datetime.fromtimestamp(BEGIN + number, UTC).isoformat(timespec="milliseconds"),
    }
    exchange = Exchange(**values | changes)
    ExchangeLog(store.folder).write(exchange)
    return exchange


def enter(store: PopulationStore, candidate: Candidate, *, evaluated: bool | None = None) -> None:
    """Bring a candidate into the store the way that the run does."""
    store.add(candidate.model_copy(update={"state": CandidateState.PROPOSED}))
    if evaluated if evaluated is not None else candidate.score is not None:
        store.add_evaluation(measured(candidate), candidate)
    else:
        store.update(candidate)
