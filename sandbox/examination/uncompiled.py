"""Keeps torch's compiler out of passes on the meta device, which have no use for it.

Torch wraps many of its Python kernels for that device in a guard against being compiled. A guard's first call
imports the compiler: one to three CPU seconds and 90 MB, in every worker that examines a candidate.
"""

from __future__ import annotations

from types import CellType, FunctionType
from typing import Any

import torch._refs
from torch._compile import _disable_dynamo

_EMPTY = CellType()


def spare_compiler() -> None:
    """Let every guard of `torch._refs` call what it guards at once, as it does where nothing is compiled.

    A guard asks its function for a guarded version that was made before; from now on that is the function
    itself. Safe to call twice.
    """
    guard = _disable_dynamo(lambda: None).__code__
    waiting, seen = list(vars(torch._refs).values()), set[int]()
    while waiting:
        value: Any = waiting.pop()
        if not isinstance(value, FunctionType) or id(value) in seen:
            continue
        seen.add(id(value))
        held = [cell.cell_contents for cell in value.__closure__ or () if cell != _EMPTY]
        if value.__code__ is guard:
            guarded: Any = held[value.__code__.co_freevars.index("fn")]
            guarded.__dynamo_disable = guarded
        waiting += held
