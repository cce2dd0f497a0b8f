"""A real HTTP server on loopback that speaks the OpenAI protocol, well or badly, as a test tells it."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass(frozen=True)
class Seen:
    """One request as the server saw it."""

    path: str
    headers: dict[str, str]
    body: dict[str, Any]

    @property
    def schema(self) -> dict[str, Any] | None:
        """The schema that the answer was to follow, by either API."""
        wanted = self.body.get("response_format") or self.body.get("text", {}).get("format")
        return None if wanted is None else wanted.get("json_schema", wanted)["schema"]

    @property
    def turns(self) -> list[dict[str, str]]:
        turns: list[dict[str, str]] = self.body.get("messages") or self.body["input"]
        return turns


@dataclass
class ModelServer:
    """What the server says to each request in turn (the last is repeated), and what it saw and counted."""

    script: list[Callable[[Handler], None]] = field(default_factory=list)
    seen: list[Seen] = field(default_factory=list)
    tokens: int = 0
    port: int = 0
    model: str = "test-model"
    released: threading.Event = field(default_factory=threading.Event)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def count(self, tokens: int) -> None:
        """Enter tokens into the server's own log."""
        with self.lock:
            self.tokens += tokens

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    def says(self, *script: Callable[[Handler], None]) -> None:
        self.script = list(script)


class Handler(BaseHTTPRequestHandler):
    """Answers by the script of its server."""

    world: ModelServer
    protocol_version = "HTTP/1.1"
    seen: Seen
    number: int
    """Of the request, from 1."""

    def do_GET(self) -> None:
        self.send(200, {"object": "list", "data": [{"id": self.world.model}, {"id": "other"}]})

    def do_POST(self) -> None:
        raw = self.rfile.read(int(self.headers["Content-Length"]))
        self.seen = Seen(self.path, {k.lower(): v for k, v in self.headers.items()}, json.loads(raw))
        with self.world.lock:
            self.world.seen.append(self.seen)
            self.number = len(self.world.seen)
        step = min(self.number, len(self.world.script)) - 1
        self.world.script[step](self)

    def send(
        self,
        status: int,
        body: object,
        headers: dict[str, str] | None = None,
        kind: str = "application/json",
    ) -> None:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        for name, value in {"Content-Type": kind, "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:
        return


def answer(
    text: str | None,
    *,
    finish: str = "stop",
    refusal: str | None = None,
    usage: bool = True,
    cached: int | None = None,
    spoilt: Callable[[dict[str, Any]], object] | None = None,
    status: int = 200,
) -> Callable[[Handler], None]:
    """A well-formed answer by the API that was asked; its usage is counted as a real server would.

    Args:
        text: the answer.
        finish: why it ended.
        refusal: in place of the answer.
        usage: whether the body tells it; what it does not tell is not in the server's own count either.
        cached: tokens of the prompt that it says to have had in its cache.
        spoilt: changes the body before it is sent, or returns bytes to send instead.
        status: it goes with.
    """

    def respond(handler: Handler) -> None:
        prompt = sum(len(turn["content"].split()) for turn in handler.seen.turns)
        completion = len((text or "").split()) + 1
        if usage:
            handler.world.count(prompt + completion)
        if handler.path.endswith("/chat/completions"):
            message = {"role": "assistant", "content": text, "refusal": refusal}
            body: dict[str, Any] = {
                "id": "c1",
                "object": "chat.completion",
                "created": 1,
                "model": handler.world.model,
                "choices": [{"index": 0, "message": message, "finish_reason": finish}],
            }
            counts = {"prompt_tokens": prompt, "completion_tokens": completion}
        else:
            part: dict[str, Any] = (
                {"type": "refusal", "refusal": refusal}
                if refusal
                else {"type": "output_text", "text": text, "annotations": []}
            )
            cut = finish == "length"
            body = {
                "id": "r1",
                "object": "response",
                "status": "incomplete" if cut else "completed",
                "incomplete_details": {"reason": "max_output_tokens"} if cut else None,
                "output": [
                    {"type": "reasoning", "id": "rs1", "summary": []},
                    {"type": "message", "id": "m1", "role": "assistant", "content": [part]},
                ],
            }
            counts = {"input_tokens": prompt, "output_tokens": completion}
        if usage:
            body["usage"] = counts | {"total_tokens": prompt + completion}
        if usage and cached is not None:
            kind = "prompt" if "prompt_tokens" in counts else "input"
            body["usage"][f"{kind}_tokens_details"] = {"cached_tokens": cached}
        changed = spoilt(body) if spoilt is not None else None
        handler.send(status, changed if isinstance(changed, bytes) else body)

    return respond


def error(
    status: int, message: str = "no", code: str | None = None, headers: dict[str, str] | None = None
) -> Callable[[Handler], None]:
    """An error as OpenAI writes it."""
    body = {"error": {"message": message, "type": "error", "param": None, "code": code}}
    return lambda handler: handler.send(status, body, headers)


def raw(content: bytes, kind: str = "application/json", status: int = 200) -> Callable[[Handler], None]:
    """Any body at all."""
    return lambda handler: handler.send(status, content, kind=kind)


def cut(handler: Handler) -> None:
    """The connection breaks in the middle of the answer."""
    handler.send_response(200)
    handler.send_header("Content-Type", "application/json")
    handler.send_header("Content-Length", "1000")
    handler.end_headers()
    handler.wfile.write(b'{"choices": [')
    handler.wfile.flush()
    handler.close_connection = True
    handler.connection.shutdown(socket.SHUT_RDWR)


def silent(handler: Handler) -> None:
    """No answer before the test is over."""
    handler.world.released.wait(20)
    handler.close_connection = True


def trickle(handler: Handler) -> None:
    """A byte now and then, for ever: no single read times out."""
    handler.send_response(200)
    handler.send_header("Content-Type", "application/json")
    handler.send_header("Content-Length", "100000")
    handler.end_headers()
    try:
        while not handler.world.released.is_set():
            handler.wfile.write(b" ")
            handler.wfile.flush()
            time.sleep(0.05)
    except OSError:
        pass
    handler.close_connection = True


def flood(handler: Handler) -> None:
    """An answer of 64 MB, for whoever reads it to its end."""
    handler.send_response(200)
    handler.send_header("Content-Type", "application/json")
    handler.send_header("Content-Length", str(64 * 2**20))
    handler.end_headers()
    try:
        for _ in range(64):
            handler.wfile.write(b"x" * 2**20)
    except OSError:
        pass
    handler.close_connection = True


class _Quiet(ThreadingHTTPServer):
    def handle_error(self, request: object, client_address: object) -> None:
        """Clients hang up in the middle, as they may."""


@contextmanager
def model_server() -> Iterator[ModelServer]:
    """A server for one test."""
    world = ModelServer()
    handler = type("ScriptedHandler", (Handler,), {"world": world})
    server = _Quiet(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    world.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield world
    finally:
        world.released.set()
        server.shutdown()
        thread.join()
        server.server_close()
