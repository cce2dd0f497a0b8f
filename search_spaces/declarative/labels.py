"""Short names: label templates filled in, and the line that a person knows a design by."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from itertools import groupby
from typing import Any, NamedTuple

from cambrian.search_spaces.declarative.definition import Definition
from cambrian.search_spaces.declarative.expression import ExpressionError
from cambrian.search_spaces.declarative.grammar import (
    KIND,
    NOTHING,
    Domain,
    Field,
    Options,
    Record,
    Repeat,
    Scalar,
)
from cambrian.search_spaces.declarative.templates import Hole, words_of
from cambrian.search_spaces.space import Genotype

LONGEST = 100
"""Characters of a summary."""

_SEPARATORS = frozenset({">", "|", ",", "+"})


class _Detail(NamedTuple):
    """How much a label tells.

    Attributes:
        short: abbreviate names and values.
        words: kept of each nested label, from its beginning.
        levels: of nested records that are written out; deeper ones are only counted.
        items: of a list that are written out, half of them from each end.
    """

    short: bool = False
    words: int = 99
    levels: int = 99
    items: int = 99


_STEPS = (
    _Detail(),
    _Detail(short=True),
    *(_Detail(True, words) for words in (4, 3, 2, 1)),
    *(_Detail(True, 2, levels) for levels in (12, 10, 8, 7, 6, 5, 4)),
    *(_Detail(True, 1, levels, items) for levels in (5, 4, 3, 2, 1, 0) for items in (8, 6, 4, 2)),
)
_LOSSLESS = 2
"""Steps that keep every word; a design that needs a later one is told from its neighbours by a digest."""


def label(record: Record, scope: Mapping[str, Any]) -> str:
    """What `record` is called: its template filled in, or its values where it has none.

    Args:
        record: of the rule, or the option that was taken.
        scope: the record's genotype over those of the records around it, see `grammar.scope_of`.
    """
    return _record(record, scope, _Detail()) or record.name.rpartition(".")[2]


def summarise(definition: Definition, genotype: Genotype) -> str:
    """One line of at most 100 characters that a person knows the design by.

    Details are dropped in steps until it fits: words are abbreviated, labels lose their last words, then
    deep and inner parts are only counted; then a digest of the genotype ends the line.
    """
    line, complete = _fitted(definition.grammar.start, genotype, {}, LONGEST, reserve=8)
    if complete:
        return line or definition.grammar.start.name
    digest = hashlib.sha256(json.dumps(genotype, sort_keys=True).encode()).hexdigest()[:6]
    return f"{line} #{digest}"


def _fitted(
    domain: Domain, value: Any, outer: Mapping[str, Any], most: int, reserve: int = 0
) -> tuple[str, bool]:
    """The most detailed line of at most `most` characters, and whether every word is in it.

    A line that leaves words out is `reserve` characters shorter.
    """
    line = ""
    for step, detail in enumerate(_STEPS):
        line = _domain(domain, value, outer, detail)
        complete = step < _LOSSLESS
        if len(line) <= most - (0 if complete else reserve):
            return line, complete
    return _cut(line, most - reserve), False


def locate(definition: Definition, genotype: Genotype, gene: str) -> tuple[Domain, Any, dict[str, Any]]:
    """The domain, the value and the scope around a place such as `stages[1].body`; "" is the start.

    Raises:
        KeyError: the genotype has no such place.
    """
    domain: Domain = definition.grammar.start
    value: Any = genotype
    scope: dict[str, Any] = {}
    for name, index in re.findall(r"([^.\[\]]+)|\[(\d+)\]", gene):
        if index:
            if not isinstance(domain, Repeat):
                raise KeyError(gene)
            domain, value = domain.item, value[int(index)]
            continue
        record = chosen(domain, value)
        scope = {**scope, **value}
        domain, value = record.by_name[name].domain, value[name]
    return domain, value, scope


def chosen(domain: Domain, value: Any) -> Record:
    """The record that `value` is of: itself, or the option that was taken.

    Raises:
        KeyError: a value or a list is no record.
    """
    if isinstance(domain, Options):
        return domain.cases[value[KIND]]
    if not isinstance(domain, Record):
        raise KeyError(str(value))
    return domain


def label_at(definition: Definition, genotype: Genotype, gene: str, most: int = LONGEST) -> str:
    """The label of the record or value at `gene`, shortened as summaries are when longer than `most`."""
    domain, value, scope = locate(definition, genotype, gene)
    return _fitted(domain, value, scope, most)[0]


# Values in words ------------------------------------------------------------------------------------------


def _domain(domain: Domain, value: Any, outer: Mapping[str, Any], detail: _Detail) -> str:
    if isinstance(domain, Scalar):
        return _scalar(value, "", domain, detail)
    if isinstance(domain, Repeat):
        return _list(domain, value, outer, detail)
    if detail.levels < 0 and _records(value) > 1:
        return f"..{_records(value)}"
    return _record(chosen(domain, value), {**outer, **value}, detail)


def _list(domain: Repeat, value: list[Any], outer: Mapping[str, Any], detail: _Detail) -> str:
    words = [_domain(domain.item, item, outer, detail) for item in value]
    if isinstance(domain.item, Record):
        # one of which nothing is left to say still counts
        words = [word or domain.item.name.rpartition(".")[2] for word in words]
    runs = [(word, len(list(run))) for word, run in groupby(words)]
    if isinstance(domain.item, Scalar):
        return "-".join(word if n == 1 else f"{n}*{word}" for word, n in runs)
    folded = [word if n == 1 else f"{n}*({word})" for word, n in runs if word]
    if len(folded) > detail.items:
        half = detail.items // 2
        folded = [*folded[:half], f"..{len(folded) - 2 * half}", *folded[len(folded) - half :]]
    return " > ".join(folded)


def _record(record: Record, scope: Mapping[str, Any], detail: _Detail) -> str:
    inner = detail._replace(levels=detail.levels - 1)
    if record.label is None:
        return _made_up(record, scope, inner)
    written = []
    for parts in words_of(record.label):
        texts = [part if isinstance(part, str) else _hole(part, record, scope, inner) for part in parts]
        # a word that is nothing but holes and whose holes are all empty is not there
        if "".join(texts):
            written.append("".join(texts))
    return _join(written, detail.words)


def _join(words: list[str], most: int) -> str:
    """Words of a label; separators with nothing beside them go, and so do all words after `most`."""
    kept: list[str] = []
    listed = any(word in _SEPARATORS for word in words)
    for word in words:
        if word in _SEPARATORS and (not kept or kept[-1] in _SEPARATORS):
            continue
        # lists of parts are the design itself and stay; details of a part go
        if not listed and len(kept) >= most:
            break
        kept.append(word)
    while kept and kept[-1] in _SEPARATORS:
        kept.pop()
    return " ".join(kept)


def _made_up(record: Record, scope: Mapping[str, Any], detail: _Detail) -> str:
    """`kind width 32 gelu (body)`: fields at their default or without meaning are left out."""
    plain, nested = [record.kind] if record.kind else [], []
    for each in record.fields:
        value = scope[each.name]
        if isinstance(each.domain, Scalar):
            if not _silent(each, value, scope):
                plain.append(_scalar(value, each.name, each.domain, detail, record))
        elif text := _domain(each.domain, value, scope, detail):
            nested.append(text)
    words = _join([word for word in plain if word], detail.words + bool(record.kind))
    if not nested:
        return words
    if record.kind is None:
        return " | ".join([words, *nested] if words else nested)
    return f"{words}({', '.join(nested)})"


def _silent(each: Field, value: Any, scope: Mapping[str, Any]) -> bool:
    if each.default is not NOTHING and value == each.default:
        return True
    try:
        return each.when is not None and not each.when(scope)
    except ExpressionError:
        return False


def _scalar(value: Any, name: str, domain: Scalar, detail: _Detail, owner: Record | None = None) -> str:
    """A value after its field's name, as far as it needs one: names tell themselves, numbers do not."""
    if isinstance(value, bool):
        word = name.replace("_", " ") if value else ""
        return word or ("yes" if value and not name else "" if name else "no")
    if isinstance(value, str):
        return _abbreviated(value, domain) if detail.short else value
    number = f"{value:g}" if isinstance(value, float) else str(value)
    if not detail.short:
        return f"{name.replace('_', ' ')} {number}" if name else number
    number = number.removeprefix("0") if number.startswith("0.") else number
    return (_initials(name, owner) if owner else name) + number


