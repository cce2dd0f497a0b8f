"""A candidate's jobs at one rung: measured where latency counts, trained, and, among the best, reproduced.

    c-0007-r0-s0-m      measured on the device that the run file names, or before a limit that no job knows
    c-0007-r0-s0        trained, and measured unless that was done
    c-0007-r0-s0-again  its weights in a fresh network, in a fresh sandbox: does it predict the same?

Each sandbox keeps the outcome of a finished job, so all of this may be called again after a crash.
"""

from __future__ import annotations

import asyncio
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cambrian.agents.evaluator.ranking import broken
from cambrian.agents.evaluator.scoring import evaluate
from cambrian.agents.population.model import Candidate, CandidateState, Evaluation
from cambrian.agents.population.view import Population
from cambrian.agents.runfile import RELATIVE, RunConfig
from cambrian.sandbox import Isolation, Job, JobLimits, JobState, LatencySpec, Sandbox
from cambrian.search_spaces import Space, TabularTask, Task
from cambrian.search_spaces.recipes import architecture_of, recipe_for

TOP = 10
"""Who enters so many places of the leaderboard must be reproduced first."""
MEASURE, AGAIN = "-m", "-again"


def limits_of(config: RunConfig) -> JobLimits:
    """What a job of the run may use."""
    place = config.sandbox
    return JobLimits(wall_s=place.wall_s, memory_mb=place.memory_mb, threads=place.threads)


@dataclass
class Meter:
    """The sandbox of the device that latency is measured on; one job at a time.

    Attributes:
        name: of the device in the run file.
        folder: where its jobs lie.
    """

    name: str
    sandbox: Sandbox
    folder: Path
    threads: int
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)


@dataclass(frozen=True)
class Trials:
    """Makes a run's jobs and reads their outcomes.

    Attributes:
        folder: of the run.
        meter: None measures where the training runs.
    """

    config: RunConfig
    space: Space
    task: Task
    folder: Path
    sandbox: Sandbox
    meter: Meter | None = None

    def job(self, candidate: Candidate, rung: int) -> Job:
        """The training of `candidate` at `rung`, with its latency unless that is known or measured apart."""
        return self._job(candidate, rung, self._is_measured_within and self._needs_latency(candidate, rung))

    def _job(self, candidate: Candidate, rung: int, measured: bool) -> Job:
        config = self.config
        limits = [c.bound for c in config.constraints if c.name == "latency_ms" and c.op == "<="]
        spec = LatencySpec(
            **config.latency.model_dump(exclude={"device"}), limit_ms=min(limits, default=None)
        )
        return Job(
            id=f"{candidate.id}-r{rung}-s{config.seed}",
            run_id=self.folder.name,
            candidate_id=candidate.id,
            space=self.space.name,
            genotype=architecture_of(self.space, candidate.genotype),
            signature=self.task.signature,
            recipe=recipe_for(self.space, candidate.genotype, self.task.recipe),
            epochs=self.task.rungs[rung].epochs,
            seed=config.seed,
            loss=self.task.loss,
            limits=limits_of(config),
            latency=spec if measured else None,
            generated_code=self.space.kind == "code",
        )

    async def run(self, candidate: Candidate, rung: int) -> Evaluation:
        """Measure, if that comes first, and train; who breaks a limit is not trained.

        Raises:
            InfrastructureError: an engine or the disk failed; the call may be repeated.
        """
        measured = None
        if not self._is_measured_within and self._needs_latency(candidate, rung):
            measured = await self._measure(candidate, rung)
            if measured.state != JobState.MEASURED:
                return measured
        job = self.job(candidate, rung)
        trained = await self._evaluated(candidate, rung, job, self.sandbox, self.folder)
        if measured is None:
            return trained
        return trained.model_copy(
            update={
                "latency": measured.latency,
                "device_name": measured.device_name,
                "wall_s": measured.wall_s + trained.wall_s,
                "isolation": _weakest(measured.isolation, trained.isolation),
            }
        )

    async def reproduce(self, candidate: Candidate, rung: int) -> str:
        """See whether the weights of `rung` predict the same again; why not, or empty if they do.

        Raises:
            InfrastructureError: as `run`.
        """
        trained = self.job(candidate, rung)
        job = trained.model_copy(
            update={"id": trained.id + AGAIN, "purpose": "reproduce", "weights_of": trained.id}
        )
        outcome = await self.sandbox.run(job)
        if outcome.state is JobState.REPRODUCED:
            return ""
        if outcome.state is JobState.NOT_REPRODUCED and outcome.reason:
            return outcome.reason
        return f"the check ended with {outcome.state}" + (f": {outcome.reason}" if outcome.reason else "")

    def enters_top(self, candidate: Candidate, population: Population) -> bool:
        """Whether the candidate, were it judged as it is, would be among the first `TOP`."""
        feasible = not broken(self.config.constraints, candidate.values())
        judged = candidate.model_copy(update={"state": CandidateState.EVALUATED, "feasible": feasible})
        place = population.place(judged)
        return place is not None and place < TOP

    @property
    def _is_measured_within(self) -> bool:
        """Whether latency is a part of the training's job, which knows a limit of milliseconds only."""
        if isinstance(self.task, TabularTask):
            return True
        return self.meter is None and not any(c.name in RELATIVE for c in self.config.constraints)

    @staticmethod
    def _needs_latency(candidate: Candidate, rung: int) -> bool:
        return rung == 0 or candidate.latency_ms is None

    async def _measure(self, candidate: Candidate, rung: int) -> Evaluation:
        job = self._job(candidate, rung, measured=True)
        changes: dict[str, Any] = {"id": job.id + MEASURE, "purpose": "measure"}
        sandbox, folder, turn = self.sandbox, self.folder, _no_turn()
        if self.meter is not None:
            sandbox, folder, turn = self.meter.sandbox, self.meter.folder, self.meter.turn
            changes["limits"] = job.limits.model_copy(update={"threads": self.meter.threads})
        async with turn:
            measured = await self._evaluated(candidate, rung, job.model_copy(update=changes), sandbox, folder)
        measured = measured.model_copy(
            update={"device_name": self.meter.name if self.meter is not None else "", "epochs": 0}
        )
        if measured.state != JobState.MEASURED:
            return measured
        if measured.latency is None:
            return measured.struck(JobState.BAD_OUTPUT, "no latency was measured")
        faults = broken(self.config.constraints, candidate.with_latency(measured.latency).values())
        return measured.struck(JobState.OVER_LIMIT, "; ".join(faults)) if faults else measured

    async def _evaluated(
        self, candidate: Candidate, rung: int, job: Job, sandbox: Sandbox, folder: Path
    ) -> Evaluation:
        outcome = await sandbox.run(job)
        return await asyncio.to_thread(
            evaluate, candidate, rung, job, outcome, folder / "jobs" / job.id, self.task
        )


def _no_turn() -> AbstractAsyncContextManager[None]:
    return nullcontext()


def _weakest(first: Isolation, second: Isolation) -> Isolation:
    """What both together promise."""
    level = "process" if "process" in {first.level, second.level} else first.level
    gaps = dict.fromkeys((*first.not_enforced, *second.not_enforced))
    return Isolation(level=level, not_enforced=tuple(gaps))
