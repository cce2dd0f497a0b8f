"""Cora's file: what is read, what is refused, and the real graph."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cambrian.search_spaces import MissingDataError
from cambrian.search_spaces.tasks.cora import CLASSES, EDGES, FEATURES, FILE, NODES, Cora
from tests.search_spaces.conftest import data_folder


def arrays(**changes: Any) -> dict[str, Any]:
    """A file like the real one: every paper has two words."""
    rng = np.random.default_rng(0)
    one_way = np.stack([np.arange(NODES), (np.arange(NODES) + 1) % NODES], axis=1)
    more = np.stack([np.arange(EDGES // 2 - NODES), np.arange(EDGES // 2 - NODES) + 5], axis=1)
    words = np.stack([rng.permutation(FEATURES)[:2] for _ in range(NODES)])
    good = {
        "x_indptr": np.arange(NODES + 1) * 2,
        "x_indices": words.ravel(),
        "x_data": np.ones(2 * NODES, dtype=np.float32),
        "x_shape": np.array([NODES, FEATURES]),
        "edges": np.concatenate([one_way, more]),
        "y": np.arange(NODES) % CLASSES,
        "train_idx": np.arange(140),
        "val_idx": np.arange(140, 640),
        "test_idx": np.arange(1000, 2000),
    }
    return good | changes


def saved(folder: Path, **changes: Any) -> Path:
    np.savez(folder / FILE, **arrays(**changes))
    return folder


def test_rows_of_words_sum_to_one_and_edges_go_both_ways(tmp_path: Path) -> None:
    splits = Cora(data=saved(tmp_path)).load()
    assert np.allclose(splits.context["features"].sum(axis=1), 1)
    edges = splits.context["edges"]
    assert edges.shape == (2, EDGES)
    assert np.array_equal(edges[:, : EDGES // 2], edges[::-1, EDGES // 2 :])
    assert splits.y_val.tolist() == (splits.x_val % CLASSES).tolist()


def test_the_file_may_be_named_itself(tmp_path: Path) -> None:
    assert len(Cora(data=saved(tmp_path) / FILE).load().x_train) == 140


def test_a_paper_without_words_has_features_of_nought(tmp_path: Path) -> None:
    indptr = np.concatenate([[0, 0], np.arange(2, NODES + 1) * 2 - 2])
    found = saved(
        tmp_path,
        x_indptr=indptr,
        x_indices=arrays()["x_indices"][2:],
        x_data=np.ones(2 * NODES - 2, dtype=np.float32),
    )
    features = Cora(data=found).load().context["features"]
    assert (features[0] == 0).all() and np.allclose(features[1:].sum(axis=1), 1)


def test_limited_training_keeps_the_graph(tmp_path: Path) -> None:
    splits = Cora(data=saved(tmp_path), train_samples=35).load()
    assert len(splits.x_train) == 35
    assert splits.context["features"].shape == (NODES, FEATURES)


def test_missing_data_are_named_with_the_form_of_the_file(tmp_path: Path) -> None:
    with pytest.raises(MissingDataError, match="no data in") as caught:
        Cora(data=tmp_path).load()
    for words in (FILE, "CAMBRIAN_DATA", "train_idx", "x_indptr"):
        assert words in caught.value.hint


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"x_shape": np.array([5, 5])}, r"x has shape \(5, 5\)"),
        ({"edges": np.zeros((3, 2), dtype=int)}, "edges have shape"),
        ({"edges": np.zeros((EDGES // 2, 2), dtype=int)}, "self-loop"),
        ({"y": np.full(NODES, 9)}, "topics"),
        ({"val_idx": np.arange(500)}, "different ones"),
        ({"test_idx": np.arange(700, 710)}, "10"),
        ({"x_indices": np.full(2 * NODES, FEATURES)}, "out of bounds"),
    ],
)
def test_what_is_not_cora_is_refused(tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    with pytest.raises(MissingDataError, match=words):
        Cora(data=saved(tmp_path, **changes)).load()


def test_a_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    (tmp_path / FILE).write_bytes(b"no archive")
    with pytest.raises(MissingDataError, match="is not Cora"):
        Cora(data=tmp_path).load()
    np.savez(tmp_path / FILE, x=np.zeros(3))
    with pytest.raises(MissingDataError, match="has no array"):
        Cora(data=tmp_path).load()


def test_the_real_graph() -> None:
    splits = Cora(data=data_folder(FILE)).load()
    assert np.bincount(splits.y_train).tolist() == [20] * CLASSES
    features, edges = splits.context["features"], splits.context["edges"]
    assert np.count_nonzero(features) == 49_216
    assert np.bincount(edges[1]).max() == 168
    # neighbours mostly share their topic, which is what message passing lives by
    labels = np.full(NODES, -1)
    for x, y in (
        (splits.x_train, splits.y_train),
        (splits.x_val, splits.y_val),
        (splits.x_test, splits.y_test),
    ):
        labels[x] = y
    known = (labels[edges] >= 0).all(axis=0)
    assert (labels[edges[0, known]] == labels[edges[1, known]]).mean() > 0.75
