"""The plugin that holds misbehaving candidates."""

from __future__ import annotations

from pathlib import Path

import pytest

from cambrian.sandbox.adversary.plugin import lay_out

pytest.register_assert_rewrite("tests.contracts.sandbox", "tests.contracts.open_sandbox")


@pytest.fixture(scope="session")
def plugin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder laid out like an installed package that registers the space `hostile`."""
    return lay_out(tmp_path_factory.mktemp("plugin"))
