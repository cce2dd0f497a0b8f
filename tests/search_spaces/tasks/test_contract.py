"""Every registered task passes the contract."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import pytest

from cambrian.search_spaces import TASKS
from cambrian.search_spaces.tasks.cora import FILE as CORA
from cambrian.search_spaces.tasks.cora import Cora
from cambrian.search_spaces.tasks.digits import Digits
from cambrian.search_spaces.tasks.fashion_mnist import FashionMnist
from cambrian.search_spaces.tasks.functions import FUNCTIONS, Functions
from cambrian.search_spaces.tasks.nasbench201 import ACCURACY, EDGES, HARDWARE, NasBench201
from cambrian.search_spaces.tasks.npz import NpzTask
from cambrian.search_spaces.tasks.shakespeare import FILES, Shakespeare
from cambrian.search_spaces.tasks.tables import BreastCancer, Diabetes, Wine
from tests.contracts.task import Make, TabularContract, TaskContract
from tests.search_spaces.conftest import data_folder


class TestDigits(TaskContract):
    @pytest.fixture(scope="class", params=["image", "sequence", "vector"])
    def make(self, request: pytest.FixtureRequest) -> Make:
        return partial(Digits, view=request.param)


class TestFashionMnistOfficialFiles(TaskContract):
    @pytest.fixture(scope="class")
    def make(self, official_folder: Path) -> Make:
        return partial(FashionMnist, data=str(official_folder))


class TestFashionMnistSmallFile(TaskContract):
    @pytest.fixture(scope="class", params=["image", "sequence"])
    def make(self, request: pytest.FixtureRequest, small_folder: Path) -> Make:
        return partial(FashionMnist, data=small_folder, view=request.param)


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


class TestTables(TaskContract):
    @pytest.fixture(scope="class", params=[BreastCancer, Diabetes, Wine])
    def make(self, request: pytest.FixtureRequest) -> Make:
        made: Make = request.param
        return made


class TestFunctions(TaskContract):
    @pytest.fixture(scope="class", params=FUNCTIONS)
    def make(self, request: pytest.FixtureRequest) -> Make:
        return partial(Functions, function=request.param, noise=0.1)


class TestCora(TaskContract):
    @pytest.fixture(scope="class")
    def make(self) -> Make:
        return partial(Cora, data=data_folder(CORA))


class TestShakespeare(TaskContract):
    all_classes = False  # the text has one dollar sign

    @pytest.fixture(scope="class")
    def make(self) -> Make:
        return partial(Shakespeare, data=data_folder(FILES[0]))


class TestNasBench201(TabularContract):
    members = (
        dict.fromkeys(EDGES, "nor_conv_3x3"),
        {"cell": dict.fromkeys(EDGES, "skip_connect")},
    )
    strangers = (
        dict.fromkeys(EDGES, "conv_7x7"),
        dict.fromkeys(EDGES[1:], "none"),
        {"cell": "none"},
        {},
    )

    @pytest.fixture(scope="class", params=["cifar10", "cifar100"])
    def make(self, request: pytest.FixtureRequest) -> Make:
        return partial(NasBench201, data=data_folder(ACCURACY, HARDWARE), dataset=request.param)


def test_every_registered_task_is_tested_here() -> None:
    tested = {
        BreastCancer,
        Cora,
        Diabetes,
        Digits,
        FashionMnist,
        Functions,
        NasBench201,
        NpzTask,
        Shakespeare,
    }
    assert {TASKS.get(name) for name in TASKS.names()} == tested | {Wine}
