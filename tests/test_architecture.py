"""The house rules that a machine can check: who imports whom, sizes, names, and what may be tracked."""

from __future__ import annotations

import ast
import importlib
import os
import re
import shutil
import socket
import subprocess
import sys
from collections import Counter
from pathlib import Path

import grimp
import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("agents", "sandbox", "search_spaces", "prompts")
SOURCES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
TESTS = sorted((ROOT / "tests").rglob("*.py"))


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


# Who imports whom -------------------------------------------------------------------------------------------


def lint_imports(checkout: Path) -> subprocess.CompletedProcess[str]:
    """Check the imports of `checkout`; its `.typing` makes `cambrian.*` mean its own folders."""
    return subprocess.run(
        [Path(sys.executable).with_name("lint-imports"), "--no-cache", "--no-logo"],
        cwd=checkout,
        env={**os.environ, "PYTHONPATH": str(checkout / ".typing")},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A copy of our packages that a test may spoil."""
    for name in (*PACKAGES, ".typing"):
        shutil.copytree(
            ROOT / name, tmp_path / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__")
        )
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


def test_imports_point_one_way() -> None:
    done = lint_imports(ROOT)
    assert done.returncode == 0, done.stdout + done.stderr
    files = re.search(r"Analyzed (\d+) files", done.stdout)
    assert files is not None and int(files[1]) >= len(SOURCES), "the linter did not see all modules"


@pytest.mark.parametrize(
    ("module", "forbidden"),
    [
        ("search_spaces/registry.py", "cambrian.sandbox"),
        ("search_spaces/registry.py", "cambrian.agents.errors"),
        ("search_spaces/registry.py", "cambrian.prompts"),
        ("sandbox/protocol.py", "cambrian.agents.errors"),
        ("sandbox/protocol.py", "cambrian.prompts"),
    ],
)
def test_an_import_against_the_direction_is_found(checkout: Path, module: str, forbidden: str) -> None:
    with (checkout / module).open("a") as file:
        file.write(f"\n\ndef planted():\n    import {forbidden}\n")
    done = lint_imports(checkout)
    assert done.returncode == 1
    importer = "cambrian." + module.removesuffix(".py").replace("/", ".")
    assert f"{importer} -> {forbidden}" in done.stdout
    assert "BROKEN" in done.stdout


def test_the_worker_imports_only_what_its_image_carries() -> None:
    graph = grimp.build_graph(*(f"cambrian.{package}" for package in PACKAGES), cache_dir=None)
    needed = graph.find_upstream_modules("cambrian.sandbox.worker", as_package=True)
    carried = {
        "cambrian.sandbox",
        *(f"cambrian.sandbox.{name}" for name in ("errors", "protocol", "reports")),
    }
    assert "cambrian.sandbox.protocol" in needed
    folders = ("cambrian.search_spaces", "cambrian.sandbox.examination")
    assert {name for name in needed if not name.startswith(folders)} <= carried


@pytest.mark.parametrize("path", SOURCES + TESTS, ids=name_of)
def test_imports_are_absolute_and_by_full_name(path: Path) -> None:
    """A relative import reads as a bare name, and a bare name is a second copy of the module."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.ImportFrom):
            # hostile candidates are laid out as a package of another name, inside sandboxes only
            plugin = "sandbox/adversary/inside/" in path.as_posix()
            assert node.level == 0 or plugin, f"{name_of(path)}:{node.lineno} imports relatively"
            assert (node.module or "").split(".")[0] not in PACKAGES, f"{name_of(path)}:{node.lineno}"
        elif isinstance(node, ast.Import):
            assert not {alias.name.split(".")[0] for alias in node.names} & {*PACKAGES}, (
                f"{name_of(path)}:{node.lineno}"
            )


# Sizes and names --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", SOURCES + TESTS, ids=name_of)
def test_no_module_is_too_long(path: Path) -> None:
    lines = len(path.read_text("utf-8").splitlines())
    assert lines <= 500, f"{name_of(path)} has {lines} lines: divide it by what changes together"


def test_no_module_has_a_name_that_others_look_for() -> None:
    # MLflow and LangSmith import agents.run and agents.tracing where they can, for another package's.
    assert not {path.stem for path in (ROOT / "agents").iterdir()} & {"run", "tracing"}
    # cambrian is a namespace package: an __init__.py of it would hide all four of ours.
    assert not (ROOT / "__init__.py").exists() and not (ROOT / "cambrian").exists()


def exported_by_source(package: str, source: str) -> set[str]:
    """Public names that the `__init__` of `package` defines or takes from its own modules."""
    names: set[str] = set()
    for node in ast.parse(source).body:
        if isinstance(node, ast.ImportFrom) and f"{node.module}.".startswith(f"{package}."):
            names |= {alias.asname or alias.name for alias in node.names}
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Assign):
            names |= {target.id for target in node.targets if isinstance(target, ast.Name)}
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            names.add(node.target.id)
    return {name for name in names if not name.startswith("_")}


