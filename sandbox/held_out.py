"""What is held out of a task, and what of it a job gets when it is due; labels never."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cambrian.sandbox.job_folder import ANSWERS, JobFolder
from cambrian.sandbox.protocol import Job
from cambrian.sandbox.worker.channel import CHUNK, Frame, chunks
from cambrian.search_spaces import Splits

QUESTIONS = 32
"""Inputs of each held-out split that a reproducing worker gets one by one, while the keeper's clock runs."""


class HeldOut:
    """Inputs of the held-out splits, kept by the host and given to a job when it is due.

    Args:
        x_val: inputs of the validation split.
        x_test: inputs of the test split.
        spread: standard deviation of the training targets, where they are values.
    """

    def __init__(self, x_val: NDArray[Any], x_test: NDArray[Any], spread: float | None = None) -> None:
        self.spread = spread
        self.arrays = {"val": np.ascontiguousarray(x_val), "test": np.ascontiguousarray(x_test)}

    @classmethod
    def of(cls, splits: Splits) -> HeldOut:
        """What a task holds out."""
        values = np.issubdtype(splits.y_train.dtype, np.floating)
        return cls(splits.x_val, splits.x_test, float(np.std(splits.y_train)) if values else None)

    def folder(self, root: Path, job: Job) -> JobFolder:
        """The folder of a job of this task."""
        return JobFolder(root, job, *self.sizes, self.spread)

    @property
    def sizes(self) -> tuple[int, int]:
        """Samples of the validation and of the test split."""
        return len(self.arrays["val"]), len(self.arrays["test"])

    def shuffled(self) -> tuple[HeldOut, dict[str, NDArray[np.intp]]]:
        """The same in an order that nobody can know, and that order."""
        rng = np.random.default_rng(secrets.randbits(128))
        orders = {name: rng.permutation(len(array)) for name, array in self.arrays.items()}
        val, test = (self.arrays[name][orders[name]] for name in ("val", "test"))
        return HeldOut(val, test, self.spread), orders


class Giver:
    """What a job gets when it asks, and when it is due.

    Args:
        job: that asks.
        folder: of it, which shows what it has handed in.
        held_out: all that it may get.
    """

    def __init__(self, job: Job, folder: JobFolder, held_out: HeldOut) -> None:
        self._job, self._folder = job, folder
        if job.purpose == "reproduce":
            held_out, folder.orders = held_out.shuffled()
        self._held_out = held_out
        self._given: set[str] = set()

    def give(self, what: str) -> Iterator[Frame] | None:
        """The frames of the answer; None for what is not due."""
        due: dict[str, Callable[[], Iterator[Frame]]] = {}
        if self._job.purpose == "train":
            due = {"val": lambda: self._array("val")}
            if self._folder.has("weights.safetensors"):
                due["test"] = lambda: self._array("test")
        elif self._job.purpose == "reproduce":
            due = {"weights": self._weights, "challenge": self._challenge}
            if self._folder.has(ANSWERS):
                due |= {"val": lambda: self._array("val"), "test": lambda: self._array("test")}
        if what not in due or what in self._given:
            return None
        self._given.add(what)
        return due[what]()

    def _array(self, name: str) -> Iterator[Frame]:
        array = self._held_out.arrays[name]
        header = {"give": name, "dtype": array.dtype.str, "shape": list(array.shape)}
        return chunks(header, array.data.cast("B") if array.size else b"")

    def _weights(self) -> Iterator[Frame]:
        return chunks({"give": "weights"}, self._folder.weights_to_reproduce())

    def _challenge(self) -> Iterator[Frame]:
        batch = self._job.latency.batch if self._job.latency is not None else 1
        rows = {name: batch * min(QUESTIONS, len(a) // batch) for name, a in self._held_out.arrays.items()}
        questions = np.concatenate([self._held_out.arrays[name][:n] for name, n in rows.items()])
        n = len(questions) // batch
        row_bytes = questions.nbytes // max(1, n)
        if row_bytes > CHUNK:
            n, questions, rows = 0, questions[:0], dict.fromkeys(rows, 0)
        self._folder.asked = rows
        header = {
            "give": "challenge",
            "rows": n,
            "row_bytes": row_bytes,
            "answer_bytes": 4 * batch * self._job.signature.n_outputs,
            "dtype": questions.dtype.str,
            "shape": [batch, *questions.shape[1:]],
        }
        return chunks(header, questions.tobytes())
