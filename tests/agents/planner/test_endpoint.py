from __future__ import annotations

import socket
import time

import pytest

from cambrian.agents.planner.client import endpoint_status
from cambrian.agents.planner.endpoint import OPENAI_URL, resolve_endpoint, without_credentials
from cambrian.agents.sections import LLMSection
from tests.agents.planner.server import ModelServer

KEY = "sk-secret-0123456789abcdef"


def test_nothing_set_says_what_to_set() -> None:
    status = endpoint_status(LLMSection(), environ={})
    assert not status.configured and status.reachable is None
    assert status.detail == "no model endpoint: OPENAI_API_KEY is not set"
    assert (
        status.hint == "set OPENAI_API_KEY, or OPENAI_BASE_URL for a server of your own, and CAMBRIAN_MODEL"
    )
    assert status.base_url == OPENAI_URL


@pytest.mark.parametrize(
    ("llm", "environ", "problem"),
    [
        ({"model": "m"}, {"OPENAI_API_KEY": KEY}, ""),
        ({}, {"OPENAI_API_KEY": KEY, "CAMBRIAN_MODEL": "m"}, ""),
        ({}, {"OPENAI_API_KEY": KEY}, "no model is named"),
        ({"model": "m"}, {"OPENAI_API_KEY": "  "}, "OPENAI_API_KEY is not set"),
        (
            {"model": "m"},
            {"OPENAI_API_KEY": "sk-“quoted”"},
            "OPENAI_API_KEY holds characters that no key has",
        ),
        ({"model": "m"}, {"OPENAI_BASE_URL": "http://localhost:8080/v1"}, ""),
        ({"model": "m", "base_url": "http://gpu:1/v1"}, {}, ""),
        ({"model": "m", "base_url": "localhost:8080"}, {}, "the base URL is no http address"),
        ({"model": "m", "base_url": "http://[::1"}, {}, "the base URL is no http address"),
        ({"model": "m", "base_url": OPENAI_URL + "/"}, {}, "OPENAI_API_KEY is not set"),
    ],
)
def test_what_is_missing(llm: dict[str, str], environ: dict[str, str], problem: str) -> None:
    endpoint = resolve_endpoint(LLMSection.model_validate(llm), environ)
    assert endpoint.problem.startswith(problem) and bool(endpoint.problem) == bool(problem)
    assert bool(endpoint.hint) == bool(problem)


def test_the_run_file_goes_before_the_environment() -> None:
    environ = {"OPENAI_BASE_URL": "http://b/v1", "CAMBRIAN_MODEL": "b", "OPENAI_API_KEY": KEY}
    endpoint = resolve_endpoint(LLMSection(model="a", base_url="http://a/v1"), environ)
    assert (endpoint.model, endpoint.base_url, endpoint.own) == ("a", "http://a/v1", True)


def test_secrets_are_shown_nowhere() -> None:
    environ = {"OPENAI_BASE_URL": "https://ann:pa55word@host:1/v1?key=q", "OPENAI_API_KEY": "plain-key-123"}
    endpoint = resolve_endpoint(LLMSection(model="m"), environ)
    assert endpoint.shown_url == "https://host:1/v1"
    assert "plain-key-123" not in repr(endpoint)
    said = endpoint.redact("bad key plain-key-123 of pa55word, Bearer abc.def and sk-ab***********wxyz")
    assert said == "bad key [key] of [key], Bearer [key] and [key]"
    status = endpoint_status(LLMSection(model="m"), environ=environ).model_dump_json()
    assert "pa55word" not in status and "plain-key" not in status


def test_an_unusable_address_is_shown_as_nothing() -> None:
    assert without_credentials("http://[::1") == ""


def test_a_server_that_answers(server: ModelServer) -> None:
    llm = LLMSection(model="test-model", base_url=server.url)
    status = endpoint_status(llm, probe=True, environ={})
    assert status.reachable is True and status.detail == f"test-model at {server.url}: answers"
    assert status.hint == ""


def test_a_server_without_the_model_lists_what_it_has(server: ModelServer) -> None:
    status = endpoint_status(LLMSection(base_url=server.url), probe=True, environ={})
    assert not status.configured and status.reachable is True
    assert status.hint == "the server offers: test-model, other"


def test_nobody_there() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound, but not listening
        llm = LLMSection(model="m", base_url=f"http://127.0.0.1:{taken.getsockname()[1]}/v1")
        status = endpoint_status(llm, probe=True, environ={})
    assert status.configured and status.reachable is False
    assert "does not answer" in status.detail and status.hint


def test_a_probe_gives_up_after_three_seconds() -> None:
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen()
        llm = LLMSection(model="m", base_url=f"http://127.0.0.1:{deaf.getsockname()[1]}/v1")
        started = time.monotonic()
        status = endpoint_status(llm, probe=True, environ={})
    assert status.reachable is False
    assert time.monotonic() - started < 5


def test_without_a_probe_nothing_is_sent(server: ModelServer) -> None:
    started = time.monotonic()
    endpoint_status(LLMSection(model="m", base_url="http://192.0.2.1/v1"), environ={})
    assert time.monotonic() - started < 2.5, "a probe of an address that nobody has takes three"
    assert server.seen == []
