"""The trial: runs hostile candidates against an open sandbox and looks at what became of them and of others.

Between them plain candidates are trained, whose weights must be those of the one trained first, bit by bit.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from cambrian.sandbox.adversary.bait import Bait, alive
from cambrian.sandbox.adversary.places import temporary
from cambrian.sandbox.adversary.plugin import SPACE_NAME
from cambrian.sandbox.adversary.probe import ORDINARY, TIMED, Evidence, Probe, judge
from cambrian.sandbox.adversary.report import HonestResult, ProbeResult, TrialReport
from cambrian.sandbox.examination.report import ExamineSpec
from cambrian.sandbox.protocol import Job, JobState, Outcome, Sandbox
from cambrian.search_spaces import Recipe, Signature, Splits

KNOWN_FILES = {
    "ending.json", "job.json", "log.txt", "outcome.json", "outputs.npz", "report.json", "weights.safetensors",
}  # fmt: skip
PLAIN = {"act": "plain"}
LEARNT = 0.6
"""Accuracy that the plain network passes after the epochs of the honest part; chance is 0.1."""
EPOCHS = 8
EXAMINED = ExamineSpec(identity=True, motifs=True, proxies=("params",))


class Trial:
    """A trial of one open sandbox.

    Args:
        sandbox: open, with the plugin of `plugin.lay_out`, for `splits`.
        run_id: that it was opened with.
        folder: that it was opened with.
        splits: of a task of images.
        signature: of the same task.
        slots: jobs that run at a time.
        every: after how many probes of a slot a plain candidate is trained.
        leftovers: says what there is of a job (its id) outside the folder, or of the whole run (an empty id).
        told: told of each result, how many there are, and how many there will be.
    """

    def __init__(
        self,
        sandbox: Sandbox,
        run_id: str,
        folder: Path,
        splits: Splits,
        signature: Signature,
        slots: int = 2,
        every: int = 1,
        leftovers: Callable[[str], list[str]] = lambda _job_id: [],
        told: Callable[[ProbeResult | HonestResult, int, int], None] = lambda _result, _done, _of: None,
    ) -> None:
        self._sandbox, self._run_id, self._folder = sandbox, run_id, folder
        self._splits, self._signature = splits, signature
        self._slots, self._every, self._leftovers, self._told = slots, every, leftovers, told
        self._weights = b""
        self._plain_jobs = 0
        self._done = 0

    async def run(self, probes: Sequence[Probe]) -> TrialReport:
        """Run the honest part and `probes`, and tell what was found. The sandbox stays open."""
        started = time.monotonic()
        of = len(probes) + 3
        before = {path.name for path in self._folder.iterdir()} | {"jobs"}
        with temporary("cambrian-bait") as place, Bait(place) as bait:
            honest = await self._honest(of)
            waiting = list(probes)
            results: dict[str, ProbeResult] = {}

            async def slot() -> None:
                unwatched: list[str] = []
                while waiting:
                    probe = waiting.pop(0)
                    result = await self._try_out(probe, bait)
                    results[probe.name] = result
                    unwatched.append(probe.name)
                    if len(unwatched) >= self._every or not waiting:
                        if not await self._is_unharmed():
                            for name in unwatched:
                                results[name] = results[name].model_copy(update={"unharmed": False})
                        unwatched = []
                    self._tell(results[probe.name], of)

            await asyncio.gather(*(slot() for _ in range(self._slots)))
            left = bait.left(bait.marker)
        left += [f"{self._folder / p.name}" for p in self._folder.iterdir() if p.name not in before]
        return TrialReport(
            isolation=self._sandbox.isolation,
            honest=tuple(honest),
            probes=tuple(results[probe.name] for probe in probes),
            left=tuple(left),
            wall_s=time.monotonic() - started,
        )

    def after_closing(self, report: TrialReport) -> TrialReport:
        """`report` with what is left when the sandbox has been closed."""
        left = [f"process {pid}" for pid in alive(self._run_id)] + self._leftovers("")
        return report.model_copy(update={"left": (*report.left, *left)})

    def _tell(self, result: ProbeResult | HonestResult, of: int) -> None:
        self._done += 1
        self._told(result, self._done, of)

    def _job(self, name: str, genotype: dict[str, Any], **changes: Any) -> Job:
        values: dict[str, Any] = {
            "id": name,
            "run_id": self._run_id,
            "candidate_id": "c-0001",
            "space": SPACE_NAME,
            "genotype": genotype,
            "signature": self._signature,
            "recipe": Recipe(batch_size=64),
            "epochs": 1,
            "seed": 7,
            "latency": None,
            "generated_code": True,
            "limits": ORDINARY,
        }
        return Job.model_validate(values | changes)

    # -- honest candidates -----------------------------------------------------------------------------------

    async def _honest(self, of: int) -> list[HonestResult]:
        """Train one that learns, twice the same, measured and reproduced."""
        found = []

        def add(name: str, ok: bool, detail: str, wall_s: float) -> None:
            found.append(HonestResult(name=name, ok=ok, detail=detail, wall_s=wall_s))
            self._tell(found[-1], of)

        first = self._job("honest-0", PLAIN, epochs=EPOCHS, latency=TIMED)
        twin = self._job("honest-1", PLAIN, epochs=EPOCHS)
        outcome, second = await asyncio.gather(self._sandbox.run(first), self._sandbox.run(twin))
        accuracy = Evidence(outcome, self._of(first), self._splits).accuracy()
        trained = outcome.state is JobState.TRAINED and accuracy > LEARNT
        add("trains", trained, outcome.reason or f"{accuracy:.0%} of the validation split", outcome.wall_s)
        same = second.state is JobState.TRAINED and self._weights_of(first) == self._weights_of(twin)
        add("repeats", same, second.reason or "an equal job gave equal weights", second.wall_s)
        latency = outcome.report.latency if outcome.report is not None else None
        again, _ = await asyncio.gather(self._sandbox.run(self._again(first)), self._train_plain())
        ok = latency is not None and again.state is JobState.REPRODUCED
        detail = "" if latency is None else f"{latency.median_ms:.3g} ms on {latency.place}; "
        add("measured", ok, detail + (again.reason or "predictions reproduced from weights"), again.wall_s)
        self._weights = self._weights_of(self._job("plain-0", PLAIN))
        return found

    async def _train_plain(self) -> Job:
        job = self._job(f"plain-{self._plain_jobs}", PLAIN)
        self._plain_jobs += 1
        await self._sandbox.run(job)
        return job

    async def _is_unharmed(self) -> bool:
        """Whether a plain candidate gets the weights that it got before any hostile one ran."""
        return self._weights_of(await self._train_plain()) == self._weights != b""

    def _again(self, job: Job) -> Job:
        changes = {"id": f"{job.id}-again", "purpose": "reproduce", "weights_of": job.id}
        return job.model_copy(update=changes)

    def _of(self, job: Job) -> Path:
        return self._folder / "jobs" / job.id

    def _weights_of(self, job: Job) -> bytes:
        path = self._of(job) / "weights.safetensors"
        return path.read_bytes() if path.is_file() else b""

    # -- hostile candidates ----------------------------------------------------------------------------------

    async def _try_out(self, probe: Probe, bait: Bait) -> ProbeResult:
        if probe.needs and self._declares(probe.needs):
            return ProbeResult(
                name=probe.name,
                attempt=probe.attempt,
                state=None,
                skipped="left out, because it would hurt this user's own processes",
            )
        started = time.monotonic()
        marker = f"{bait.marker}-{probe.name}-{secrets.token_hex(4)}"
        facts = {**bait.facts(marker), "lengths": self._lengths()}
        changes: dict[str, Any] = {"limits": probe.limits, "latency": probe.latency}
        if probe.examined:
            changes |= {"purpose": "examine", "examine": EXAMINED}
        job = self._job(f"probe-{probe.name}", {**facts, **probe.genotype}, **changes)
        jobs = [job]
        outcome = await self._sandbox.run(job)
        evidence, state, reason = (
            Evidence(outcome, self._of(job), self._splits),
            outcome.state,
            outcome.reason,
        )
        if probe.paired and state is JobState.TRAINED:
            jobs.append(self._again(job))
            second = await self._sandbox.run(jobs[-1])
            state, reason = second.state, second.reason
        wrong = judge(probe, evidence, state)
        if probe.then is not None and not wrong.get("state"):
            jobs.append(self._job(f"{job.id}-then", {**facts, **probe.then}))
            later: Outcome = await self._sandbox.run(jobs[-1])
            wrong = judge_later(probe, Evidence(later, self._of(jobs[-1]), self._splits))
        left = await asyncio.to_thread(bait.left, marker)
        left += [thing for one in jobs for thing in self._left_of(one)]
        if left and self._declares(probe.declared.get("left", "")):
            wrong["left"], left = ", ".join(left), []
        owned = {key for key in wrong if self._declares(probe.declared.get(key, ""))}
        return ProbeResult(
            name=probe.name,
            attempt=probe.attempt,
            state=state,
            reason=reason,
            problems=tuple(text for key, text in wrong.items() if key not in owned),
            declared=tuple(text for key, text in wrong.items() if key in owned),
            left=tuple(left),
            wall_s=time.monotonic() - started,
        )

    def _lengths(self) -> list[int]:
        return [len(self._splits.x_val), len(self._splits.x_test)]

    def _declares(self, phrase: str) -> bool:
        return bool(phrase) and any(phrase in line for line in self._sandbox.isolation.not_enforced)

    def _left_of(self, job: Job) -> list[str]:
        strange = [path.name for path in self._of(job).iterdir() if path.name not in KNOWN_FILES]
        return [f"jobs/{job.id}/{name}" for name in strange] + self._leftovers(job.id)


def engine_leftovers(run_id: str, engine: str | None) -> Callable[[str], list[str]]:
    """Says which containers and volumes an engine has of a job, or of the whole run where no job is named.

    Args:
        run_id: of the run.
        engine: see `sandbox.engine`.
    """
    from cambrian.sandbox.engine import connect
    from cambrian.sandbox.sweep import JOB, RUN

    def found(job_id: str) -> list[str]:
        label = f"{JOB}={job_id}" if job_id else f"{RUN}={run_id}"
        client = connect(engine)
        try:
            containers = client.containers.list(all=True, filters={"label": label}, ignore_removed=True)
            volumes = client.volumes.list(filters={"label": label})
        finally:
            client.close()
        return [f"container {one.name}" for one in containers] + [f"volume {one.name}" for one in volumes]

    return found


def judge_later(probe: Probe, evidence: Evidence) -> dict[str, str]:
    """What is wrong with the later job of a probe, whose facts count."""
    expected = Probe(probe.name, probe.attempt, {}, frozenset({JobState.ERROR}), facts=probe.facts)
    return judge(expected, evidence, evidence.outcome.state)
