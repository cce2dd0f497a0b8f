"""Connecting to a Docker engine: by address, by docker context, or the one that the environment names.

What may name an engine:
    unix:///var/run/docker.sock   a socket of this machine
    tcp://host:2376               another machine; over TLS where `DOCKER_TLS_VERIFY` is set
    ssh://user@host               another machine, over SSH; needs the package paramiko
    context:NAME                  a docker context, as `docker context create` wrote it
    None                          as the docker command decides: `DOCKER_HOST`, the context `DOCKER_CONTEXT`,
                                  the current context of its configuration, the local socket
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import importlib.util
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import docker
from docker.errors import APIError, DockerException, TLSParameterError
from docker.tls import TLSConfig
from requests.exceptions import RequestException, SSLError, Timeout

from cambrian.sandbox.errors import EngineOptionError, InfrastructureError

DEFAULT_ADDRESS = "unix:///var/run/docker.sock"
ENGINE_S = 60.0
"""Seconds that the engine may take to answer."""
SCHEMES = ("unix", "tcp", "http", "https", "ssh", "npipe")
RESUME = "start the engine ('docker info' tells), then resume the run"


@dataclass(frozen=True)
class Endpoint:
    """Where an engine listens.

    Attributes:
        address: a URL that the SDK knows.
        tls: certificates, where there are any.
        source: what named it, for messages: `DOCKER_HOST`, `context 'gpu'`; empty where the caller did.
    """

    address: str
    tls: TLSConfig | None = None
    source: str = ""

    def __str__(self) -> str:
        return f"{self.address} ({self.source})" if self.source else self.address


def resolve(address: str | None = None, environment: Mapping[str, str] | None = None) -> Endpoint:
    """The engine that `address` or the environment names; nothing is connected yet.

    Raises:
        InfrastructureError: the context is unknown or unreadable, the address or a certificate is no good.
    """
    env = os.environ if environment is None else environment
    if address:
        if address.startswith("context:"):
            return _of_context(address.removeprefix("context:"), env)
        return _of_address(address, env, "")
    if env.get("DOCKER_HOST"):
        return _of_address(env["DOCKER_HOST"], env, "DOCKER_HOST")
    name = env.get("DOCKER_CONTEXT") or _current_context(env)
    if name and name != "default":
        return _of_context(name, env)
    return _of_address(DEFAULT_ADDRESS, env, "")


def connect(address: str | None = None, timeout_s: float = ENGINE_S, pool: int = 10) -> docker.DockerClient:
    """A client of the engine that `address` or the environment names; it has answered once.

    Args:
        address: see the module; None takes the one that the environment names.
        timeout_s: seconds that each answer may take.
        pool: connections that are kept open.

    Raises:
        InfrastructureError: no engine answers there.
    """
    endpoint = resolve(address)
    if endpoint.address.startswith("ssh://"):
        _need_paramiko(endpoint)
    with engine_errors("be reached", endpoint):
        return docker.DockerClient(
            base_url=endpoint.address,
            tls=endpoint.tls or False,
            timeout=timeout_s,  # type: ignore[arg-type]  # the stubs know ints only
            max_pool_size=pool,
        )


def is_local(address: str | None = None) -> bool:
    """Whether the engine that `address` or the environment names listens on a socket of this machine."""
    return resolve(address).address.startswith("unix://")


@contextlib.contextmanager
def engine_errors(what: str, endpoint: Endpoint | None = None) -> Iterator[None]:
    """Turn what SDK, requests and paramiko raise into an `InfrastructureError` that says `what` failed."""
    try:
        yield
    except InfrastructureError:
        raise
    except Exception as error:
        if not _is_of_engine(error):
            raise
        text, hint = explain(error)
        place = f" at {endpoint}" if endpoint is not None else ""
        kind = EngineOptionError if _is_unknown_runtime(text) else InfrastructureError
        raise kind(f"the Docker engine{place} failed to {what}: {text}", hint=hint) from error


def explain(error: BaseException) -> tuple[str, str]:
    """One line on what went wrong between us and an engine, and a hint what to do."""
    causes = list(_causes(error))
    text = str(error)
    for cause in causes:
        number = getattr(cause, "errno", None)
        if isinstance(cause, PermissionError) or number == errno.EACCES:
            return (
                "permission denied",
                "join the group of its socket ('sudo usermod -aG docker $USER', then log in again), "
                "or name an engine of your own by DOCKER_HOST",
            )
        if isinstance(cause, FileNotFoundError):
            return "no such file or directory", f"its socket is missing: {RESUME}"
        if isinstance(cause, ConnectionRefusedError):
            return "connection refused", f"nothing listens there: {RESUME}"
        if isinstance(cause, (ConnectionResetError, BrokenPipeError)):
            return "the connection was lost", RESUME
    if any(isinstance(cause, SSLError) for cause in causes):
        return _line(text), "see DOCKER_CERT_PATH and DOCKER_TLS_VERIFY, or the certificates of the context"
    if any(isinstance(cause, (Timeout, TimeoutError)) for cause in causes) or "timed out" in text:
        return "timed out", "the engine or the way to it is too slow or hangs; then resume the run"
    for cause in causes:
        if isinstance(cause, APIError):
            return _of_answer(_line(str(cause.explanation or cause)))
    return _line(text) or type(error).__name__, RESUME


def _of_answer(text: str) -> tuple[str, str]:
    """What an engine that answers complains of, and a hint."""
    if _is_unknown_runtime(text):
        return text, "'docker info' lists the runtimes that there are; see 'sandbox.runtime' in the run file"
    if "could not select device driver" in text or "nvidia" in text.lower():
        return (
            text,
            "the engine has no GPU to lend: install NVIDIA's container toolkit there, or ask for none",
        )
    if "no space left" in text:
        return text, "free some disk space on the engine's machine ('docker system df' tells), then resume"
    if "No such image" in text:
        return text, "somebody removed the image: run again and it is built anew"
    return text, RESUME


def _is_unknown_runtime(text: str) -> bool:
    return "nknown runtime" in text or "unknown or invalid runtime" in text


def _causes(error: BaseException) -> Iterator[BaseException]:
    """`error` and all it came from; requests and urllib3 keep some of that in arguments only."""
    queue: list[BaseException] = [error]
    seen: set[int] = set()
    while queue:
        found = queue.pop(0)
        if id(found) in seen:
            continue
        seen.add(id(found))
        yield found
        inner = (found.__cause__, found.__context__, getattr(found, "reason", None), *found.args)
        queue += [item for item in inner if isinstance(item, BaseException)]


def _is_of_engine(error: BaseException) -> bool:
    """Whether it comes from the SDK or the connection; an `OSError` of the disk never does here."""
    if isinstance(error, (DockerException, RequestException, ConnectionError, TimeoutError)):
        return True
    return type(error).__module__.partition(".")[0] in ("urllib3", "paramiko", "http")


def _line(text: str) -> str:
    return " ".join(text.split())[:300]


def _of_address(address: str, env: Mapping[str, str], source: str) -> Endpoint:
    scheme = address.partition("://")[0] if "://" in address else ""
    if scheme not in SCHEMES:
        raise EngineOptionError(
            f"the engine's address {address!r}{f' of {source}' if source else ''} is none",
            hint="write unix:///path/to/socket, tcp://host:port, ssh://user@host or context:NAME",
        )
    return Endpoint(address, _tls_of(env) if scheme in ("tcp", "https") else None, source)


def _tls_of(env: Mapping[str, str]) -> TLSConfig | None:
    """Certificates as the docker command finds them; an empty value counts as unset."""
    folder, verify = env.get("DOCKER_CERT_PATH"), bool(env.get("DOCKER_TLS_VERIFY"))
    if not folder and not verify:
        return None
    return _certificates(Path(folder) if folder else _config_folder(env), verify, "DOCKER_CERT_PATH")


def _certificates(folder: Path, verify: bool, source: str) -> TLSConfig:
    pair = (str(folder / "cert.pem"), str(folder / "key.pem"))
    ca = folder / "ca.pem"
    try:
        return TLSConfig(
            client_cert=pair if Path(pair[0]).exists() else None,
            ca_cert=str(ca) if ca.exists() else None,
            verify=verify,
        )
    except TLSParameterError as error:
        raise InfrastructureError(
            f"the certificates in {folder} are incomplete: {_line(str(error))}",
            hint=f"{source} names a folder with ca.pem, cert.pem and key.pem",
        ) from error


def _config_folder(env: Mapping[str, str]) -> Path:
    return Path(env.get("DOCKER_CONFIG") or Path(env.get("HOME") or Path.home()) / ".docker")


def _current_context(env: Mapping[str, str]) -> str:
    found = _json(_config_folder(env) / "config.json").get("currentContext", "")
    return found if isinstance(found, str) else ""


def _of_context(name: str, env: Mapping[str, str]) -> Endpoint:
    """The endpoint of a context: its folder is named by a hash of its name."""
    source = f"context {name!r}"
    if name == "default":
        return _of_address(DEFAULT_ADDRESS, env, source)
    folder = _config_folder(env) / "contexts"
    key = hashlib.sha256(name.encode()).hexdigest()
    meta = _json(folder / "meta" / key / "meta.json")
    endpoint = (meta.get("Endpoints") or {}).get("docker") or {}
    address = endpoint.get("Host")
    if not isinstance(address, str) or not address:
        known = sorted({"default", *_contexts(folder / "meta")})
        raise EngineOptionError(
            f"there is no docker context {name!r}",
            hint=f"known: {', '.join(known)}; 'docker context ls' tells",
        )
    tls = folder / "tls" / key / "docker"
    found = _of_address(address, {}, source)
    if not tls.is_dir():
        return found
    return Endpoint(address, _certificates(tls, not endpoint.get("SkipTLSVerify"), source), source)


def _contexts(folder: Path) -> Iterator[str]:
    for meta in folder.glob("*/meta.json"):
        name = _json(meta).get("Name")
        if isinstance(name, str):
            yield name


def _json(path: Path) -> dict[str, Any]:
    """An object from a file of the docker command; empty when there is none."""
    try:
        found = json.loads(path.read_bytes())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise InfrastructureError(
            f"{path} cannot be read: {_line(str(error))}", hint="repair it, or name an engine by DOCKER_HOST"
        ) from error
    return found if isinstance(found, dict) else {}


def _need_paramiko(endpoint: Endpoint) -> None:
    if importlib.util.find_spec("paramiko") is None:  # an extra of the SDK
        raise InfrastructureError(
            f"an engine over SSH ({endpoint}) needs the package paramiko", hint="pip install 'docker[ssh]'"
        )
