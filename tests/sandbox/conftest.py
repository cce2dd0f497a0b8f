"""The plugin that holds misbehaving candidates."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

pytest.register_assert_rewrite("tests.contracts.sandbox")

METADATA = "Metadata-Version: 2.1\nName: cambrian-hostile\nVersion: 1.0\n"
ENTRY_POINTS = "[cambrian.spaces]\nhostile = hostile:HostileSpace\n"


@pytest.fixture(scope="session")
def plugin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder laid out like an installed package that registers the space `hostile`."""
    folder = tmp_path_factory.mktemp("plugin")
    shutil.copy(Path(__file__).parent / "plugin" / "hostile.py", folder)
    about = folder / "cambrian_hostile-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text(METADATA)
    (about / "entry_points.txt").write_text(ENTRY_POINTS)
    return folder
