"""Edits in words: places, values and parts of a genotype, short."""

from __future__ import annotations

from typing import Any

from cambrian.search_spaces.declarative.grammar import KIND, Domain, Options, Repeat, Scalar


def told(value: Any) -> str:
    """A value in words."""
    return str(value).lower() if isinstance(value, bool) else cut(str(value), 24)


def place(path: str, most: int = 44) -> str:
    """A path, of which the end is kept when it is long."""
    return path if len(path) <= most else "..." + path[3 - most :]


def cut(text: str, most: int) -> str:
    """`text`, of which the beginning is kept when it is long."""
    return text if len(text) <= most else text[: most - 3] + "..."


def brief(domain: Domain, value: Any) -> str:
    """A derivation by its kind and first values."""
    if isinstance(domain, Scalar):
        return told(value)
    if isinstance(domain, Repeat):
        return f"{len(value)} item{'s' if len(value) != 1 else ''}"
    record = domain.cases[value[KIND]] if isinstance(domain, Options) else domain
    names = [field.name for field in record.fields if isinstance(field.domain, Scalar)][:4]
    parts = ([value[KIND]] if record.kind is not None else []) + [
        f"{name} {told(value[name])}" if isinstance(value[name], bool | int | float) else told(value[name])
        for name in names
    ]
    return cut(", ".join(parts), 50) or record.name
