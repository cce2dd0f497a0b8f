"""A small run on disk for the analyst: candidates with made-up measurements in a real store."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cambrian.agents.evaluator.admission import Admission
from cambrian.agents.lifecycle import Services
from cambrian.agents.population.model import (
    Candidate,
    CandidateState,
    Evaluation,
    Expectation,
    Proposal,
    candidate_id,
)
from cambrian.agents.population.store import PopulationStore, RunRecord
from cambrian.agents.population.view import Population
from cambrian.agents.runfile import RunConfig, parse_config
from cambrian.sandbox import Isolation, Latency
from cambrian.sandbox.examination.report import StaticFacts
from cambrian.search_spaces import Rung
from tests.agents.planner.server import Handler, ModelServer, answer
from tests.agents.planner.world import TinySpace, ToyTask
from tests.support.instant import InstantSandbox

PAYS = "Wider pays on this task."
ISOLATION = Isolation(level="process")


class LongerTask(ToyTask):
    """Two rungs: one epoch, then three."""

    rungs: tuple[Rung, ...] = (Rung(epochs=1), Rung(epochs=3))


def config(**more: Any) -> RunConfig:
    data = {"name": "test", "space": "convnet", "task": "digits", "budget": {"evaluations": 100}}
    return parse_config(data | more, "test")


class World:
    """One run.

    Args:
        folder: of the run; one that exists is opened again, as a resumed run does.
        more: sections of the run file.
    """

    def __init__(self, folder: Path, **more: Any) -> None:
        self.config = config(**more)
        record = RunRecord(
            run_id="run",
            name="test",
            space="tiny",
            task="toy",
            metric="accuracy",
            maximize=True,
            cost="params",
            created=0.0,
            config=self.config.model_dump(mode="json"),
            validation_samples=10_000,
        )
        known = (folder / "population.sqlite").exists()
        self.store = PopulationStore(folder, create=None if known else record)
        space: Any = TinySpace()
        task: Any = LongerTask()
        self.services = Services(
            config=self.config,
            space=space,
            task=task,
            store=self.store,
            population=Population(True, self.store.candidates()),
            admission=Admission(self.config, space, task, self.store),
            sandbox=InstantSandbox(),
        )

    def get(self, candidate_id: str) -> Candidate:
        return self.services.population.get(candidate_id)

    def add(
        self,
        *scores: float,
        latency: Latency | None = None,
        parameters: int = 1000,
        state: CandidateState = CandidateState.EVALUATED,
        reason: str = "",
        expect: Expectation | None = None,
        **proposal: Any,
    ) -> Candidate:
        """A candidate that has ended, with its scores from rung 0 on."""
        index = len(self.services.population)
        genotype = {"width": 8, "depth": 1}
        made = Candidate(
            id=candidate_id(index),
            index=index,
            proposal=Proposal(genotype=genotype, expectation=expect, **{"arm": "mutation"} | proposal),
            genotype=genotype,
            state=CandidateState.PROPOSED,
        )
        self.store.add(made)
        candidate = made.with_latency(latency).model_copy(
            update={
                "state": state,
                "reason": reason,
                "summary": f"network {index}",
                "score": scores[-1] if scores else None,
                "rung": len(scores) - 1,
                "tried_rung": len(scores) - 1,
                "rung_scores": scores,
                "static": StaticFacts(parameters=parameters, flops=1, peak_memory_mb=1.0, depth=2),
                "cost": float(parameters),
                "ended_s": time.time(),
                "ended_order": index + 1,
            }
        )
        for rung, score in enumerate(scores):
            measured = latency if rung == 0 else None
            self.store.add_evaluation(evaluation(candidate.id, rung, 0, score, measured), candidate)
        self.services.population.update(made)
        self.services.population.update(candidate)
        self.store.update(candidate, "judge")
        return candidate

    def repeat(self, candidate: Candidate, rung: int, *scores: float) -> None:
        """Trainings of a candidate with fresh seeds."""
        for seed, score in enumerate(scores, start=1):
            self.store.add_evaluation(evaluation(candidate.id, rung, 100 + seed, score), candidate)

    def close(self) -> None:
        self.store.close()


def evaluation(cid: str, rung: int, seed: int, score: float, latency: Latency | None = None) -> Evaluation:
    return Evaluation(
        candidate_id=cid,
        rung=rung,
        seed=seed,
        epochs=1,
        state="trained",
        metrics={"accuracy": score},
        test_metrics={"accuracy": score},
        val_curve=(score / 2, score),
        latency=latency,
        isolation=ISOLATION,
    )


def timed(median: float, half_box: float = 0.0, reference: float = 1.0, device: str = "cpu") -> Latency:
    return Latency(
        device=device,
        threads=1,
        batch=1,
        warmup=0,
        repeats=20,
        median_ms=median,
        q1_ms=median - half_box,
        q3_ms=median + half_box,
        alone=True,
        reference="ref",
        reference_ms=reference,
        ratio=median / reference,
    )


def lesson(text: str = PAYS, supports: Any = (), contradicts: Any = (), new: Any = (), **more: Any) -> str:
    """An answer of the analyst's model."""
    new = [
        {"claim": claim, "scope": "", "effect": "better"} if isinstance(claim, str) else claim
        for claim in new
    ]
    notes = {"supports": list(supports), "contradicts": list(contradicts), "new": new}
    return json.dumps({"lesson": text, "notes": notes} | more)


def says(server: ModelServer, *texts: str) -> None:
    server.says(*(answer(text) for text in texts))


def slowly(text: str) -> Callable[[Handler], None]:
    """Answers when the test lets it."""

    def respond(handler: Handler) -> None:
        handler.world.released.wait(20)
        answer(text)(handler)

    return respond
