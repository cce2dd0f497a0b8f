"""What is seen of a tape while it plays: how large data is, and which activations are flat."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from cambrian.sandbox.examination.calls import FLAT

Place = int
"""Of a tensor on a tape: parameters first, then the sample, then results."""


@dataclass(slots=True)
class Step:
    """One call: what is to be put where in its arguments, and where its results are kept.

    `users` are the parameters that meet data here, each with how; `data` is that data.
    """

    func: Callable[..., Any]
    args: list[Any]
    kwargs: dict[str, Any]
    holes: list[tuple[int | str | tuple[int, int], Place]]
    made: Place | list[Place]
    users: list[tuple[str, Place]]
    data: list[Place]


@dataclass
class Watch:
    """What is seen of a tape while it plays.

    Attributes:
        alive: False when an activation that is flat in places was met in flat places only. What leads to it
            is then invisible in the outputs, as it would not be for other weights.
        met: of each parameter, for each use, how large the data was that it met; of one that is added, how
            large the sum is, so that it does not matter whether a layer adds its bias itself.
    """

    alive: bool = True
    met: dict[Place, list[tuple[Any, ...]]] = field(default_factory=dict)
    _seen: list[Step] = field(default_factory=list)

    def look(self, step: Step, values: Sequence[Any], made: Any) -> None:
        """Note what one step shows."""
        if step.users:
            self._seen.append(step)
        if self.alive and step.func in FLAT:
            self.alive = not flattened(made, values[step.data[0]] if step.data else None)

    def settle(self, values: Sequence[Any]) -> None:
        """Measure what was met: at once for many steps, as long as nothing overwrites `values`."""
        places = {place for step in self._seen for place in step.data}
        places.update(
            step.made
            for step in self._seen
            if type(step.made) is int and any(h == "added" for h, _ in step.users)
        )
        sizes = _sizes(values, sorted(places))
        for step in self._seen:
            met = tuple(sorted(sizes[place] for place in step.data))
            for how, user in step.users:
                found = (how, sizes[each_place(step.made)[0]]) if how == "added" else (how, *met)
                self.met.setdefault(user, []).append(found)
        self._seen.clear()


def flattened(result: Tensor, given: Any) -> bool:
    """Whether an activation gave one value for all it was given, though that was more than zeros."""
    values = result.detach().flatten()
    # the first few values nearly always tell already
    if len(set(values[:8].tolist())) > 1 or not _constant(values[:256]) or not _constant(values):
        return False
    # zeros into zeros hide nothing: what vanished did so before
    return given is result or not isinstance(given, Tensor) or bool(values.any()) or bool(given.any())


def each_place(made: Place | list[Place]) -> list[Place]:
    """The places of what a step made, be it one tensor or several."""
    return [made] if isinstance(made, int) else made


def _sizes(values: Sequence[Any], places: Sequence[Place]) -> dict[Place, int]:
    """How large values are on average, to five digits: the order of sums must not show in the last one."""
    if not places:
        return {}
    tensors = [values[place].detach() for place in places]
    plain = [each if each.is_floating_point() else each.double() for each in tensors]
    totals = [norm.item() for norm in torch._foreach_norm(plain, 1)]
    return {
        place: round(math.log(total) * 1e5) if 0 < total < math.inf else 0
        for place, total in zip(places, totals, strict=True)
    }


def _constant(values: Tensor) -> bool:
    low, high = values.aminmax()
    return bool(low == high)
