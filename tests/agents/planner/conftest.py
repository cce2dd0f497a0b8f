from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from cambrian.agents.planner.exchange import ExchangeLog
from tests.agents.planner.server import ModelServer, model_server


@pytest.fixture
def exchanges(tmp_path: Path) -> ExchangeLog:
    return ExchangeLog(tmp_path)


@pytest.fixture
def server() -> Iterator[ModelServer]:
    with model_server() as world:
        yield world
