"""What a confined process is kept from, each seen in a process that was confined."""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from cambrian.sandbox.worker import confine, mounts, syscalls

LIBC = ctypes.CDLL(None, use_errno=True)
MACHINE = os.uname().machine
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="confinement is Linux's")


def confined(do: Callable[[], None], features: frozenset[str], scratch: Path) -> str:
    """What `do` raised in a process with `features`; empty when it did not."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            confine.enter_namespaces(features)
            child = os.fork()
            if child == 0:
                try:
                    confine.private_mounts(features, mounts.needed([]), scratch, 4)
                    confine.drop_privileges(features)
                    do()
                    os.write(write, b"done")
                except BaseException as error:
                    os.write(write, f"{type(error).__name__}: {error}".encode())
                finally:
                    os._exit(0)
            os.waitpid(child, 0)
        finally:
            os._exit(0)
    os.close(write)
    os.waitpid(pid, 0)
    with os.fdopen(read) as answer:
        said = answer.read()
    assert said, "the confined process said nothing"
    return "" if said == "done" else said


def call(name: str) -> None:
    """Make a system call with arguments that are wrong whatever it is."""
    number = syscalls._REFUSED[name][syscalls._MACHINES[MACHINE][1]]
    assert LIBC.syscall(ctypes.c_long(number), *[ctypes.c_long(-1)] * 6) == -1
    raise OSError(ctypes.get_errno(), name)


@pytest.mark.parametrize("name", sorted(syscalls._REFUSED))
def test_calls_that_no_training_needs_are_refused(name: str, tmp_path: Path) -> None:
    only_filter = frozenset({"filter"})
    assert "Errno 1]" in confined(lambda: call(name), only_filter, tmp_path)


def test_new_namespaces_are_refused_and_new_processes_are_not(tmp_path: Path) -> None:
    def clone_user() -> None:
        if LIBC.syscall(syscalls._CLONE[syscalls._MACHINES[MACHINE][1]], 0x10000000 | 17, 0, 0, 0, 0) < 0:
            raise OSError(ctypes.get_errno(), "clone")

    only_filter = frozenset({"filter"})
    assert "Errno 1]" in confined(clone_user, only_filter, tmp_path)

    def start_things() -> None:
        import subprocess
        import threading

        subprocess.run([sys.executable, "-S", "-c", ""], check=True)
        thread = threading.Thread(target=int)
        thread.start()
        thread.join()

    assert confined(start_things, only_filter, tmp_path) == ""


@pytest.fixture(scope="module")
def features(tmp_path_factory: pytest.TempPathFactory) -> frozenset[str]:
    found = confine.probe(mounts.needed([]), tmp_path_factory.mktemp("probe"))
    if "root" not in found:
        pytest.skip(f"this kernel allows {sorted(found)} only")
    return found


def test_of_the_files_only_what_python_needs_is_there(features: frozenset[str], tmp_path: Path) -> None:
    private = tmp_path / "private"
    private.write_text("a key")
    scratch = tmp_path / "scratch"
    scratch.mkdir()

    def look() -> None:
        assert not private.exists()
        assert {path.name for path in tmp_path.iterdir()} == {"scratch"}
        assert not Path("/etc/passwd").exists()
        assert not Path("/run").exists()
        assert not Path("/sys").exists()
        (scratch / "mine").write_text("x")
        import sqlite3  # a library that is read only now

        assert sqlite3.sqlite_version
        for place in (Path("/"), Path(sys.prefix), tmp_path):
            with pytest.raises(OSError, match="Read-only"):
                (place / "mine").write_text("x")

    assert confined(look, features, scratch) == ""
    assert list(scratch.iterdir()) == []


def test_scratch_has_a_size(features: frozenset[str], tmp_path: Path) -> None:
    def fill() -> None:
        (tmp_path / "big").write_bytes(bytes(5 << 20))

    assert "No space left" in confined(fill, features, tmp_path)


def test_what_is_missing_is_said() -> None:
    everything = frozenset().union(*confine.ROUNDS) | {"filter"}
    assert confine.missing(everything) == (
        "memory and process counts are watched, not enforced by the kernel",
    )
    said = " ".join(confine.missing(frozenset()))
    for word in (
        "reads files",
        "Unix sockets",
        "writes files",
        "network",
        "signals",
        "system calls",
        "disk space",
    ):
        assert word in said


def test_needed_files_are_no_one_s_home() -> None:
    home = Path.home()
    visible = mounts.needed([])
    assert not any(home.is_relative_to(path) for path in visible)
    assert any(Path(sys.executable).resolve().is_relative_to(path) for path in visible)
