"""How alike two trained networks predict, whatever they are made of."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from cambrian.sandbox.outputs import OutputError, read_outputs
from cambrian.search_spaces import Loss


def agreement(first: Path, second: Path, loss: Loss) -> float | None:
    """Whether two trainings of one task predict the same on its validation samples, from 0 to 1.

    Args:
        first: folder of a job that was trained.
        second: folder of another.
        loss: that both were trained by.

    Returns:
        For classes the share of samples for which both predict the same, else the squared correlation of
        their outputs. None where one of them has no outputs, or always the same.
    """
    try:
        ours, theirs = read_outputs(first, loss).val, read_outputs(second, loss).val
    except (OSError, OutputError):
        return None
    if ours.shape != theirs.shape or not ours.size:
        return None
    if loss == "cross-entropy":
        return float((ours.argmax(axis=1) == theirs.argmax(axis=1)).mean())
    if ours.std() == 0 or theirs.std() == 0:
        return None
    return min(float(np.corrcoef(ours.ravel(), theirs.ravel())[0, 1]) ** 2, 1.0)
