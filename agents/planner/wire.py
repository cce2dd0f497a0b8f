"""What goes over the wire to an OpenAI-compatible server, and what comes back.

Servers differ in what they take, so a request is written in a `Dialect` that is adapted when a server refuses
one with status 400. What comes back is read leniently here and by hand: the client library builds half-made
objects of answers that break the protocol instead of saying so.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from cambrian.agents.planner.client import ModelRequest, Reply, estimated_tokens
from cambrian.agents.planner.exchange import Message, Usage
from cambrian.agents.sections import LLMSection


class MalformedAnswer(Exception):
    """The body is no answer of the protocol; the text says in what way."""


@dataclass(frozen=True)
class Dialect:
    """What a server is believed to understand.

    Attributes:
        structured: it takes a JSON schema of the answer.
        bounded: such a schema may hold bounds like `maxLength`, which OpenAI's strict mode does not know.
        length_key: what chat completions call the limit of the answer's length. OpenAI's newer models refuse
            the older name, and older servers do not know the newer.
        temperature: it takes one; reasoning models do not.
    """

    structured: bool
    bounded: bool
    length_key: str
    temperature: bool = True

    def adapted(self, complaint: str) -> Dialect | None:
        """A dialect without what the server seems to complain of, or None when nothing is left to drop."""
        text = complaint.lower()
        if self.length_key == "max_tokens" and "max_completion_tokens" in text:
            return replace(self, length_key="max_completion_tokens")
        if self.temperature and "temperature" in text:
            return replace(self, temperature=False)
        if self.structured and self.bounded:
            return replace(self, bounded=False)
        return replace(self, structured=False) if self.structured else None


def chat_body(request: ModelRequest, model: str, llm: LLMSection, dialect: Dialect) -> dict[str, Any]:
    """A request to `/chat/completions`."""
    body: dict[str, Any] = {
        "model": model,
        "messages": _turns(request, dialect),
        dialect.length_key: llm.max_tokens,
    }
    if llm.temperature is not None and dialect.temperature:
        body["temperature"] = llm.temperature
    if request.schema is not None and dialect.structured:
        body["response_format"] = {
            "type": "json_schema",
            "json_schema": {
                "name": request.schema_name,
                "schema": _schema(request.schema, request, dialect),
                "strict": True,
            },
        }
    return body


def responses_body(request: ModelRequest, model: str, llm: LLMSection, dialect: Dialect) -> dict[str, Any]:
    """A request to `/responses`. Nothing is to be stored by the server."""
    body: dict[str, Any] = {
        "model": model,
        "input": _turns(request, dialect),
        "max_output_tokens": llm.max_tokens,
        "store": False,
    }
    if llm.temperature is not None and dialect.temperature:
        body["temperature"] = llm.temperature
    if request.schema is not None and dialect.structured:
        body["text"] = {
            "format": {
                "type": "json_schema",
                "name": request.schema_name,
                "schema": _schema(request.schema, request, dialect),
                "strict": True,
            }
        }
    return body


def _schema(schema: dict[str, Any], request: ModelRequest, dialect: Dialect) -> dict[str, Any]:
    if not dialect.bounded or not request.bounds:
        return schema
    properties = {name: below | request.bounds.get(name, {}) for name, below in schema["properties"].items()}
    return schema | {"properties": properties}


def _turns(request: ModelRequest, dialect: Dialect) -> list[dict[str, str]]:
    turns = [{"role": message.role, "content": message.content} for message in request.messages]
    if request.schema is not None and not dialect.structured and request.schema_note:
        turns[-1]["content"] += "\n\n" + request.schema_note
    return turns


class _Wire(BaseModel):
    # the servers' answers hold more than we read, and each server holds something else
    model_config = ConfigDict(extra="ignore")


class _ChatMessage(_Wire):
    content: str | None = None
    refusal: str | None = None


class _Choice(_Wire):
    message: _ChatMessage
    finish_reason: str | None = None


class _ChatUsage(_Wire):
    prompt_tokens: int
    completion_tokens: int


class _ChatAnswer(_Wire):
    choices: list[_Choice]
    usage: Any = None


def read_chat(body: bytes, sent: Sequence[Message]) -> Reply:
    """The reply in the body of a chat completion.

    Raises:
        MalformedAnswer: not JSON, or without a choice.
    """
    try:
        answer = _ChatAnswer.model_validate_json(body)
    except ValidationError as error:
        raise MalformedAnswer(_first(error)) from None
    if not answer.choices:
        raise MalformedAnswer("no choices in it")
    choice = answer.choices[0]
    text = choice.message.content or ""
    refusal = choice.message.refusal or ""
    if choice.finish_reason == "content_filter":
        refusal = refusal or "stopped by the server's content filter"
    return Reply(text, _usage(_ChatUsage, answer.usage, sent, text), choice.finish_reason or "", refusal)


class _Part(_Wire):
    type: str
    text: str | None = None
    refusal: str | None = None


class _Item(_Wire):
    type: str
    content: list[_Part] | None = None


class _Incomplete(_Wire):
    reason: str | None = None


class _ResponsesUsage(_Wire):
    input_tokens: int
    output_tokens: int


class _ResponsesAnswer(_Wire):
    output: list[_Item]
    status: str = ""
    incomplete_details: _Incomplete | None = None
    usage: Any = None


def read_responses(body: bytes, sent: Sequence[Message]) -> Reply:
    """The reply in the body of a response; a cut one ends with `length`, as in chat completions.

    Raises:
        MalformedAnswer: not JSON, or without a message that was finished or cut.
    """
    try:
        answer = _ResponsesAnswer.model_validate_json(body)
    except ValidationError as error:
        raise MalformedAnswer(_first(error)) from None
    parts = [part for item in answer.output if item.type == "message" for part in item.content or []]
    if not parts and answer.status != "incomplete":
        raise MalformedAnswer(f"no message in it, status {answer.status[:40]!r}")
    text = "".join(part.text or "" for part in parts if part.type == "output_text")
    refusal = " ".join(part.refusal for part in parts if part.type == "refusal" and part.refusal)
    reason = answer.incomplete_details.reason if answer.incomplete_details else None
    finish = {"max_output_tokens": "length", None: "stop"}.get(reason, reason or "")
    if reason == "content_filter":
        refusal = refusal or "stopped by the server's content filter"
    return Reply(text, _usage(_ResponsesUsage, answer.usage, sent, text), finish, refusal)


def _usage(
    kind: type[_ChatUsage] | type[_ResponsesUsage], raw: object, sent: Sequence[Message], text: str
) -> Usage:
    try:
        counted = kind.model_validate(raw)
        if isinstance(counted, _ChatUsage):
            return Usage(prompt_tokens=counted.prompt_tokens, completion_tokens=counted.completion_tokens)
        return Usage(prompt_tokens=counted.input_tokens, completion_tokens=counted.output_tokens)
    except ValidationError:
        prompt = sum(estimated_tokens(message.content) for message in sent)
        return Usage(prompt_tokens=prompt, completion_tokens=estimated_tokens(text), estimated=True)


def _first(error: ValidationError) -> str:
    first = error.errors(include_url=False, include_input=False)[0]
    place = ".".join(str(part) for part in first["loc"])
    message = "not JSON" if first["type"] == "json_invalid" else str(first["msg"])
    return f"{place}: {message}" if place else message
