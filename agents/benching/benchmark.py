"""A table ready to be searched: members, what a searcher sees of them, what they are judged by."""

from __future__ import annotations

import functools
import json
import operator
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from cambrian.agents.benching.flat import FlatSpace
from cambrian.agents.benching.genotypes import genotypes_of
from cambrian.agents.benching.members import RowSpace, TableSpace
from cambrian.agents.benching.table import Floats, Table, Value
from cambrian.agents.errors import UserError
from cambrian.search_spaces import SPACES, Genotype, Loss, Recipe, Rung, Signature, Splits

MOST_REALS = 100
"""Different values of a column of real numbers up to which it counts as a choice."""
_HOLDS: dict[str, Callable[[float, float], bool]] = {
    "<=": operator.le, ">=": operator.ge, "<": operator.lt, ">": operator.gt
}  # fmt: skip
_UNITS = {"": 1.0, "k": 1e3, "m": 1e6, "g": 1e9}


@dataclass(frozen=True)
class Limit:
    """A hard limit on a column."""

    column: str
    op: str
    bound: float

    @classmethod
    def parse(cls, text: str) -> Limit:
        """Read `COLUMN <= NUMBER`, also with `<`, `>=`, `>`; the number may end in k, M or G.

        Raises:
            UserError: not of that form.
        """
        found = re.fullmatch(
            r"\s*(.+?)\s*(<=|>=|<|>)\s*([-+]?[\d.]+(?:[eE][-+]?\d+)?)\s*([kKmMgG]?)\s*", text
        )
        if found is None:
            raise UserError(
                f"--constraint: {text!r} is not of the form 'latency <= 5'", hint="COLUMN <= NUMBER"
            )
        column, op, number, unit = found.groups()
        try:
            return cls(column, op, float(number) * _UNITS[unit.lower()])
        except ValueError:
            raise UserError(f"--constraint: {number!r} is not a number", hint="COLUMN <= NUMBER") from None

    def holds(self, values: Floats) -> NDArray[np.bool_]:
        """Which values keep it; one that is not known does not."""
        with np.errstate(invalid="ignore"):
            return np.asarray(_HOLDS[self.op](values, self.bound), dtype=bool)  # type: ignore[arg-type]

    def __str__(self) -> str:
        return f"{self.column} {self.op} {self.bound:g}"


@dataclass(frozen=True)
class Options:
    """What is searched, as the command's options say it.

    Attributes:
        files: parquet files; see `Table`.
        metric: column that searchers see.
        report: column that incumbents are judged by; None is `metric`.
        minimize: lower is better, of both.
        space: name or folder of a space whose members the rows are.
        genotype_columns: columns that make a flat space instead.
        cost: column of the second objective, minimised; None is none.
        constraints: limits on columns.
        features: columns that a predictor sees beside the space's features.
        identity: what counts as one architecture: the genotype, or what it computes.
    """

    files: tuple[Path, ...]
    metric: str
    report: str | None = None
    minimize: bool = False
    space: str | None = None
    genotype_columns: tuple[str, ...] = ()
    cost: str | None = None
    constraints: tuple[Limit, ...] = ()
    features: tuple[str, ...] = ()
    identity: Literal["genotype", "functional"] = "genotype"


class TableTask:
    """A `Task` whose results are all in a table: nothing is trained or scored.

    Args:
        name: of the table.
        metric: its column.
        maximize: whether a higher value is better.
        signature: of the networks, where the space knows them; flat spaces have none.
    """

    version = "1"
    loss: Loss = "cross-entropy"
    recipe = Recipe()
    rungs: tuple[Rung, ...] = (Rung(epochs=1),)

    def __init__(self, name: str, metric: str, maximize: bool, signature: Signature) -> None:
        self.name, self.metric, self.maximize, self.signature = name, metric, maximize, signature

    def load(self) -> Splits:
        """Empty arrays."""
        x, y = np.zeros((0, *self.signature.input_shape), dtype=np.float32), np.zeros(0, dtype=np.int64)
        return Splits(x, y, x, y, x, y)

    def score(self, outputs: object, split: str) -> dict[str, float]:
        """Raises `ValueError`: there are no labels to score outputs by."""
        raise ValueError(f"{self.name} is a table: there are no labels to score outputs by")

    def preprocessing(self) -> str:
        """See `Task.preprocessing`."""
        return "none: results are looked up"

    def describe(self) -> str:
        """See `Task.describe`."""
        better = "higher" if self.maximize else "lower"
        return f"{self.name}: results are looked up in a table; ranked by {self.metric} ({better} is better)."


