"""What is different between two genotypes, in a few words: `stages[1].width 16 -> 24, +stages[2] conv 32`.

Works on any JSON data, whatever its space: both trees are walked side by side, lists are aligned (an inserted
stage is one change, not a change of all that follow), and text is compared line by line.
"""

from __future__ import annotations

import difflib
import itertools
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from cambrian.agents.wording import compact, one_line
from cambrian.search_spaces.recipes import split

LONGEST = 100
"""Characters of a difference."""
_VALUE = 28
_MOST_PAIRS = 900
"""Lists of which more items could be paired are compared position by position."""
_KIND = "kind"


def difference(earlier: Mapping[str, Any], later: Mapping[str, Any], limit: int = LONGEST) -> str:
    """What was changed in `earlier` to get `later`, in at most `limit` characters; empty when nothing was."""
    old, new = split(earlier), split(later)
    if old is not None and new is not None:
        found = [*_changes(old[0], new[0], ""), *_changes(old[1], new[1], "recipe")]
    else:
        found = list(_changes(earlier, later, ""))
    return _joined([one_line(change, limit) for change in found], limit)


def _joined(changes: Sequence[str], limit: int) -> str:
    for kept in range(len(changes), 0, -1):
        rest = len(changes) - kept
        text = ", ".join(changes[:kept]) + (f" and {rest} more" if rest else "")
        if len(text) <= limit:
            return text
    return one_line(changes[0], limit) if changes else ""


def _changes(old: Any, new: Any, path: str) -> Iterator[str]:
    if old == new:
        return
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        if old.get(_KIND) != new.get(_KIND):  # another option of the same choice: its genes are others, too
            yield f"{path or _KIND} {_short(old.get(_KIND))} -> {_short(new.get(_KIND))}"
        for key in {**old, **new}:
            if key == _KIND:
                continue
            where = f"{path}.{key}" if path else str(key)
            if key in old and key in new:
                yield from _changes(old[key], new[key], where)
            elif old.get(_KIND) == new.get(_KIND):
                yield f"-{where}" if key in old else f"+{where} {_item(new[key])}"
    elif isinstance(old, list | tuple) and isinstance(new, list | tuple):
        yield from _list_changes(old, new, path)
    elif isinstance(old, str) and isinstance(new, str) and ("\n" in old or "\n" in new):
        yield from _line_changes(old.splitlines(), new.splitlines(), path)
    else:
        yield f"{path} {_short(old)} -> {_short(new)}"


def _list_changes(old: Sequence[Any], new: Sequence[Any], path: str) -> Iterator[str]:
    for i, j in _aligned(old, new):
        if i is None and j is not None:
            yield f"+{path}[{j}] {_item(new[j])}"
        elif j is None and i is not None:
            yield f"-{path}[{i}] {_item(old[i])}"
        elif i is not None and j is not None:
            yield from _changes(old[i], new[j], f"{path}[{j}]")


def _aligned(old: Sequence[Any], new: Sequence[Any]) -> Iterator[tuple[int | None, int | None]]:
    """Pairs of positions that belong together, None for what was inserted or removed; no equal pairs."""
    first, last = 0, 0
    while first < min(len(old), len(new)) and old[first] == new[first]:
        first += 1
    while last < min(len(old), len(new)) - first and old[-1 - last] == new[-1 - last]:
        last += 1
    before, after = old[first : len(old) - last], new[first : len(new) - last]
    if len(before) * len(after) > _MOST_PAIRS:
        pairs: Iterable[tuple[int | None, int | None]] = itertools.zip_longest(
            range(len(before)), range(len(after))
        )
    else:
        pairs = _cheapest(before, after)
    for i, j in pairs:
        yield (None if i is None else first + i), (None if j is None else first + j)


def _cheapest(old: Sequence[Any], new: Sequence[Any]) -> Iterator[tuple[int | None, int | None]]:
    """The alignment that changes the fewest genes (Wagner and Fischer 1974)."""
    n, m = len(old), len(new)
    paired = [[_distance(a, b) for b in new] for a in old]
    gone, come = [_weight(a) for a in old], [_weight(b) for b in new]
    cost = [[math.inf] * (m + 1) for _ in range(n + 1)]  # of what is left from there
    step: dict[tuple[int, int], tuple[int, int]] = {}
    cost[n][m] = 0.0
    for i in range(n, -1, -1):
        for j in range(m, -1, -1):
            ways = [(paired[i][j] + cost[i + 1][j + 1], (1, 1))] if i < n and j < m else []
            ways += [(gone[i] + cost[i + 1][j], (1, 0))] if i < n else []
            ways += [(come[j] + cost[i][j + 1], (0, 1))] if j < m else []
            if ways:
                cost[i][j], step[i, j] = min(ways, key=lambda way: way[0])
    i = j = 0
    while (i, j) in step:
        down, right = step[i, j]
        if not (down and right and paired[i][j] == 0):
            yield (i if down else None), (j if right else None)
        i, j = i + down, j + right


def _distance(old: Any, new: Any) -> float:
    """How many genes differ; lists inside are compared position by position."""
    if old == new:
        return 0.0
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        return float(sum(_distance(old.get(key), new.get(key)) for key in {**old, **new}))
    if isinstance(old, list | tuple) and isinstance(new, list | tuple):
        shared = sum(_distance(a, b) for a, b in zip(old, new, strict=False))
        longer = old if len(old) > len(new) else new
        return shared + sum(_genes(item) for item in longer[min(len(old), len(new)) :])
    return max(_genes(old), _genes(new))


def _weight(value: Any) -> float:
    """What it costs to insert or to remove `value`: less than to change most of another into it."""
    return 0.5 + 0.5 * _genes(value)


def _genes(value: Any) -> float:
    if isinstance(value, Mapping):
        return float(sum(_genes(below) for below in value.values()))
    if isinstance(value, list | tuple):
        return float(sum(_genes(below) for below in value))
    return 1.0


def _line_changes(old: Sequence[str], new: Sequence[str], path: str) -> Iterator[str]:
    matcher = difflib.SequenceMatcher(None, old, new, autojunk=False)
    for tag, i, i_end, j, j_end in matcher.get_opcodes():
        if tag == "replace" and i_end - i == j_end - j:
            for k in range(i_end - i):
                yield f"{path} line {j + k + 1}: {_short(old[i + k])} -> {_short(new[j + k])}"
        elif tag != "equal":
            if i_end > i:
                yield f"{path} -{_lines(i_end - i)} at {i + 1}"
            if j_end > j:
                yield f"{path} +{_lines(j_end - j)} at {j + 1}: {_short(new[j])}"


def _lines(n: int) -> str:
    return f"{n} line{'' if n == 1 else 's'}"


def _item(value: Any) -> str:
    """The first genes of a part: `conv 32`."""
    if isinstance(value, Mapping):
        plain = [below for below in value.values() if isinstance(below, str | int | float)]
        return _short(" ".join(compact(below) for below in plain[:2]))
    return _short(value)


def _short(value: Any) -> str:
    return "none" if value is None else one_line(compact(value), _VALUE)
