"""Containers that wait: where and when they are made, against a real engine."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from cambrian.sandbox import InfrastructureError, JobLimits
from cambrian.sandbox.engine import connect
from cambrian.sandbox.settings import Hull
from cambrian.sandbox.sweep import labels, sweep
from cambrian.sandbox.warm import Keep, Pool

pytestmark = [pytest.mark.docker, pytest.mark.slow, pytest.mark.timeout(300)]

RUN_ID = f"test-warm-{os.getpid()}"
LIMITS = JobLimits(wall_s=60, memory_mb=1024)


def until(condition: Callable[[], bool], seconds: float = 60) -> bool:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


class Engine:
    """Makes pools, and looks at what they made."""

    def __init__(self, client: Any, hull: Hull) -> None:
        self.client, self._hull = client, hull

    def pool(self, size: int) -> Pool:
        return Pool(lambda limits, cores: Keep(self.client, self._hull, limits, labels(RUN_ID), cores), size)

    def containers(self) -> list[Any]:
        of_run = {"label": f"cambrian.run={RUN_ID}"}
        found = self.client.containers.list(all=True, filters=of_run, ignore_removed=True)
        return [container for container in found if container.status != "created"]


@pytest.fixture(scope="module")
def engine(image: str) -> Iterator[Engine]:
    client = connect(timeout_s=60)
    if client.info()["NCPU"] < 2:
        pytest.skip("needs two cores")
    volume = client.volumes.create(labels=labels(RUN_ID))
    yield Engine(client, Hull(image, volume.name, cpus=client.info()["NCPU"]))
    sweep(client, RUN_ID)
    client.close()


@pytest.fixture
def pool(engine: Engine) -> Iterator[Pool]:
    pool = engine.pool(2)
    yield pool
    pool.close()
    assert engine.containers() == []


def test_one_is_made_on_each_core_idle_ones_first(engine: Engine, pool: Pool) -> None:
    pool.fill(LIMITS, cores=(0,), idle=(1,))
    assert sorted(entry.cores for entry in pool._entries) == [(0,), (1,)]
    assert until(lambda: pool.waiting() == 2)
    pool.fill(LIMITS, cores=(0,))  # there are enough
    assert len(engine.containers()) == 2
    taken = pool.take(LIMITS)
    assert taken is not None and taken[1]
    pool.discard(taken[0].result())
    assert until(lambda: len(engine.containers()) == 1)


def test_on_the_same_core_one_is_made_after_the_other(engine: Engine, pool: Pool) -> None:
    pool.fill(LIMITS, cores=(0,))
    most = 0
    while pool.waiting() < 2:
        with pool._lock:
            most = max(most, len(pool._making))
        time.sleep(0.02)
    assert most == 1


def test_nothing_is_made_where_a_latency_is_measured(engine: Engine, pool: Pool) -> None:
    with pool.quiet((0,)) as quiet:
        assert quiet
        pool.fill(LIMITS, cores=(0,), idle=(1,))
        assert until(lambda: pool.waiting() == 1)  # on the other core
        assert len(engine.containers()) == 1
    assert until(lambda: pool.waiting() == 2)


def test_what_is_being_made_stands_still_while_a_latency_is_measured(engine: Engine, pool: Pool) -> None:
    pool.fill(LIMITS, cores=(0,), most=1)
    assert until(lambda: pool._entries[0].keep is not None)
    with pool.quiet((0,)) as quiet:
        assert quiet
        (container,) = engine.containers()
        assert container.status == "paused"
        time.sleep(0.3)
        assert pool.waiting() == 0
    assert until(lambda: pool.waiting() == 1)


def test_a_job_that_waits_gets_what_is_being_made_onto_its_own_core(engine: Engine, pool: Pool) -> None:
    pool.fill(LIMITS, cores=(0,), most=1)
    assert until(lambda: pool._entries[0].keep is not None)
    taken = pool.take(LIMITS, (1,))
    assert taken is not None
    made, ready = taken
    assert not ready
    keep = made.result(60)
    keep.container.reload()
    assert keep.container.attrs["HostConfig"]["CpusetCpus"] == "1"
    assert pool.take(LIMITS) is None
    pool.discard(keep)


def test_what_waits_for_other_limits_makes_room(pool: Pool) -> None:
    pool.fill(LIMITS, cores=(0,), idle=(1,))
    assert until(lambda: pool.waiting() == 2)
    other = LIMITS.model_copy(update={"file_mb": 32})
    assert pool.take(other) is None
    pool.fill(other, cores=(0,), most=1)
    assert sorted(entry.limits.file_mb for entry in pool._entries) == [32, LIMITS.file_mb]


def test_limits_that_a_running_container_cannot_have_are_an_error(pool: Pool) -> None:
    pool.fill(LIMITS, cores=(0,), most=1)
    assert until(lambda: pool.waiting() == 1)
    taken = pool.take(LIMITS)
    assert taken is not None
    keep = taken[0].result()
    with pytest.raises(InfrastructureError, match="give a container its limits"):
        keep.adapt(LIMITS, (4096,))
    keep.kill()
    keep.remove()
    with pytest.raises(InfrastructureError, match="gone"):
        keep.adapt(LIMITS, (1,))
    pool.discard(keep)


def test_closing_while_containers_are_made_leaves_none(engine: Engine) -> None:
    pool = engine.pool(2)
    pool.fill(LIMITS, cores=(0,), idle=(1,))
    assert until(lambda: any(entry.keep is not None for entry in pool._entries))
    started = time.monotonic()
    pool.close()
    assert time.monotonic() - started < 20
    assert engine.containers() == []


def test_closing_does_not_wait_for_one_that_never_gets_ready(engine: Engine) -> None:
    pool = engine.pool(1)
    pool.fill(LIMITS, cores=(0,), most=1)
    assert until(lambda: pool._entries[0].keep is not None)
    entry = pool._entries[0]
    assert entry.pause() and not entry.made.done()
    started = time.monotonic()
    pool.close()
    assert time.monotonic() - started < 20
    assert engine.containers() == []
    assert isinstance(entry.made.exception(0), InfrastructureError)
