"""A user's file becomes a task: layouts, splits, scaling, and every way in which a file can be wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from cambrian.search_spaces import MissingDataError, UserError
from cambrian.search_spaces.tasks.npz import NpzTask

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (60, 9, 7), dtype=np.uint8)
LABELS = np.arange(60) % 3


def save(folder: Path, **arrays: Any) -> str:
    path = folder / "mine.npz"
    np.savez(path, **arrays)
    return str(path)


@pytest.mark.parametrize(
    ("x", "options", "shape"),
    [
        (IMAGES, {}, (1, 9, 7)),
        (IMAGES, {"layout": "HW"}, (1, 9, 7)),
        (IMAGES.reshape(60, 63), {"shape": [9, 7]}, (1, 9, 7)),
        (IMAGES.reshape(60, 63), {"layout": "flat", "shape": [3, 3, 7]}, (3, 3, 7)),
        (IMAGES.reshape(60, 63), {"layout": "vector"}, (63,)),
        (np.stack([IMAGES] * 3, axis=-1), {}, (3, 9, 7)),
        (np.stack([IMAGES] * 3, axis=1), {}, (3, 9, 7)),
        (np.stack([IMAGES] * 2, axis=1), {"layout": "chw"}, (2, 9, 7)),
        (np.stack([IMAGES] * 2, axis=-1), {"layout": "hwc"}, (2, 9, 7)),
    ],
)
def test_layouts(tmp_path: Path, x: NDArray[Any], options: dict[str, Any], shape: tuple[int, ...]) -> None:
    task = NpzTask(path=save(tmp_path, x_train=x, y_train=LABELS), **options)
    assert task.signature.input_shape == shape
    assert task.signature.n_outputs == 3
    assert task.load().x_train.shape[1:] == shape


def test_pixels_stay_where_they_belong(tmp_path: Path) -> None:
    """Channels last and channels first of the same images give the same arrays."""
    last = np.stack([IMAGES, IMAGES // 2, 255 - IMAGES], axis=-1)
    first = last.transpose(0, 3, 1, 2)
    (tmp_path / "b").mkdir()
    a = NpzTask(path=save(tmp_path, x_train=last, y_train=LABELS)).load()
    b = NpzTask(path=save(tmp_path / "b", x_train=first, y_train=LABELS)).load()
    assert np.array_equal(a.x_train, b.x_train)


def test_inputs_are_standardised_by_the_training_split(tmp_path: Path) -> None:
    x = RNG.normal((10.0, -3.0), (4.0, 0.1), (300, 8, 8, 2)).transpose(0, 3, 1, 2)
    path = save(
        tmp_path, x_train=x, y_train=np.arange(300) % 2, x_test=x[:20] + 100, y_test=np.arange(20) % 2
    )
    splits = NpzTask(path=path, layout="CHW").load()
    assert np.allclose(splits.x_train.mean((0, 2, 3)), 0, atol=1e-4)
    assert np.allclose(splits.x_train.std((0, 2, 3)), 1, atol=1e-4)
    assert splits.x_test.mean() > 10


def test_a_constant_channel_does_no_harm(tmp_path: Path) -> None:
    x = np.stack([IMAGES, np.full_like(IMAGES, 7), IMAGES], axis=1)
    assert np.isfinite(NpzTask(path=save(tmp_path, x_train=x, y_train=LABELS)).load().x_train).all()


def test_labels_of_any_values_become_classes(tmp_path: Path) -> None:
    names = np.array([-5, 40, 1000])
    splits = NpzTask(path=save(tmp_path, x_train=IMAGES, y_train=names[LABELS])).load()
    assert sorted(np.unique(splits.y_train)) == [0, 1, 2]


def test_missing_splits_are_cut_from_train(tmp_path: Path) -> None:
    path = save(tmp_path, x_train=IMAGES, y_train=LABELS)
    splits = NpzTask(path=path, val_fraction=0.2, test_fraction=0.1).load()
    assert [len(y) for y in (splits.y_train, splits.y_val, splits.y_test)] == [42, 12, 6]
    assert np.bincount(splits.y_val).tolist() == [4, 4, 4]


def test_own_splits_are_kept(tmp_path: Path) -> None:
    path = save(
        tmp_path, x_train=IMAGES, y_train=LABELS,
        x_val=IMAGES[:9], y_val=LABELS[:9], x_test=IMAGES[:6], y_test=LABELS[:6],
    )  # fmt: skip
    splits = NpzTask(path=path).load()
    assert [len(y) for y in (splits.y_train, splits.y_val, splits.y_test)] == [60, 9, 6]
    assert np.array_equal(splits.y_val, LABELS[:9])


def test_the_metric_can_be_chosen(tmp_path: Path) -> None:
    path = save(tmp_path, x_train=IMAGES, y_train=LABELS)
    assert NpzTask(path=path, metric="macro_f1").maximize
    assert not NpzTask(path=path, metric="nll").maximize
    with pytest.raises(UserError, match="did you mean accuracy"):
        NpzTask(path=path, metric="acuracy")


def test_the_title_names_the_task(tmp_path: Path) -> None:
    path = save(tmp_path, x_train=IMAGES, y_train=LABELS)
    assert NpzTask(path=path).name == "mine"
    assert NpzTask(path=path, title="cells").name == "cells"


def test_other_data_or_splits_are_another_version(tmp_path: Path) -> None:
    path = save(tmp_path, x_train=IMAGES, y_train=LABELS)
    versions = {NpzTask(path=path).version, NpzTask(path=path, seed=1).version}
    save(tmp_path, x_train=IMAGES // 2, y_train=LABELS)
    versions.add(NpzTask(path=path).version)
    assert len(versions) == 3


BAD_IMAGES = IMAGES.astype(np.float32)
BAD_IMAGES[3, 2, 1] = np.nan
GREEDY = {"val_fraction": 0.49, "test_fraction": 0.49}


@pytest.mark.parametrize(
    ("arrays", "options", "words"),
    [
        ({"y_train": LABELS}, {}, "no array x_train"),
        ({"x_train": IMAGES}, {}, "no array y_train"),
        ({"x_train": IMAGES, "y_train": LABELS, "x_val": IMAGES}, {}, "no array y_val"),
        ({"x_train": IMAGES, "y_train": LABELS[1:]}, {}, "x_train has 60 samples, y_train 59"),
        ({"x_train": IMAGES[:0], "y_train": LABELS[:0]}, {}, "x_train has 0 samples"),
        ({"x_train": IMAGES, "y_train": LABELS / 2}, {}, "y_train .* not whole numbers"),
        ({"x_train": IMAGES, "y_train": np.eye(3)[LABELS]}, {}, "y_train has shape"),
        ({"x_train": IMAGES, "y_train": LABELS.astype(str)}, {}, "y_train .* not whole numbers"),
        ({"x_train": IMAGES, "y_train": LABELS.astype(object)}, {}, "y_train cannot be read"),
        ({"x_train": IMAGES, "y_train": LABELS * 0}, {}, "y_train has 1 class"),
        ({"x_train": IMAGES, "y_train": np.r_[9, 9, LABELS[2:]]}, GREEDY, "class . has too few samples"),
        ({"x_train": BAD_IMAGES, "y_train": LABELS}, {}, "x_train holds values that are not finite"),
        ({"x_train": IMAGES.astype(complex), "y_train": LABELS}, {}, "x_train .* not numbers"),
        ({"x_train": LABELS, "y_train": LABELS}, {}, "x_train has shape"),
        ({"x_train": IMAGES.reshape(60, 63), "y_train": LABELS}, {}, "does not tell how images lie"),
        ({"x_train": np.stack([IMAGES] * 2, 1), "y_train": LABELS}, {}, "does not tell how images lie"),
        ({"x_train": IMAGES, "y_train": LABELS}, {"layout": "HWC"}, "layout HWC means 4 axes"),
        ({"x_train": IMAGES, "y_train": LABELS}, {"layout": "WH"}, "unknown layout 'WH'"),
        ({"x_train": IMAGES, "y_train": LABELS}, {"shape": [9, 7]}, "shape is for flat inputs"),
        ({"x_train": IMAGES.reshape(60, 63), "y_train": LABELS}, {"shape": [8, 8]}, "63 values a sample"),
        (
            {"x_train": IMAGES.reshape(60, 63), "y_train": LABELS},
            {"shape": [63]},
            "not the shape of an image",
        ),
        ({"x_train": IMAGES, "y_train": LABELS}, {"val_fraction": 0}, "val_fraction: 0"),
        (
            {"x_train": IMAGES, "y_train": LABELS},
            {"val_fraction": 0.6, "test_fraction": 0.4},
            "nothing to train",
        ),
        ({"x_train": IMAGES, "y_train": LABELS}, {"seed": "a"}, "seed: 'a'"),
        (
            {"x_train": IMAGES, "y_train": LABELS, "x_val": IMAGES[:, 1:], "y_val": LABELS},
            {},
            "x_val has samples of shape",
        ),
        (
            {"x_train": IMAGES, "y_train": LABELS, "x_test": IMAGES / 255, "y_test": LABELS},
            {},
            "x_test has type float64",
        ),
        (
            {"x_train": IMAGES, "y_train": LABELS, "x_test": IMAGES, "y_test": LABELS + 1},
            {},
            "y_test holds 3, a class that y_train lacks",
        ),
    ],
)
def test_what_is_wrong_is_named(
    tmp_path: Path, arrays: dict[str, Any], options: dict[str, Any], words: str
) -> None:
    path = save(tmp_path, **arrays)
    with pytest.raises(UserError, match=words) as caught:
        NpzTask(path=path, **options)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [None, b"", b"no zip at all", b"PK\x03\x04 cut"])
def test_unreadable_files_are_missing_data(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "broken.npz"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(MissingDataError, match=r"broken\.npz"):
        NpzTask(path=path)


def test_a_single_array_is_no_task(tmp_path: Path) -> None:
    np.save(tmp_path / "one.npy", IMAGES)
    with pytest.raises(MissingDataError, match="one array"):
        NpzTask(path=tmp_path / "one.npy")


def test_a_path_is_needed() -> None:
    with pytest.raises(UserError, match="path: 3"):
        NpzTask(path=3)  # type: ignore[arg-type]