@dataclass(frozen=True)
class Benchmark:
    """All that a search needs. Arrays have shape `(members,)`.

    Attributes:
        space: its members are the rows.
        task: direction and words.
        metric: what a searcher is told for a row; finite.
        report: what incumbents are judged by; finite.
        cost: second objective; None where there is none, NaN where it is not known.
        feasible: which rows keep all limits.
        known_before: which limits' rows are refused unpaid: those broken by a feature column.
        identity: text that is equal for rows that count as one.
        notes: what was left out or filled in, for people.
    """

    options: Options
    space: RowSpace
    task: TableTask
    metric: Floats
    report: Floats
    cost: Floats | None
    feasible: NDArray[np.bool_]
    known_before: NDArray[np.bool_]
    identity: Callable[[int], str]
    notes: tuple[str, ...] = field(default=())

    @property
    def maximize(self) -> bool:
        """Whether higher is better."""
        return self.task.maximize

    @property
    def sign(self) -> float:
        """What metric and report are multiplied by so that higher is better."""
        return 1.0 if self.maximize else -1.0

    @functools.cached_property
    def best_rows(self) -> frozenset[int]:
        """The feasible rows with the best metric."""
        metric = np.where(self.feasible, self.sign * self.metric, -np.inf)
        return frozenset(np.flatnonzero(metric == metric.max()).tolist())

    @functools.cached_property
    def best_identities(self) -> frozenset[str]:
        """Identities of `best_rows`."""
        return frozenset(self.identity(row) for row in self.best_rows)

    @property
    def best_report(self) -> float:
        """The best report value of any feasible row: regret is counted from it."""
        return float(self.sign * (self.sign * self.report[self.feasible]).max())


def open_benchmark(options: Options) -> Benchmark:
    """Read the table and make it searchable.

    Rows without a genotype, a metric or a report value are no members. Rows of one genotype are averaged.

    Raises:
        UserError: an option does not fit the table; the message names option and column.
        MissingDataError: a file is not there.
        UnknownNameError: no such column or space.
    """
    if bool(options.space) == bool(options.genotype_columns):
        raise UserError("give either --space or --genotype-columns", hint="--space cell reads NAS-Bench-201")
    table = Table(options.files)
    notes: list[str] = []
    report_column = options.report or options.metric
    numbers = {
        "metric": table.numbers(options.metric, "--metric"),
        "report": table.numbers(report_column, "--report"),
    }
    if options.cost is not None:
        numbers["cost"] = table.numbers(options.cost, "--cost-column")
    for limit in options.constraints:
        numbers[f"limit.{limit.column}"] = table.numbers(limit.column, "--constraint")
    for name in options.features:
        numbers[f"feature.{name}"] = table.numbers(name, "--feature-columns")
    genotypes = _genotypes(options, table)
    kept = _kept(genotypes, numbers, options, report_column, notes)
    members, numbers = _merged(
        [genotypes[row] or {} for row in kept], {n: v[kept] for n, v in numbers.items()}, notes
    )
    proxies = _proxies({n: numbers[f"feature.{n}"] for n in options.features}, notes)
    space = _space(options, table, members, proxies)
    feasible, known = np.ones(len(members), dtype=bool), np.zeros(len(members), dtype=bool)
    for limit in options.constraints:
        holds = limit.holds(numbers[f"limit.{limit.column}"])
        feasible &= holds
        if limit.column in options.features:
            known |= ~holds
    if not feasible.any():
        raise UserError(
            f"--constraint: no row keeps {' and '.join(map(str, options.constraints))}", hint="loosen a limit"
        )
    if options.constraints:
        notes.append(f"{int(feasible.sum())} of {len(members)} rows keep the limits")
    _check_directions(options, report_column, numbers, feasible, notes)
    signature = _signature(space)
    return Benchmark(
        options=options,
        space=space,
        task=TableTask(table.name, options.metric, not options.minimize, signature),
        metric=numbers["metric"],
        report=numbers["report"],
        cost=numbers.get("cost"),
        feasible=feasible,
        known_before=known,
        identity=_identity(options, space, signature),
        notes=tuple(notes),
    )


def _genotypes(options: Options, table: Table) -> list[Genotype | None]:
    """The genotype of each row, None where a column of it is empty."""
    if options.space:
        return list(genotypes_of(SPACES.open(options.space), table))
    columns: dict[str, list[Value | None]] = {}
    for name in options.genotype_columns:
        values = columns[name] = table.choices(name, "--genotype-columns")
        reals = {value for value in values if isinstance(value, float)}
        if reals and len(set(values)) > MOST_REALS:
            raise UserError(
                f"--genotype-columns: column {name!r} holds {len(set(values))} different real numbers",
                hint="name categorical or integer columns",
            )
    found: list[Genotype | None] = []
    for row in zip(*columns.values(), strict=True):
        found.append(None if None in row else dict(zip(columns, row, strict=True)))
    return found


