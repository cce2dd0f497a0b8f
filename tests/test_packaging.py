"""What gets installed: the list of packages, the pins, the wheel, and what starting the program imports."""

from __future__ import annotations

import ast
import json
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("agents", "sandbox", "search_spaces", "prompts")
PYPROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))


def sources() -> list[Path]:
    """Every file of ours that an installation must have, relative to the root."""
    files = [path for package in PACKAGES for path in (ROOT / package).rglob("*") if path.is_file()]
    return sorted(path.relative_to(ROOT) for path in files if "__pycache__" not in path.parts)


# Lists that go stale ----------------------------------------------------------------------------------------


def test_every_package_is_listed() -> None:
    folders = {path.parent for path in sources() if path.name == "__init__.py"}
    packages = {"cambrian." + path.as_posix().replace("/", ".") for path in folders}
    assert packages == {*PYPROJECT["tool"]["setuptools"]["packages"]}
    assert {path.parent for path in sources() if path.suffix == ".py"} == folders


def brought_by(requirements: Iterable[str]) -> set[str]:
    """Names of all distributions that `requirements` bring on this machine, themselves included."""
    found: set[tuple[str, str]] = set()
    waiting = [(Requirement(line), "") for line in requirements]
    while waiting:
        requirement, extra = waiting.pop()
        if requirement.marker and not requirement.marker.evaluate({"extra": extra}):
            continue
        name = canonicalize_name(requirement.name)
        for wanted in {"", *requirement.extras} - {e for n, e in found if n == name}:
            found.add((name, wanted))
            waiting += [(Requirement(line), wanted) for line in metadata.requires(name) or []]
    return {name for name, _ in found}


def test_every_dependency_is_pinned() -> None:
    lines = (ROOT / "constraints.txt").read_text("utf-8").splitlines()
    pins = [Requirement(line) for line in lines if line and not line.startswith("#")]
    assert all(re.fullmatch(r"==[\w.]+", str(pin.specifier)) and pin.marker is None for pin in pins)
    names = [canonicalize_name(pin.name) for pin in pins]
    assert names == sorted(set(names))
    project = PYPROJECT["project"]
    extras = project["optional-dependencies"]
    # not asked what it brings, which is nothing: only those who want it have it installed
    optional = {canonicalize_name(Requirement(line).name) for line in extras["local-llm"]}
    # what CUDA builds of torch bring is pinned by themselves
    needed = optional | {
        name
        for name in brought_by(project["dependencies"] + extras["dev"])
        if not name.startswith(("cuda-", "nvidia-")) and name != "triton"
    }
    assert needed - {*names} == set(), "constraints.txt lacks these"
    assert {*names} - needed == set(), "nothing brings these any more"


def test_every_import_is_declared() -> None:
    """A package that only comes along with another may be gone with the other's next release."""
    declared = {canonicalize_name(Requirement(line).name) for line in PYPROJECT["project"]["dependencies"]}
    owners = metadata.packages_distributions()
    undeclared = set()
    for path in sources():
        if path.suffix != ".py":
            continue
        for node in ast.walk(ast.parse((ROOT / path).read_text("utf-8"))):
            if isinstance(node, ast.Import):
                modules = {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                modules = {node.module.split(".")[0]}
            else:
                continue
            for module in modules - sys.stdlib_module_names - {"cambrian"}:
                if not {canonicalize_name(owner) for owner in owners.get(module, [])} & declared:
                    undeclared.add(f"{path}: {module}")
    assert undeclared == set()


# The wheel --------------------------------------------------------------------------------------------------


def pip(command: str, *arguments: str | Path) -> None:
    pip_command = [sys.executable, "-m", "pip", command, "--quiet", "--no-deps", "--no-index", *arguments]
    done = subprocess.run(pip_command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel built from a copy, so that no old build output can get into it."""
    source = tmp_path_factory.mktemp("source")
    for name in PACKAGES:
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    target = tmp_path_factory.mktemp("wheel")
    pip("wheel", "--no-build-isolation", "--wheel-dir", target, source)
    (built,) = target.glob("cambrian-*.whl")
    return built


def test_the_wheel_has_every_file_and_no_other(wheel: Path) -> None:
    packed = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    assert packed == {f"cambrian/{path.as_posix()}" for path in sources()}


def test_the_wheel_has_licence_version_and_command(wheel: Path) -> None:
    archive = zipfile.ZipFile(wheel)
    (info,) = {name.split("/")[0] for name in archive.namelist() if ".dist-info/" in name}
    assert archive.read(f"{info}/licenses/LICENSE") == (ROOT / "LICENSE").read_bytes()
    assert "cambrian = cambrian.agents.cli:main" in archive.read(f"{info}/entry_points.txt").decode()
    assert f"Version: {PYPROJECT['project']['version']}\n" in archive.read(f"{info}/METADATA").decode()


IMPORT_ALL = """
import importlib, json, sys
sys.path.insert(0, sys.argv[1])
places = {}
for name in json.loads(sys.argv[2]):
    places[name] = importlib.import_module(name).__file__
print(json.dumps(places))
"""


def test_an_installed_wheel_can_import_all_its_modules(wheel: Path, tmp_path: Path) -> None:
    target = tmp_path / "installed"
    pip("install", "--target", target, wheel)
    modules = [
        "cambrian." + ".".join(path.with_suffix("").parts).removesuffix(".__init__")
        for path in sources()
        if path.suffix == ".py" and path.name != "__main__.py"
    ]
    done = subprocess.run(
        [sys.executable, "-I", "-c", IMPORT_ALL, target, json.dumps(modules)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    places = json.loads(done.stdout.splitlines()[-1])
    assert [name for name, place in places.items() if not Path(place).is_relative_to(target)] == []


# Starting ---------------------------------------------------------------------------------------------------

HELP = """
import sys
from cambrian.agents.cli import main
sys.argv = ["cambrian", *sys.argv[1:]]
try:
    main()
except SystemExit as end:
    assert not end.code, end.code
print(*sorted(name for name in sys.modules if "." not in name))
"""
HEAVY = {"docker", "langgraph", "matplotlib", "mlflow", "openai", "pandas", "scipy", "sklearn", "torch"}


@pytest.mark.parametrize("arguments", [["--help"], ["run", "--help"]], ids=" ".join)
def test_help_imports_nothing_heavy(arguments: list[str], tmp_path: Path) -> None:
    """`cambrian --help` has half a second; torch alone takes two."""
    done = subprocess.run(
        [sys.executable, "-P", "-c", HELP, *arguments],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "Usage" in done.stdout
    assert HEAVY & {*done.stdout.splitlines()[-1].split()} == set()


def test_heavy_packages_are_named_as_they_are_imported() -> None:
    """Guards the test above: a misspelt name in its list could never be found."""
    assert [name for name in HEAVY if name not in metadata.packages_distributions()] == []
