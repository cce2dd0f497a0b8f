"""Builds the worker's image with the engine's own builder and no network.

Two images, each tagged with a hash of what it is made of, so that an existing tag is an up-to-date image:
    cambrian-deps:HASH     base, pinned packages, `deps.Dockerfile`
    cambrian-worker:HASH   deps, our sources and plugins, `code.Dockerfile`
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import sys
import tarfile
import tempfile
from collections.abc import Callable, Iterator, Sequence
from importlib import resources
from pathlib import Path
from typing import IO

import docker
from docker.errors import APIError, DockerException, ImageNotFound
from pydantic import BaseModel, ConfigDict
from requests.exceptions import RequestException

import cambrian.sandbox
import cambrian.search_spaces
from cambrian.sandbox.engine import connect
from cambrian.sandbox.errors import InfrastructureError
from cambrian.sandbox.image.progress import beating
from cambrian.sandbox.image.tidy import BUILD_S, DEPS, WORKER, Tidied, remove_stages, remove_superseded, tidy
from cambrian.sandbox.image.wheels import locked, pins, wheelhouse

LOCAL_BASE = "cambrian-base:latest"
"""Taken as base where it exists; `debian-base.sh` makes it."""
PYTHON = "/usr/local/lib/cambrian/venv/bin/python"
HELPER = {"cambrian.image": "helper"}
"""Label of containers that look into an image."""
STEP_CHARS = 70


def default_base() -> str:
    """The image that is taken when no other is named and `cambrian-base` does not exist."""
    return f"python:{sys.version_info.major}.{sys.version_info.minor}-slim"


def ensure_image(
    base_image: str | None,
    plugins: Sequence[Path] = (),
    progress: Callable[[str], None] | None = None,
    engine: str | None = None,
) -> str:
    """The tag of an up-to-date worker image; what is missing is built. Blocks, for minutes the first time.

    Args:
        base_image: what to build from: anything with Python 3.11 or newer and its `venv` module.
        plugins: folders that are copied onto the workers' import path.
        progress: told, line by line, what takes long.
        engine: where the image is to be; see `sandbox.engine`.

    Raises:
        InfrastructureError: the engine, the base image or the packages cannot be had.
    """
    say = progress or (lambda _line: None)
    with _building(engine) as client:
        return _ensure(client, base_image, plugins, say)


class ImageFacts(BaseModel):
    """What a worker image is.

    Attributes:
        tag: its name, which is a hash of what it is made of.
        base: what it was built from.
        python: version of its Python, such as `3.11`.
        size_mb: of all its layers.
        packages: the pinned ones, `name==version`.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    tag: str
    base: str
    python: str
    size_mb: float
    packages: tuple[str, ...]


def describe(
    base_image: str | None,
    plugins: Sequence[Path] = (),
    progress: Callable[[str], None] | None = None,
    engine: str | None = None,
) -> ImageFacts:
    """Build the image where it is missing, and say what is in it; the rest is as for `ensure_image`."""
    tag = ensure_image(base_image, plugins, progress, engine)
    code = (
        "from importlib import metadata; print(*{f'{d.name}=={d.version}' for d in metadata.distributions()})"
    )
    with _building(engine) as client:
        image = client.images.get(tag)
        base, _ = _base(client, base_image, lambda _line: None)
        printed = client.containers.run(
            tag, [PYTHON, "-s", "-P", "-c", code], network_mode="none", remove=True, labels=HELPER
        )
        return ImageFacts(
            tag=tag,
            base=base,
            python=_python_of(client, base),
            size_mb=int((image.attrs or {}).get("Size", 0)) / 1e6,
            packages=tuple(sorted(printed.decode().split(), key=str.lower)),
        )


def clean(base_image: str | None = None, engine: str | None = None) -> Tidied:
    """Remove images of older contents, and what dead runs left on the engine. Never what a live run uses.

    Raises:
        InfrastructureError: the engine does not answer.
    """
    with _building(engine) as client:
        current = _names(client, base_image, ())
        return tidy(client, keep=current or ())


