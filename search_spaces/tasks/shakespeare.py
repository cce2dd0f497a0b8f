"""A cloze on the plays of Shakespeare, the text of Karpathy's char-rnn: which character was hidden."""

from __future__ import annotations

import gzip
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cambrian.search_spaces.errors import MissingDataError, UserError
from cambrian.search_spaces.space import Signature
from cambrian.search_spaces.tasks.classification import ClassificationTask
from cambrian.search_spaces.tasks.files import find, missing, places
from cambrian.search_spaces.tasks.task import Array, Recipe, Rung, Splits

FILES = ("tinyshakespeare.txt.gz", "tinyshakespeare.txt")
SYMBOLS = "\n !$&',-.3:;?ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
"""The 65 characters of the text; an id is a place in here, and the mask comes after the last."""
MASK = len(SYMBOLS)
SIZES = (10_000, 2_000, 2_000)
SHARES = (0.9, 0.95)
"""Where in the text training, validation and test windows end."""

_HINT = (
    f"set task.data or CAMBRIAN_DATA to a folder with {' or '.join(FILES)}: the 1,115,394 characters of "
    "tinyshakespeare as plain text"
)


class Shakespeare(ClassificationTask):
    """Windows of text whose middle character is hidden: 10,000 / 2,000 / 2,000 of disjoint stretches.

    Args:
        data: the file or its folder; None looks into the folders of `CAMBRIAN_DATA` and `./data`.
        window: characters of a sample, an odd number.
        metric: accuracy, balanced_accuracy, macro_f1 or nll.
        recipe: single fields of the recipe by name.
        rungs: mappings with `epochs` and `promote`.
        train_samples: use only this many training samples.
    """

    def __init__(
        self,
        *,
        data: str | os.PathLike[str] | None = None,
        window: int = 33,
        metric: str = "accuracy",
        recipe: Mapping[str, Any] | None = None,
        rungs: Sequence[Mapping[str, Any]] | None = None,
        train_samples: int | None = None,
    ) -> None:
        if (
            isinstance(window, bool)
            or not isinstance(window, int)
            or not 3 <= window <= 1025
            or not window % 2
        ):
            raise UserError(
                f"task shakespeare: window: {window!r} is not an odd number from 3 to 1025", hint="such as 33"
            )
        self._window = window
        self._places = places("shakespeare", data)
        super().__init__(
            name="shakespeare",
            version=f"1-{window}",
            signature=Signature(input_shape=(window,), n_outputs=MASK, vocabulary=MASK + 1),
            defaults=Recipe(batch_size=64, learning_rate=3e-3),
            default_rungs=(Rung(epochs=3), Rung(epochs=9)),
            metric=metric,
            recipe=recipe,
            rungs=rungs,
            train_samples=train_samples,
        )

    def _read(self) -> Splits:
        path = find(self._places, *FILES)
        if path is None:
            raise missing("shakespeare", self._places, _HINT)
        text = _ids(path)
        if len(text) < 100 * self._window:
            raise MissingDataError(f"{path}: {len(text)} characters are too few", hint=_HINT)
        rng = np.random.default_rng(0)
        ends = [int(share * len(text)) for share in SHARES]
        train, val, test = (
            self._windows(stretch, size, rng)
            for stretch, size in zip(np.split(text, ends), SIZES, strict=True)
        )
        return Splits(*train, *val, *test)

    def _windows(self, text: Array, size: int, rng: np.random.Generator) -> tuple[Array, Array]:
        """Up to `size` windows `(n, window)` of different places, and what their mask hides `(n,)`."""
        every = np.lib.stride_tricks.sliding_window_view(text, self._window)
        inputs = every[rng.permutation(len(every))[:size]].astype(np.int64)
        hidden = inputs[:, self._window // 2].copy()
        inputs[:, self._window // 2] = MASK
        return inputs, hidden

    def preprocessing(self) -> str:
        """See `Task.preprocessing`."""
        return (
            f"characters as int64 ids (n, {self._window}), by their place in the {MASK} characters of the "
            f"text sorted by code point; the middle one is replaced by {MASK}"
        )

    def _subject(self) -> str:
        return (
            f"{self._window} characters of Shakespeare's plays, the middle one masked (id {MASK}); to tell "
            "which it was."
        )


def _ids(path: Path) -> Array:
    """The text as ids, int16 `(n,)`."""
    try:
        content = path.read_bytes()
        if path.suffix == ".gz":
            content = gzip.decompress(content)
    except (OSError, EOFError) as error:
        raise MissingDataError(f"{path} cannot be read: {error}", hint="fetch the file again") from error
    codes = np.frombuffer(content, dtype=np.uint8)
    ids = np.full(256, -1, dtype=np.int16)
    ids[[ord(symbol) for symbol in SYMBOLS]] = np.arange(len(SYMBOLS))
    text: Array = ids[codes]
    if (text < 0).any():
        strange = bytes([int(codes[(text < 0).argmax()])])
        raise MissingDataError(f"{path} is not tinyshakespeare: it holds {strange!r}", hint=_HINT)
    return text
