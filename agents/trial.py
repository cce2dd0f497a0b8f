"""A candidate's jobs at one rung: measured where latency counts, trained, and, among the best, reproduced.

    c-0007-x            examined before anything is trained, where the run's checks or its space ask for it
    c-0007-r0-s0-m      measured on the device that the run file names, or before a limit that no job knows
    c-0007-r0-s0        trained, and measured unless that was done
    c-0007-r0-s0-again  its weights in a fresh network, in a fresh sandbox: does it predict the same, as fast?
    c-0007-r0-s0-again2, -again3   asked again when it did not: a busy machine condemns nobody
    c-0007-r0-s8145     trained again with a fresh seed, as `agents.repeats` asks for; its latency is known

Each sandbox keeps the outcome of a finished job, so all of this may be called again after a crash.
"""

from __future__ import annotations

import asyncio
import shutil
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cambrian.agents.evaluator.ranking import broken
from cambrian.agents.evaluator.scoring import evaluate
from cambrian.agents.population.model import Candidate, CandidateState, Evaluation
from cambrian.agents.population.view import Population
from cambrian.agents.runfile import RunConfig
from cambrian.agents.sections import RELATIVE
from cambrian.sandbox import Isolation, Job, JobLimits, JobState, LatencySpec, Outcome, Sandbox
from cambrian.sandbox.examination.report import ExamineSpec
from cambrian.sandbox.outputs import disk, remove_tree
from cambrian.search_spaces import Space, TabularTask, Task
from cambrian.search_spaces.recipes import architecture_of, recipe_for

TOP = 10
"""Who enters so many places of the leaderboard must be reproduced first."""
MEASURE, EXAMINE = "-m", "-x"
AGAIN = ("-again", "-again2", "-again3")
"""What the jobs that reproduce are called: the first that succeeds is enough, and none comes after it."""
_REPRODUCED_FROM = ("job.json", "outputs.npz", "weights.safetensors", "outcome.json")
"""Files of a training that a sandbox needs to reproduce it."""


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

    def job(self, candidate: Candidate, rung: int, seed: int | None = None) -> Job:
        """The training of `candidate` at `rung`, with its latency unless that is known or measured apart.

        Args:
            candidate: to be trained.
            rung: how long.
            seed: a fresh one, for a repeat, which measures no latency; None is the run's.
        """
        measured = seed is None and self._is_measured_within and self._needs_latency(candidate, rung)
        return self._job(candidate, rung, measured, seed)

    def _job(self, candidate: Candidate, rung: int, measured: bool, seed: int | None = None) -> Job:
        config = self.config
        seed = config.seed if seed is None else seed
        limits = [c.bound for c in config.constraints if c.name == "latency_ms" and c.op == "<="]
        spec = LatencySpec(
            **config.latency.model_dump(exclude={"device"}), limit_ms=min(limits, default=None)
        )
        return Job(
            id=f"{candidate.id}-r{rung}-s{seed}",
            run_id=self.folder.name,
            candidate_id=candidate.id,
            space=self.space.name,
            genotype=architecture_of(self.space, candidate.genotype),
            signature=self.task.signature,
            recipe=recipe_for(self.space, candidate.genotype, self.task.recipe),
            epochs=self.task.rungs[rung].epochs,
            seed=seed,
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

    def folder_of(self, candidate_id: str, rung: int) -> Path:
        """Where the job lies that trained the candidate at `rung`, with the run's own seed."""
        return self.folder / "jobs" / f"{candidate_id}-r{rung}-s{self.config.seed}"

    async def examine(self, candidate: Candidate, spec: ExamineSpec) -> Outcome:
        """Find out of `candidate` what `spec` asks for, before anything is trained.

        Raises:
            InfrastructureError: as `run`.
        """
        job = self._job(candidate, 0, measured=False)
        changes: dict[str, Any] = {"id": f"{candidate.id}{EXAMINE}", "purpose": "examine", "examine": spec}
        return await self.sandbox.run(job.model_copy(update={**changes, "epochs": 0}))

    async def repeat(self, candidate: Candidate, rung: int, seed: int) -> Evaluation:
        """Train once more, with a seed that the run has not used for it.

        Raises:
            InfrastructureError: as `run`.
        """
        job = self.job(candidate, rung, seed)
        return await self._evaluated(candidate, rung, job, self.sandbox, self.folder)

    async def reproduce(self, candidate: Candidate, rung: int, seed: int | None = None) -> str:
        """See whether the weights of `rung` predict the same again, as fast as the candidate's latency says.

        Where latency was measured decides where it is checked. On a device of its own only generated code is:
        networks that trusted code builds cannot tell when they are timed. A repeat claims no latency.

        Returns:
            Why not, or empty if they do.

        Raises:
            InfrastructureError: as `run`; also when files of the training are gone.
        """
        trained = self.job(candidate, rung, seed)
        job = trained.model_copy(update={"purpose": "reproduce", "weights_of": trained.id, "latency": None})
        claimed = job
        told = seed is None and candidate.latency_ms is not None
        if told and not isinstance(self.task, TabularTask):
            spec = LatencySpec(batch=self.config.latency.batch)
            claimed = job.model_copy(update={"claimed_ms": candidate.latency_ms, "latency": spec})
        if self.meter is None or seed is not None:
            return await _reproduced(self.sandbox, claimed)
        problem = await _reproduced(self.sandbox, job)
        if problem or self.space.kind != "code":
            return problem
        return await self._reproduced_on_device(self.meter, claimed, trained.id)

    async def _reproduced_on_device(self, meter: Meter, job: Job, original: str) -> str:
        limits = job.limits.model_copy(update={"threads": meter.threads})
        lent = meter.folder / "jobs" / original
        async with meter.turn:
            await asyncio.to_thread(_copy, self.folder / "jobs" / original, lent)
            problem = await _reproduced(meter.sandbox, job.model_copy(update={"limits": limits}))
            await asyncio.to_thread(_remove, lent)
        return f"on device {meter.name}: {problem}" if problem else ""

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


async def _reproduced(sandbox: Sandbox, job: Job) -> str:
    """Why none of the attempts at `job` ended well, by the last of them; empty when one did."""
    problem = ""
    for suffix in AGAIN:
        attempt = job.model_copy(update={"id": f"{job.weights_of}{suffix}"})
        outcome = await sandbox.run(attempt)
        if outcome.state is JobState.REPRODUCED:
            return ""
        problem = _why_not(outcome)
    return problem


def _why_not(outcome: Outcome) -> str:
    if outcome.state is JobState.NOT_REPRODUCED and outcome.reason:
        return outcome.reason
    return f"the check ended with {outcome.state}" + (f": {outcome.reason}" if outcome.reason else "")


def _copy(job_folder: Path, to: Path) -> None:
    """Put down what is needed to reproduce a job; what a dead process left half-way is replaced."""
    with disk(f"copy {job_folder} to {to}"):
        to.mkdir(parents=True, exist_ok=True)
        for name in _REPRODUCED_FROM:
            part = to / f"{name}.part"
            shutil.copyfile(job_folder / name, part)
            part.replace(to / name)


def _remove(folder: Path) -> None:
    with disk(f"remove {folder}"):
        remove_tree(folder)


def _no_turn() -> AbstractAsyncContextManager[None]:
    return nullcontext()


def _weakest(first: Isolation, second: Isolation) -> Isolation:
    """What both together promise."""
    level = "process" if "process" in {first.level, second.level} else first.level
    gaps = dict.fromkeys((*first.not_enforced, *second.not_enforced))
    return Isolation(level=level, not_enforced=tuple(gaps))