@contextlib.contextmanager
def _building(engine: str | None) -> Iterator[docker.DockerClient]:
    """A client that is patient; what it raises becomes an `InfrastructureError`."""
    try:
        client = connect(engine, BUILD_S)
        try:
            yield client
        finally:
            client.close()
    except (DockerException, RequestException) as error:
        raise InfrastructureError(
            f"the Docker engine cannot build the sandbox's image: {_reason(error)}",
            hint="see 'docker info', or set 'sandbox.kind: process'",
        ) from error


def _ensure(
    client: docker.DockerClient, base_image: str | None, plugins: Sequence[Path], say: Callable[[str], None]
) -> str:
    base, base_id = _base(client, base_image, say)
    recipe, files = _text("deps.Dockerfile"), dict(_code(plugins))
    deps, worker = _tags(base_id, files)
    if _exists(client, worker):
        return worker
    if not _exists(client, deps):
        wheels = wheelhouse(_python_of(client, base), say)
        say(f"building the sandbox's image from {base}, once for this machine")
        with tempfile.TemporaryFile() as context:
            _pack(context, recipe, {f"wheels/{p.name}": p for p in sorted(wheels.glob("*.whl"))})
            _build(client, context, deps, {"BASE": base, "PINS": " ".join(pins())}, say, steps=True)
        remove_stages(client)
    with tempfile.TemporaryFile() as context:
        _pack(context, _text("code.Dockerfile"), files)
        _build(client, context, worker, {"DEPS": deps}, say)
    for tag in remove_superseded(client, worker, deps):
        say(f"removed the image {tag}, which newer ones have replaced")
    return worker


def _tags(base_id: str, files: dict[str, Path]) -> tuple[str, str]:
    """The tags of packages and worker that belong to a base and our sources."""
    deps = f"{DEPS}:{_digest(base_id, _text('deps.Dockerfile'), *pins(), *locked())}"
    return deps, f"{WORKER}:{_digest(deps, _text('code.Dockerfile'), *_flat(files))}"


def _names(
    client: docker.DockerClient, base_image: str | None, plugins: Sequence[Path]
) -> tuple[str, ...] | None:
    """The tags that an up-to-date image has here; None where there is no base to tell from."""
    for name in (base_image,) if base_image else (LOCAL_BASE, default_base()):
        if _exists(client, name):
            return _tags(str(client.images.get(name).id), dict(_code(plugins)))
    return None


def _base(client: docker.DockerClient, base_image: str | None, say: Callable[[str], None]) -> tuple[str, str]:
    """Name and id of the base image, pulled when it is not here."""
    for name in (base_image,) if base_image else (LOCAL_BASE, default_base()):
        if _exists(client, name):
            return name, str(client.images.get(name).id)
    name = base_image or default_base()
    say(f"pulling the base image {name}")
    try:
        return name, str(client.images.pull(name if ":" in name else f"{name}:latest").id)
    except (APIError, RequestException) as error:
        raise InfrastructureError(
            f"the base image {name!r} is not on this machine and cannot be pulled: {_reason(error)}",
            hint="make one with sandbox/image/debian-base.sh, or name another one by 'sandbox.base_image'",
        ) from error


def _python_of(client: docker.DockerClient, base: str) -> str:
    """The version of the base's Python, such as `3.11`."""
    code = "import sys, venv, ensurepip; print('%d.%d' % sys.version_info[:2])"
    container = client.containers.create(base, ["python3", "-c", code], network_mode="none")
    try:
        container.start()
        ended_well = container.wait()["StatusCode"] == 0
        version = container.logs(stdout=True, stderr=False).decode().strip()
    except APIError as error:
        raise InfrastructureError(
            f"the base image {base!r} has no usable python3: {_reason(error)}",
            hint="it needs Python 3.11 or newer with its venv module",
        ) from error
    finally:
        container.remove(force=True)
    if not ended_well:
        raise InfrastructureError(
            f"python3 of the base image {base!r} lacks venv or ensurepip",
            hint="on Debian: the package python3-venv",
        )
    if tuple(int(part) for part in version.split(".")) < (3, 11):
        raise InfrastructureError(
            f"the base image {base!r} has Python {version}", hint="it needs Python 3.11 or newer"
        )
    return version


