"""Parquet files as columns: read, joined, and told apart by what they hold."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cambrian.agents.errors import UserError
from cambrian.search_spaces import MissingDataError, UnknownNameError, near_names

if TYPE_CHECKING:
    import pyarrow

Floats = NDArray[np.float64]
Value = str | int | float | bool
"""What a genotype's column may hold."""


class Table:
    """The rows of a parquet file, with those of others beside them.

    Further files are joined on the columns that they share with those before them, which must tell each of
    their rows from the others; rows that a further file lacks have no values in its columns.

    Args:
        files: the first one says which rows there are.

    Raises:
        MissingDataError: a file is not there or cannot be read.
        UserError: files share no column, or one has several rows for the same values of the shared ones.
    """

    def __init__(self, files: Sequence[Path]) -> None:
        self.name = files[0].stem
        self._table = _read(files[0])
        for path in files[1:]:
            self._table = _joined(self._table, _read(path), path)
        if not self._table.num_rows:
            raise UserError(f"--table: {files[0]} has no rows", hint="give a table with results")

    def __len__(self) -> int:
        return int(self._table.num_rows)

    @property
    def columns(self) -> list[str]:
        """Names of all columns."""
        return list(self._table.column_names)

    def numbers(self, column: str, option: str) -> Floats:
        """A column as floats, `(rows,)`; NaN where the row has none, or one that is not finite.

        Raises:
            UnknownNameError: no such column; the message names `option`.
            UserError: it holds no numbers.
        """
        values = self.values(column, option)
        try:
            if any(isinstance(value, str) for value in values):
                raise ValueError("text")
            found = np.array([np.nan if value is None else value for value in values], dtype=np.float64)
        except (TypeError, ValueError):
            example = next(value for value in values if value is not None)
            raise UserError(
                f"{option}: column {column!r} holds no numbers but {str(example)[:40]!r}",
                hint=f"columns: {', '.join(self._numeric())}",
            ) from None
        found[~np.isfinite(found)] = np.nan
        return found

    def choices(self, column: str, option: str) -> list[Value | None]:
        """A column as values that a choice can be among: text, whole numbers, numbers; None where none is.

        Lists and structures become JSON text; whole numbers that are stored as floats become integers.

        Raises:
            UnknownNameError: no such column.
        """
        return [_choice(value) for value in self.values(column, option)]

    def values(self, column: str, option: str) -> list[Any]:
        """A column as Python values; None where the row has none.

        Raises:
            UnknownNameError: no such column.
        """
        if column not in self._table.column_names:
            raise UnknownNameError(
                f"{option}: the table has no column {column!r}", hint=near_names(column, self.columns)
            )
        found: list[Any] = self._table.column(column).to_pylist()
        return found

    def _numeric(self) -> list[str]:
        import pyarrow

        types = pyarrow.types
        return [
            field.name
            for field in self._table.schema
            if types.is_floating(field.type) or types.is_integer(field.type)
        ]


def _read(path: Path) -> pyarrow.Table:
    import pyarrow
    from pyarrow import parquet

    if not path.is_file():
        raise MissingDataError(f"--table: there is no file {path}", hint="give the path of a parquet file")
    try:
        table = parquet.read_table(path)
    except (OSError, pyarrow.ArrowException) as error:
        problem = str(error).splitlines()[0]
        raise MissingDataError(
            f"--table: {path} cannot be read: {problem}", hint="it has to be a parquet file"
        ) from error
    twice = {name for name in table.column_names if table.column_names.count(name) > 1}
    if twice:
        raise UserError(f"--table: {path} has two columns {min(twice)!r}", hint="rename one of them")
    return table


def _joined(left: pyarrow.Table, right: pyarrow.Table, path: Path) -> pyarrow.Table:
    """`left` with the other columns of `right`, rows in the order of `left`."""
    import pyarrow

    shared = [name for name in left.column_names if name in right.column_names]
    if not shared:
        raise UserError(
            f"--table: {path} shares no column with the files before it, so that it cannot be joined",
            hint=f"it has {', '.join(right.column_names[:12])}",
        )
    place: dict[tuple[Any, ...], int] = {}
    for row, key in enumerate(zip(*(right.column(name).to_pylist() for name in shared), strict=True)):
        if place.setdefault(key, row) != row:
            told = ", ".join(f"{name}={value}" for name, value in zip(shared, key, strict=True))
            raise UserError(
                f"--table: {path} has several rows with {told}, so that it cannot be joined",
                hint="each of its rows must be told by the columns that it shares with the files before it",
            )
    keys = zip(*(left.column(name).to_pylist() for name in shared), strict=True)
    rows = pyarrow.array([place.get(key) for key in keys], type=pyarrow.int64())
    for name in right.column_names:
        if name not in shared:
            left = left.append_column(name, right.column(name).combine_chunks().take(rows))
    return left


def _choice(value: object) -> Value | None:
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, float):
        if value != value:
            return None
        return int(value) if value.is_integer() else value
    return json.dumps(value, default=str)
