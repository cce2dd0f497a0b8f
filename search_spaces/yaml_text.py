"""YAML as users write it: errors name file and line, and a key that stands twice is one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from cambrian.search_spaces.errors import UserError

# in C where libyaml is there: every sandbox job parses its space, and Python takes ten times as long
_Fastest: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


_HINT = "indent with spaces, never tabs; quote text that holds ': ', ' #' or, within {} and [], a comma"


class _BadKey(yaml.constructor.ConstructorError):
    """A key that YAML allows and we do not."""


class _Loader(_Fastest):  # type: ignore[misc]
    """YAML without duplicate keys: of two, one would be dropped without a word."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise _BadKey(problem="a key is no plain word", problem_mark=key.start_mark)
            if key.value in seen:
                raise _BadKey(problem=f"the key {key.value!r} stands here twice", problem_mark=key.start_mark)
            seen.add(key.value)
        made: dict[Any, Any] = super().construct_mapping(node, deep)
        return made


def read_mapping(path: Path, what: str, error_type: type[UserError]) -> dict[str, Any]:
    """The mapping that a YAML file holds.

    Args:
        path: the file.
        what: what the file is, for messages, such as `run file`.
        error_type: raised when the file is unreadable, not YAML or no mapping.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise error_type(
            f"cannot read {what} {path}: {error.strerror}", hint=f"give the path of a YAML {what}"
        ) from error
    except UnicodeDecodeError as error:
        raise error_type(f"{what} {path} is not UTF-8 text", hint="save it as UTF-8") from error
    try:
        data = yaml.load(text, Loader=_Loader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f" at line {mark.line + 1}" if mark is not None else ""
        problem = getattr(error, "problem", None) or "cannot be parsed"
        hint = "" if isinstance(error, _BadKey) else _HINT
        raise error_type(f"{what} {path} is not YAML{place}: {problem}", hint=hint) from error
    if not isinstance(data, dict):
        raise error_type(f"{what} {path} holds no mapping", hint="it starts like 'name: ...'")
    return data