def _code(plugins: Sequence[Path]) -> Iterator[tuple[str, Path]]:
    """What goes into the code layer, as path in the context and file here."""
    spaces = Path(cambrian.search_spaces.__file__).parent
    sandbox = Path(cambrian.sandbox.__file__).parent
    parts = [(spaces, spaces, "cambrian/search_spaces")]
    parts += [(sandbox, sandbox / name, "cambrian/sandbox") for name in ("worker", "examination")]
    for root, folder, name in parts:
        for path in sorted(folder.rglob("*")):
            if path.is_file() and "__pycache__" not in path.parts:
                yield f"code/{name}/{path.relative_to(root)}", path
    for file in ("__init__.py", "errors.py", "protocol.py", "reports.py"):
        yield f"code/cambrian/sandbox/{file}", sandbox / file
    for plugin in plugins:
        for path in sorted(plugin.rglob("*")):
            if path.is_file() and "__pycache__" not in path.parts:
                yield f"code/{path.relative_to(plugin)}", path


def _flat(files: dict[str, Path]) -> Iterator[str]:
    for name, path in sorted(files.items()):
        yield name
        yield hashlib.sha256(path.read_bytes()).hexdigest()


def _digest(*parts: str) -> str:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


def _text(name: str) -> str:
    return (resources.files("cambrian.sandbox.image") / name).read_text(encoding="utf-8")


def _exists(client: docker.DockerClient, name: str) -> bool:
    try:
        client.images.get(name)
    except ImageNotFound:
        return False
    return True


def _pack(context: IO[bytes], dockerfile: str, files: dict[str, Path]) -> None:
    """Write a build context as a tar; times and owners are left out, so that equal files cache alike."""
    with tarfile.open(fileobj=context, mode="w") as tar:
        for name, path in files.items():
            info = tarfile.TarInfo(name)
            info.size = path.stat().st_size
            with path.open("rb") as content:
                tar.addfile(info, content)
        body = dockerfile.encode()
        info = tarfile.TarInfo("Dockerfile")
        info.size = len(body)
        tar.addfile(info, io.BytesIO(body))
    context.seek(0)


def _build(
    client: docker.DockerClient,
    context: IO[bytes],
    tag: str,
    arguments: dict[str, str],
    say: Callable[[str], None],
    steps: bool = False,
) -> None:
    """Build `tag`; says each of its `steps`, and in any case what takes long."""
    lines = client.api.build(
        fileobj=context,
        custom_context=True,
        tag=tag,
        buildargs=arguments,
        network_mode="none",
        rm=True,
        forcerm=True,
        decode=True,
    )
    last = step = ""
    with beating(say, lambda: step or f"sending what {tag} is made of"):
        for line in lines:
            last = str(line.get("stream", "")).strip() or last
            words = last if len(last) <= STEP_CHARS else last[:STEP_CHARS] + "..."
            if last.startswith("Step ") and words != step:
                step = words
                if steps:
                    say(f"  {step}")
            if "error" in line:
                raise InfrastructureError(
                    f"the image {tag} cannot be built: {' '.join(str(line['error']).split())[:300]}",
                    hint=f"the builder's last words: {last[:200]}",
                )


def _reason(error: BaseException) -> str:
    explanation = getattr(error, "explanation", None)
    return " ".join(str(explanation or error).split())[:300] or type(error).__name__
