"""The cloze on Shakespeare: windows, masks, disjoint stretches."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest

from cambrian.search_spaces import MissingDataError, UserError
from cambrian.search_spaces.tasks.shakespeare import FILES, MASK, SYMBOLS, Shakespeare
from tests.search_spaces.conftest import data_folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A text whose first nine tenths are small letters, then capitals, then the other symbols."""
    place = tmp_path_factory.mktemp("text")
    rng = np.random.default_rng(0)
    parts = (SYMBOLS[39:], 36_000), (SYMBOLS[13:39], 2_000), (SYMBOLS[:13], 2_000)
    text = "".join("".join(rng.choice(list(symbols), size=n)) for symbols, n in parts)
    (place / FILES[0]).write_bytes(gzip.compress(text.encode()))
    (place / "plain").mkdir()
    (place / "plain" / FILES[1]).write_text(text, newline="")
    return place


def test_splits_are_drawn_from_their_own_stretch(folder: Path) -> None:
    splits = Shakespeare(data=folder, window=5).load()
    assert len(splits.x_train) == 10_000
    assert len(splits.x_val) == len(splits.x_test) == 2_000 - 4
    assert splits.y_train.min() >= 39 and 13 <= splits.y_val.min() <= splits.y_val.max() < 39
    assert splits.y_test.max() < 13


def test_the_middle_is_masked_and_asked_for(folder: Path) -> None:
    text = gzip.decompress((folder / FILES[0]).read_bytes()).decode()
    splits = Shakespeare(data=folder, window=7).load()
    assert (splits.x_train[:, 3] == MASK).all() and (np.delete(splits.x_train, 3, axis=1) != MASK).all()
    for ids, hidden in zip(splits.x_train[:20], splits.y_train[:20], strict=True):
        shown = [SYMBOLS[i] if i != MASK else SYMBOLS[hidden] for i in ids]
        assert "".join(shown) in text


def test_plain_text_is_read_as_well(folder: Path) -> None:
    first, second = Shakespeare(data=folder).load(), Shakespeare(data=folder / "plain").load()
    assert np.array_equal(first.x_train, second.x_train)


@pytest.mark.parametrize("window", [4, 1, "33", True, 1027])
def test_bad_windows_are_named(window: object) -> None:
    with pytest.raises(UserError, match="window"):
        Shakespeare(window=window)  # type: ignore[arg-type]


def test_another_window_is_another_version() -> None:
    assert Shakespeare(window=17).version != Shakespeare().version


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "too few"),
        ("\u00e9t\u00e9" * 900, "is not tinyshakespeare"),
        (b"\x1f\x8b bad", "cannot be read"),
    ],
)
def test_other_files_are_refused(tmp_path: Path, content: bytes | str, words: str) -> None:
    damaged = (
        content
        if isinstance(content, bytes) and content
        else gzip.compress(content.encode() if isinstance(content, str) else content)
    )
    (tmp_path / FILES[0]).write_bytes(damaged)
    with pytest.raises(MissingDataError, match=words):
        Shakespeare(data=tmp_path).load()


def test_missing_data_are_named_with_a_way_out(tmp_path: Path) -> None:
    with pytest.raises(MissingDataError) as caught:
        Shakespeare(data=tmp_path).load()
    assert FILES[0] in caught.value.hint and "CAMBRIAN_DATA" in caught.value.hint


def test_the_real_text() -> None:
    splits = Shakespeare(data=data_folder(FILES[0])).load()
    assert (len(splits.x_train), len(splits.x_val), len(splits.x_test)) == (10_000, 2_000, 2_000)
    shares = np.bincount(splits.y_train, minlength=MASK) / len(splits.y_train)
    assert SYMBOLS[shares.argmax()] == " " and 0.13 < shares.max() < 0.17
