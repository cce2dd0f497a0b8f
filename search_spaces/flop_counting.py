"""Torch's counter of floating point operations, safe beside other threads that run networks."""

from __future__ import annotations

from typing import Any

from torch.utils.flop_counter import FlopCounterMode


class _Untracked:
    """In place of torch's tracker of modules, whose hooks hang on every module of every thread.

    Those would write into whatever another thread records of a pass of its own; and nobody here asks which
    module an operation belongs to.
    """

    parents = frozenset({"Global"})

    def __enter__(self) -> None:
        return

    def __exit__(self, *_: object) -> None:
        return


def flop_counter() -> FlopCounterMode:
    """A counter of the operations of this thread; `get_total_flops` tells their sum."""
    counter = FlopCounterMode(display=False)
    untracked: Any = _Untracked()
    counter.mod_tracker = untracked
    return counter
