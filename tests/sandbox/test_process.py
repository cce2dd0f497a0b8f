"""The process sandbox: the contract with and without namespaces, the fork server's life, its speed."""

from __future__ import annotations

import asyncio
import os
import signal
import statistics
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cambrian.sandbox import InfrastructureError, JobState, Sandbox
from cambrian.sandbox.process import MARK, ProcessSandbox
from cambrian.search_spaces import UserError
from tests.contracts.sandbox import ConfinementContract, Make, SandboxContract, alive, digits, until


class TestProcessSandbox(SandboxContract):
    @pytest.fixture(scope="class")
    def make(self, plugin: Path) -> Make:
        return lambda: ProcessSandbox(plugins=[plugin])

    @pytest.fixture(autouse=True)
    def _plugin(self, plugin: Path) -> None:
        self.plugin = plugin

    @pytest.fixture(autouse=True)
    def _only_where_the_kernel_allows(self, sandbox: Sandbox) -> None:
        if "reaches the network" in sandbox.isolation.not_enforced:
            pytest.skip("this machine allows no namespaces")

    def host_command(self, *arguments: str) -> list[str]:
        return [sys.executable, "-P", "-m", "tests.sandbox.host", "process", str(self.plugin), *arguments]

    def assert_nothing_left(self, run_id: str, folder: Path) -> None:
        super().assert_nothing_left(run_id, folder)
        assert not alive(f"{MARK}={run_id}")

    async def after_host_death(self, marker: str, run_id: str) -> None:
        assert await until(lambda: not alive(marker), 5)
        assert await until(lambda: not alive(f"{MARK}={run_id}"), 5)

    async def test_isolation_is_told_phrase_by_phrase(self, sandbox: Sandbox) -> None:
        assert sandbox.isolation.level == "process"
        said = sandbox.isolation.not_enforced
        assert "memory and process counts are watched, not enforced by the kernel" in said
        assert not any("network" in phrase or "writes" in phrase for phrase in said)

    async def test_code_that_a_model_wrote_is_refused(
        self, sandbox: Sandbox, plugin: Path, tmp_path: Path, run_id: str
    ) -> None:
        job = self.job("generated", {"act": "plain"}, generated_code=True)
        with pytest.raises(UserError, match="runs no code by a model") as caught:
            await sandbox.run(job)
        assert "sandbox.trust_generated_code: true" in caught.value.hint
        trusting = ProcessSandbox(plugins=[plugin], trust_generated_code=True)
        await trusting.open(f"{run_id}-trusting", tmp_path, digits(), 1)
        assert (await trusting.run(job)).state is JobState.TRAINED
        await trusting.close()

    async def test_a_job_trains_soon_after_it_was_submitted(self, sandbox: Sandbox) -> None:
        waits = []
        for i in range(9):
            job = self.job(f"soon-{i}", {"act": "plain"}, latency=None)
            started = time.monotonic()
            outcome = await sandbox.run(job)
            assert outcome.report is not None
            # all that is not training: what comes before the first step and what comes after the last
            waits.append(time.monotonic() - started - sum(outcome.report.epoch_s))
        # 70 ms on the machine it was written on; a fresh interpreter takes 2,000 and more
        assert statistics.median(waits) < 1.0

    async def test_the_fork_server_is_started_anew_once(
        self, make: Make, tmp_path: Path, run_id: str
    ) -> None:
        sandbox = make()
        mark = f"{MARK}={run_id}-anew"
        await sandbox.open(f"{run_id}-anew", tmp_path, digits(), 2)
        try:
            running = asyncio.ensure_future(
                sandbox.run(self.job("survivor", {"act": "slow", "seconds": 0.05}))
            )
            await asyncio.sleep(0.3)
            (server,) = [pid for pid in alive(mark) if os.getsid(pid) == pid and _parent(pid) == os.getpid()]
            os.kill(server, signal.SIGKILL)
            assert (await running).state is JobState.TRAINED
        finally:
            await sandbox.close()
        self.assert_nothing_left(f"{run_id}-anew", tmp_path)

    async def test_a_fork_server_that_dies_twice_is_an_infrastructure_error(
        self, make: Make, tmp_path: Path, run_id: str
    ) -> None:
        sandbox = make()
        mark = f"{MARK}={run_id}-twice"
        await sandbox.open(f"{run_id}-twice", tmp_path, digits(), 2)
        try:
            hidden = f"cambrian-victim-{os.getpid()}"
            victim = self.job("victim", {"act": "hide", "marker": hidden, "seconds": 60})
            running = asyncio.ensure_future(sandbox.run(victim))
            place = tmp_path / "jobs" / "TestProcessSandbox-victim"
            for _ in range(2):
                assert await until(lambda: bool(alive(hidden)), 60)
                (server,) = [pid for pid in alive(mark) if _parent(pid) == os.getpid()]
                os.kill(server, signal.SIGKILL)
                assert await until(lambda: not alive(hidden), 10)
            with pytest.raises(InfrastructureError, match="died twice"):
                await running
            assert not (place / "outcome.json").exists()
        finally:
            await sandbox.close()


class TestProcessSandboxWithoutNamespaces(ConfinementContract):
    """A machine whose kernel forbids namespaces: all the rest must hold all the same."""

    confined = False

    @pytest.fixture(scope="class")
    def make(self, plugin: Path) -> Make:
        return lambda: ProcessSandbox(plugins=[plugin], namespaces=False)

    @pytest.fixture(autouse=True)
    def _plugin(self, plugin: Path) -> None:
        self.plugin = plugin

    def host_command(self, *arguments: str) -> list[str]:
        return [sys.executable, "-P", "-m", "tests.sandbox.host", "bare", str(self.plugin), *arguments]

    async def after_host_death(self, marker: str, run_id: str) -> None:
        assert await until(lambda: not alive(marker), 5)


async def test_open_says_why_the_fork_server_did_not_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    sandbox = ProcessSandbox()
    with pytest.raises(InfrastructureError, match="did not start"):
        await sandbox.open("test-false", tmp_path, digits(), 1)
    await sandbox.close()


def _parent(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return 0


async def test_children_are_found_where_the_kernel_does_not_list_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from cambrian.sandbox.worker import supervisor

    code = "import subprocess, sys; subprocess.run([sys.executable, '-S', '-c', 'input()'])"
    command = [sys.executable, "-S", "-c", code]
    with subprocess.Popen(command, stdin=subprocess.PIPE) as process:
        assert await until(lambda: len(supervisor.descendants(process.pid)) == 1, 10)
        listed = supervisor.descendants(os.getpid())
        monkeypatch.setattr(supervisor, "_KERNEL_LISTS_CHILDREN", False)
        assert set(supervisor.descendants(os.getpid())) >= {process.pid, *supervisor.descendants(process.pid)}
        assert set(supervisor.descendants(os.getpid())) == set(listed)
        assert process.pid not in supervisor.descendants(os.getpid(), {process.pid})
        process.kill()
