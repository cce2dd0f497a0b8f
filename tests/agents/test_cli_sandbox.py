"""`cambrian sandbox ...`, run as a user runs it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import tempfile
import time
from importlib import metadata
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest

from cambrian.sandbox.identity import pid_namespace, this_host
from tests.support.command import assert_help_is_light
from tests.support.command import cambrian as run
from tests.support.command import command as console


def cambrian(*arguments: str, cwd: Path, code: int = 0, **environment: str) -> CompletedProcess[str]:
    return run("sandbox", *arguments, cwd=cwd, code=code, timeout_s=540, **environment)


@pytest.mark.parametrize("command", [[], ["build"], ["check"], ["clean"]])
def test_help_imports_nothing_heavy(command: list[str], tmp_path: Path) -> None:
    assert_help_is_light("sandbox", *command, cwd=tmp_path)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_check_of_processes(tmp_path: Path) -> None:
    done = cambrian("check", "--kind", "process", cwd=tmp_path)
    assert "hostile candidates contained" in done.stdout and "NOT CONTAINED" not in done.stdout
    assert "trains: 9" in done.stdout and "fork-bomb" in done.stdout and "not enforced here: " in done.stdout
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_check_that_is_stopped_leaves_nothing(number: signal.Signals) -> None:
    with tempfile.TemporaryDirectory() as place:  # a short path: sockets are made below it
        dead = Path(place, f"cambrian-bait-{pid_namespace()}-{2**30}-1-killed")
        dead.mkdir()
        check = subprocess.Popen(
            console("sandbox", "check", "--kind", "process"),
            env={**os.environ, "TMPDIR": place},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        deadline = time.monotonic() + 60
        while not (made := [*Path(place).glob("cambrian-bait-*/socket")]) and time.monotonic() < deadline:
            assert check.poll() is None, check.communicate()
            time.sleep(0.05)
        assert made and not dead.exists()
        os.killpg(check.pid, number)
        out, told = check.communicate(timeout=60)
        assert (check.returncode, out) == (128 + number, "")
        assert told.splitlines()[-1] == f"error: stopped by {number.name}" and "Traceback" not in told
        assert not [*Path(place).glob("cambrian-bait-*"), *Path(place).glob("cambrian-check-*")]


def test_an_engine_that_is_not_there_and_options_that_do_not_fit_are_told(tmp_path: Path) -> None:
    nowhere = f"unix://{tmp_path}/nowhere.sock"
    for command in ("build", "check", "clean"):
        done = cambrian(command, "--engine", nowhere, cwd=tmp_path, code=4)
        assert "error: " in done.stderr and "hint: " in done.stderr and done.stdout == ""
        assert "resume" not in done.stderr and "then try again" in done.stderr
        done = cambrian(command, cwd=tmp_path, code=2, DOCKER_HOST="nonsense")
        assert "'nonsense' of DOCKER_HOST is none" in done.stderr
    told: dict[str, Any] = json.loads(
        cambrian("check", "--engine", "nowhere", "--json", cwd=tmp_path, code=2).stdout
    )
    assert "'nowhere' is no address of an engine" in told["error"]
    done = cambrian("check", "--kind", "process", "--runtime", "runsc", cwd=tmp_path, code=2)
    assert "options of containers" in done.stderr


@pytest.mark.docker
def test_a_wrong_base_is_told_as_the_option_that_it_was(tmp_path: Path) -> None:
    done = cambrian("build", "--base", "cambrian-no-such-base:1", cwd=tmp_path, code=4)
    assert "or name another one by --base" in done.stderr and "base_image" not in done.stderr


@pytest.mark.docker
@pytest.mark.timeout(600)
def test_build_and_clean(tmp_path: Path) -> None:
    import docker

    client = docker.from_env(timeout=60)
    facts = json.loads(cambrian("build", "--json", cwd=tmp_path).stdout)
    assert facts["size_mb"] < 1400
    inside = dict(package.split("==") for package in facts["packages"])
    assert {"torch", "numpy", "sympy", "filelock"} <= {*inside}
    assert inside == {name: metadata.version(name) for name in inside}  # those of the host, to the last one
    text = cambrian("build", cwd=tmp_path)
    assert text.stdout.startswith(f"{facts['tag']}: ") and text.stderr == ""
    machine = this_host().split(":")[0]
    dead = client.volumes.create(labels={"cambrian.run": "dead", "cambrian.host": f"{machine}:1:0"})
    here = client.volumes.create(labels={"cambrian.run": "elsewhere", "cambrian.host": "another-machine:1:0"})
    try:
        client.images.get(facts["tag"]).tag("cambrian-worker", "of-older-content")
        # a run that lives somewhere and has no container right now may need any image
        kept = json.loads(cambrian("clean", "--json", cwd=tmp_path).stdout)
        assert "elsewhere" in kept["kept"]["cambrian-worker:of-older-content"]
        assert dead.name not in {volume.name for volume in client.volumes.list()}
        assert here.name in {volume.name for volume in client.volumes.list()}
    finally:
        here.remove(force=True)
        client.images.remove("cambrian-worker:of-older-content")
        client.close()
