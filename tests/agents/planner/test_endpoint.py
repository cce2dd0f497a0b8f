from __future__ import annotations

import base64
import html
import json
import socket
import time
from collections.abc import Callable
from urllib.parse import quote, unquote

import pytest

from cambrian.agents.planner.client import endpoint_status
from cambrian.agents.planner.endpoint import OPENAI_URL, resolve_endpoint, without_credentials
from cambrian.agents.sections import LLMSection, ModelSection
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


@pytest.mark.parametrize("password", ["pw", "pa55w", "pa55word", "p%40ss-word"])
def test_a_server_that_echoes_the_header_of_an_address_with_a_password_gives_nothing_away(
    password: str,
) -> None:
    environ = {"OPENAI_BASE_URL": f"http://bob:{password}@host/v1", "OPENAI_API_KEY": KEY}
    endpoint = resolve_endpoint(LLMSection(model="m"), environ)
    header = base64.b64encode(f"bob:{unquote(password)}".encode()).decode()
    assert endpoint.redact(f"unknown: Basic {header}, sorry") == "unknown: Basic [key], sorry"


SECRET = 'k/e+y=0123<&>"\\456789 x'
"""With every character that somebody escapes."""


@pytest.mark.parametrize(
    "form",
    [
        SECRET,
        quote(SECRET, safe=""),
        quote(SECRET, safe="").lower(),
        quote(quote(SECRET, safe=""), safe=""),
        "".join(f"%{ord(char):02X}" for char in SECRET),
        json.dumps(SECRET)[1:-1],
        json.dumps(SECRET)[1:-1].replace("/", "\\/"),
        json.dumps(json.dumps(SECRET))[3:-3],
        "".join(f"\\u{ord(char):04x}" for char in SECRET),
        "".join(f"\\x{ord(char):02x}" for char in SECRET),
        html.escape(SECRET),
        "".join(f"&#{ord(char)};" for char in SECRET),
        SECRET.encode().hex(),
        SECRET.encode().hex().upper(),
    ],
)
def test_a_key_is_found_in_every_form(form: str) -> None:
    endpoint = resolve_endpoint(LLMSection(model="m"), {"OPENAI_API_KEY": SECRET})
    assert endpoint.redact(f"it is ({form}), or so") == "it is ([key]), or so"


@pytest.mark.parametrize("before", ["", "B", "Be", "Bearer ", "user:"])
@pytest.mark.parametrize("encode", [base64.b64encode, base64.urlsafe_b64encode])
def test_a_key_is_found_in_base64(before: str, encode: Callable[[bytes], bytes]) -> None:
    endpoint = resolve_endpoint(LLMSection(model="m"), {"OPENAI_API_KEY": SECRET})
    shown = endpoint.redact(f"x {encode(f'{before}{SECRET}!'.encode()).decode()} y")
    assert "[key]" in shown
    left = shown.removeprefix("x ").removesuffix(" y").replace("[key]", "")
    assert len(left) <= len(before) * 4 / 3 + 12, "a few characters that hold bytes of both"


@pytest.mark.parametrize("key", ["none", "EMPTY", "ollama", "abc", ""])
def test_words_that_are_no_secrets_stay(key: str) -> None:
    endpoint = resolve_endpoint(LLMSection(model="m", base_url="http://a/v1"), {"OPENAI_API_KEY": key})
    text = "none of the abc is EMPTY, says ollama of sk-networks and risk-0123456789"
    assert endpoint.redact(text) == text


def test_each_model_may_have_an_address_and_a_key_of_its_own() -> None:
    llm = LLMSection(model="a", base_url="http://a/v1")
    section = ModelSection(model="b", key_env="KEY_OF_B")
    environ = {"OPENAI_API_KEY": "the-key-of-all", "KEY_OF_B": "the-key-of-b"}
    endpoint = resolve_endpoint(llm, environ, section)
    assert (endpoint.model, endpoint.base_url, endpoint.key) == ("b", "http://a/v1", "the-key-of-b")
    there = resolve_endpoint(llm, environ, section.model_copy(update={"base_url": OPENAI_URL}))
    assert (there.base_url, there.own) == (OPENAI_URL, False)
    without = resolve_endpoint(LLMSection(), {}, section)
    assert without.problem == "KEY_OF_B is not set" and "KEY_OF_B" in without.hint


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


def test_a_cut_leaves_no_part_of_a_key() -> None:
    key = "a-key-of-forty-characters-in-all-1234567"
    endpoint = resolve_endpoint(LLMSection(model="m"), {"OPENAI_API_KEY": key})
    for before in range(0, 9000, 119):
        text = "." * before + f" {key}" * 300
        shown = endpoint.redact(text, 1000)
        assert len(shown) <= 1000 and not set("afoy").intersection(shown.replace("[key]", ""))
