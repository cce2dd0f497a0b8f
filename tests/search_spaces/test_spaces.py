"""Every registered space passes the contract."""

from __future__ import annotations

import pytest

from cambrian.search_spaces import SPACES, Space
from tests.contracts.space import SpaceContract


class TestRegisteredSpaces(SpaceContract):
    @pytest.fixture(scope="class", params=SPACES.names())
    def space(self, request: pytest.FixtureRequest) -> Space:
        return SPACES.create(request.param)
