"""A sandbox whose training costs nothing: its outputs are a function of the genotype and the seed.

For benchmarks of our own overhead and for tests of the loop. Everything around the training is real: job
folders, outcomes, the rule that a finished job is never run again.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from cambrian.sandbox import Isolation, Job, JobState, Latency, Outcome, WorkerReport
from cambrian.sandbox.examination.report import Examination, Finding
from cambrian.search_spaces import Splits


class InstantSandbox:
    """Returns outputs that are right for a share of the samples that the genotype decides.

    It sees the labels, which a real sandbox never does; no candidate code runs in it.
    """

    def __init__(self, base_image: str | None = None, plugins: Sequence[Path] = ()) -> None:
        self.isolation = Isolation(level="process", not_enforced=("nothing is run at all",))
        self.ran: list[str] = []
        self.claims: list[Job] = []
        """The jobs that were to reproduce."""
        self.closed = False

    async def open(
        self, run_id: str, folder: Path, splits: Splits, slots: int, space: Path | None = None
    ) -> None:
        self._folder, self._splits = folder, splits
        self._log = folder / "instant.log"

    async def run(self, job: Job) -> Outcome:
        if job.purpose == "reproduce":
            self.claims.append(job)  # outputs are a function of the genotype and the seed: nothing to do
            return Outcome(job_id=job.id, state=JobState.REPRODUCED, wall_s=0.0, isolation=self.isolation)
        if job.examine is not None:
            return self._examined(job)
        folder = self._folder / "jobs" / job.id
        done = folder / "outcome.json"
        if done.exists():
            return Outcome.model_validate_json(done.read_text())
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "job.json").write_text(job.model_dump_json())
        digest = hashlib.sha256(json.dumps([job.genotype, job.seed, job.epochs]).encode()).digest()
        rng = np.random.default_rng(list(digest))
        share = 0.5 + 0.4 * rng.random() + 0.02 * min(job.epochs, 4)
        if job.purpose == "train":
            (folder / "weights.safetensors").write_bytes(b"none")
            np.savez(
                folder / "outputs.npz",
                val=self._outputs(self._splits.y_val, share, job, rng),
                test=self._outputs(self._splits.y_test, share, job, rng),
                val_epochs=np.zeros((0, len(self._splits.y_val)), dtype=np.int16),
            )
        milliseconds = 0.2 + rng.random()
        report = WorkerReport(
            status="trained" if job.purpose == "train" else "measured",
            latency=None
            if job.latency is None
            else Latency(
                device="instant",
                threads=job.limits.threads,
                batch=1,
                warmup=0,
                repeats=3,
                median_ms=milliseconds,
                q1_ms=milliseconds,
                q3_ms=milliseconds,
                alone=True,
                reference="none",
                reference_ms=0.4,
                ratio=milliseconds / 0.4,
                throughput_batch=64,
                throughput=1000 / milliseconds,
                memory_mb=1.0,
            ),
        )
        outcome = Outcome(
            job_id=job.id,
            state=JobState.TRAINED if job.purpose == "train" else JobState.MEASURED,
            wall_s=0.0,
            isolation=self.isolation,
            report=report,
        )
        with self._log.open("a") as log:  # one line for every training really made
            log.write(f"{job.id}\n")
        self.ran.append(job.id)
        partial = folder / "outcome.tmp"
        partial.write_text(outcome.model_dump_json())
        partial.rename(done)
        return outcome

    def _examined(self, job: Job) -> Outcome:
        """Its networks behave, and compute whatever is written."""
        spec = job.examine
        assert spec is not None
        text = json.dumps([job.space, job.genotype], sort_keys=True)
        examination = Examination(
            identity=f"t1:{hashlib.md5(text.encode()).hexdigest()}" if spec.identity else None,
            findings=[Finding(check="finite", verdict="passed")] if spec.behaviour else [],
            proxies=dict.fromkeys(spec.proxies, float(len(text))),
        )
        return Outcome(
            job_id=job.id,
            state=JobState.EXAMINED,
            wall_s=0.0,
            isolation=self.isolation,
            report=WorkerReport(status="examined", examination=examination),
        )

    async def close(self) -> None:
        self.closed = True

    @staticmethod
    def _outputs(labels: np.ndarray, share: float, job: Job, rng: np.random.Generator) -> np.ndarray:
        outputs = rng.random((len(labels), job.signature.n_outputs)).astype(np.float32)
        right = rng.random(len(labels)) < share
        outputs[np.flatnonzero(right), labels[right]] = 2.0
        return outputs
