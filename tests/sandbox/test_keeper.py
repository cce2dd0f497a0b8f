"""The keeper with real forks: what workers may say, what they may not, and what the host hears of it."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cambrian.sandbox.conversation import Conversation
from cambrian.sandbox.forkclient import SocketLink
from cambrian.sandbox.held_out import HeldOut
from cambrian.sandbox.job_folder import JobFolder
from cambrian.sandbox.protocol import Job, JobLimits
from cambrian.sandbox.worker.__main__ import keep
from cambrian.sandbox.worker.channel import Channel, Frame, pack
from cambrian.sandbox.worker.keeper import HostGone, HostLink, set_dumpable
from cambrian.sandbox.worker.messages import Ending
from cambrian.search_spaces import Recipe, Signature

Act = Callable[[Channel], object]
HELD_OUT = HeldOut(np.arange(40, dtype=np.float32).reshape(10, 4), np.ones((6, 4), np.float32))


class Alone:
    """Cores that nobody else wants."""

    cores = ()
    paused_s = 0.0

    def alone(self) -> Any:
        import contextlib

        return contextlib.nullcontext(True)


def job(**changes: Any) -> Job:
    values: dict[str, Any] = {
        "id": "j", "run_id": "r", "candidate_id": "c", "space": "s", "genotype": {}, "epochs": 1, "seed": 0,
        "signature": Signature(input_shape=(4,), n_outputs=3), "recipe": Recipe(),
        "limits": JobLimits(wall_s=20, file_mb=2), "latency": None,
    }  # fmt: skip
    return Job(**(values | changes))


def start_keeper(link: socket.socket, act: Act) -> int:
    """Fork a keeper whose worker waits for its order and then does `act`."""
    keeper = os.fork()
    if keeper == 0:
        try:
            set_dumpable(False)
            ours, theirs = socket.socketpair()
            log_read, log_write = os.pipe()
            worker = os.fork()
            if worker == 0:
                os.dup2(log_write, 1)
                os.dup2(log_write, 2)
                link.close()
                ours.close()
                channel = Channel(theirs)
                channel.receive()
                act(channel)
                os._exit(0)
            theirs.close()
            os.close(log_write)
            keep(HostLink(link.fileno(), link.fileno()), worker, ours, log_read)
        except HostGone:
            os._exit(3)
        finally:
            os._exit(0)
    return keeper


def converse(tmp_path: Path, act: Act, **changes: Any) -> tuple[Ending, JobFolder]:
    ours, theirs = socket.socketpair()
    keeper = start_keeper(theirs, act)
    theirs.close()
    folder = JobFolder(tmp_path, job(**changes), 10, 6)
    folder.prepare()
    link = SocketLink(ours)
    try:
        conversation = Conversation(link)
        conversation.greet()
        conversation.ready(10)
        return conversation.run(folder.job, folder, HELD_OUT, Alone()), folder
    finally:
        link.close()
        os.waitpid(keeper, 0)


def test_files_log_and_exit_code_arrive(tmp_path: Path) -> None:
    def act(channel: Channel) -> None:
        os.write(1, b"hello")
        channel.put("report.json", b"{}")
        os._exit(7)

    ending, folder = converse(tmp_path, act)
    assert (ending.why, ending.code) == ("exit", 7)
    assert (folder.path / "report.json").read_bytes() == b"{}"
    assert (folder.path / "log.txt").read_bytes() == b"hello"


def test_inputs_of_the_test_split_come_for_weights_only(tmp_path: Path) -> None:
    def act(channel: Channel) -> None:
        header, content = channel.ask("val")
        val = np.frombuffer(content, header["dtype"]).reshape(header["shape"])
        channel.put("weights.safetensors", b"weights")
        _, test = channel.ask("test")
        channel.put("report.json", f"{val.tolist()} {len(test)}".encode())

    ending, folder = converse(tmp_path, act)
    assert (ending.why, ending.code) == ("exit", 0)
    assert (folder.path / "report.json").read_text() == f"{HELD_OUT.arrays['val'].tolist()} {6 * 4 * 4}"


@pytest.mark.parametrize("asked", [["test"], ["val", "val"], ["weights"], ["challenge"]])
def test_what_is_not_due_ends_the_job(tmp_path: Path, asked: list[str]) -> None:
    ending, _ = converse(tmp_path, lambda channel: [channel.ask(what) for what in asked])
    assert ending.why == "undue"


@pytest.mark.parametrize(
    ("act", "why"),
    [
        (lambda channel: [channel.put("weights.safetensors", bytes(3 << 20)), time.sleep(30)], "flood"),
        (lambda channel: [channel.put("outcome.json", b"{}"), time.sleep(30)], "forged"),
        (lambda channel: [channel.put("report.json", b"{}") for _ in range(2)] + [time.sleep(30)], "forged"),
        (lambda channel: [channel.tell("ended"), time.sleep(30)], "forged"),
        (lambda channel: [channel._stream.sendall(b"\xff" * 64), time.sleep(30)], "forged"),
        (lambda channel: [channel.answer(b"x"), time.sleep(30)], "forged"),
        (lambda channel: [channel.tell("begin", calls=10**400), time.sleep(30)], "forged"),
        (lambda channel: [channel._stream.sendall(pack(Frame({"ask": [1]}))), time.sleep(30)], "forged"),
        (lambda channel: [channel.tell("loud") for _ in range(3000)] + [time.sleep(30)], "forged"),
        (
            lambda channel: [
                channel._stream.sendall(pack(Frame({"file": "weights.safetensors", "last": False}, b"x"))),
                time.sleep(30),
            ],
            "forged",
        ),
        (lambda channel: os.kill(os.getppid(), 9), "gone"),
        (lambda channel: time.sleep(30), "timeout"),
        (lambda channel: [os.closerange(3, 200), time.sleep(30)], "timeout"),
    ],
    ids=[
        "flood",
        "other file",
        "twice",
        "ended",
        "garbage",
        "answer",
        "calls",
        "list",
        "chatter",
        "crumbs",
        "kill",
        "sleep",
        "close",
    ],
)
def test_a_worker_that_oversteps_is_ended(tmp_path: Path, act: Act, why: str) -> None:
    limits = JobLimits(wall_s=1.5 if why == "timeout" else 20, file_mb=2)
    started = time.monotonic()
    ending, _ = converse(tmp_path, act, limits=limits)
    assert ending.why == why
    assert time.monotonic() - started < 10


def test_closing_every_file_is_an_end_without_a_report(tmp_path: Path) -> None:
    ending, folder = converse(tmp_path, lambda channel: os.closerange(3, 200))
    assert (ending.why, ending.code) == ("exit", 0)
    assert not folder.has("report.json")


def test_blocks_are_timed_by_the_keeper(tmp_path: Path) -> None:
    def act(channel: Channel) -> None:
        for _ in range(3):
            channel.tell("begin", calls=5)
            assert channel.receive().header == {"heard": True}
            time.sleep(0.05)
            channel.tell("end")
            assert channel.receive().header == {"heard": True}
        channel.tell("end")  # of nothing

    ending, _ = converse(tmp_path, act)
    assert [calls for calls, _ in ending.timed] == [5, 5, 5]
    assert all(0.04 < seconds < 5 for _, seconds in ending.timed)


def test_a_worker_that_does_not_take_its_answers_ends_at_its_time(tmp_path: Path) -> None:
    def act(channel: Channel) -> None:
        while True:
            channel.tell("begin", calls=1)

    ending, _ = converse(tmp_path, act, limits=JobLimits(wall_s=2))
    assert ending.why == "timeout"


def test_questions_come_one_by_one_and_are_timed(tmp_path: Path) -> None:
    first = JobFolder(tmp_path, job(id="first"), 10, 6)
    first.prepare()
    first.receive("weights.safetensors", b"the weights", last=True)

    def act(channel: Channel) -> None:
        assert bytes(channel.ask("weights")[1]) == b"the weights"
        channel.ask_for_questions()
        while "over" not in (question := channel.receive()).header:
            time.sleep(0.01)
            row = np.frombuffer(question.payload, question.header["dtype"]).reshape(question.header["shape"])
            channel.answer(np.repeat(row[:, :1], 3, axis=1).tobytes())
        channel.put("outputs.npz", bytes(channel.ask("val")[1]))

    ending, folder = converse(tmp_path, act, purpose="reproduce", weights_of="first")
    answers = np.frombuffer((folder.path / "answers").read_bytes(), np.float32).reshape(-1, 3)
    shuffled = np.frombuffer((folder.path / "outputs.npz").read_bytes(), np.float32).reshape(10, 4)
    assert np.array_equal(shuffled, HELD_OUT.arrays["val"][folder.orders["val"]])
    assert folder.asked == {"val": 10, "test": 6}
    assert np.array_equal(answers[:10, 0], shuffled[:, 0])
    assert np.array_equal(answers[10:, 0], np.ones(6))
    assert len(ending.answers_s) == len(answers) == 16
    assert all(0.009 < seconds < 5 for seconds in ending.answers_s)


def test_a_host_that_goes_away_ends_keeper_and_worker() -> None:
    ours, theirs = socket.socketpair()
    keeper = start_keeper(theirs, lambda channel: time.sleep(60))
    theirs.close()
    conversation = Conversation(SocketLink(ours))
    conversation.greet()
    conversation.ready(10)
    conversation.close()
    assert os.waitstatus_to_exitcode(os.waitpid(keeper, 0)[1]) == 3


def test_nobody_else_can_speak_for_the_keeper(tmp_path: Path) -> None:
    """As if the candidate had found a way to write to the link."""
    ours, theirs = socket.socketpair()
    keeper = start_keeper(theirs, lambda channel: time.sleep(5))
    folder = JobFolder(tmp_path, job(), 10, 6)
    folder.prepare()
    link = SocketLink(ours)
    conversation = Conversation(link)
    conversation.greet()
    conversation.ready(10)
    forged = Frame({"ended": Ending(why="exit", code=0).model_dump()})
    threading.Timer(0.3, lambda: theirs.sendall(pack(forged) + bytes(100))).start()
    assert conversation.run(folder.job, folder, HELD_OUT, Alone()).why == "forged"
    link.close()
    theirs.close()
    os.waitpid(keeper, 0)
