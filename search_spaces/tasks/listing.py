"""Tasks as a space file lists them: a name, or a name and options, such as `digits view=sequence`."""

from __future__ import annotations

from typing import Any

import yaml

from cambrian.search_spaces.errors import UserError
from cambrian.search_spaces.tasks import TASKS, Task


def parse_listed(text: str) -> tuple[str, dict[str, Any]]:
    """The name and the options that `text` lists; values are read as YAML.

    Raises:
        UserError: an option without a value.
    """
    name, *words = text.split()
    options = {}
    for word in words:
        key, sign, value = word.partition("=")
        if not sign or not key:
            raise UserError(f"task {text!r}: {word!r} is no option", hint="write name key=value")
        options[key] = yaml.safe_load(value)
    return name, options


def create_listed(text: str) -> Task:
    """The task that `text` lists.

    Raises:
        UnknownNameError: no task has that name.
        UserError: an option is not what it should be, or is missing.
    """
    name, options = parse_listed(text)
    try:
        return TASKS.create(name, **options)
    except TypeError:
        raise UserError(f"task {name!r} needs options of its own", hint="name them in a run file") from None
