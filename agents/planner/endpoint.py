"""Where the model is: resolved from the run file and the environment, without asking it anything.

Nothing here imports the OpenAI client, so that `cambrian doctor` and a run without a model stay quick.
"""

from __future__ import annotations

import base64
import ipaddress
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from urllib.parse import SplitResult, unquote, urlsplit, urlunsplit

from pydantic import BaseModel, ConfigDict

from cambrian.agents.planner.redaction import Redactor
from cambrian.agents.sections import LLMSection, ModelSection

OPENAI_URL = "https://api.openai.com/v1"
NO_KEY = "none"
"""Sent to servers of one's own, which want some key and check none."""


@dataclass(frozen=True)
class Endpoint:
    """A model endpoint and what is needed to ask it.

    Attributes:
        base_url: the API's root, credentials within it included.
        key: sent as the bearer token; never shown.
        own: a server of one's own: anything but OpenAI's.
        problem: why it cannot be asked; empty when it can.
        hint: what to do about the problem.
    """

    base_url: str
    model: str | None
    key: str = field(repr=False)
    own: bool
    problem: str = ""
    hint: str = ""

    @property
    def shown_url(self) -> str:
        """The address without user name and password."""
        return without_credentials(self.base_url)

    @property
    def private(self) -> bool:
        """Whether the server is on this machine or in a private network, where nobody bills tokens."""
        host = _split(self.base_url).hostname or ""
        try:
            address = ipaddress.ip_address(host)
        except ValueError:
            return "." not in host or host.endswith((".local", ".lan", ".internal", ".localhost"))
        return address.is_private or address.is_loopback

    def redact(self, text: str, most: int = 4000) -> str:
        """`text` without the key, the address's user name, password and query, and what looks like a key.

        Args:
            text: anything that may come from a server.
            most: characters that are kept.
        """
        return self._redactor.start(text, most)

    @cached_property
    def _redactor(self) -> Redactor:
        parts = _split(self.base_url)
        values = [pair.partition("=")[2] for pair in parts.query.split("&")]
        credentials = parts.netloc.rpartition("@")[0]
        # as the header has them: of base64, only what stands whole in it would be found else
        name, password = (unquote(part or "") for part in (parts.username, parts.password))
        basic = base64.b64encode(f"{name}:{password}".encode()).decode() if credentials else ""
        return Redactor([self.key, parts.password, password, credentials, basic, *values])


