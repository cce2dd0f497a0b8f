"""Runs that learn from runs before them, with a training that costs nothing."""

from collections.abc import Callable
from pathlib import Path

import pytest

from cambrian.agents.errors import UserError
from cambrian.agents.replaying import replay
from cambrian.agents.runfile import RunConfig
from cambrian.agents.session import Watch, resume, start
from cambrian.agents.workspace import Workspace

MakeConfig = Callable[..., RunConfig]


async def run(workspace: Workspace, made: RunConfig) -> tuple[str, list[str]]:
    """Its id, and what it said."""
    said: list[str] = []
    await start(made, workspace, Watch(say=said.append))
    return workspace.run_ids()[-1], said


def few(**changes: object) -> dict[str, object]:
    return {"budget": {"evaluations": 3}, "warmup": 0, "arms": {"random": 1.0}, **changes}


def learns(earlier: bool | list[str]) -> dict[str, object]:
    return {"earlier_runs": earlier, "model": "trees", "min_evaluations": 5}


async def test_a_run_learns_from_those_of_its_kind_and_says_so(config: MakeConfig, runs: Path) -> None:
    workspace = Workspace(runs)
    first, said = await run(workspace, config(**few(name="first", budget={"evaluations": 6})))
    assert not any("earlier" in line for line in said)
    await run(workspace, config(**few(name="other", space="hybrid")))
    await replay(first, workspace, lambda _line: None)  # it measured nothing of its own
    longer = {"name": "digits", "rungs": [{"epochs": 2}]}
    await run(workspace, config(**few(name="longer", task=longer)))
    last, said = await run(workspace, config(**few(name="last", predictor=learns(True), seed=1)))
    told = next(line for line in said if "earlier runs" in line)
    assert told.endswith(f"too: 6 from {first}")
    guessed = [c.prediction for c in workspace.open(last).candidates() if c.score is not None]
    assert None not in guessed, "six scores were there before it began"

    # a resumed run learns from what there was at its start, whatever was added since
    await run(workspace, config(**few(name="later")))
    said.clear()
    await resume(last, workspace, Watch(say=said.append), {"budget.evaluations": 4})
    assert next(line for line in said if "earlier runs" in line) == told


@pytest.mark.parametrize("wrong", ["other", "nothing-like-it"])
async def test_a_named_run_must_be_there_and_of_the_kind(config: MakeConfig, runs: Path, wrong: str) -> None:
    workspace = Workspace(runs)
    await run(workspace, config(**few(name="other", space="hybrid", budget={"evaluations": 1})))
    with pytest.raises(UserError, match=f"predictor.earlier_runs: run {wrong}") as caught:
        await run(workspace, config(**few(predictor=learns([wrong]))))
    assert caught.value.hint
    assert len(workspace.run_ids()) == 1, "the run that could not begin leaves nothing behind"
