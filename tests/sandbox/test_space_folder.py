"""Sandboxes build from the folder that they are given, blocks of its own included."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import safetensors.numpy

from cambrian.sandbox import SANDBOXES, Job, JobState
from cambrian.search_spaces import TASKS, UserError
from cambrian.search_spaces.finding import open_folder
from tests.contracts.sandbox import digits
from tests.support.folders import write_space

GENOTYPE = {"width": 16, "depth": 2, "activation": "relu"}


def job(name: str, space: str = "mine") -> Job:
    task = TASKS.create("digits")
    return Job(
        id=name,
        run_id="test",
        candidate_id="c-0001",
        space=space,
        genotype=GENOTYPE,
        signature=task.signature,
        recipe=task.recipe,
        epochs=2,
        seed=1,
        latency=None,
    )


@pytest.mark.parametrize(
    "kind",
    [
        "process",
        pytest.param("docker", marks=[pytest.mark.docker, pytest.mark.slow, pytest.mark.timeout(900)]),
    ],
)
async def test_the_network_is_that_of_the_folder(kind: str, tmp_path: Path) -> None:
    folder = write_space(tmp_path / "mine", custom=True)
    (folder / "prompts" / "propose.j2").write_text("mine")
    run = tmp_path / "run"
    run.mkdir()
    sandbox = SANDBOXES.create(kind)
    await sandbox.open(f"test-folder-{os.getpid()}", run, digits(), 1, folder)
    try:
        first = await sandbox.run(job("first"))
        # the sandbox has its own copy: an edit changes nothing for a run that is under way
        (folder / "space.yaml").write_text("broken")
        second = await sandbox.run(job("second"))
    finally:
        await sandbox.close()
    assert (first.state, first.reason) == (second.state, second.reason) == (JobState.TRAINED, "")
    weights = [
        safetensors.numpy.load_file(run / "jobs" / name / "weights.safetensors")
        for name in ("first", "second")
    ]
    space = open_folder(write_space(tmp_path / "again", name="mine", custom=True))
    expected = space.build(GENOTYPE, digits_signature()).state_dict()
    for found in weights:
        assert {key: value.shape for key, value in found.items()} == {
            key: tuple(value.shape) for key, value in expected.items()
        }
    assert all((weights[0][key] == weights[1][key]).all() for key in expected)
    assert {path.name for path in run.iterdir()} == {"jobs"}


def digits_signature():  # type: ignore[no-untyped-def]
    return TASKS.create("digits").signature


async def test_a_folder_that_is_no_text_is_refused_at_once(tmp_path: Path) -> None:
    folder = write_space(tmp_path / "mine")
    (folder / "knowledge" / "a.md").write_bytes(b"\xff")
    sandbox = SANDBOXES.create("process")
    with pytest.raises(UserError, match="not UTF-8"):
        await sandbox.open("test-refused", tmp_path / "run", digits(), 1, folder)
    await sandbox.close()


async def test_without_a_folder_the_registered_space_is_built(tmp_path: Path) -> None:
    sandbox = SANDBOXES.create("process")
    await sandbox.open("test-none", tmp_path, digits(), 1)
    try:
        outcome = await sandbox.run(job("unknown"))
    finally:
        await sandbox.close()
    assert outcome.state is JobState.ERROR and "unknown space 'mine'" in outcome.reason
