"""The table sandbox: the part of the sandbox contract that does not need anything to run."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from cambrian.sandbox import (
    SANDBOXES,
    InfrastructureError,
    Isolation,
    Job,
    JobState,
    LatencySpec,
    Outcome,
    Sandbox,
)
from cambrian.sandbox.examination.report import Examination, ExamineSpec
from cambrian.sandbox.select import open_sandbox
from cambrian.sandbox.table import TableSandbox, latency_of
from cambrian.search_spaces import TASKS, TableRow, Task, UserError
from cambrian.search_spaces.tasks.nasbench201 import NasBench201
from tests.contracts.sandbox import Make, OpenSandbox, digits, files
from tests.support.nasbench import cell, write_tables


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory) -> NasBench201:
    return NasBench201(data=write_tables(tmp_path_factory.mktemp("nas")))


@pytest.mark.asyncio(loop_scope="class")
class TestTableSandbox(OpenSandbox):
    @pytest.fixture(scope="class")
    def make(self, task: NasBench201) -> Make:  # type: ignore[override]
        return lambda: TableSandbox(task)

    def job(self, name: str, genotype: dict[str, Any], **changes: Any) -> Job:
        return super().job(name, genotype, **({"space": "cell", "epochs": 12} | changes))

    async def test_says_that_nothing_is_run(self, sandbox: Sandbox) -> None:
        assert sandbox.isolation == Isolation(level="table")

    async def test_answers_with_the_row_and_keeps_it(self, sandbox: Sandbox, folder: Path) -> None:
        for epochs in (12, 200):
            job = self.job(f"row-{epochs}", cell(8000), epochs=epochs)
            outcome = await sandbox.run(job)
            assert (outcome.state, outcome.reason) == (JobState.TRAINED, "")
            assert outcome.isolation == sandbox.isolation
            assert outcome.report is None and outcome.row is not None
            assert outcome.row.metrics["accuracy"] == pytest.approx(0.4 + 0.02 * (epochs == 200))
            assert outcome.row.latency_ms == 8001
            assert files(folder, job) == {"job.json", "outcome.json"}
            saved = (folder / "jobs" / job.id / "outcome.json").read_bytes()
            assert Outcome.model_validate_json(saved) == outcome

    async def test_there_is_nothing_to_examine(self, sandbox: Sandbox, folder: Path) -> None:
        spec = ExamineSpec(behaviour=True, proxies=("params",))
        job = self.job("examined", cell(3), purpose="examine", examine=spec, latency=None)
        outcome = await sandbox.run(job)
        assert outcome.state is JobState.EXAMINED and outcome.report is not None
        assert outcome.report.examination == Examination()
        assert not (folder / "jobs" / job.id).exists()

    async def test_a_finished_job_is_not_looked_up_again(self, sandbox: Sandbox, folder: Path) -> None:
        job = self.job("once", cell(5))
        outcome = await sandbox.run(job)
        stamp = (folder / "jobs" / job.id / "outcome.json").stat().st_mtime_ns
        assert await sandbox.run(job) == outcome
        assert (folder / "jobs" / job.id / "outcome.json").stat().st_mtime_ns == stamp

    async def test_jobs_run_side_by_side(self, sandbox: Sandbox) -> None:
        jobs = [self.job(f"side-{i}", cell(i)) for i in range(20)]
        outcomes = await asyncio.gather(*(sandbox.run(job) for job in jobs))
        assert [outcome.job_id for outcome in outcomes] == [job.id for job in jobs]
        assert [outcome.row.latency_ms for outcome in outcomes if outcome.row] == list(range(1, 21))

    async def test_what_is_not_in_the_table_fails_with_a_reason(self, sandbox: Sandbox) -> None:
        outcome = await sandbox.run(self.job("strange", {"e01": "conv_9x9"}))
        assert (outcome.state, outcome.row) == (JobState.ERROR, None)
        assert "no cell of NAS-Bench-201" in outcome.reason and "\n" not in outcome.reason
        unknown = await sandbox.run(self.job("epochs", cell(1), epochs=13))
        assert "13 epochs" in unknown.reason

    async def test_latency_above_the_limit_is_over_limit(self, sandbox: Sandbox) -> None:
        for limit, state in ((100.0, JobState.OVER_LIMIT), (101.0, JobState.TRAINED)):
            job = self.job(f"limit-{limit:g}", cell(100), latency=LatencySpec(limit_ms=limit))
            outcome = await sandbox.run(job)
            assert outcome.state is state
        assert outcome.row is not None and outcome.row.latency_ms == 101

    async def test_a_sandbox_that_is_closed_says_so(self, make: Make) -> None:
        sandbox = make()
        with pytest.raises(InfrastructureError, match="not open"):
            await sandbox.run(self.job("closed", cell(0)))
        await sandbox.close()
        await sandbox.close()

    async def test_a_run_folder_that_cannot_be_written_is_an_infrastructure_error(
        self, make: Make, tmp_path: Path
    ) -> None:
        (tmp_path / "jobs").write_text("a file where a folder should be")
        sandbox = make()
        await sandbox.open("test", tmp_path, digits(), 1)
        with pytest.raises(InfrastructureError, match="cannot prepare"):
            await sandbox.run(self.job("full", cell(0)))


def test_only_tables_have_one() -> None:
    with pytest.raises(UserError, match="task 'digits' has none") as caught:
        TableSandbox(TASKS.create("digits"))
    assert "nasbench201" in caught.value.hint
    with pytest.raises(UserError, match="needs a task"):
        SANDBOXES.create("table")


async def opened(kind: str, folder: Path, task: Task) -> Sandbox:
    sandbox, note = await open_sandbox(
        kind, run_id="test", folder=folder, splits=task.load(), slots=1, task=task
    )
    assert note is None
    await sandbox.close()
    return sandbox


@pytest.mark.parametrize("kind", ["auto", "table"])
async def test_a_tabular_task_gets_its_table(kind: str, tmp_path: Path, task: NasBench201) -> None:
    assert isinstance(await opened(kind, tmp_path, task), TableSandbox)


@pytest.mark.parametrize("kind", ["docker", "process"])
async def test_a_table_cannot_be_trained_on(kind: str, tmp_path: Path, task: NasBench201) -> None:
    with pytest.raises(UserError, match=r"nasbench201.* nothing to train on") as caught:
        await opened(kind, tmp_path, task)
    assert "auto" in caught.value.hint


async def test_a_table_asked_for_by_name_must_be_there(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="task 'digits' has none"):
        await opened("table", tmp_path, TASKS.create("digits"))


def test_a_looked_up_latency_claims_no_spread() -> None:
    row = TableRow(metrics={"accuracy": 0.5}, test_metrics={"accuracy": 0.5}, latency_ms=3.0, device="Phone")
    latency = latency_of(row)
    assert latency is not None
    assert (latency.repeats, latency.warmup) == (1, 0)
    assert latency.q1_ms == latency.median_ms == latency.q3_ms == 3.0
    assert latency.place == "Phone (from a table)"
    assert latency_of(row.model_copy(update={"latency_ms": None})) is None
