"""The wheelhouse: the packages of a worker at the host's own versions, downloaded once."""

from __future__ import annotations

import hashlib
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

from cambrian.sandbox.errors import InfrastructureError
from cambrian.sandbox.image.progress import beating

PACKAGES = ("torch", "numpy", "pydantic", "pyyaml", "safetensors")
"""All that the worker imports beside our own code."""


def pins() -> tuple[str, ...]:
    """The installed versions as requirements, without local parts: `torch==2.13.0` stands for `+cpu` too."""
    return tuple(f"{name}=={metadata.version(name).partition('+')[0]}" for name in PACKAGES)


def locked() -> tuple[str, ...]:
    """Pins of `PACKAGES` and of all that they require, by the versions installed here.

    What an environment marker excludes here is among them where it is installed all the same: as constraints
    they bind whatever the image's Python asks for and bring nothing by themselves.
    """
    found: dict[str, str] = {}
    waiting = list(PACKAGES)
    while waiting:
        name = re.sub(r"[-_.]+", "-", waiting.pop()).lower()
        if name in found:
            continue
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
        for line in metadata.requires(name) or []:
            requirement, _, marker = line.partition(";")
            if "extra" not in marker and (match := re.match(r"[\w.-]+", requirement)):
                waiting.append(match.group())
    return tuple(f"{name}=={version}" for name, version in sorted(found.items()))


def cache_folder() -> Path:
    """Where downloads of all runs are kept."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "cambrian"


def wheelhouse(python: str, progress: Callable[[str], None]) -> Path:
    """A folder with wheels of `pins()` and all that they require, for Python `python` (`"3.11"`).

    Raises:
        InfrastructureError: pip is missing or cannot find the wheels.
    """
    wanted = "\n".join((*locked(), python, platform.machine()))
    digest = hashlib.sha256(wanted.encode()).hexdigest()[:12]
    folder = cache_folder() / f"wheelhouse-{digest}"
    if folder.is_dir() and any(folder.glob("torch-*.whl")):
        return folder
    progress(f"downloading wheels for the sandbox's image, once: {', '.join(pins())}")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        part = Path(tempfile.mkdtemp(prefix="wheelhouse-", dir=folder.parent))
    except OSError as error:
        raise InfrastructureError(
            f"cannot write to the cache {folder.parent}: {error.strerror}", hint="set XDG_CACHE_HOME"
        ) from error
    try:
        problem = ""
        for requirements in dict.fromkeys((_exact(), pins())):
            with beating(progress, lambda: f"downloaded {_size_mb(part)} MB"):
                problem = _download(requirements, python, part)
            if not problem:
                shutil.rmtree(folder, ignore_errors=True)
                part.rename(folder)
                return folder
    finally:
        shutil.rmtree(part, ignore_errors=True)
    raise InfrastructureError(
        f"cannot download wheels for the sandbox's image: {problem}",
        hint=f"put wheels of {', '.join(pins())} and their requirements into {folder}",
    )


def _exact() -> tuple[str, ...]:
    """The installed versions with local parts: tried first, or pip might bring another build of torch."""
    return tuple(f"{name}=={metadata.version(name)}" for name in PACKAGES)


def _download(requirements: tuple[str, ...], python: str, folder: Path) -> str:
    """Download into `folder`; the last line of pip's complaint when it failed."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--only-binary=:all:"]
    if python != f"{sys.version_info.major}.{sys.version_info.minor}":
        command += ["--python-version", python]
    pinned = {pin.partition("==")[0] for pin in requirements}
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as constraints:
        # a package that is named itself is bound by that: with or without its local part
        constraints.writelines(f"{pin}\n" for pin in locked() if pin.partition("==")[0] not in pinned)
        constraints.flush()
        command += ["--dest", str(folder), "--constraint", constraints.name, *requirements]
        done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False)
    if done.returncode == 0:
        return ""
    lines = [line for line in done.stderr.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("ERROR:")]
    return (errors or lines or ["pip failed"])[-1].removeprefix("ERROR: ")[:300]


def _size_mb(folder: Path) -> int:
    """Size of all files below, those that pip has not finished too."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) >> 20