class EndpointStatus(BaseModel):
    """What can be said of the model endpoint.

    Attributes:
        configured: an address, a key where one is needed, and a model's name are there.
        base_url: without credentials.
        reachable: None when nobody has asked.
        detail: one line for people.
        hint: what to do when something is missing.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    configured: bool
    base_url: str
    model: str | None
    reachable: bool | None = None
    detail: str
    hint: str = ""


def without_credentials(url: str) -> str:
    """`url` without user name, password and query, where keys are sometimes put."""
    parts = _split(url)
    host = parts.netloc.rpartition("@")[2]
    return urlunsplit((parts.scheme, host, parts.path, "", ""))


def holds_credentials(url: str) -> bool:
    """Whether a user name, which may be a key too, or a password stands in `url`."""
    return "@" in _split(url).netloc


def _split(url: str) -> SplitResult:
    """`url` in parts, all of them empty where it cannot be parsed."""
    try:
        return urlsplit(url)
    except ValueError:
        return SplitResult("", "", "", "", "")


def resolve_endpoint(
    llm: LLMSection, environ: Mapping[str, str] | None = None, section: ModelSection | None = None
) -> Endpoint:
    """The endpoint that the run file and the environment name.

    Args:
        llm: the run file's section.
        environ: `OPENAI_API_KEY`, `OPENAI_BASE_URL` and `CAMBRIAN_MODEL` are read; None is the process's own.
        section: one of `llm.models`; None is `llm.model`.
    """
    environ = os.environ if environ is None else environ
    key_name = "OPENAI_API_KEY" if section is None else section.key_env
    given_url = llm.base_url if section is None else section.base_url or llm.base_url
    base_url = (given_url or environ.get("OPENAI_BASE_URL", "")).strip() or OPENAI_URL
    key = environ.get(key_name, "").strip()
    if section is None:
        model = llm.model or environ.get("CAMBRIAN_MODEL", "").strip() or None
    else:
        model = section.model
    own = without_credentials(base_url).rstrip("/") != OPENAI_URL
    problem = hint = ""
    parts = _split(base_url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        problem = "the base URL is no http address"
        hint = "write llm.base_url or OPENAI_BASE_URL like http://localhost:8080/v1"
    elif not key and not own:
        problem = f"{key_name} is not set"
        hint = f"set {key_name}, or OPENAI_BASE_URL for a server of your own, and CAMBRIAN_MODEL"
    elif not (key.isascii() and key.isprintable()):
        problem = f"{key_name} holds characters that no key has"
        hint = f"set {key_name} again, without line breaks or typographic quotes"
    elif model is None:
        problem = "no model is named"
        hint = "set llm.model in the run file, or CAMBRIAN_MODEL"
    return Endpoint(base_url, model, key or NO_KEY, own, problem, hint)


def endpoint_status(
    llm: LLMSection,
    *,
    probe: bool = False,
    environ: Mapping[str, str] | None = None,
    section: ModelSection | None = None,
) -> EndpointStatus:
    """What can be said of the endpoint.

    Args:
        llm: the run file's section.
        probe: ask the server for its list of models, for at most 3 s; otherwise nothing is sent.
        environ: see `resolve_endpoint`.
        section: see `resolve_endpoint`.
    """
    endpoint = resolve_endpoint(llm, environ, section)
    where = f"{endpoint.model} at {endpoint.shown_url}"
    status = EndpointStatus(
        configured=not endpoint.problem,
        base_url=endpoint.shown_url,
        model=endpoint.model,
        detail=f"no model endpoint: {endpoint.problem}" if endpoint.problem else where,
        hint=endpoint.hint,
    )
    askable = status.configured or (endpoint.own and endpoint.model is None)
    return _probe(endpoint, status) if probe and askable else status


def _probe(endpoint: Endpoint, status: EndpointStatus) -> EndpointStatus:
    import httpx2

    url = endpoint.base_url.rstrip("/") + "/models"
    try:
        answer = httpx2.get(url, headers={"Authorization": f"Bearer {endpoint.key}"}, timeout=3.0)
        body = answer.json() if answer.is_success else None
    except (httpx2.HTTPError, httpx2.InvalidURL, ValueError) as error:
        cause = endpoint.redact(str(error)) or type(error).__name__
        return status.model_copy(
            update={
                "reachable": False,
                "detail": f"{status.detail}: does not answer ({cause})",
                "hint": "start the server, or correct OPENAI_BASE_URL",
            }
        )
    if not answer.is_success:
        hint = "check OPENAI_API_KEY" if answer.status_code in (401, 403) else "check OPENAI_BASE_URL"
        detail = f"{status.detail}: answers with HTTP {answer.status_code}"
        return status.model_copy(update={"reachable": False, "detail": detail, "hint": hint})
    offered = _model_names(body)
    if endpoint.model in offered or not offered:
        return status.model_copy(update={"reachable": True, "detail": f"{status.detail}: answers"})
    names = ", ".join(offered[:5]) + (", ..." if len(offered) > 5 else "")
    return status.model_copy(
        update={"reachable": True, "hint": f"the server offers: {endpoint.redact(names)}"}
    )


def _model_names(body: object) -> list[str]:
    entries = body.get("data") if isinstance(body, dict) else None
    if not isinstance(entries, list):
        return []
    return [entry["id"] for entry in entries if isinstance(entry, dict) and isinstance(entry.get("id"), str)]
