"""What tasks share: versions, views, places of data."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from cambrian.search_spaces import TASKS, UserError
from cambrian.search_spaces.tasks.base import standardised
from cambrian.search_spaces.tasks.digits import Digits
from cambrian.search_spaces.tasks.files import find, places
from cambrian.search_spaces.tasks.tables import BreastCancer, Wine


def test_versions_of_earlier_runs_stay() -> None:
    """An evaluation is keyed by them: fields that recipes got later count only where they are used."""
    assert Digits().version == "1"
    assert Digits(recipe={"batch_size": 64}).version == "1+732b9bfe"
    assert Digits(recipe={"batch_size": 64, "precision": "float32"}).version == "1+732b9bfe"
    assert Digits(recipe={"batch_size": 64, "precision": "bfloat16"}).version != "1+732b9bfe"


def test_views_hold_the_same_pixels_row_by_row() -> None:
    image, sequence, vector = (Digits(view=view).load().x_train for view in ("image", "sequence", "vector"))
    assert image.shape[1:] == (1, 8, 8) and sequence.shape[1:] == (8, 8) and vector.shape[1:] == (64,)
    assert np.array_equal(image[:, 0], sequence)
    assert np.array_equal(sequence[:, 3], vector[:, 24:32])
    assert len({Digits(view=view).version for view in ("image", "sequence", "vector")}) == 3
    assert "(n, 8, 8)" in Digits(view="sequence").preprocessing()


def test_an_unknown_view_names_the_near_ones() -> None:
    with pytest.raises(UserError, match="sequence"):
        Digits(view="sequences")


def test_columns_are_standardised_by_the_first_array() -> None:
    rng = np.random.default_rng(0)
    train, other = rng.normal(5, 3, (100, 2)), rng.normal(0, 1, (50, 2))
    train[:, 1] = 7.0  # a column that says nothing stays finite
    ready, also = standardised(train, other)
    assert ready.dtype == also.dtype == np.float32
    assert ready[:, 0].mean() == pytest.approx(0, abs=1e-6) and ready[:, 0].std() == pytest.approx(1)
    assert np.allclose(also[:, 0], (other[:, 0] - train[:, 0].mean()) / train[:, 0].std(), atol=1e-5)
    assert (ready[:, 1] == 0).all()


def test_every_folder_of_the_environment_is_looked_into(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "file").touch()
    monkeypatch.setenv("CAMBRIAN_DATA", os.pathsep.join([str(tmp_path / "a"), str(tmp_path / "b")]))
    assert places("t", None, [Path("x")]) == [tmp_path / "a", tmp_path / "b", Path("data"), Path("x")]
    assert find(places("t", None), "no", "file") == tmp_path / "b" / "file"
    assert find(places("t", tmp_path / "b" / "file"), "other") == tmp_path / "b" / "file"
    assert find(places("t", tmp_path / "a"), "file") is None


@pytest.mark.parametrize(("task", "sizes"), [(BreastCancer(), (341, 114, 114)), (Wine(), (106, 36, 36))])
def test_tables_are_split_by_class(task: BreastCancer | Wine, sizes: tuple[int, ...]) -> None:
    splits = task.load()
    assert (len(splits.x_train), len(splits.x_val), len(splits.x_test)) == sizes
    shares = [np.bincount(y) / len(y) for y in (splits.y_train, splits.y_val, splits.y_test)]
    assert np.allclose(shares[0], shares[1], atol=0.02) and np.allclose(shares[0], shares[2], atol=0.02)


def test_all_tasks_are_described_without_their_inputs_being_called_images() -> None:
    assert "30 values" in TASKS.create("breast-cancer").describe()
    assert "1 number to predict" in TASKS.create("functions").describe()
