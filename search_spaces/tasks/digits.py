"""The embedded task: scikit-learn's handwritten digits, which ship with it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from cambrian.search_spaces.space import Signature
from cambrian.search_spaces.tasks.classification import ClassificationTask, held_out
from cambrian.search_spaces.tasks.task import Recipe, Rung, Splits
from cambrian.search_spaces.tasks.views import seen_as, shape_of, words_of

_HELD_OUT = 400


class Digits(ClassificationTask):
    """1,797 handwritten digits of 8x8 pixels: 997 to train on, 400 to validate, 400 to test.

    Args:
        view: `image` `(1, 8, 8)`, `sequence` of 8 rows `(8, 8)`, or `vector` `(64,)`.
        recipe: single fields of the recipe by name.
        rungs: mappings with `epochs` and `promote`.
        train_samples: use only this many training samples.
    """

    def __init__(
        self,
        *,
        view: str = "image",
        recipe: Mapping[str, Any] | None = None,
        rungs: Sequence[Mapping[str, Any]] | None = None,
        train_samples: int | None = None,
    ) -> None:
        super().__init__(
            name="digits",
            version="1" if view == "image" else f"1-{view}",
            signature=Signature(input_shape=shape_of("digits", view, 8), n_outputs=10),
            # no shifts: one pixel is an eighth of the image, and short trainings lost 4 points by them
            defaults=Recipe(batch_size=32, learning_rate=6e-3),
            default_rungs=(Rung(epochs=5), Rung(epochs=15)),
            recipe=recipe,
            rungs=rungs,
            train_samples=train_samples,
        )

    def _read(self) -> Splits:
        from sklearn.datasets import load_digits

        data = load_digits()
        images = (data.images / 16.0).astype(np.float32)[:, None]
        labels = data.target.astype(np.int64)
        val, test, train = held_out(labels, (_HELD_OUT, _HELD_OUT), seed=0)
        images = seen_as(images, self.signature.input_shape)
        return Splits(images[train], labels[train], images[val], labels[val], images[test], labels[test])

    def preprocessing(self) -> str:
        """See `Task.preprocessing`."""
        return f"grey values 0 to 16, divided by 16, as {words_of(self.signature.input_shape)}"

    def _subject(self) -> str:
        return "scikit-learn's handwritten digits 0 to 9, grey values of 8x8 pixels."
