from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from cambrian.agents.benching.table import Table
from cambrian.agents.errors import MissingDataError, UnknownNameError, UserError
from tests.agents.benching.tables import write


@pytest.fixture
def table(tmp_path: Path) -> Table:
    columns = {
        "key": [3, 1, 2],
        "acc": [1.0, None, float("inf")],
        "count": [4.0, 8.0, None],
        "link": [[0, 1], None, [0]],
        "op": ["a", "b", "a"],
    }
    return Table([write(tmp_path / "t.parquet", columns)])


def test_numbers_know_what_is_missing(table: Table) -> None:
    assert np.isnan(table.numbers("acc", "--metric")).tolist() == [False, True, True]
    assert table.numbers("key", "--metric").tolist() == [3.0, 1.0, 2.0]


def test_choices_are_text_and_whole_numbers(table: Table) -> None:
    assert table.choices("count", "x") == [4, 8, None]
    assert type(table.choices("count", "x")[0]) is int
    assert table.choices("link", "x") == ["[0, 1]", None, "[0]"]
    assert table.choices("op", "x") == ["a", "b", "a"]


def test_wrong_columns_are_told_by_option_and_near_name(table: Table) -> None:
    with pytest.raises(UnknownNameError, match=r"--report: the table has no column 'cout'") as caught:
        table.numbers("cout", "--report")
    assert "count" in caught.value.hint
    with pytest.raises(UserError, match=r"--metric: column 'op' holds no numbers but 'a'") as refused:
        table.numbers("op", "--metric")
    assert "acc" in refused.value.hint and "link" not in refused.value.hint


def test_files_are_joined_on_what_they_share(tmp_path: Path, table: Table) -> None:
    more = write(tmp_path / "more.parquet", {"key": [1, 3], "proxy": [0.1, 0.3]})
    joined = Table([tmp_path / "t.parquet", more])
    found = joined.numbers("proxy", "x")
    assert found[:2].tolist() == [0.3, 0.1] and np.isnan(found[2])
    assert len(joined) == 3 and joined.choices("op", "x") == ["a", "b", "a"]


def test_files_that_cannot_be_joined(tmp_path: Path, table: Table) -> None:
    first = tmp_path / "t.parquet"
    twice = write(tmp_path / "twice.parquet", {"key": [1, 1], "proxy": [0.1, 0.3]})
    with pytest.raises(UserError, match=r"twice\.parquet has several rows with key=1"):
        Table([first, twice])
    strange = write(tmp_path / "strange.parquet", {"other": [1]})
    with pytest.raises(UserError, match="shares no column"):
        Table([first, strange])


def test_files_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(MissingDataError, match="there is no file"):
        Table([tmp_path / "absent.parquet"])
    text = tmp_path / "text.parquet"
    text.write_text("a,b\n1,2\n")
    with pytest.raises(MissingDataError, match="cannot be read"):
        Table([text])
    with pytest.raises(UserError, match="has no rows"):
        Table([write(tmp_path / "empty.parquet", {"a": []})])
