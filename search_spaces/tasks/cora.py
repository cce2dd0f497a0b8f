"""Cora: papers and their citations (Sen et al. 2008), with the split of Planetoid (arXiv:1603.08861)."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from cambrian.search_spaces.errors import MissingDataError
from cambrian.search_spaces.space import GraphShape, Signature
from cambrian.search_spaces.tasks.classification import ClassificationTask
from cambrian.search_spaces.tasks.files import find, missing, places
from cambrian.search_spaces.tasks.task import Array, Recipe, Rung, Splits

FILE = "cora.npz"
NODES, FEATURES, EDGES, CLASSES = 2708, 1433, 10556, 7
TRAIN, VAL, TEST = 140, 500, 1000

_HINT = (
    f"set task.data or CAMBRIAN_DATA to a folder with {FILE}: words as CSR (x_indptr, x_indices, x_data, "
    "x_shape), edges (5278, 2) each once, y (2708,), and train_idx, val_idx, test_idx of Planetoid's split"
)


class Cora(ClassificationTask):
    """2,708 papers, 1,433 words, 10,556 directed citations, 7 topics: 140 / 500 / 1,000 papers.

    The task is transductive: inputs are ids of nodes, and every network holds the whole graph. Rows of words
    are divided by their sums. The default recipe trains on all 140 labelled papers at once, one step an
    epoch, by Adam with an L2 penalty, as Kipf and Welling do (arXiv:1609.02907). With AdamW's decoupled decay
    their network stays a point behind.

    Args:
        data: the file or its folder; None looks into the folders of `CAMBRIAN_DATA` and `./data`.
        metric: accuracy, balanced_accuracy, macro_f1 or nll.
        recipe: single fields of the recipe by name.
        rungs: mappings with `epochs` and `promote`.
        train_samples: use only this many of the labelled papers.
    """

    def __init__(
        self,
        *,
        data: str | os.PathLike[str] | None = None,
        metric: str = "accuracy",
        recipe: Mapping[str, Any] | None = None,
        rungs: Sequence[Mapping[str, Any]] | None = None,
        train_samples: int | None = None,
    ) -> None:
        self._places = places("cora", data)
        shape = GraphShape(nodes=NODES, features=FEATURES, edges=EDGES)
        super().__init__(
            name="cora",
            version="1",
            signature=Signature(input_shape=(), n_outputs=CLASSES, graph=shape),
            defaults=Recipe(
                optimizer="adam",
                learning_rate=0.01,
                schedule="constant",
                weight_decay=5e-4,
                batch_size=TRAIN,
                gradient_clip=0.0,
            ),
            default_rungs=(Rung(epochs=50), Rung(epochs=200)),
            metric=metric,
            recipe=recipe,
            rungs=rungs,
            train_samples=train_samples,
        )

    def _read(self) -> Splits:
        path = find(self._places, FILE)
        if path is None:
            raise missing("cora", self._places, _HINT)
        try:
            with np.load(path, allow_pickle=False) as stored:
                arrays = {key: stored[key] for key in stored.files}
            words, edges, labels, ids = _graph(arrays)
        except (OSError, EOFError, KeyError, ValueError, IndexError, zipfile.BadZipFile) as error:
            reason = f"has no array {error}" if isinstance(error, KeyError) else str(error)
            raise MissingDataError(f"{path} is not Cora: {reason}", hint=_HINT) from error
        train, val, test = ids
        return Splits(
            train,
            labels[train],
            val,
            labels[val],
            test,
            labels[test],
            context={"features": words, "edges": edges},
        )

    def preprocessing(self) -> str:
        """See `Task.preprocessing`."""
        return (
            "inputs are int64 ids of nodes (n,); the network holds the graph: words as float32 of shape "
            f"({NODES}, {FEATURES}), each row divided by its sum, and edges as int64 (2, {EDGES})"
        )

    def _subject(self) -> str:
        return (
            "scientific papers, which words they use and which papers they cite; to tell their topic from "
            f"{TRAIN} labelled ones (Planetoid's split)."
        )


def _graph(arrays: Mapping[str, Array]) -> tuple[Array, Array, Array, list[Array]]:
    """Features, edges, labels, and ids of the three splits.

    Raises:
        KeyError: an array is not there.
        ValueError: an array is not what Cora's is.
        IndexError: as `ValueError`.
    """
    words = np.zeros((NODES, FEATURES), dtype=np.float32)
    shape = tuple(arrays["x_shape"].tolist())
    if shape != words.shape or len(arrays["x_indptr"]) != NODES + 1:
        raise ValueError(f"x has shape {shape}, not {words.shape}")
    rows = np.repeat(np.arange(NODES), np.diff(arrays["x_indptr"]))
    words[rows, arrays["x_indices"]] = arrays["x_data"]
    words /= np.maximum(words.sum(axis=1, keepdims=True), 1.0)
    one_way = arrays["edges"].astype(np.int64)
    if one_way.shape != (EDGES // 2, 2) or one_way.min() < 0 or one_way.max() >= NODES:
        raise ValueError(f"edges have shape {one_way.shape}, not {(EDGES // 2, 2)} ids of nodes")
    if (one_way[:, 0] == one_way[:, 1]).any():
        raise ValueError("edges hold a self-loop")
    edges = np.ascontiguousarray(np.concatenate([one_way, one_way[:, ::-1]]).T)
    labels = arrays["y"].astype(np.int64)
    ids = [arrays[f"{part}_idx"].astype(np.int64) for part in ("train", "val", "test")]
    sizes = [len(part) for part in ids]
    used = np.concatenate(ids)
    if sizes != [TRAIN, VAL, TEST] or len(np.unique(used)) != len(used):
        raise ValueError(f"the splits have {sizes} ids, not {[TRAIN, VAL, TEST]} different ones")
    if labels.shape != (NODES,) or not 0 <= labels[used].min() <= labels[used].max() < CLASSES:
        raise ValueError(f"y holds something other than the {CLASSES} topics of the {NODES} papers")
    return words, edges, labels, ids