@pytest.mark.parametrize("path", [p for p in SOURCES if p.name == "__init__.py"], ids=name_of)
def test_what_a_package_exports_is_what_it_says(path: Path) -> None:
    name = "cambrian." + path.parent.relative_to(ROOT).as_posix().replace("/", ".")
    package = importlib.import_module(name)
    assert package.__file__ and Path(package.__file__).resolve() == path
    said: list[str] = getattr(package, "__all__", [])
    assert [name for name, count in Counter(said).items() if count > 1] == []
    assert [name for name in said if not hasattr(package, name)] == []
    if said:
        assert exported_by_source(name, path.read_text("utf-8")) <= {*said}


# What may be tracked ----------------------------------------------------------------------------------------


def tracked_files() -> list[Path]:
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if listed.returncode:
        pytest.skip("not a git checkout")
    return [path for name in listed.stdout.split("\0") if name and (path := ROOT / name).is_file()]


# Written in pieces, so that this file is not among its own findings.
FORBIDDEN_TEXT = {
    "a package registry's host": re.compile(
        r"\b(?:" + "|".join(("py" r"pi\.org", r"python" r"hosted\.org", "registry" r"\.npmjs")) + r")\b"
    ),
    "a path of one machine": re.compile(
        r"(?<![\w.])/" + r"(?:work/(?:main|shared)|opt/(?:wheels|pypi)|home/\w+/)"
    ),
    "a merge marker": re.compile(r"^(?:" + "<" * 7 + "|" + ">" * 7 + r")(?: |$)", re.MULTILINE),
    "a private key": re.compile("BEGIN [A-Z ]*" + "PRIVATE KEY"),
    "an API key": re.compile(r"\bsk-" + r"[A-Za-z0-9_-]{32,}"),
    "unfinished work": re.compile(r"\b(?:" + "TO" + "DO|FIX" + r"ME)\b"),
}
DATA_AND_WEIGHTS = {
    ".bin",
    ".ckpt",
    ".db",
    ".gguf",
    ".gz",
    ".npy",
    ".npz",
    ".onnx",
    ".parquet",
    ".pt",
    ".pth",
    ".tar",
}


def test_tracked_files_hold_nothing_forbidden() -> None:
    found = []
    for path in tracked_files():
        try:
            text = path.read_text("utf-8")
        except UnicodeDecodeError:
            continue
        found += [
            f"{name_of(path)}: {what}" for what, pattern in FORBIDDEN_TEXT.items() if pattern.search(text)
        ]
    assert found == []


@pytest.mark.parametrize(
    ("what", "text"),
    [
        ("a package registry's host", "files.python" + "hosted.org"),
        ("a path of one machine", "see /work" + "/main/agents"),
        ("a merge marker", "a\n" + "<" * 7 + " HEAD\n"),
        ("a private key", "-----BEGIN OPENSSH " + "PRIVATE KEY-----"),
        ("an API key", "key = sk-" + "proj0123456789abcdefghijklmnopqrstuvwxyz"),
        ("unfinished work", "# TO" + "DO: later"),
    ],
)
def test_forbidden_text_is_recognised(what: str, text: str) -> None:
    assert FORBIDDEN_TEXT[what].search(text)


def test_tracked_files_are_small_and_no_data() -> None:
    found = [
        f"{name_of(path)}: {path.stat().st_size} bytes"
        for path in tracked_files()
        if path.stat().st_size > 1_000_000 or path.suffix in {*DATA_AND_WEIGHTS, ".safetensors"}
    ]
    assert found == []


# How tests run ----------------------------------------------------------------------------------------------


def test_no_test_can_reach_another_machine() -> None:
    with socket.socket() as remote, pytest.raises(ConnectionRefusedError, match="this machine only"):
        remote.connect(("192.0.2.1", 443))
    with socket.create_server(("127.0.0.1", 0)) as server, socket.socket() as local:
        local.connect(server.getsockname())


def test_no_test_sees_the_keys_of_its_user() -> None:
    probe = "import os, sys; sys.path.insert(0, 'tests'); import conftest; print(sorted(os.environ))"
    done = subprocess.run(
        [sys.executable, "-c", probe],
        cwd=ROOT,
        env={**os.environ, "OPENAI_API_KEY": "x", "CAMBRIAN_MODEL": "x", "LANGSMITH_API_KEY": "x"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert not {"OPENAI_API_KEY", "CAMBRIAN_MODEL", "LANGSMITH_API_KEY"} & {*ast.literal_eval(done.stdout)}
