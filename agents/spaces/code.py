"""The check of spaces whose genotypes are source: their networks are built in a sandbox only, never here."""

from __future__ import annotations

import asyncio
import dataclasses
import sys
import sysconfig
import tempfile
import time
from pathlib import Path

from cambrian.agents.spaces.check import Progress, Trial, draw_designs, draw_edits
from cambrian.agents.spaces.fit import inputs_in_words
from cambrian.agents.spaces.report import BaselineFact, CheckReport, Quantiles
from cambrian.sandbox import Job, JobLimits, JobState, Outcome, Sandbox
from cambrian.sandbox.select import check_trust, open_sandbox
from cambrian.search_spaces import Genotype, Space, Splits, Task
from cambrian.search_spaces.finding import folder_of

DRAWS = 10
"""A job takes from tens of milliseconds to seconds, by sandbox."""
SLOTS = 2
SAMPLES = 32
"""Samples of each split that a job is given: nothing is trained."""
LEFT_OUT = (
    "FLOPs, depth, size of the space and equal functions: they are read from a network that is built here",
)


async def check_code(
    space: Space,
    task: Task,
    *,
    draws: int = DRAWS,
    seed: int = 0,
    sandbox_kind: str = "auto",
    trust_generated_code: bool = False,
    progress: Progress = lambda _doing, _done, _of: None,
) -> CheckReport:
    """Draw `draws` designs and as many edits, and build each in a sandbox job that trains for no epoch.

    Args:
        space: of the kind `code`.
        task: its inputs and outputs are what the networks are built for.
        draws: designs, and edits.
        seed: of what is drawn.
        sandbox_kind: as in a run file.
        trust_generated_code: as in a run file.
        progress: told what is being done.

    Raises:
        UserError: the networks would be built without a container, and nobody trusts them.
        InfrastructureError: the sandbox cannot be had.
        MissingDataError: the task's data are not there.
    """
    if not trust_generated_code:
        await asyncio.to_thread(check_trust, sandbox_kind, field="sandbox", how="give --trust-generated-code")
    started, trial = time.monotonic(), Trial()
    designs = draw_designs(space, draws, seed, trial)
    edits = draw_edits(space, designs, draws, seed, trial)
    known = space.baselines()
    everything = [*designs, *edits, *known.values()]
    with tempfile.TemporaryDirectory(prefix="cambrian-check-") as folder:
        sandbox, note = await open_sandbox(
            sandbox_kind,
            run_id=f"check-{Path(folder).name}",
            folder=Path(folder),
            splits=_few(task.load()),
            slots=SLOTS,
            space=folder_of(space),
            plugins=plugins_of(space),
            generated_code=True,
            trust_generated_code=trust_generated_code,
        )
        try:
            outcomes = await _run_all(sandbox, space, task, everything, seed, progress)
            isolation = sandbox.isolation.level
        finally:
            await sandbox.close()
    of_designs = outcomes[: len(designs) + len(edits)]
    for genotype, outcome in zip(everything, of_designs, strict=False):
        if outcome.state is JobState.TRAINED:
            trial.times.setdefault("build in a sandbox job", []).append(outcome.wall_s)
        else:
            trial.fail("build", outcome.reason, genotype)
    counts = [o.report.parameters for o in outcomes[: len(designs)] if _is_good(o) and o.report is not None]
    return CheckReport(
        space=space.name,
        version=space.version,
        kind=space.kind,
        folder=folder_of(space),
        seed=seed,
        signature=inputs_in_words(task.signature),
        designs=draws,
        edits=draws,
        valid=sum(map(_is_good, of_designs)),
        failures=trial.failures,
        quantiles={"parameters": Quantiles.of(counts)} if counts else {},
        milliseconds=trial.milliseconds,
        baselines=[
            _baseline(space, name, known[name], outcome)
            for name, outcome in zip(known, outcomes[len(designs) + len(edits) :], strict=True)
        ],
        left_out=[*LEFT_OUT, *([note] if note else [])],
        isolation=isolation,
        wall_s=time.monotonic() - started,
    )


async def _run_all(
    sandbox: Sandbox, space: Space, task: Task, genotypes: list[Genotype], seed: int, progress: Progress
) -> list[Outcome]:
    """One job for each, `SLOTS` at a time, in order."""
    free, done = asyncio.Semaphore(SLOTS), 0

    async def one(index: int, genotype: Genotype) -> Outcome:
        nonlocal done
        job = Job(
            id=f"design-{index}",
            run_id="check",
            candidate_id=f"design-{index}",
            space=space.name,
            genotype=genotype,
            signature=task.signature,
            recipe=task.recipe,
            epochs=0,
            seed=seed,
            loss=task.loss,
            limits=JobLimits(wall_s=120),
            latency=None,
            generated_code=True,
        )
        async with free:
            outcome = await sandbox.run(job)
        done += 1
        progress("building in the sandbox", done, len(genotypes))
        return outcome

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(one(i, genotype)) for i, genotype in enumerate(genotypes)]
    return [each.result() for each in tasks]


def plugins_of(space: Space) -> tuple[Path, ...]:
    """The folder that a sandbox must import the space from, when it is not part of this installation.

    What is installed beside Cambrian is found by processes anyway, and Cambrian itself is in the image.
    """
    top = type(space).__module__.partition(".")[0]
    file = getattr(sys.modules.get(top), "__file__", None)
    if top == "cambrian" or file is None:
        return ()
    place = Path(file).resolve().parent
    place = place.parent if Path(file).name == "__init__.py" else place
    installed = {Path(sysconfig.get_path(kind)).resolve() for kind in ("purelib", "platlib", "stdlib")}
    return () if place in installed else (place,)


def _few(splits: Splits) -> Splits:
    """The first samples of each split; the constants as they are."""
    names = ("x_train", "y_train", "x_val", "y_val", "x_test", "y_test")
    return dataclasses.replace(splits, **{name: getattr(splits, name)[:SAMPLES] for name in names})


def _is_good(outcome: Outcome) -> bool:
    return outcome.state is JobState.TRAINED


def _baseline(space: Space, name: str, genotype: Genotype, outcome: Outcome) -> BaselineFact:
    return BaselineFact(
        name=name,
        summary=space.summarise(genotype),
        parameters=outcome.report.parameters if outcome.report is not None else None,
        problem="" if _is_good(outcome) else outcome.reason,
    )
