"""Undefined variables of templates: an error for any use, which remembers what was missing."""

from __future__ import annotations

import functools
from typing import Any, cast

import jinja2
from jinja2.utils import missing


class MissingVariable(jinja2.UndefinedError):
    """A template used what is not defined.

    Attributes:
        name: of what is missing.
        owner: what it was looked up in; jinja2's `missing` for a variable.
    """

    def __init__(self, message: str, name: str, owner: object) -> None:
        super().__init__(message)
        self.name, self.owner = name, owner


class NamedUndefined(jinja2.StrictUndefined):
    """A strict undefined whose error remembers what was missing, so that near names can be told."""

    __slots__ = ()

    def __init__(
        self,
        hint: str | None = None,
        obj: Any = missing,
        name: str | None = None,
        exc: type[jinja2.TemplateRuntimeError] = jinja2.UndefinedError,
    ) -> None:
        del exc
        # called with the message only, so a partial does where Jinja2 asks for a type
        named = functools.partial(MissingVariable, name=str(name), owner=obj)
        super().__init__(hint, obj, name, cast("type[jinja2.TemplateRuntimeError]", named))
