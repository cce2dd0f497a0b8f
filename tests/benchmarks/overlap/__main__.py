"""How busy slots are while a slow model proposes: asked ahead, and one question at a time.

A model server on loopback takes `--call` seconds for each answer, a training `--training` seconds, on two
slots; nearly all proposals are the model's. Everything else is real: the loop, the client, the prompts, the
graph. The training sleeps: what is measured is the overlap, on however busy a machine.

Printed is where the slots' time goes, of each from the start of its first training to the end of its last
one: into sandbox jobs, into waiting for the model, and into our own steps between two trainings (checks,
identity, predictors, checkpoints), which take longer on a busy machine.

    make bench NAME=overlap ARGS="--evaluations 16"
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import random
import tempfile
import time
from pathlib import Path

from cambrian.agents.discovery import Discovery
from cambrian.agents.population.store import PopulationStore
from cambrian.agents.runfile import RunConfig, parse_config
from cambrian.agents.session import Watch, start
from cambrian.agents.workspace import Workspace
from cambrian.sandbox import SANDBOXES, Job, Outcome
from cambrian.search_spaces import SPACES
from tests.agents.planner.server import Handler, answer, model_server
from tests.benchmarks.harness import Row, publish
from tests.support.instant import InstantSandbox


class SleepingSandbox(InstantSandbox):
    """Trains by sleeping."""

    seconds = 5.0

    async def run(self, job: Job) -> Outcome:
        if job.purpose == "train":
            await asyncio.sleep(self.seconds)
        return await super().run(job)


class Sampler:
    """Looks now and then what the slots do."""

    PERIOD_S = 0.02

    def __init__(self) -> None:
        self.seen: list[tuple[float, list[str]]] = []

    def started(self, discovery: Discovery, store: PopulationStore) -> None:
        """Begin, within the loop of the run."""
        self._task = asyncio.get_running_loop().create_task(self._look(discovery))

    async def _look(self, discovery: Discovery) -> None:
        while True:
            self.seen.append((time.monotonic(), list(discovery.slots)))
            await asyncio.sleep(self.PERIOD_S)

    def shares(self, slots: int) -> dict[str, float]:
        """Of each slot from its first to its last training, all slots together."""
        spent = {"in jobs": 0.0, "for the model": 0.0, "own steps": 0.0}
        for slot in range(slots):
            doing = [(at, each[slot]) for at, each in self.seen]
            trains = [i for i, (_, what) in enumerate(doing) if "training" in what]
            part = doing[trains[0] : trains[-1] + 1]
            for (at, what), (until, _) in itertools.pairwise(part):
                spent[_kind(what)] += until - at
        whole = sum(spent.values())
        return {kind: round(seconds / whole, 3) for kind, seconds in spent.items()}


def _kind(doing: str) -> str:
    if "training" in doing or "reproducing" in doing:
        return "in jobs"
    return "for the model" if doing in {"waiting for a model", "llm is proposing"} else "own steps"


def configuration(url: str, evaluations: int, slots: int, ahead: int | str) -> RunConfig:
    """A run that is left to the model, but for the control's small share."""
    return parse_config(
        {
            "name": "overlap",
            "space": "convnet",
            "task": {"name": "digits", "rungs": [{"epochs": 1}]},
            "slots": slots,
            "cost": "params",
            "budget": {"evaluations": evaluations},
            "warmup": slots,
            "arms": {"llm": 0.94, "mutation": 0.03, "random": 0.03},
            "llm": {"model": "slow", "base_url": url, "retries": 0, "ahead": ahead},
            "analyst": {"lessons": "off"},
            "noise": {"repeats": 0},
            "champions": {"top": 0},
            "sandbox": {"kind": "sleeping"},
            "mlflow": {"enabled": False},
        },
        "benchmark",
    )


def measure(evaluations: int, slots: int, call_s: float, ahead: int | str) -> Row:
    """One run."""
    space = SPACES.create("convnet")
    rng = random.Random(0)

    def slowly(handler: Handler) -> None:
        proposal = {
            "hypothesis": "more of it",
            "expectation": {"measure": "score", "change": "higher", "by_percent": 1},
            "parents": [],
            "edit": "another one",
            "genotype": space.sample(rng),
        }
        time.sleep(call_s)
        answer(json.dumps(proposal))(handler)

    with model_server() as server, tempfile.TemporaryDirectory() as folder:
        server.says(slowly)
        config = configuration(server.url, evaluations, slots, ahead)
        workspace = Workspace(Path(folder))
        sampler = Sampler()
        watch = Watch(say=lambda _: None, started=sampler.started)
        report = asyncio.run(start(config, workspace, watch))
        store = workspace.open("last")
        by_model = sum(candidate.proposal.arm == "llm" for candidate in store.candidates())
        store.close()
        asked = len(server.seen)
    return {
        "ahead": str(ahead),
        "evaluations": report.ledger.evaluations,
        "by the model": by_model,
        "calls": asked,
        "seconds": round(sampler.seen[-1][0] - sampler.seen[0][0], 1),
    } | sampler.shares(slots)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--evaluations", type=int, default=16)
    parser.add_argument("--slots", type=int, default=2)
    parser.add_argument("--call", type=float, default=2.0, help="seconds of an answer")
    parser.add_argument("--training", type=float, default=5.0, help="seconds of a training")
    args = parser.parse_args()
    SANDBOXES._loaded["sleeping"] = SleepingSandbox
    SleepingSandbox.seconds = args.training
    rows = [measure(args.evaluations, args.slots, args.call, ahead) for ahead in ("auto", 0)]
    publish(
        "overlap",
        rows,
        note=f"{args.slots} slots, {args.call:g} s a call, {args.training:g} s a training; "
        "shares of the slots' time, of each from its first training to its last",
    )


if __name__ == "__main__":
    main()
