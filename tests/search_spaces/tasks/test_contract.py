"""Every registered task passes the contract."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import pytest

from cambrian.search_spaces import TASKS
from cambrian.search_spaces.tasks.digits import Digits
from cambrian.search_spaces.tasks.fashion_mnist import FashionMnist
from cambrian.search_spaces.tasks.npz import NpzTask
from tests.contracts.task import Make, TaskContract


class TestDigits(TaskContract):
    @pytest.fixture(scope="class")
    def make(self) -> Make:
        return Digits


class TestFashionMnistOfficialFiles(TaskContract):
    @pytest.fixture(scope="class")
    def make(self, official_folder: Path) -> Make:
        return partial(FashionMnist, data=str(official_folder))


class TestFashionMnistSmallFile(TaskContract):
    @pytest.fixture(scope="class")
    def make(self, small_folder: Path) -> Make:
        return partial(FashionMnist, data=small_folder)


class TestFashionMnistRealData(TaskContract):
    @pytest.fixture(scope="class")
    def make(self, real_folder: Path) -> Make:
        return partial(FashionMnist, data=real_folder)


class TestNpz(TaskContract):
    @pytest.fixture(scope="class")
    def make(self, tmp_path_factory: pytest.TempPathFactory) -> Make:
        rng = np.random.default_rng(0)
        path = tmp_path_factory.mktemp("npz") / "cells.npz"
        np.savez(
            path,
            x_train=rng.normal(5, 3, (200, 12, 10, 3)).astype(np.float32),
            y_train=np.arange(200) % 4,
        )
        return partial(NpzTask, path=str(path))


def test_every_registered_task_is_tested_here() -> None:
    assert [TASKS.get(name) for name in TASKS.names()] == [Digits, FashionMnist, NpzTask]
