"""The same question of code: a run in the process sandbox, half of whose sources are refactored copies."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

from cambrian.agents.planner import ARMS
from cambrian.agents.population import CandidateState
from cambrian.agents.runfile import parse_config
from cambrian.agents.session import Watch, start
from cambrian.agents.workspace import Workspace
from tests.support.code_space import install
from tests.support.rewording import Half, Sources


async def measure_code(evaluations: int, seed: int) -> dict[str, Any]:
    """Run until so many sources are evaluated, and judge what was trained and what was not.

    What a source computes is known from how it was made. Sources are trusted here, as we wrote them.
    """
    sources = Sources()

    class Coder(Half):
        reword = staticmethod(sources.again)
        sample = staticmethod(sources.new)

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        sys.path.insert(0, str(install(folder / "plugin")))
        ARMS._loaded["half"] = Coder
        config = parse_config(
            {
                "name": "bench",
                "space": "coded",
                "task": {"name": "digits", "rungs": [{"epochs": 1}]},
                "seed": seed,
                "slots": 2,
                "cost": "params",
                "budget": {"evaluations": evaluations},
                "warmup": 0,
                "arms": {"half": 1.0},
                "sandbox": {"kind": "process", "trust_generated_code": True},
                "latency": {"repeats": 3},
                "noise": {"repeats": 0},
                "champions": {"top": 0},
                "predictor": {"enabled": False},
                "mlflow": {"enabled": False},
            },
            "bench",
        )
        try:
            await start(config, Workspace(folder / "runs"), Watch(say=lambda _: None))
        finally:
            del ARMS._loaded["half"], sys.path[0]
        store = Workspace(folder / "runs").open("last")
        candidates = [c for c in store.candidates() if c.proposal.arm == Half.name]
        store.close()
    form = {c.id: sources.forms[c.genotype["source"]] for c in candidates}
    paid = [c for c in candidates if c.rung_scores]
    refused = [c for c in candidates if c.state is CandidateState.DUPLICATE]
    examined = [c.examined_s for c in candidates if c.examined_s]
    texts: dict[str, object] = {}
    for candidate in candidates:
        texts.setdefault(candidate.genotype["source"], form[candidate.id])
    functions = len(set(form.values()))
    return {
        "space": "code",
        "proposals": len(candidates),
        "copies": sum(c.proposal.edit == "copy" for c in candidates),
        "functions": functions,
        "evaluated": len(paid),
        "wasted %": 100 * (1 - len({form[c.id] for c in paid}) / len(paid)),
        "new refused": sum(form[c.id] != form[c.duplicate_of or ""] for c in refused),
        "by text %": 100 * (1 - functions / len(texts)),
        "by canonical text %": 100 * (1 - functions / len(texts)),
        "identity ms": 1000 * sum(examined) / max(len(examined), 1),
        "similarity ms": "-",
    }
