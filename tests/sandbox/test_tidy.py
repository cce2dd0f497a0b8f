"""Which images a build and `cambrian sandbox clean` remove, on a real engine and under other names."""

from __future__ import annotations

import io
import os
import tarfile
import time
from collections.abc import Iterator
from typing import Any

import pytest

from cambrian.sandbox.image import tidy
from cambrian.sandbox.image.progress import beating

pytestmark = pytest.mark.docker
NAME = f"cambrian-test-{os.getpid()}"


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """An engine with the images `worker:1` to `worker:4` and `deps:1`; `worker:2` has a container."""
    import docker

    client = docker.from_env(timeout=60)
    monkeypatch.setattr(tidy, "WORKER", f"{NAME}-worker")
    monkeypatch.setattr(tidy, "DEPS", f"{NAME}-deps")
    for name, tag in [("worker", "1"), ("worker", "2"), ("worker", "3"), ("worker", "4"), ("deps", "1")]:
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w") as tar:
            tar.addfile(tarfile.TarInfo(f"{name}-{tag}"))
        client.api.import_image_from_data(packed.getvalue(), repository=f"{NAME}-{name}", tag=tag)
    container = client.containers.create(f"{NAME}-worker:2", ["/none"])
    yield client
    container.remove(force=True)
    for image in client.images.list():
        for tag in image.tags:
            if tag.startswith(NAME):
                client.images.remove(tag)
    client.close()


def here(client: Any) -> set[str]:
    return {
        tag.removeprefix(f"{NAME}-") for i in client.images.list() for tag in i.tags if tag.startswith(NAME)
    }


def test_a_build_leaves_young_images_alone_and_removes_old_ones_that_nobody_uses(
    client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    current, deps = f"{NAME}-worker:4", f"{NAME}-deps:2"
    assert tidy.remove_superseded(client, current, deps) == []
    monkeypatch.setattr(tidy, "YOUNG_S", -1.0)
    monkeypatch.setattr(tidy, "KEPT", 4)
    assert tidy.remove_superseded(client, current, deps) == [f"{NAME}-deps:1"]
    monkeypatch.setattr(tidy, "KEPT", 0)
    assert set(tidy.remove_superseded(client, current, deps)) == {f"{NAME}-worker:1", f"{NAME}-worker:3"}
    assert here(client) == {"worker:2", "worker:4"}  # in use, and current


def test_clean_keeps_what_is_current_in_use_or_needed_by_a_live_run(client: Any) -> None:
    run = client.volumes.create(labels={"cambrian.run": NAME, "cambrian.host": "another-machine:1:0"})
    try:
        done = tidy.tidy(client, {f"{NAME}-worker:4", f"{NAME}-deps:1"})
        assert done.images == ()
        assert NAME in done.kept[f"{NAME}-worker:1"]
    finally:
        run.remove(force=True)
    if tidy._idle_live_runs(client):
        pytest.skip("a run lives on this engine")
    done = tidy.tidy(client, {f"{NAME}-worker:4", f"{NAME}-deps:1"})
    assert set(done.images) == {f"{NAME}-worker:1", f"{NAME}-worker:3"}
    assert done.kept == {f"{NAME}-worker:2": "in use"}
    assert here(client) == {"worker:2", "worker:4", "deps:1"}


def test_signs_of_life() -> None:
    lines: list[str] = []
    with beating(lines.append, lambda: "installing", every_s=0.05):
        time.sleep(0.3)
    assert len(lines) >= 2 and lines[0] == "  installing, 0 s"
    before = len(lines)
    time.sleep(0.15)
    assert len(lines) == before
