from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cambrian.agents.runfile import RunConfig, parse_config
from cambrian.sandbox import SANDBOXES
from tests.support.instant import InstantSandbox


@pytest.fixture
def instant(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[InstantSandbox]]:
    """The sandbox kind `instant`, and all that were made of it."""
    made: list[InstantSandbox] = []

    def factory(**kwargs: Any) -> InstantSandbox:
        made.append(InstantSandbox(**kwargs))
        return made[-1]

    monkeypatch.setitem(SANDBOXES._loaded, "instant", factory)
    yield made


@pytest.fixture
def config(instant: list[InstantSandbox]) -> Callable[..., RunConfig]:
    """A run of the instant sandbox on digits; keyword arguments replace whole sections."""

    def make(**changes: Any) -> RunConfig:
        data: dict[str, Any] = {
            "name": "test",
            "space": "convnet",
            "task": {"name": "digits", "rungs": [{"epochs": 1}]},
            "slots": 2,
            "cost": "params",
            "budget": {"evaluations": 12},
            "warmup": 4,
            "arms": {"random": 0.3, "mutation": 0.5, "crossover": 0.2},
            "sandbox": {"kind": "instant"},
            "mlflow": {"enabled": False},
        }
        return parse_config({**data, **changes}, "test")

    return make


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    return tmp_path / "runs"
