"""Where Fashion-MNIST is looked for, what is read, and what is said when it is not there."""

from __future__ import annotations

import gzip
import shutil
from pathlib import Path

import numpy as np
import pytest

from cambrian.search_spaces import MissingDataError, UserError
from cambrian.search_spaces.tasks import fashion_mnist
from cambrian.search_spaces.tasks.fashion_mnist import FashionMnist
from tests.search_spaces.conftest import clothing, write_idx


def test_the_official_test_images_are_the_test_split(official_folder: Path) -> None:
    splits = FashionMnist(data=official_folder).load()
    images, labels = clothing(100, seed=100)
    assert np.array_equal(splits.y_test, labels)
    restored = np.rint((splits.x_test[:, 0] * 0.3530 + 0.2860) * 255)
    assert np.array_equal(restored, images)


def test_validation_is_a_stratified_part_of_train(official_folder: Path) -> None:
    splits = FashionMnist(data=official_folder).load()
    assert (len(splits.y_train), len(splits.y_val)) == (340, 60)
    assert np.bincount(splits.y_val).tolist() == [6] * 10


def test_the_environment_names_the_folder(official_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CAMBRIAN_DATA", str(official_folder))
    assert len(FashionMnist().load().y_test) == 100


def test_the_working_folder_is_looked_into(
    small_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CAMBRIAN_DATA", raising=False)
    monkeypatch.chdir(tmp_path)
    shutil.copytree(small_folder, tmp_path / "data")
    assert FashionMnist().load().x_train.shape == (340, 1, 28, 28)


def test_an_empty_place_is_passed_over(
    small_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "empty").mkdir()
    monkeypatch.setenv("CAMBRIAN_DATA", str(tmp_path / "empty"))
    monkeypatch.chdir(tmp_path)
    shutil.copytree(small_folder, tmp_path / "data")
    assert len(FashionMnist().load().y_test) == 100


def test_missing_data_are_named_with_a_way_out(tmp_path: Path) -> None:
    task = FashionMnist(data=tmp_path / "nowhere")
    with pytest.raises(MissingDataError) as caught:
        task.load()
    assert "nowhere" in caught.value.message
    for words in ("CAMBRIAN_DATA", "fashion_mnist_12k.npz", "dataset-fashion-mnist"):
        assert words in caught.value.hint


def test_three_of_four_files_are_not_enough(official_folder: Path, tmp_path: Path) -> None:
    shutil.copytree(official_folder, tmp_path / "some")
    (tmp_path / "some" / "t10k-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(MissingDataError):
        FashionMnist(data=tmp_path / "some").load()


@pytest.mark.parametrize("damage", ["not gzip", "cut", "other content", "wrong labels", "wrong shape"])
def test_damaged_files_are_named(official_folder: Path, tmp_path: Path, damage: str) -> None:
    shutil.copytree(official_folder, tmp_path / "bad")
    images = tmp_path / "bad" / "train-images-idx3-ubyte.gz"
    labels = tmp_path / "bad" / "train-labels-idx1-ubyte.gz"
    if damage == "not gzip":
        images.write_bytes(b"hello")
    elif damage == "cut":
        images.write_bytes(images.read_bytes()[:1000])
    elif damage == "other content":
        images.write_bytes(gzip.compress(b"\x00\x00\x0d\x03 and so on"))
    elif damage == "wrong labels":
        write_idx(labels, np.zeros(400, dtype=np.uint8))
    else:
        write_idx(images, np.zeros((400, 20, 20), dtype=np.uint8))
    with pytest.raises(MissingDataError, match="train") as caught:
        FashionMnist(data=tmp_path / "bad").load()
    assert "\n" not in caught.value.message


def test_an_npz_without_an_array_is_named(tmp_path: Path) -> None:
    np.savez(tmp_path / fashion_mnist.SMALL, x_train=np.zeros((1, 28, 28), dtype=np.uint8))
    with pytest.raises(MissingDataError, match=r"fashion_mnist_12k.npz cannot be read: has no array y_train"):
        FashionMnist(data=tmp_path).load()


def test_small_and_official_data_are_never_compared(official_folder: Path, small_folder: Path) -> None:
    assert FashionMnist(data=official_folder).version != FashionMnist(data=small_folder).version


def test_data_that_is_no_path_is_refused() -> None:
    with pytest.raises(UserError, match="data: 3"):
        FashionMnist(data=3)  # type: ignore[arg-type]


def test_the_real_images(real_folder: Path) -> None:
    splits = FashionMnist(data=real_folder).load()
    assert (len(splits.y_train), len(splits.y_val), len(splits.y_test)) == (8500, 1500, 2000)
    assert np.bincount(splits.y_val).tolist() == [150] * 10
    assert abs(splits.x_train.mean()) < 0.02 and abs(splits.x_train.std() - 1) < 0.02


def test_the_files_of_debians_package(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    if not fashion_mnist.DEBIAN.is_dir():
        pytest.skip("dataset-fashion-mnist is not installed")
    monkeypatch.delenv("CAMBRIAN_DATA", raising=False)
    monkeypatch.chdir(tmp_path)
    splits = FashionMnist().load()
    assert (len(splits.y_train), len(splits.y_val), len(splits.y_test)) == (55_000, 5_000, 10_000)
    assert np.bincount(splits.y_test).tolist() == [1000] * 10
    assert abs(splits.x_train.mean()) < 0.01 and abs(splits.x_train.std() - 1) < 0.01
