"""Undefined variables of templates: an error for any use, or a note of each, and what is said of them."""

from __future__ import annotations

import functools
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import jinja2
from jinja2.exceptions import SecurityError
from jinja2.utils import missing

from cambrian.agents.errors import UserError
from cambrian.search_spaces import near_names


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
        if not issubclass(exc, SecurityError):  # which says that it is there and may not be touched
            # called with the message only, so a partial does where Jinja2 asks for a type
            named = functools.partial(MissingVariable, name=str(name), owner=obj)
            exc = cast("type[jinja2.TemplateRuntimeError]", named)
        super().__init__(hint, obj, name, exc)


@dataclass(frozen=True)
class Slip:
    """One use of what is not defined, or may not be used.

    Attributes:
        place: file and line.
        error: what is said of it.
        variable: whether a variable is missing rather than a field of one.
    """

    place: str
    error: UserError
    variable: bool


def slips(
    environment: jinja2.Environment, name: str, variables: Mapping[str, Any]
) -> dict[tuple[str, str], Slip]:
    """All uses of what is not defined in one rendering that goes on after each, by place and message.

    What is missing is empty there, so that what depends on it may be passed over. Any other error ends the
    rendering, and is no slip.
    """
    found: dict[tuple[str, str], Slip] = {}

    class Noting(jinja2.Undefined):
        """Notes that it was used, and passes for what is empty."""

        __slots__ = ()

        def _note(self, *_args: Any, **_more: Any) -> Any:
            place = _here()
            if issubclass(self._undefined_exception, SecurityError):
                error = forbidden(place, str(self._undefined_hint))
            else:
                error = undefined(place, str(self._undefined_name), self._undefined_obj, variables)
            slip = Slip(place, error, self._undefined_obj is missing)
            found.setdefault((place, error.message), slip)
            return self

        def _empty(self, kind: type) -> Any:
            self._note()
            return kind()

        def __getattr__(self, name: str) -> Any:
            if name.startswith("__"):
                raise AttributeError(name)
            return self._note()

        __call__ = __getitem__ = _note
        __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = __pow__ = __rpow__ = _note
        __truediv__ = __rtruediv__ = __floordiv__ = __rfloordiv__ = __mod__ = __rmod__ = _note
        __neg__ = __pos__ = __abs__ = __round__ = _note
        __str__ = functools.partialmethod(_empty, str)
        __bool__ = functools.partialmethod(_empty, bool)
        __int__ = __len__ = functools.partialmethod(_empty, int)
        __float__ = functools.partialmethod(_empty, float)
        __hash__ = jinja2.Undefined.__hash__

        def __iter__(self) -> Any:
            self._note()
            return iter(())

        def _never(self, *_args: Any, **_more: Any) -> Any:
            self._note()
            return False

        __eq__ = __ne__ = __lt__ = __le__ = __gt__ = __ge__ = __contains__ = _never

    try:
        environment.overlay(undefined=Noting).get_template(name).render(variables)
    except (jinja2.TemplateError, UserError, TypeError, ValueError, ArithmeticError, LookupError):
        pass  # what a strict rendering says of it
    except RecursionError:
        pass
    return found


def undefined(place: str, name: str, owner: object, variables: Mapping[str, Any]) -> UserError:
    """The error for a `name` that is not in `owner`, or is no variable, with the near ones."""
    if owner is missing:
        what, known = repr(name), sorted(map(str, variables))
    else:
        known = sorted(map(str, owner)) if isinstance(owner, Mapping) else []
        what = f"{name!r} of {_in_words(owner, variables)}"
    return UserError(
        f"prompt template {place} uses {what}, which is not defined",
        hint=near_names(name, known) if known else "",
    )


def forbidden(place: str, what: str) -> UserError:
    """The error for what the sandbox does not let templates do."""
    return UserError(
        f"prompt template {place} does what templates may not: {what.rstrip('.')}",
        hint="templates run in a sandbox: they read the variables they are given and change nothing",
    )


def place_of(filename: str, line: int) -> str:
    """A line of a template as messages write it."""
    path = Path(filename)
    return f"{path.parent.name}/{path.name} line {line}".removeprefix("/")


def _here() -> str:
    """The line of the template that is being rendered."""
    frame = sys._getframe(1)
    while frame.f_back is not None and "__jinja_template__" not in frame.f_globals:
        frame = frame.f_back
    template = frame.f_globals.get("__jinja_template__")
    if template is None:
        raise jinja2.UndefinedError("no template runs")  # a constant is being folded: it is kept as it stands
    return place_of(str(template.filename), template.get_corresponding_lineno(frame.f_lineno))


def _in_words(owner: object, variables: Mapping[str, Any]) -> str:
    """What templates call `owner`: the variable it is, or the one that it is found in."""
    if type(owner).__name__ == "LoopContext":
        return "'loop'"
    for name, value in variables.items():
        if (path := _path(owner, value, repr(str(name)))) is not None:
            return path
    return f"a {type(owner).__name__}"


def _path(owner: object, value: object, told: str, depth: int = 4) -> str | None:
    if value is owner and not isinstance(value, str | int | float | None):
        return told
    if depth == 0:
        return None
    below: list[tuple[object, str]] = []
    if isinstance(value, Mapping):
        plain = told.startswith("'") and " " not in told
        below = [(v, f"{told[:-1]}.{k}'" if plain else f"'{k}' of {told}") for k, v in value.items()]
    elif isinstance(value, Sequence) and not isinstance(value, str):
        below = [(each, f"an entry of {told}") for each in value]
    found = (_path(owner, each, words, depth - 1) for each, words in below)
    return next((path for path in found if path is not None), None)
