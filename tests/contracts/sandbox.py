"""What every sandbox must do. A test class inherits `SandboxContract` and gives the fixture `make`.

Candidates that misbehave come from `cambrian.sandbox.adversary`, which each sandbox is given as a plugin:
they run inside only.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy

from cambrian.sandbox import InfrastructureError, JobLimits, JobState, LatencySpec, Outcome, Sandbox
from cambrian.sandbox.examination.identity import identity
from cambrian.sandbox.examination.report import ExamineSpec
from cambrian.sandbox.examination.static import check
from cambrian.sandbox.outputs import read_outputs
from cambrian.search_spaces import SPACES, TASKS
from tests.contracts.open_sandbox import Make, OpenSandbox, alive, convnet, digits, files, until

__all__ = [
    "ConfinementContract",
    "Make",
    "OpenSandbox",
    "SandboxContract",
    "TrainingContract",
    "alive",
    "digits",
    "files",
    "until",
]

ROOT = Path(__file__).parents[2]
SECRET = ("sk-nobody-may", "-read-this-7315")
"""In two parts, so that no job file holds the whole."""


class TrainingContract(OpenSandbox):
    """What a good candidate gets, and what is never paid twice."""

    async def test_trains_a_network_that_learns(self, sandbox: Sandbox, folder: Path) -> None:
        job = self.job("learns", convnet(), epochs=6, recipe=TASKS.create("digits").recipe)
        outcome = await sandbox.run(job)
        assert (outcome.state, outcome.reason) == (JobState.TRAINED, "")
        assert outcome.isolation == sandbox.isolation
        assert files(folder, job) == {
            "ending.json", "job.json", "log.txt", "outcome.json", "outputs.npz", "report.json",
            "weights.safetensors",
        }  # fmt: skip
        report = outcome.report
        assert report is not None and report.latency is not None
        assert len(report.train_loss) == len(report.epoch_s) == 6
        assert report.train_loss[-1] < 0.5 * report.train_loss[0]
        assert 0 < report.setup_s < outcome.wall_s
        assert report.latency.q1_ms <= report.latency.median_ms <= report.latency.q3_ms
        assert report.latency.device and report.latency.repeats == 10
        outputs, splits = read_outputs(folder / "jobs" / job.id), digits()
        assert (outputs.val.argmax(1) == splits.y_val).mean() > 0.8
        assert (outputs.test.argmax(1) == splits.y_test).mean() > 0.8
        assert np.array_equal(outputs.val_epochs[-1], outputs.val.argmax(1))

    async def test_weights_fit_the_space_s_module_and_give_the_outputs(
        self, sandbox: Sandbox, folder: Path
    ) -> None:
        import torch

        job = self.job("weights", convnet())
        outcome = await sandbox.run(job)
        weights = safetensors.numpy.load_file(folder / "jobs" / job.id / "weights.safetensors")
        module = SPACES.create("convnet").build(job.genotype, job.signature).eval()
        module.load_state_dict({k: torch.from_numpy(v) for k, v in weights.items()})
        with torch.inference_mode():
            again = module(torch.from_numpy(digits().x_val)).numpy()
        assert np.allclose(again, read_outputs(folder / "jobs" / job.id).val, atol=1e-3)
        assert outcome.report is not None
        assert outcome.report.parameters == sum(p.numel() for p in module.parameters())

    async def test_equal_jobs_give_equal_bits(self, sandbox: Sandbox, folder: Path) -> None:
        jobs = [self.job(f"same-{i}", convnet(), epochs=2) for i in range(2)]
        jobs.append(self.job("same-unmeasured", convnet(), epochs=2, latency=None))
        jobs.append(self.job("other-seed", convnet(), epochs=2, seed=8))
        first, second, unmeasured, other = [await sandbox.run(job) for job in jobs]
        contents = [(folder / "jobs" / job.id / "weights.safetensors").read_bytes() for job in jobs]
        assert contents[0] == contents[1] == contents[2] != contents[3]
        assert first.report is not None and second.report is not None
        assert first.report.train_loss == second.report.train_loss
        assert unmeasured.report is not None and unmeasured.report.latency is None
        values = [read_outputs(folder / "jobs" / job.id) for job in jobs]
        assert np.array_equal(values[0].test, values[1].test)
        assert not np.array_equal(values[0].test, values[3].test)
        assert other.state is JobState.TRAINED

    async def test_no_epochs_leave_the_network_untrained(self, sandbox: Sandbox, folder: Path) -> None:
        job = self.job("untrained", {"act": "plain"}, epochs=0)
        outcome = await sandbox.run(job)
        assert outcome.state is JobState.TRAINED
        assert read_outputs(folder / "jobs" / job.id).val_epochs.shape == (0, len(digits().x_val))
        assert outcome.report is not None and outcome.report.train_loss == ()

    async def test_jobs_run_side_by_side(self, sandbox: Sandbox) -> None:
        jobs = [self.job(f"side-{i}", {"act": "plain"}) for i in range(2)]
        outcomes = await asyncio.gather(*(sandbox.run(job) for job in jobs))
        assert [outcome.job_id for outcome in outcomes] == [job.id for job in jobs]
        assert {outcome.state for outcome in outcomes} == {JobState.TRAINED}

    # the other purposes

    async def test_a_network_is_measured_alone(self, sandbox: Sandbox, folder: Path) -> None:
        spec = LatencySpec(repeats=5, throughput_batch=32)
        job = self.job("measured", convnet(), purpose="measure", latency=spec)
        outcome = await sandbox.run(job)
        assert (outcome.state, outcome.reason) == (JobState.MEASURED, "")
        assert files(folder, job) == {"ending.json", "job.json", "log.txt", "outcome.json", "report.json"}
        assert outcome.report is not None and outcome.report.latency is not None
        latency = outcome.report.latency
        assert latency.alone
        assert latency.reference and latency.ratio is not None and latency.reference_ms is not None
        # of one order only: one is of all rounds, the other of the calmest, and tests run beside this one
        assert 0.1 < latency.ratio / (latency.median_ms / latency.reference_ms) < 10
        assert latency.throughput is not None and latency.throughput > 1000 / latency.median_ms
        assert latency.memory_mb is not None and latency.memory_mb > 4 * outcome.report.parameters / 2**20

    async def test_a_network_is_examined(self, sandbox: Sandbox, folder: Path) -> None:
        spec = ExamineSpec(identity=True, motifs=True, proxies=("params",))
        job = self.job("examined", convnet(), purpose="examine", examine=spec, latency=None)
        outcome = await sandbox.run(job)
        assert (outcome.state, outcome.reason) == (JobState.EXAMINED, "")
        assert files(folder, job) == {"ending.json", "job.json", "log.txt", "outcome.json", "report.json"}
        assert outcome.report is not None and outcome.report.examination is not None
        found, space = outcome.report.examination, SPACES.create("convnet")
        assert found.identity == identity(space, job.genotype, job.signature)
        assert found.static == check(space, job.genotype, job.signature, job.recipe.batch_size)
        assert {finding.check for finding in found.findings} >= {"output-shape", "batch-independence"}
        assert not found.faults() and found.motifs
        assert found.proxies == {"params": outcome.report.parameters}
        assert await sandbox.run(job) == outcome
        broken = self.job("examined-broken", {"act": "raise"}, purpose="examine", examine=spec, latency=None)
        assert (await sandbox.run(broken)).state is JobState.ERROR

    async def test_predictions_are_reproduced_from_the_weights_alone(
        self, sandbox: Sandbox, folder: Path
    ) -> None:
        first = self.job("original", convnet(), epochs=2)
        assert (await sandbox.run(first)).state is JobState.TRAINED
        again = {"purpose": "reproduce", "weights_of": first.id}
        job = self.job("again", convnet(), **again)
        outcome = await sandbox.run(job)
        assert (outcome.state, outcome.reason) == (JobState.REPRODUCED, "")
        assert files(folder, job) == {"ending.json", "job.json", "log.txt", "outcome.json", "report.json"}
        assert await sandbox.run(job) == outcome
        weights = folder / "jobs" / first.id / "weights.safetensors"
        tensors = safetensors.numpy.load_file(weights)
        name = next(name for name in tensors if tensors[name].ndim > 1)
        tensors[name] = tensors[name] + np.float32(0.3)
        safetensors.numpy.save_file(tensors, weights)
        changed = await sandbox.run(self.job("changed", convnet(), **again))
        assert changed.state is JobState.NOT_REPRODUCED
        assert "a fresh network with the same weights makes other predictions for" in changed.reason

    async def test_nothing_held_out_lies_in_the_sandbox(self, sandbox: Sandbox) -> None:
        outcome = await sandbox.run(self.job("data", {"act": "data"}))
        listed = json.loads(outcome.reason.removeprefix("Found: ").rpartition(" (")[0])
        assert listed == {"files": ["x_train.npy", "y_train.npy"]}

    # what is never paid twice

    async def test_a_finished_job_is_not_run_again(self, sandbox: Sandbox, folder: Path) -> None:
        job = self.job("once", {"act": "plain"})
        outcome = await sandbox.run(job)
        stamp = (folder / "jobs" / job.id / "report.json").stat().st_mtime_ns
        assert await sandbox.run(job) == outcome
        assert (folder / "jobs" / job.id / "report.json").stat().st_mtime_ns == stamp

    async def test_a_complete_report_that_nobody_read_is_adopted(
        self, sandbox: Sandbox, folder: Path
    ) -> None:
        job = self.job("unread", {"act": "plain"})
        first = await sandbox.run(job)
        place = folder / "jobs" / job.id
        (place / "outcome.json").unlink()
        stamp = (place / "report.json").stat().st_mtime_ns
        second = await sandbox.run(job)
        assert second.report == first.report
        assert (place / "report.json").stat().st_mtime_ns == stamp
        assert (place / "outcome.json").exists()

    async def test_half_a_result_is_run_again(self, sandbox: Sandbox, folder: Path) -> None:
        job = self.job("half", {"act": "plain"})
        await sandbox.run(job)
        place = folder / "jobs" / job.id
        before = (place / "outputs.npz").read_bytes()
        for name in ("outcome.json", "report.json"):
            (place / name).unlink()
        (place / "outputs.npz").write_bytes(before[: len(before) // 2])
        assert (await sandbox.run(job)).state is JobState.TRAINED
        assert (place / "outputs.npz").read_bytes() == before


class ConfinementContract(OpenSandbox):
    """How candidates fail, what they cannot reach, and how a sandbox ends."""

    @pytest.mark.parametrize(
        ("name", "genotype", "state", "words"),
        [
            ("raise", {"act": "raise"}, JobState.ERROR, "ValueError: kernel of 9 is larger than the image ("),
            ("quit", {"act": "quit"}, JobState.ERROR, "SystemExit: 5 ("),
            ("nan", {"act": "nan"}, JobState.ERROR, "loss became NaN in epoch 1"),
            ("short", {"act": "short"}, JobState.ERROR, "shape (2, 9), expected (2, 10)"),
            ("overflow", {"act": "overflow"}, JobState.BAD_OUTPUT, "outputs on val are not finite"),
            ("kill", {"act": "signal", "number": 9}, JobState.KILLED, "ended by signal SIGKILL"),
            ("crash", {"act": "signal", "number": 11}, JobState.KILLED, "ended by signal SIGSEGV"),
            ("exit", {"act": "exit", "code": 3}, JobState.KILLED, "ended with exit code 3"),
            ("leave", {"act": "exit", "code": 0}, JobState.BAD_OUTPUT, "report.json is missing"),
            ("full", {"act": "exit", "code": 74}, JobState.KILLED, "ended with exit code 74"),
        ],
    )
    async def test_a_failing_candidate_has_a_state_and_a_reason(
        self, sandbox: Sandbox, name: str, genotype: dict[str, Any], state: JobState, words: str
    ) -> None:
        outcome = await sandbox.run(self.job(name, genotype))
        assert outcome.state is state
        assert words in outcome.reason
        assert "\n" not in outcome.reason

    async def test_latency_above_the_limit_ends_the_job_before_training(
        self, sandbox: Sandbox, folder: Path
    ) -> None:
        spec = LatencySpec(warmup=1, repeats=5, limit_ms=5)
        job = self.job("late", {"act": "slow", "seconds": 0.02}, latency=spec, epochs=100)
        outcome = await sandbox.run(job)
        assert outcome.state is JobState.OVER_LIMIT
        assert "above the limit of 5 ms" in outcome.reason
        assert outcome.report is not None and outcome.report.latency is not None
        assert outcome.report.train_loss == ()
        assert outcome.report.latency.q1_ms > 20
        assert "outputs.npz" not in files(folder, job)

    async def test_time_limit_ends_the_job(self, sandbox: Sandbox) -> None:
        limits = JobLimits(wall_s=self.start_s)
        started = time.monotonic()
        outcome = await sandbox.run(self.job("sleepy", {"act": "slow", "seconds": 60}, limits=limits))
        assert (outcome.state, outcome.report) == (JobState.TIMEOUT, None)
        assert outcome.reason == f"took longer than {self.start_s:g} s"
        assert time.monotonic() - started < self.start_s + 10

    async def test_memory_limit(self, sandbox: Sandbox) -> None:
        limits = JobLimits(wall_s=60, memory_mb=600)
        for act in ("eat", "grab"):  # bit by bit, and in one piece
            outcome = await sandbox.run(self.job(act, {"act": act, "mb": 8000}, limits=limits))
            assert outcome.state is JobState.OUT_OF_MEMORY, outcome.reason
            assert outcome.reason

    async def test_file_limit(self, sandbox: Sandbox) -> None:
        limits = JobLimits(wall_s=60, file_mb=10)
        outcome = await sandbox.run(self.job("big", {"act": "write", "mb": 20}, limits=limits))
        assert outcome.state is JobState.ERROR
        assert "File too large" in outcome.reason

    async def test_log_is_kept_and_capped(self, sandbox: Sandbox, folder: Path) -> None:
        job = self.job("chat", {"act": "chat", "kb": 4000}, limits=JobLimits(wall_s=60, log_kb=16))
        assert (await sandbox.run(job)).state is JobState.TRAINED
        log = (folder / "jobs" / job.id / "log.txt").read_bytes()
        assert b"xxxxxxxx" in log
        assert len(log) < 17 * 1024

    async def test_a_fork_bomb_is_limited_and_ended(self, sandbox: Sandbox) -> None:
        limits = JobLimits(wall_s=self.start_s + 3, processes=24, memory_mb=16000)
        before = len(list(Path("/proc").glob("[0-9]*")))
        most = before
        stop = threading.Event()

        def watch() -> None:
            nonlocal most
            while not stop.wait(0.01):
                most = max(most, len(list(Path("/proc").glob("[0-9]*"))))

        watcher = threading.Thread(target=watch)
        watcher.start()
        outcome = await sandbox.run(self.job("bomb", {"act": "bomb"}, limits=limits))
        stop.set()
        watcher.join()
        assert outcome.state in (JobState.KILLED, JobState.TIMEOUT)
        assert most - before < 500
        assert (await sandbox.run(self.job("after-bomb", {"act": "plain"}))).state is JobState.TRAINED

    @pytest.mark.parametrize("stays", [True, False])
    async def test_processes_that_hide_end_with_the_job(self, sandbox: Sandbox, stays: bool) -> None:
        marker = f"cambrian-hidden-{os.getpid()}-{type(self).__name__}-{stays}"
        genotype = {"act": "hide", "marker": marker, "seconds": 60 if stays else 2}  # long enough to be seen
        limits = JobLimits(wall_s=self.start_s if stays else 60)
        running = asyncio.ensure_future(
            # not measured: whoever hides a process is timed by the wall, and on a busy machine not believed
            sandbox.run(self.job(f"hide-{stays}", genotype, limits=limits, epochs=3, latency=None))
        )
        assert await until(lambda: bool(alive(marker)), 20)
        assert (await running).state is (JobState.TIMEOUT if stays else JobState.TRAINED)
        assert await until(lambda: not alive(marker), 2)

    # what candidates cannot reach

    @pytest.fixture
    def listener(self) -> Iterator[int]:
        """A server on all addresses of this machine; its port."""
        with socket.create_server(("0.0.0.0", 0)) as server:
            yield server.getsockname()[1]

    @pytest.fixture
    def keeper(self) -> Iterator[int]:
        """Another process of this user that has the secret in its environment; its id."""
        environment = {"OPENAI_API_KEY": "".join(SECRET)}
        with subprocess.Popen([sys.executable, "-S", "-c", "input()"], stdin=-1, env=environment) as process:
            yield process.pid
            process.kill()

    async def look(self, sandbox: Sandbox, paths: list[Path], listener: int, keeper: int) -> dict[str, Any]:
        """What a candidate finds that looks around."""
        os.environ["OPENAI_API_KEY"] = "".join(SECRET)
        genotype = {
            "act": "look",
            "head": SECRET[0],
            "tail": SECRET[1],
            "addresses": ["127.0.0.1", *_addresses()],
            "port": listener,
            "paths": [str(path) for path in paths],
            "pid": keeper,
        }
        outcome = await sandbox.run(self.job(f"look-{keeper}", genotype))
        assert outcome.state is JobState.ERROR
        found: dict[str, Any] = json.loads(outcome.reason.removeprefix("Found: ").rpartition(" (")[0])
        return found

    async def test_secrets_network_files_and_processes_of_the_host_are_out_of_reach(
        self,
        sandbox: Sandbox,
        tmp_path: Path,
        folder: Path,
        listener: int,
        keeper: int,
        request: pytest.FixtureRequest,
    ) -> None:
        shared = Path(f"/dev/shm/cambrian-test-{os.getpid()}-{type(self).__name__}")
        paths = [tmp_path / "mine", folder / "jobs" / "mine", shared]
        request.addfinalizer(lambda: shared.unlink(missing_ok=True))
        facts = await self.look(sandbox, paths, listener, keeper)
        assert "own" not in facts["secret"]
        assert not {name for name in facts["environment"] if "KEY" in name or "TOKEN" in name}
        if self.confined:
            assert facts["secret"] == []
            assert facts["connects"] == []
            assert facts["writes"] == []
            assert facts["signals"] is False
            assert not any(path.exists() for path in paths)
        else:  # then it must say so; and the candidate shows that it can tell the difference
            said = " ".join(sandbox.isolation.not_enforced)
            assert (f"{keeper}/environ" in facts["secret"]) == ("environment" in said)
            assert "127.0.0.1" in facts["connects"]
            assert facts["signals"] is True
            assert all(word in said for word in ("network", "writes files", "signals"))
            assert facts["writes"] == [str(path) for path in paths]
            (folder / "jobs" / "mine").unlink()

    async def test_the_keeper_is_process_1_which_nobody_inside_can_stop(self, sandbox: Sandbox) -> None:
        if not self.confined:
            pytest.skip("it has no process ids of its own")
        outcome = await sandbox.run(self.job("keeper", {"act": "stop-keeper"}))
        assert outcome.state is JobState.ERROR, outcome.reason
        assert outcome.reason.startswith('Found: {"stopped": 0, "zombies": 0}')

    async def test_a_forged_result_is_not_believed(self, sandbox: Sandbox, folder: Path) -> None:
        job = self.job("forge", {"act": "forge"})
        outcome = await sandbox.run(job)
        assert outcome.state is JobState.BAD_OUTPUT
        place = folder / "jobs" / job.id
        assert Outcome.model_validate_json((place / "outcome.json").read_bytes()) == outcome
        assert not any(path.is_symlink() and path.name == "report.json" for path in place.iterdir())
        assert files(folder, job) <= {
            "ending.json", "job.json", "log.txt", "outcome.json", "report.json", "outputs.npz",
            "weights.safetensors",
        }  # fmt: skip
        with pytest.raises(ValueError, match=r"outputs\.npz"):
            read_outputs(place)

    # how a sandbox ends

    async def test_cancelling_ends_the_job_and_leaves_no_outcome(
        self, sandbox: Sandbox, folder: Path
    ) -> None:
        marker = f"cambrian-cancelled-{os.getpid()}-{type(self).__name__}"
        job = self.job("cancelled", {"act": "hide", "marker": marker, "seconds": 60})
        running = asyncio.ensure_future(sandbox.run(job))
        assert await until(lambda: bool(alive(marker)), 20)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        assert not alive(marker)
        assert "outcome.json" not in files(folder, job)
        again = self.job("cancelled", {"act": "plain"})
        assert (await sandbox.run(again)).state is JobState.TRAINED

    async def test_a_sandbox_that_is_closed_says_so(self, make: Make) -> None:
        sandbox = make()
        with pytest.raises(InfrastructureError, match="not open"):
            await sandbox.run(self.job("closed", {"act": "plain"}))
        await sandbox.close()
        await sandbox.close()

    async def test_a_killed_host_leaves_nothing_that_open_does_not_end(
        self, make: Make, tmp_path: Path
    ) -> None:
        run_id = f"test-killed-{os.getpid()}-{type(self).__name__.lower()}"
        marker = f"cambrian-orphan-{run_id}"
        job = self.job("orphan", {"act": "hide", "marker": marker, "seconds": 60})
        (tmp_path / "job.json").write_text(job.model_dump_json())
        folder = tmp_path / "run"
        folder.mkdir()
        command = self.host_command(run_id, str(folder), str(tmp_path / "job.json"))
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        with subprocess.Popen(command, env=environment, cwd=ROOT) as host:
            assert await until(lambda: bool(set(alive(marker)) - {host.pid}), 60)
            host.send_signal(signal.SIGKILL)
        await self.after_host_death(marker, run_id)
        sandbox = make()
        await sandbox.open(run_id, folder, digits(), 1)
        try:
            assert not alive(marker)
            again = self.job("orphan", {"act": "plain"})
            assert (await sandbox.run(again)).state is JobState.TRAINED
        finally:
            await sandbox.close()
        self.assert_nothing_left(run_id, folder)

    async def after_host_death(self, marker: str, run_id: str) -> None:
        """What holds before the next `open`."""


class SandboxContract(TrainingContract, ConfinementContract):
    """The whole suite."""


def _addresses() -> list[str]:
    """Addresses of this machine beyond loopback, if it has any."""
    try:
        found = socket.getaddrinfo(socket.gethostname(), None, socket.AF_INET)
    except OSError:
        return []
    return sorted({str(item[4][0]) for item in found} - {"127.0.0.1"})
