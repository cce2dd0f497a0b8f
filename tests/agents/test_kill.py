"""`kill -9` at random moments, then resume: nothing is lost, nothing is evaluated twice."""

from __future__ import annotations

import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cambrian.agents.champions import CHAMPIONS_KEY
from cambrian.agents.errors import CambrianError
from cambrian.agents.population import Candidate, CandidateState
from cambrian.agents.population.store import PopulationStore
from cambrian.agents.repeats import NOISE_KEY
from cambrian.agents.report import end_report
from cambrian.agents.workspace import Workspace

KILLS = 20
EVALUATIONS = 120
ROOT = Path(__file__).parents[2]


class Nursery:
    """Starts runs that can be killed; see `tests.support.nursery`."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.nursery"],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def run(
        self, order: dict[str, Any], kill_after_s: float | None = None, once: Callable[[], bool] | None = None
    ) -> int:
        """The exit code of one run; negative when a signal ended it. The time starts when `once` is true."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        pid = int(self._answer())
        if kill_after_s is not None:
            deadline = time.monotonic() + 60
            while once is not None and not once() and time.monotonic() < deadline:
                time.sleep(0.005)
            time.sleep(kill_after_s)
            os.kill(pid, signal.SIGKILL)
        return int(self._answer())

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(30)

    def _answer(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, "the nursery died"
        return line


@pytest.fixture(scope="module")
def nursery() -> Iterator[Nursery]:
    nursery = Nursery()
    yield nursery
    nursery.close()


def config(slots: int, evaluations: int = EVALUATIONS) -> dict[str, Any]:
    return {
        "name": "kill",
        "space": "convnet",
        "task": {"name": "digits", "rungs": [{"epochs": 1}, {"epochs": 2}]},
        "slots": slots,
        "cost": "params",
        "budget": {"evaluations": evaluations},
        "constraints": ["params <= 200k"],
        "baselines": ["two-layer-cnn"],
        "arms": {"random": 0.3, "mutation": 0.5, "crossover": 0.2},
        "checks": {"behaviour": "on", "proxies": ["params"]},
        "predictor": {"min_evaluations": 12, "min_tau": 0.0},
        "sandbox": {"kind": "pausing"},
        "mlflow": {"enabled": False},
    }


def kill_and_resume(nursery: Nursery, runs: Path, slots: int, seed: int) -> int:
    """Kill the run `KILLS` times at random moments, then let it end; returns how many kills hit it alive."""
    rng, hits = random.Random(seed), 0
    order: dict[str, Any] = {"config": config(slots), "runs": str(runs)}
    for _ in range(KILLS):
        code = nursery.run(order, kill_after_s=rng.uniform(0.02, 0.8))
        hits += code == -signal.SIGKILL
        if Workspace(runs).run_ids():
            order = {"resume": "last", "runs": str(runs)}
    assert nursery.run(order) == 0
    assert len(Workspace(runs).run_ids()) == 1
    return hits


def population(runs: Path) -> tuple[PopulationStore, list[Candidate]]:
    store = Workspace(runs).open("last")
    return store, store.candidates()


def assert_exactly_once(
    store: PopulationStore, candidates: list[Candidate], made: int = EVALUATIONS, again: int = 10
) -> None:
    assert [c.index for c in candidates] == list(range(len(candidates)))
    assert {c.state for c in candidates} <= {s for s in CandidateState if s.ended}
    assert store.inflight() == []
    evaluations = store.evaluations()
    assert len(evaluations) == made
    assert sum(e.seed != 0 for e in evaluations) >= again, "trainings with fresh seeds took part"
    assert max(Counter((e.candidate_id, e.rung, e.seed) for e in evaluations).values()) == 1
    owners = Counter(c.identity for c in candidates if c.identity and not c.duplicate_of)
    assert max(owners.values()) == 1
    assert all(c.findings and c.proxies for c in candidates if c.score is not None)
    ended: set[str] = set()
    for line in (store.folder / "trainings.log").read_text().splitlines():
        what, job, _ = line.split()
        assert job not in ended, f"{job} was trained again after it had ended"
        if what == "end":
            ended.add(job)
    trained = {f"{e.candidate_id}-r{e.rung}-s{e.seed}" for e in evaluations}
    assert trained <= {line.split()[1] for line in (store.folder / "trainings.log").read_text().splitlines()}


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_two_slots_lose_nothing_and_evaluate_nothing_twice(nursery: Nursery, tmp_path: Path) -> None:
    hits = kill_and_resume(nursery, tmp_path, slots=2, seed=1)
    assert hits >= KILLS // 2, "the run ended before most of the kills: make it longer"
    store, candidates = population(tmp_path)
    assert_exactly_once(store, candidates)
    assert any(c.rung == 1 for c in candidates), "promotions took part"


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_one_slot_gives_the_population_of_an_unbroken_run(nursery: Nursery, tmp_path: Path) -> None:
    assert nursery.run({"config": config(slots=1), "runs": str(tmp_path / "whole")}) == 0
    hits = kill_and_resume(nursery, tmp_path / "broken", slots=1, seed=2)
    assert hits >= KILLS // 2
    (whole_store, whole), (broken_store, broken) = (population(tmp_path / p) for p in ("whole", "broken"))
    assert_exactly_once(broken_store, broken)

    def essence(candidates: list[Candidate]) -> list[dict[str, Any]]:
        return [c.model_dump(exclude={"created_s", "ended_s", "latency_ms"}) for c in candidates]

    assert essence(broken) == essence(whole)
    measured = [
        [e.model_dump(exclude={"wall_s", "latency"}) for e in store.evaluations()]
        for store in (whole_store, broken_store)
    ]
    assert measured[0] == measured[1]


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_killed_among_its_repeats_a_run_verifies_the_same_champions(nursery: Nursery, tmp_path: Path) -> None:
    """Once while the noise is measured, and three times after the champions were chosen."""
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    assert nursery.run({"config": config(1, evaluations=40), "runs": str(whole)}) == 0

    def kept(key: str) -> Callable[[], bool]:
        def is_there() -> bool:
            try:
                store = PopulationStore(Workspace(broken).folder("last"), readonly=True)
            except (CambrianError, sqlite3.Error):
                return False  # not made yet
            try:
                return store.get_meta(key) is not None
            finally:
                store.close()

        return is_there

    order: dict[str, Any] = {"config": config(1, evaluations=40), "runs": str(broken)}
    assert nursery.run(order, 0.02, kept(NOISE_KEY)) == -signal.SIGKILL
    order = {"resume": "last", "runs": str(broken)}
    codes = [nursery.run(order, wait, kept(CHAMPIONS_KEY)) for wait in (0.01, 0.3, 0.35)]
    assert codes[0] == -signal.SIGKILL
    assert nursery.run(order) == 0
    (whole_store, _), (broken_store, candidates) = population(whole), population(broken)
    assert_exactly_once(broken_store, candidates, made=40, again=4)
    reports = [end_report(store) for store in (whole_store, broken_store)]
    boards = [[row.model_dump(exclude={"latency_ms"}) for row in report.leaderboard] for report in reports]
    assert boards[0] == boards[1] and any(row["champion"] for row in boards[0])
    assert reports[0].noise == reports[1].noise
