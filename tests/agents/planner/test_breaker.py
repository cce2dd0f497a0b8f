from __future__ import annotations

import pytest

from cambrian.agents.errors import ModelUnavailable
from cambrian.agents.planner.breaker import LONGEST_PAUSE_S, Breaker


class World:
    """A breaker, its clock and what people hear."""

    def __init__(self, failures: int = 3, probe_s: float = 60.0) -> None:
        self.now = 1000.0
        self.lines: list[str] = []
        self.breaker = Breaker("m", failures, probe_s, self.lines.append, lambda: self.now)

    def fail(self, why: str = "it is down", *, permanent: bool = False, after: float | None = None) -> None:
        probe = self.breaker.enter()
        self.breaker.failed(ModelUnavailable(why, permanent=permanent, retry_after_s=after), probe)

    def answer(self) -> None:
        self.breaker.answered(self.breaker.enter())

    def pause(self) -> float:
        """Seconds until it is ready, to the second."""
        for seconds in range(2 * int(LONGEST_PAUSE_S)):
            if self.breaker.ready:
                self.now -= seconds
                return seconds
            self.now += 1
        raise AssertionError("it never gets ready")


def test_it_opens_after_failures_in_a_row() -> None:
    world = World(failures=3)
    for _ in range(5):
        world.fail()
        world.fail()
        world.answer()
    assert world.breaker.ready and world.lines == [] and world.breaker.status() == "ready"
    for _ in range(3):
        assert world.breaker.ready
        world.fail()
    assert not world.breaker.ready
    assert world.lines == ["it is down; it is left alone for 60 s"]
    with pytest.raises(ModelUnavailable, match="model m is left alone, it is tried again in 60 s: it is"):
        world.breaker.enter()
    assert world.breaker.status() == "left alone for 60 s: it is down"


def test_one_probe_at_a_time_and_longer_pauses() -> None:
    world = World(failures=1)
    world.fail()
    for seconds in (60, 120, 240, 480, 960, 1920, 3600, 3600):
        assert world.pause() == seconds
        world.now += seconds
        assert world.breaker.enter() is True
        assert not world.breaker.ready, "while it is tried nobody else asks"
        with pytest.raises(ModelUnavailable, match="it is being tried"):
            world.breaker.enter()
        world.breaker.failed(ModelUnavailable("it is down"), probe=True)
    assert world.lines == ["it is down; it is left alone for 60 s"], "said once, however often it is tried"
    world.now += 3600
    world.answer()
    assert world.breaker.ready and world.lines[1:] == ["model m answers again"]
    world.fail()
    assert world.pause() == 60, "it begins anew"
    assert len(world.lines) == 3


def test_what_does_not_pass_by_itself_opens_it_at_once() -> None:
    world = World()
    world.fail("the key is refused", permanent=True)
    assert world.pause() == 60, "but it is tried now and then: keys are mended while runs go on"
    world.now += 60
    world.fail("the key is refused", permanent=True)
    assert world.pause() == 120


@pytest.mark.parametrize(("said", "pause"), [(90.0, 90), (5.0, 60), (1e12, 3600)])
def test_the_servers_word_is_heard_within_reason(said: float, pause: int) -> None:
    world = World()
    world.fail(after=said)
    assert world.pause() == pause


def test_questions_from_before_change_nothing_while_it_is_open() -> None:
    world = World(failures=1)
    early = [world.breaker.enter() for _ in range(4)]
    for probe in early:
        world.breaker.failed(ModelUnavailable("it is down"), probe)
    assert world.pause() == 60 and len(world.lines) == 1


def test_a_probe_that_was_given_up_makes_room_for_another() -> None:
    world = World(failures=1)
    world.fail()
    world.now += 60
    world.breaker.dropped(world.breaker.enter())
    assert world.breaker.ready and world.breaker.enter()


def test_answers_without_use_open_it_too() -> None:
    world = World(failures=2)
    for _ in range(4):
        world.answer()
        world.breaker.unusable("no JSON")
        world.answer()
        world.breaker.usable()
    assert world.lines == []
    for _ in range(2):
        world.answer()
        world.breaker.unusable("no JSON")
    assert world.lines == ["model m gave nothing usable 2 times in a row: no JSON; it is left alone for 60 s"]
    world.now += 60
    world.answer()
    assert world.breaker.ready, "its answer may be worked on, and repaired"
    assert world.breaker.status().startswith("on trial")
    world.breaker.unusable("no JSON")
    assert world.pause() == 120 and len(world.lines) == 1
    world.now += 120
    world.answer()
    world.breaker.usable()
    assert world.lines[1:] == ["model m answers again"] and world.breaker.status() == "ready"