def _abbreviated(value: str, domain: Scalar) -> str:
    """The shortest beginning of 3 letters or more that no other value has; longer than 5, the value."""
    others = [v for v in domain.values if isinstance(v, str) and v != value]
    for size in range(3, 6):
        if len(value) > size + 1 and not any(v.startswith(value[:size]) for v in others):
            return value[:size]
    return value


def _initials(name: str, owner: Record) -> str:
    """The shortest beginning of a field's name that no other number of its record has."""
    others = [f.name for f in owner.fields if f.name != name and isinstance(f.domain, Scalar)]
    for size in range(1, len(name)):
        if not any(other.startswith(name[:size]) for other in others):
            return name[:size]
    return name


def _records(value: Any) -> int:
    """Records in a piece of genotype, itself included."""
    if isinstance(value, list):
        return sum(map(_records, value))
    return 1 + sum(map(_records, value.values())) if isinstance(value, dict) else 0


def _cut(line: str, room: int) -> str:
    """As many whole words as fit."""
    return line if len(line) <= room else line[: room - 2].rpartition(" ")[0].rstrip(" >|,(") + " .."


def _hole(hole: Hole, record: Record, scope: Mapping[str, Any], detail: _Detail) -> str:
    value = hole.expression(scope)
    if hole.spec and isinstance(value, int | float):
        return format(value, hole.spec)
    known = record.by_name.get(hole.field)
    if known is not None:
        named = hole.field if isinstance(value, bool) else ""
        if isinstance(known.domain, Scalar):
            return _scalar(value, named, known.domain, detail)
        return _domain(known.domain, value, scope, detail)
    if value is None or value is False:
        return ""
    text = f"{value:g}" if isinstance(value, float) else str(value)
    return re.sub(r"(?<![\d.])0(?=\.\d)", "", text) if detail.short else text
