"""Who runs where and who stands still, with real threads."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from cambrian.sandbox.claims import CoreClaims
from cambrian.sandbox.cores import Cores, Place, engine_cores, host_cores

SOON = 0.05
"""Seconds after which what is going to wait does."""
LONG = 10.0
"""Seconds after which what should have happened is taken for stuck."""


class Job:
    """A place with a job that can be paused; notes what is done to it."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self.log: list[str] = []
        place.on_pause(lambda: self.log.append("pause"), lambda: self.log.append("resume"))


def start(work: Callable[[], object]) -> threading.Thread:
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    return thread


def waits(thread: threading.Thread) -> bool:
    thread.join(SOON)
    return thread.is_alive()


def ends(thread: threading.Thread) -> bool:
    thread.join(LONG)
    return not thread.is_alive()


def test_places_are_disjoint_while_there_are_enough_and_shared_evenly_beyond() -> None:
    cores = Cores(range(4))
    first = [cores.place(1) for _ in range(4)]
    assert sorted(p.cores for p in first) == [(0,), (1,), (2,), (3,)]
    pair = cores.place(2)
    use = Counter(core for p in (*first, pair) for core in p.cores)
    assert len(pair.cores) == 2 and sorted(use.values()) == [1, 1, 2, 2]
    cores.place(2)
    use = Counter({core: 2 for core in range(4)})
    assert Counter(core for p in cores._places for core in p.cores) == use


def test_released_cores_are_the_first_to_be_given_again() -> None:
    cores = Cores((3, 5, 7))
    places = [cores.place(1) for _ in range(3)]
    places[1].release()
    places[1].release()
    assert cores.place(1).cores == (5,)


def test_more_threads_than_cores_get_all() -> None:
    assert Cores((2, 4)).place(9).cores == (2, 4)
    with pytest.raises(ValueError, match="at least one core"):
        Cores(())


def test_nobody_is_paused_who_shares_nothing() -> None:
    cores = Cores(range(2))
    measuring, other = cores.place(1), Job(cores.place(1))
    for _ in range(100):
        with measuring.alone() as alone:
            assert alone
    assert other.log == [] and other.place.paused_s == 0


def test_those_who_share_a_core_stand_still_and_their_deadlines_move() -> None:
    cores = Cores(range(2))
    measuring, same, apart = (Job(cores.place(1)) for _ in range(3))
    same, apart = (same, apart) if same.place.overlaps(measuring.place) else (apart, same)
    with measuring.place.alone() as alone:
        assert alone and same.log == ["pause"]
        time.sleep(0.03)
        assert same.place.paused_s >= 0.03
    assert same.log == ["pause", "resume"] and apart.log == measuring.log == []
    stood = same.place.paused_s
    time.sleep(0.02)
    assert 0.03 <= same.place.paused_s == stood < LONG and measuring.place.paused_s == 0


def test_a_gpu_is_shared_by_those_who_name_it() -> None:
    cores = Cores(range(4))
    measuring, same = cores.place(1, "0"), Job(cores.place(1, "0"))
    others = [Job(cores.place(1, "1")), Job(cores.place(1))]
    with measuring.alone() as alone:
        assert alone and same.log == ["pause"] and not any(job.log for job in others)


def test_a_place_that_cannot_be_paused_is_admitted() -> None:
    cores = Cores((0,))
    measuring, _mute = cores.place(1), cores.place(1)
    with measuring.alone() as alone:
        assert not alone


@pytest.mark.parametrize("broken", ["pause", "resume"])
def test_errors_of_one_job_leave_the_others_in_order(broken: str) -> None:
    cores = Cores((0,))
    measuring, bad, good = cores.place(1), cores.place(1), Job(cores.place(1))
    log: list[str] = []

    def call(what: str) -> None:
        log.append(what)
        if what == broken:
            raise RuntimeError("gone")

    bad.on_pause(lambda: call("pause"), lambda: call("resume"))
    for _ in range(2):
        with measuring.alone() as alone:
            assert alone is (broken == "resume")
            assert good.log[-1] == "pause"
        assert good.log[-1] == "resume"
    # resumed even if its pause raised: it may have stopped all the same
    assert log == ["pause", "resume"] * 2
    stood = bad.paused_s
    time.sleep(0.01)
    assert bad.paused_s == stood


def test_others_go_on_when_the_measurement_raises() -> None:
    cores = Cores((0,))
    measuring, other = cores.place(1), Job(cores.place(1))
    with pytest.raises(ZeroDivisionError), measuring.alone():
        raise ZeroDivisionError
    assert other.log == ["pause", "resume"]
    with measuring.alone() as alone:
        assert alone


def test_a_new_place_waits_until_the_measurement_is_over() -> None:
    cores = Cores((0,))
    measuring, placed = cores.place(1), []
    with measuring.alone():
        thread = start(lambda: placed.append(cores.place(1)))
        assert waits(thread)
    assert ends(thread) and placed[0].cores == (0,)


def test_a_new_place_takes_cores_where_nobody_measures() -> None:
    cores = Cores(range(2))
    measuring = cores.place(1)
    with measuring.alone():
        assert cores.place(1).cores == (1,)
    other = cores.place(1)
    with other.alone():  # each core has two now, or one: the quiet one is not given
        assert set(cores.place(1).cores).isdisjoint(other.cores)


def test_a_job_that_tells_how_to_pause_it_during_a_measurement_is_paused_at_once() -> None:
    cores = Cores((0,))
    measuring, late = cores.place(1), cores.place(1)
    with measuring.alone() as alone:
        assert not alone
        job = Job(late)
        assert job.log == ["pause"]
    assert job.log == ["pause", "resume"]


