"""The table, for tasks whose trainings were all made already: nothing is run, nothing has to be confined."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

from cambrian.sandbox.errors import InfrastructureError
from cambrian.sandbox.examination.report import Examination
from cambrian.sandbox.job_folder import JobFolder
from cambrian.sandbox.protocol import Isolation, Job, JobState, Outcome
from cambrian.sandbox.reports import Latency, WorkerReport
from cambrian.search_spaces import ProposalError, Splits, TableRow, TabularTask, Task, UserError


class TableSandbox:
    """Answers each job with the row of its genotype.

    Args:
        task: the one whose table it is.

    Raises:
        UserError: the task has no table.
    """

    def __init__(self, task: Task | None = None) -> None:
        if not isinstance(task, TabularTask):
            said = f"task {task.name!r} has none" if task is not None else "it needs a task that has one"
            raise UserError(
                f"sandbox 'table': results cannot be looked up in a table: {said}",
                hint="set 'sandbox.kind: auto' in the run file, or choose a tabular task such as nasbench201",
            )
        self.isolation = Isolation(level="table")
        self._task = task
        self._folder: Path | None = None

    async def open(
        self, run_id: str, folder: Path, splits: Splits, slots: int, space: Path | None = None
    ) -> None:
        """See `Sandbox.open`; reads the table."""
        await asyncio.to_thread(self._task.load)
        self._folder = folder.resolve()

    async def run(self, job: Job) -> Outcome:
        """See `Sandbox.run`. A genotype that the table does not hold is an `ERROR`.

        What was looked up would be looked up again: a job that reproduces one leaves no files. Nor does one
        that is to examine: it finds nothing.
        """
        started = time.monotonic()
        if self._folder is None:
            raise InfrastructureError("the sandbox is not open", hint="call open first")
        if job.purpose == "reproduce":
            return Outcome(job_id=job.id, state=JobState.REPRODUCED, wall_s=0.0, isolation=self.isolation)
        if job.purpose == "examine":  # there is no network
            report = WorkerReport(status="examined", examination=Examination())
            return Outcome(
                job_id=job.id, state=JobState.EXAMINED, wall_s=0.0, isolation=self.isolation, report=report
            )
        folder = JobFolder(self._folder, job, 0, 0)
        known = folder.settled(self.isolation)
        if known is not None:
            return known
        folder.prepare()
        state, reason, row = self._answer(job)
        return folder.record(
            Outcome(
                job_id=job.id,
                state=state,
                reason=reason,
                wall_s=time.monotonic() - started,
                isolation=self.isolation,
                row=row,
            )
        )

    def _answer(self, job: Job) -> tuple[JobState, str, TableRow | None]:
        try:
            row = self._task.lookup(job.genotype, job.epochs, job.seed)
        except ProposalError as error:
            return JobState.ERROR, error.message, None
        limit = job.latency.limit_ms if job.latency is not None else None
        if limit is not None and row.latency_ms is not None and row.latency_ms > limit:
            reason = f"latency {row.latency_ms:.3g} ms is above the limit of {limit:g} ms on {row.device}"
            return JobState.OVER_LIMIT, reason, row
        return JobState.TRAINED, "", row

    async def close(self) -> None:
        """See `Sandbox.close`."""
        self._folder = None


def latency_of(row: TableRow) -> Latency | None:
    """The latency of a row, of which no spread is known."""
    if row.latency_ms is None:
        return None
    return Latency(
        device=f"{row.device} (from a table)",
        threads=0,
        batch=1,
        warmup=0,
        repeats=1,
        median_ms=row.latency_ms,
        q1_ms=row.latency_ms,
        q3_ms=row.latency_ms,
    )
