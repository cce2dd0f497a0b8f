"""Networks that are no image classifiers, from the space to the score, in a real sandbox."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from cambrian.sandbox import Job, JobLimits, JobState, LatencySpec, Sandbox
from cambrian.sandbox.outputs import read_outputs
from cambrian.sandbox.process import ProcessSandbox
from cambrian.search_spaces import SPACES, Loss, Recipe, Signature, Splits
from cambrian.search_spaces.space import GraphShape

RECIPE = Recipe(learning_rate=5e-3, schedule="constant", batch_size=50)


def ids() -> tuple[Signature, Splits, Loss]:
    """Which of two symbols comes first in a row of others?"""
    rng = np.random.default_rng(0)
    x = rng.integers(2, 12, (400, 9))
    y = rng.integers(0, 2, 400)
    x[np.arange(400), rng.integers(0, 9, 400)] = y
    parts = x[:300], y[:300], x[300:350], y[300:350], x[350:], y[350:]
    return Signature(input_shape=(9,), n_outputs=2, vocabulary=12), Splits(*parts), "cross-entropy"


def values() -> tuple[Signature, Splits, Loss]:
    """Two numbers, both linear in the five inputs."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(400, 5)).astype(np.float32)
    y = (x @ rng.normal(size=(5, 2)) / 2.2).astype(np.float32)
    parts = x[:300], y[:300], x[300:350], y[300:350], x[350:], y[350:]
    return Signature(input_shape=(5,), n_outputs=2), Splits(*parts), "squared-error"


def nodes() -> tuple[Signature, Splits, Loss]:
    """Three rings of nodes, of which few are labelled; features tell little of each node alone."""
    rng = np.random.default_rng(0)
    n, rings = 60, 3
    labels = np.repeat(np.arange(rings), n)
    features = (rng.normal(size=(n * rings, 6)) + 1.2 * np.eye(6)[labels]).astype(np.float32)
    here = np.arange(n * rings)
    pairs = [np.stack([here, labels * n + (here + step) % n]) for step in (1, 2, 5)]
    edges = np.concatenate([*pairs, *(pair[::-1] for pair in pairs)], axis=1)
    order = rng.permutation(n * rings)
    train, val, test = order[:40], order[40:100], order[100:]
    shape = GraphShape(nodes=n * rings, features=6, edges=edges.shape[1])
    splits = Splits(
        train, labels[train], val, labels[val], test, labels[test],
        context={"features": features, "edges": edges},
    )  # fmt: skip
    return Signature(input_shape=(), n_outputs=rings, graph=shape), splits, "cross-entropy"


Kind = Callable[[], tuple[Signature, Splits, Loss]]


async def check(
    sandbox: Sandbox, folder: Path, space: str, baseline: str, kind: Kind, epochs: int = 60
) -> None:
    """Train a known network; it must learn, and its latency be measured."""
    signature, splits, loss = kind()
    genotype = SPACES.create(space).baselines()[baseline]
    await sandbox.open(f"test-{folder.name}", folder, splits, 1)
    try:
        job = Job(
            id=f"kind-{kind.__name__}", run_id="test", candidate_id="c-0001", space=space, genotype=genotype,
            signature=signature, recipe=RECIPE, epochs=epochs, seed=0, limits=JobLimits(wall_s=120),
            latency=LatencySpec(warmup=1, repeats=5), loss=loss,
        )  # fmt: skip
        outcome = await sandbox.run(job)
    finally:
        await sandbox.close()
    assert (outcome.state, outcome.reason) == (JobState.TRAINED, "")
    assert outcome.report is not None and outcome.report.latency is not None
    assert outcome.report.train_loss[-1] < 0.5 * outcome.report.train_loss[0]
    outputs = read_outputs(folder / "jobs" / job.id, loss)
    if loss == "cross-entropy":
        assert (outputs.test.argmax(axis=1) == splits.y_test).mean() > 0.85
        assert np.array_equal(outputs.val_epochs[-1], outputs.val.argmax(axis=1))
    else:
        assert np.square(outputs.test - splits.y_test).mean() < 0.1 * splits.y_test.var()
        assert np.array_equal(outputs.val_epochs[-1], outputs.val)


@pytest.mark.parametrize(
    ("space", "baseline", "kind", "epochs"),
    [("encoder", "bert-tiny", ids, 5), ("mlp", "perceptron", values, 30), ("gnn", "gcn", nodes, 60)],
)
async def test_in_a_process(tmp_path: Path, space: str, baseline: str, kind: Kind, epochs: int) -> None:
    await check(ProcessSandbox(), tmp_path, space, baseline, kind, epochs)


@pytest.mark.docker
@pytest.mark.slow
async def test_a_graph_in_a_container(tmp_path: Path) -> None:
    from cambrian.sandbox.container import ContainerSandbox

    await check(ContainerSandbox(), tmp_path, "gnn", "gcn", nodes)
