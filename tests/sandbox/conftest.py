"""The plugin that holds misbehaving candidates, and the image with it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from cambrian.sandbox import InfrastructureError
from cambrian.sandbox.adversary.plugin import lay_out
from cambrian.sandbox.image.build import ensure_image

pytest.register_assert_rewrite("tests.contracts.sandbox", "tests.contracts.open_sandbox")


@pytest.fixture(scope="session")
def plugin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder laid out like an installed package that registers the space `hostile`."""
    return lay_out(tmp_path_factory.mktemp("plugin"))


@pytest.fixture(scope="session")
def image(plugin: Path) -> str:
    """The worker's image with the plugin in it; built here when it is missing."""
    try:
        return ensure_image(None, [plugin])
    except InfrastructureError as error:
        if os.environ.get("CAMBRIAN_REQUIRE_DOCKER") == "1":
            raise
        pytest.skip(str(error))
