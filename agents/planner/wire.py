"""What goes over the wire to an OpenAI-compatible server, and what comes back.

Servers differ in what they take, so a request is written in a `Dialect` that is adapted when a server refuses
one with status 400. What comes back is read leniently here and by hand: the client library builds half-made
objects of answers that break the protocol instead of saying so, and their tokens are paid for all the same.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, replace
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from cambrian.agents.planner.client import ModelRequest, Reply
from cambrian.agents.planner.exchange import NO_USAGE, Usage
from cambrian.agents.planner.metering import Sent, usage_in


class MalformedAnswer(Exception):
    """The body is no answer of the protocol; the text says in what way.

    Attributes:
        usage: what it cost, by its own word; nothing where it does not say.
    """

    def __init__(self, message: str, usage: Usage | None = None) -> None:
        super().__init__(message)
        self.usage = usage or NO_USAGE


@dataclass(frozen=True)
class Dialect:
    """What a server is believed to understand.

    Attributes:
        structured: it takes a JSON schema of the answer.
        bounded: such a schema may hold bounds like `maxLength`, which OpenAI's strict mode does not know.
        length_key: what chat completions call the limit of the answer's length. OpenAI's newer models refuse
            the older name, and older servers do not know the newer.
        temperature: it takes one; reasoning models do not.
        sized: such a schema may say how many items an array has, which not all strict modes know.
    """

    structured: bool
    bounded: bool
    length_key: str
    temperature: bool = True
    sized: bool = True

    def adapted(self, complaint: str) -> Dialect | None:
        """A dialect without what the server seems to complain of, or None when nothing is left to drop."""
        text = complaint.lower()
        if self.length_key == "max_tokens" and "max_completion_tokens" in text:
            return replace(self, length_key="max_completion_tokens")
        if self.temperature and "temperature" in text:
            return replace(self, temperature=False)
        if self.structured and self.sized and ("minitems" in text or "maxitems" in text):
            return replace(self, sized=False, bounded=False)
        if self.structured and self.bounded:
            return replace(self, bounded=False)
        return replace(self, structured=False) if self.structured else None


@dataclass(frozen=True)
class Manner:
    """How a role is played.

    Attributes:
        max_tokens: the greatest length of the answer.
        temperature: None leaves it to the server.
    """

    max_tokens: int
    temperature: float | None = None


def chat_body(request: ModelRequest, model: str, manner: Manner, dialect: Dialect) -> dict[str, Any]:
    """A request to `/chat/completions`."""
    body: dict[str, Any] = {
        "model": model,
        "messages": _turns(request, dialect),
        dialect.length_key: manner.max_tokens,
    }
    if manner.temperature is not None and dialect.temperature:
        body["temperature"] = manner.temperature
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


def responses_body(request: ModelRequest, model: str, manner: Manner, dialect: Dialect) -> dict[str, Any]:
    """A request to `/responses`. Nothing is to be stored by the server."""
    body: dict[str, Any] = {
        "model": model,
        "input": _turns(request, dialect),
        "max_output_tokens": manner.max_tokens,
        "store": False,
    }
    if manner.temperature is not None and dialect.temperature:
        body["temperature"] = manner.temperature
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
    if not dialect.sized:
        schema = _unsized(schema)
    if not dialect.bounded or not request.bounds:
        return schema
    properties = {name: below | request.bounds.get(name, {}) for name, below in schema["properties"].items()}
    return schema | {"properties": properties}


def _unsized(node: Any, names: bool = False) -> Any:
    """`node` without the sizes of arrays; below `names` stand names of properties, whatever they are."""
    if isinstance(node, list):
        return [_unsized(each) for each in node]
    if not isinstance(node, dict):
        return node
    return {
        key: _unsized(below, names=not names and key in ("properties", "$defs"))
        for key, below in node.items()
        if names or key not in ("minItems", "maxItems")
    }


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


class _ChatAnswer(_Wire):
    choices: list[_Choice]


def read_chat(body: bytes, sent: Sent) -> Reply:
    """The reply in the body of a chat completion.

    Raises:
        MalformedAnswer: not JSON, or without a choice.
    """
    data = _parsed(body, sent)
    try:
        answer = _ChatAnswer.model_validate(data)
    except ValidationError as error:
        raise MalformedAnswer(_first(error), wasted(body, sent)) from None
    if not answer.choices:
        raise MalformedAnswer("no choices in it", wasted(body, sent))
    choice = answer.choices[0]
    text = choice.message.content or ""
    refusal = choice.message.refusal or ""
    if choice.finish_reason == "content_filter":
        refusal = refusal or "stopped by the server's content filter"
    usage = usage_in(data.get("usage"), sent, text or refusal, len(body))
    return Reply(text, usage, choice.finish_reason or "", refusal)


class _Part(_Wire):
    type: str
    text: str | None = None
    refusal: str | None = None


class _Item(_Wire):
    type: str
    content: list[_Part] | None = None


class _Incomplete(_Wire):
    reason: str | None = None


class _ResponsesAnswer(_Wire):
    output: list[_Item]
    status: str = ""
    incomplete_details: _Incomplete | None = None


def read_responses(body: bytes, sent: Sent) -> Reply:
    """The reply in the body of a response; a cut one ends with `length`, as in chat completions.

    Raises:
        MalformedAnswer: not JSON, or without a message that was finished or cut.
    """
    data = _parsed(body, sent)
    try:
        answer = _ResponsesAnswer.model_validate(data)
    except ValidationError as error:
        raise MalformedAnswer(_first(error), wasted(body, sent)) from None
    parts = [part for item in answer.output if item.type == "message" for part in item.content or []]
    if not parts and answer.status != "incomplete":
        raise MalformedAnswer(f"no message in it, status {answer.status[:40]!r}", wasted(body, sent))
    text = "".join(part.text or "" for part in parts if part.type == "output_text")
    refusal = " ".join(part.refusal for part in parts if part.type == "refusal" and part.refusal)
    reason = answer.incomplete_details.reason if answer.incomplete_details else None
    finish = {"max_output_tokens": "length", None: "stop"}.get(reason, reason or "")
    if reason == "content_filter":
        refusal = refusal or "stopped by the server's content filter"
    return Reply(text, usage_in(data.get("usage"), sent, text or refusal, len(body)), finish, refusal)


def wasted(body: bytes, sent: Sent) -> Usage:
    """What a body that is of no use cost, by its own word: errors, and answers without an answer.

    Without a word nothing: then as a rule nothing was generated.
    """
    try:
        said = _parsed(body, sent).get("usage")
    except MalformedAnswer as error:
        return error.usage
    return usage_in(said, sent, "", len(body)) if isinstance(said, dict) else NO_USAGE


def _parsed(body: bytes, sent: Sent) -> dict[str, Any]:
    """The JSON object in a body. Damaged characters are marked as such: the rest of it is still an answer.

    Raises:
        MalformedAnswer: not JSON, nested beyond sense, or no object.
    """
    text = body.decode("utf-8-sig", errors="replace")
    try:
        data = json.loads(text)
    except (ValueError, RecursionError):
        raise MalformedAnswer("not JSON", _usage_amid(text, sent)) from None
    if not isinstance(data, dict):
        raise MalformedAnswer("no JSON object")
    mended: dict[str, Any] = _mended(data)
    return mended


def _usage_amid(text: str, sent: Sent) -> Usage:
    """The usage in a body that is broken elsewhere; within the answer's text its quotes would be escaped."""
    found = list(re.finditer(r'"usage"\s{0,9}:\s{0,9}(?=\{)', text))
    if found:
        try:
            said, _ = json.JSONDecoder().raw_decode(text, found[-1].end())
        except (ValueError, RecursionError):
            return NO_USAGE
        return usage_in(said, sent, "", len(text))
    return NO_USAGE


def _mended(value: Any) -> Any:
    """`value` without halves of surrogate pairs, which JSON can spell and no file can hold."""
    if isinstance(value, str):
        return value if value.isascii() else value.encode("utf-8", errors="replace").decode()
    if isinstance(value, list):
        return [_mended(each) for each in value]
    if isinstance(value, dict):
        return {_mended(key): _mended(each) for key, each in value.items()}
    return value


def _first(error: ValidationError) -> str:
    first = error.errors(include_url=False, include_input=False)[0]
    place = ".".join(str(part) for part in first["loc"])
    return f"{place}: {first['msg']}" if place else str(first["msg"])