def _kept(
    genotypes: Sequence[Genotype | None],
    numbers: dict[str, Floats],
    options: Options,
    report_column: str,
    notes: list[str],
) -> NDArray[np.intp]:
    """The rows that are members."""
    named = np.array([genotype is not None for genotype in genotypes])
    measured, judged = ~np.isnan(numbers["metric"]), ~np.isnan(numbers["report"])
    lacking = [
        (named, "genotype"),
        (named & measured, options.metric),
        (named & measured & judged, report_column),
    ]
    left = len(genotypes)
    for kept, what in lacking:
        count = int(kept.sum())
        if count < left:
            notes.append(f"{left - count} of {len(genotypes)} rows have no {what}: they are no members")
            left = count
    if left < 2:
        raise UserError(
            f"--metric: only {left} rows have {options.metric} and {report_column}", hint="name other columns"
        )
    return np.flatnonzero(lacking[-1][0])


def _merged(
    genotypes: Sequence[Genotype], numbers: dict[str, Floats], notes: list[str]
) -> tuple[list[Genotype], dict[str, Floats]]:
    """Each genotype once, its rows averaged."""
    place: dict[str, int] = {}
    members: list[Genotype] = []
    group = np.empty(len(genotypes), dtype=np.intp)
    for row, genotype in enumerate(genotypes):
        group[row] = place.setdefault(json.dumps(genotype, sort_keys=True), len(members))
        if group[row] == len(members):
            members.append(genotype)
    if len(members) < len(genotypes):
        notes.append(
            f"{len(genotypes)} rows name {len(members)} genotypes: rows of one genotype are averaged"
        )
        counts = np.bincount(group, minlength=len(members))
        numbers = {
            n: np.bincount(group, weights=v, minlength=len(members)) / counts for n, v in numbers.items()
        }
    return members, numbers


def _proxies(columns: dict[str, Floats], notes: list[str]) -> dict[str, Floats]:
    """Feature columns without gaps: a gap takes the median of the others.

    A further feature says where there were gaps; columns with the same gaps share it.
    """
    found: dict[str, Floats] = {}
    gaps: dict[bytes, str] = {}
    filled = []
    for name, values in columns.items():
        missing = np.isnan(values)
        if missing.all():
            raise UserError(f"--feature-columns: column {name!r} is empty", hint="leave it out")
        found[name] = np.where(missing, np.nanmedian(values), values)
        if missing.any():
            filled.append(name)
            gaps.setdefault(missing.tobytes(), name)
    for pattern, name in gaps.items():
        found[f"{name}.missing"] = np.frombuffer(pattern, dtype=bool).astype(np.float64)
    if filled:
        notes.append(f"gaps in {', '.join(filled)} are filled with the column's median; a feature says where")
    return found


def _space(options: Options, table: Table, members: list[Genotype], proxies: dict[str, Floats]) -> RowSpace:
    if options.space:
        return TableSpace(SPACES.open(options.space), members, proxies)
    columns = {name: [genotype[name] for genotype in members] for name in options.genotype_columns}
    return FlatSpace(table.name, columns, proxies)


def _check_directions(
    options: Options,
    report_column: str,
    numbers: dict[str, Floats],
    feasible: NDArray[np.bool_],
    notes: list[str],
) -> None:
    """One direction serves metric and report: say so where they seem to want two."""
    metric, report = numbers["metric"][feasible], numbers["report"][feasible]
    if report_column != options.metric and np.ptp(metric) > 0 and np.ptp(report) > 0:
        ranks = [np.argsort(np.argsort(values)).astype(np.float64) for values in (metric, report)]
        correlation = float(np.corrcoef(ranks[0], ranks[1])[0, 1])
        if correlation < 0:
            word = "lower" if options.minimize else "higher"
            notes.append(
                f"{options.metric} and {report_column} have a rank correlation of {correlation:.2f}, "
                f"but {word} counts as better in both"
            )


def _signature(space: RowSpace) -> Signature:
    """Of the networks, where the space has a reference."""
    file = getattr(getattr(getattr(space, "inner", None), "definition", None), "file", None)
    reference = getattr(file, "reference", None)
    return reference if isinstance(reference, Signature) else Signature(input_shape=(1,), n_outputs=1)


def _identity(options: Options, space: RowSpace, signature: Signature) -> Callable[[int], str]:
    if options.identity == "genotype":
        return str
    if not isinstance(space, TableSpace):
        raise UserError(
            "--identity functional: a table's columns say nothing of what a member computes",
            hint="give --space, or --identity genotype",
        )
    inner = space.inner

    @functools.cache
    def functional(row: int) -> str:
        from cambrian.sandbox.examination.identity import identity

        return identity(inner, space.members()[row], signature, {})

    return functional