def test_a_job_on_two_cores_stands_still_until_the_last_measurement_ends() -> None:
    cores = Cores(range(2))
    one, two, wide = cores.place(1), cores.place(1), Job(cores.place(2))
    with one.alone():
        with two.alone() as alone:
            assert alone
        assert wide.log == ["pause"]
    assert wide.log == ["pause", "resume"]


def test_a_release_while_paused_resumes_first_and_is_not_resumed_again() -> None:
    cores = Cores((0,))
    measuring, other = cores.place(1), Job(cores.place(1))
    with measuring.alone():
        other.place.release()
        assert other.log == ["pause", "resume"]
    assert other.log == ["pause", "resume"]


def test_a_release_while_waiting_for_quiet_ends_the_waiting() -> None:
    cores = Cores((0,))
    measuring, impatient, seen = cores.place(1), cores.place(1), []

    def measure() -> None:
        with impatient.alone() as alone:
            seen.append(alone)

    with measuring.alone():
        thread = start(measure)
        assert waits(thread)
        impatient.release()
        assert ends(thread)
    assert seen == [False]


def test_waiting_for_quiet_is_not_counted_as_standing_still() -> None:
    """The one who waits counts that: a deadline that moved for both would move twice."""
    cores = Cores((0,))
    measuring, waiting = cores.place(1), Job(cores.place(1))

    def measure() -> None:
        with waiting.place.alone():
            pass

    with measuring.alone():
        before = waiting.place.paused_s
        thread = start(measure)
        assert waits(thread)
        time.sleep(0.1)
    assert ends(thread)
    assert before <= waiting.place.paused_s < SOON


def test_many_threads_measure_one_at_a_time_and_nobody_moves_meanwhile() -> None:
    """Places of all widths come and go; on each core at most one measures, and all others stand still."""
    cores = Cores(range(3))
    state = threading.Lock()
    owners: dict[int, str] = {}
    running: dict[str, Place] = {}
    faults: list[str] = []
    measured = Counter[str]()

    def live(name: str, width: int) -> None:
        place = cores.place(width)
        over = threading.Event()

        def pause() -> None:
            with state:
                running.pop(name, None)

        def resume() -> None:
            with state:
                if not over.is_set():
                    running[name] = place

        resume()
        place.on_pause(pause, resume)
        with place.alone() as alone:
            with state:
                faults.extend(f"{name}: core {c} is {owners[c]}'s" for c in place.cores if c in owners)
                owners.update(dict.fromkeys(place.cores, name))
                if alone:
                    beside = [n for n, p in running.items() if n != name and p.overlaps(place)]
                    faults.extend(f"{name}: {n} runs" for n in beside)
                    measured[name] += 1
            time.sleep(0.0005)
            with state:
                for core in place.cores:
                    del owners[core]
        over.set()
        pause()
        place.release()

    def life(name: str, width: int) -> None:
        for _ in range(25):
            live(name, width)

    threads = [start(lambda n=f"{w}.{i}", w=w: life(n, w)) for w in (1, 2, 3) for i in range(3)]  # type: ignore[misc]
    assert all(ends(thread) for thread in threads), "stuck"
    assert faults == []
    assert len(measured) == 9
    assert cores._places == cores._measuring == []


def test_cores_of_this_machine_and_of_an_engine() -> None:
    assert host_cores() and list(host_cores()) == sorted(set(host_cores()))
    assert engine_cores({"NCPU": 3}) == (0, 1, 2)
    assert engine_cores({}) == engine_cores({"NCPU": 0}) == (0,)


# other processes


def claiming(folder: Path, cores: int, threads: int) -> subprocess.Popen[str]:
    """Another process that takes a place and holds it until its input ends."""
    code = (
        "import sys; from pathlib import Path; from cambrian.sandbox.claims import CoreClaims; "
        "from cambrian.sandbox.cores import Cores; "
        f"place = Cores(range({cores}), CoreClaims(Path(sys.argv[1]))).place({threads}); "
        "print(place.cores, flush=True); input()"
    )
    command = [sys.executable, "-P", "-c", code, str(folder)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def test_cores_of_other_processes_are_left_alone_while_there_are_others(tmp_path: Path) -> None:
    with claiming(tmp_path, 2, 1) as other:
        assert other.stdout is not None and other.stdout.readline() == "(0,)\n"
        cores = Cores(range(2), CoreClaims(tmp_path))
        first = cores.place(1)
        assert first.cores == (1,)
        with first.alone() as alone:
            assert alone
        second = cores.place(1)  # shares, and says so: the other process cannot be paused
        assert second.shared
        with second.alone() as alone:
            assert not alone
        for place in (first, second):
            place.release()
        other.kill()
    again = cores.place(2)
    assert not again.shared, "the kernel gave up the claim with its process"
    with claiming(tmp_path, 2, 1) as other:
        assert other.stdout is not None and other.stdout.readline() == "(0,)\n"
        other.kill()
    again.release()
    with claiming(tmp_path, 1, 1) as other:
        assert other.stdout is not None and other.stdout.readline() == "(0,)\n"
        assert Cores(range(1), CoreClaims(tmp_path)).place(1).shared
        other.kill()


def test_claims_that_cannot_be_had_stop_nobody(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    cores = Cores(range(2), CoreClaims(tmp_path / "file" / "below"))
    assert not cores.place(2).shared
