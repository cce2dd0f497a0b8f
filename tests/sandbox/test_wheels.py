"""The wheelhouse that images are built from."""

from __future__ import annotations

import os
import sys
from importlib import metadata
from pathlib import Path

import pytest

from cambrian.sandbox import InfrastructureError
from cambrian.sandbox.image.wheels import PACKAGES, locked, pins, wheelhouse


def test_pins_are_the_installed_versions_without_local_parts() -> None:
    import torch

    assert pins()[0] == f"torch=={torch.__version__.partition('+')[0]}"
    assert [pin.partition("==")[0] for pin in pins()] == list(PACKAGES)
    assert not any("+" in pin for pin in pins())


def test_what_is_required_indirectly_is_locked_too() -> None:
    names = {pin.partition("==")[0] for pin in locked()}
    assert {*PACKAGES, "sympy", "mpmath", "filelock", "jinja2", "markupsafe", "pydantic-core"} <= names
    assert "pytest" not in names  # what only extras bring
    assert f"mpmath=={metadata.version('mpmath')}" in locked()


def test_failure_says_where_wheels_can_be_put_by_hand_and_they_are_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.environ["XDG_CACHE_HOME"] = str(tmp_path)
    monkeypatch.setattr(sys, "executable", "/bin/false")
    lines: list[str] = []
    with pytest.raises(InfrastructureError, match="cannot download wheels") as caught:
        wheelhouse("3.11", lines.append)
    assert len(lines) == 1
    assert list((tmp_path / "cambrian").iterdir()) == []  # nothing half done
    folder = Path(caught.value.hint.rpartition(" into ")[2])
    folder.mkdir()
    (folder / "torch-0-py3-none-any.whl").write_bytes(b"")
    assert wheelhouse("3.11", lines.append) == folder
    with pytest.raises(InfrastructureError) as other:
        wheelhouse("3.12", lines.append)
    assert str(folder) not in other.value.hint
