"""One registry for every extension point: lazy built-ins, entry points, near names in errors."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Callable, Mapping
from importlib import metadata
from typing import Any, Generic, TypeVar, cast

from cambrian.search_spaces.errors import UnknownNameError, UserError

T = TypeVar("T")


def near_names(name: str, known: list[str]) -> str:
    """A hint for an unknown `name`: the nearest of `known` when there are any, else all of them."""
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    if near:
        return f"did you mean {' or '.join(near)}?"
    return f"known: {', '.join(sorted(known)) or 'none'}"


class Registry(Generic[T]):
    """Names to factories of one extension point.

    Built-ins are given as `"module:attribute"` and imported on first use, so that listing names costs no
    import. Third parties register under the entry-point group.

    Args:
        what: the noun used in errors, such as `"space"`.
        group: entry-point group, such as `"cambrian.spaces"`.
        builtin: name to `"module:attribute"`.
    """

    def __init__(self, what: str, group: str, builtin: Mapping[str, str]) -> None:
        self.what = what
        self.group = group
        self._targets = dict(builtin)
        self._loaded: dict[str, Callable[..., T]] = {}

    def register(self, name: str, factory: Callable[..., T]) -> None:
        """Add `factory` under `name` for this process. A taken name is a `UserError`."""
        if name in self.names():
            raise UserError(f"{self.what} {name!r} is already registered", hint="choose another name")
        self._loaded[name] = factory

    def names(self) -> list[str]:
        """All names, sorted; imports nothing."""
        return sorted({*self._targets, *self._loaded, *(e.name for e in self._entry_points())})

    def get(self, name: str) -> Callable[..., T]:
        """The factory called `name`.

        Raises:
            UnknownNameError: no such name; the hint lists the near ones.
            UserError: the thing is known but a package that it needs is missing.
        """
        if name in self._loaded:
            return self._loaded[name]
        try:
            if name in self._targets:
                module, attribute = self._targets[name].split(":")
                factory = getattr(importlib.import_module(module), attribute)
            else:
                matches = [e for e in self._entry_points() if e.name == name]
                if not matches:
                    raise UnknownNameError(
                        f"unknown {self.what} {name!r}", hint=near_names(name, self.names())
                    )
                factory = matches[0].load()
        except ModuleNotFoundError as error:
            raise UserError(
                f"{self.what} {name!r} needs the package {error.name!r}, which is not installed",
                hint=f"pip install {error.name}",
            ) from error
        self._loaded[name] = cast("Callable[..., T]", factory)
        return self._loaded[name]

    def create(self, name: str, **kwargs: Any) -> T:
        """Call the factory called `name` with `kwargs`."""
        return self.get(name)(**kwargs)

    def _entry_points(self) -> metadata.EntryPoints:
        return metadata.entry_points(group=self.group)
