"""A tape of one forward pass: what was computed, to be computed again with other weights and samples.

Played back, a network costs little more than its operations: no module is called, what the output does not
need is left out, and a tape can be written on the meta device and played on the CPU.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from operator import itemgetter
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from cambrian.sandbox.examination.calls import (
    BIASES,
    FLAT,
    INPLACE,
    LOCAL,
    NORM_ARGUMENTS,
    OF_ZEROS,
    PLAIN,
    PRODUCTS,
    QUERIES,
    SIZED,
    SUMS,
    SWITCHES,
)
from cambrian.sandbox.examination.watch import Place, Step, Watch, each_place

EPSILON = 0.1
"""Of every batch norm while it is hashed: with the usual 1e-5, a factor of 2 before a norm would change the
outputs by about as much as rounding does, and so neither clearly show nor clearly vanish. Its real epsilon is
hashed beside the outputs."""

Norm = tuple[float, float, bool]
"""Momentum, epsilon, and whether statistics are kept, of a batch norm."""


class Tape:
    """The steps of one pass.

    Args:
        inputs: tensors that `play` will be given others for, each with a place: parameters, then the sample.
        constants: tensors that stay, such as buffers.
        batch: samples of the pass when another number will be played: calls that were told it do not fit.

    Attributes:
        whole: whether `play` can compute all that the pass did. Not so when values were read into Python, or
            tensors came from elsewhere.
        local: whether it can be played on smaller pictures as well.
        apart: whether samples, on a `local` tape, meet one another in batch norms only.
        needed: places of the parameters that the result may depend on; all until the tape is finished.
        norms: of each batch norm, `Norm` and the places of its weight and bias.
    """

    def __init__(
        self, inputs: Sequence[Tensor], constants: Iterable[Tensor] = (), batch: int | None = None
    ) -> None:
        self.whole = self.local = self.apart = True
        self.norms: list[tuple[Norm, Place | None, Place | None]] = []
        self.needed = set(range(len(inputs) - 1))
        self._least = 0.0
        self._sides: set[int] = set()
        self._batch = batch
        self._steps: list[Step] = []
        self._places = {id(tensor): place for place, tensor in enumerate(inputs)}
        self._sample = len(inputs) - 1
        self._shape = tuple(inputs[-1].shape)
        self._size = len(inputs)
        self._result = -1
        self._constants = {id(tensor) for tensor in constants}
        self._kept: list[Any] = [*inputs]  # no address is to be given to another tensor meanwhile
        self._zeros: set[Place] = set()
        self._data = {self._sample}
        self._origins: dict[Place, set[Place]] = {place: {place} for place in range(self._sample)}
        self._fixed: list[Any] = []
        self._ready: list[tuple[Any, Any, dict[str, Any], Place | list[Place], Step]] = []
        self._written = False  # whether tensors were changed in place

    def write(
        self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], result: Any
    ) -> None:
        """Note a call and what it gave."""
        name = func.__name__
        if not self.whole or name in SWITCHES or (name in QUERIES and not isinstance(result, Tensor)):
            return
        if name == "add_" and id(args[0]) in self._constants:
            return  # a batch norm counts its batches
        if func is functional.batch_norm:
            func, args, kwargs = self._norm(args, kwargs)
        elif func is functional.relu and not (args[1:] or kwargs.get("inplace")):
            func, args, kwargs = torch.relu, args[:1] or (kwargs["input"],), {}
        if self._batch is not None and not self._movable(name, args, kwargs):
            self.whole = False
        holes = self._holes(args, kwargs)
        self._written |= name[-1] == "_" != name[-2] or name.startswith("__i") or "out" in kwargs
        self._written |= kwargs.get("inplace", False) is True or (
            name in INPLACE and bool(args) and args[-1] is True
        )
        self._kept.append(result)
        if isinstance(result, Tensor):
            made: Any = self._place(result)
        elif isinstance(result, list | tuple) and all(isinstance(each, Tensor) for each in result):
            made = [self._place(each) for each in result]
        else:
            self.whole &= result is None and name == "__setitem__"
            made = []
        data, users = self._meetings(name, holes, [made] if type(made) is int else made)
        if type(made) is int and self._is_zero(name, args, kwargs, holes):
            self._zeros.add(made)
            func, args, kwargs, holes, users, data = _zeros, (tuple(result.shape[1:]),), {}, [], [], []
        self._steps.append(Step(func, list(args), kwargs, holes, made, users, data))
        self.local &= name in LOCAL
        if name == "mean":
            self.apart &= _within_samples(args, kwargs)
        if self.local:
            self._measure(name, args, kwargs)

    def finish(self, result: Tensor) -> None:
        """Cut the tape down to what `result` needs.

        What is multiplied by the number 0, and what is made of nothing but such zeros, needs nothing.
        """
        self._result = self._places.get(id(result), -1)
        self.whole &= self._result >= 0
        if not self.whole:
            return
        needed, kept = {self._result}, []
        for step in reversed(self._steps):
            if self._written or not needed.isdisjoint(each_place(step.made)):
                kept.append(step)
                needed.update(place for _, place in step.holes)
        self._steps = kept[::-1]
        self._kept.clear()
        self.needed = {place for place in needed if place < self._sample}

    @property
    def side(self) -> int:
        """Of the picture that it was written for."""
        return self._shape[-1]

    @property
    def plain(self) -> bool:
        """Whether all that is needed is plain arithmetic.

        If not, outputs that are the same for all samples may be so for these samples only.
        """
        return all(step.func.__name__ in PLAIN for step in self._steps)

    def play(self, inputs: Sequence[Tensor | None], watch: Watch | None = None) -> Tensor:
        """What the pass would have made of other `inputs`, on a finished tape that is `whole`."""
        values: list[Any] = [*inputs, *[None] * (self._size - len(inputs)), *self._fixed]
        for func, take, kwargs, made, step in self._ready:
            if take is None:
                result = self._call(step, values)
            elif kwargs:
                result = func(*take(values), **kwargs)
            else:
                result = func(*take(values))
            if isinstance(made, int):
                values[made] = result
            else:
                for place, each in zip(made, result, strict=True):
                    values[place] = each
            if watch is not None and (step.users or func in FLAT):
                watch.look(step, values, result)
                if self._written:
                    watch.settle(values)
        if watch is not None:
            watch.settle(values)
        found: Tensor = values[self._result]
        return found

    def prepare(self) -> None:
        """Sort out where arguments come from, once for all plays: those that stay lie behind the values."""
        self._fixed.clear()
        self._ready.clear()
        for step in self._steps:
            args, holes = step.args, dict(step.holes)
            take = None
            if step.func is _zeros:
                args, holes = [None, self._shape, args[0]], {0: self._sample}
            if args and all(type(at) is int for at in holes):
                places = [holes.get(at, self._size + len(self._fixed) + at) for at in range(len(args))]
                self._fixed.extend(args)
                take = itemgetter(*places) if len(places) > 1 else _only(places[0])
            self._ready.append((step.func, take, step.kwargs, step.made, step))

    @staticmethod
    def _call(step: Step, values: Sequence[Any]) -> Any:
        """One step with tensors in lists, or by keyword."""
        args, kwargs = step.args.copy(), step.kwargs
        for at, place in step.holes:
            if isinstance(at, int):
                args[at] = values[place]
            elif isinstance(at, str):
                kwargs = kwargs | {at: values[place]}
            else:
                args[at[0]] = list(args[at[0]])
                args[at[0]][at[1]] = values[place]
        return step.func(*args, **kwargs)

    def smallest(self) -> int | None:
        """The side of the smallest square picture on which every window still fits into its map.

        A window that fits sees a part of the map, as it does on the real one; where the real one has a side
        of one pixel, so has the small one. None when the tape is not `local`, or nothing can be gained.
        """
        if not self.local or len(self._shape) != 4 or self._shape[2] != self._shape[3]:
            return None
        full = self._shape[2]
        for side in range(max(1, math.ceil(self._least * full - 1e-9)), full // 2 + 1):
            if all((each * side) % full == 0 for each in self._sides):
                return side
        return None

    def _norm(
        self, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]]:
        named = dict(zip(NORM_ARGUMENTS, args, strict=False)) | dict(kwargs)
        about = named.get("momentum", 0.1), named.get("eps", 1e-5), named.get("running_mean") is not None
        weight, bias = named.get("weight"), named.get("bias")
        self.norms.append((about, self._places.get(id(weight)), self._places.get(id(bias))))
        if named.get("training"):  # does not look at the statistics, and nobody will
            return _batch_norm, (named["input"], weight, bias), {}
        return functional.batch_norm, (), named | {"eps": EPSILON}

    def _meetings(
        self, name: str, holes: Sequence[tuple[Any, Place]], results: Sequence[Place]
    ) -> tuple[list[Place], list[tuple[str, Place]]]:
        """The data that a call takes, and the parameters that meet it there."""
        data = [place for _, place in holes if place in self._data]
        users: list[tuple[str, Place]] = []
        if data:
            users = [
                (how, user)
                for at, place in holes
                if place not in self._data
                for how in [_how(name, at)]
                for user in self._origins.get(place, ())
            ]
            self._data.update(results)
        else:
            joined = {origin for _, place in holes for origin in self._origins.get(place, ())}
            self._origins.update(dict.fromkeys(results, joined))
        return data, users

    def _holes(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> list[tuple[Any, Place]]:
        """Where among the arguments which tensors are."""
        holes: list[tuple[Any, Place]] = []
        for at, value in (*enumerate(args), *kwargs.items()):
            if isinstance(value, Tensor):
                self._hole(at, value, holes)
            elif isinstance(value, list | tuple):
                for index, each in enumerate(value):
                    if isinstance(each, Tensor):
                        self.whole &= type(at) is int
                        self._hole((at, index), each, holes)
            elif isinstance(value, dict | set):
                self.whole = False
        return holes

    def _hole(self, at: Any, value: Tensor, holes: list[tuple[Any, Place]]) -> None:
        place = self._places.get(id(value))
        if place is not None:
            holes.append((at, place))
        elif id(value) not in self._constants:
            self.whole = False

    def _place(self, tensor: Tensor) -> Place:
        place = self._places.get(id(tensor))
        if place is None:
            place = self._places[id(tensor)] = self._size
            self._size += 1
        return place

    def _movable(self, name: str, args: Iterable[Any], kwargs: Mapping[str, Any]) -> bool:
        """Whether a call made on the meta device would be the same on the CPU, for another batch."""
        if "device" in kwargs or "dtype" in kwargs or name in ("to", "type", "type_as"):
            return False
        assert self._batch is not None
        return name not in SIZED or not any(
            type(each) is int and each > 0 and each % self._batch == 0
            for each in _flat((*args, *kwargs.values()))
        )

    def _is_zero(
        self, name: str, args: Sequence[Any], kwargs: Mapping[str, Any], holes: Sequence[tuple[Any, Place]]
    ) -> bool:
        """Whether a result is zero whatever the inputs are."""
        if name == "mul":
            return any(type(each) in (int, float) and each == 0 for each in args)
        if name not in OF_ZEROS or (name == "conv2d" and args[2:3] not in ((), (None,))):
            return False
        given = holes[:1] if name not in ("add", "sub") else holes
        others = name in ("add", "sub") and (len(holes) < 2 or kwargs)
        return bool(given) and not others and all(place in self._zeros for _, place in given)

    def _measure(self, name: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
        """Note how small the pictures may become that this call sees."""
        given = args[0] if args else kwargs.get("input")
        if not isinstance(given, Tensor) or given.dim() != 4:
            return
        side = given.shape[2]
        self.local &= side == given.shape[3]
        window = 1
        if name in ("flatten", "linear") and side > 1:
            self.local = False
        if name == "conv2d":
            spread = _number(args[5:6] or (kwargs.get("dilation", 1),))
            window = spread * (args[1].shape[2] - 1) + 1
            self.local &= args[1].shape[2] == args[1].shape[3] and not isinstance(kwargs.get("padding"), str)
        elif name in ("avg_pool2d", "max_pool2d"):
            window = _number(args[1:2] or (kwargs.get("kernel_size"),))
        elif name == "adaptive_avg_pool2d":
            self.local &= _number(args[1:2] or (kwargs.get("output_size"),)) == 1
        self._sides.add(side)
        self._least = max(self._least, min(side, max(window, 2)) / side)


def _batch_norm(input: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
    return torch.batch_norm(input, weight, bias, None, None, True, 0.0, EPSILON, False)


def _zeros(sample: Tensor, was: tuple[int, ...], shape: tuple[int, ...]) -> Tensor:
    """Zeros of `shape`, without the batch, for a sample that may be smaller than it was."""
    if len(shape) == 3 and len(was) == 4 and sample.shape[2] != was[2]:
        shape = (shape[0], *(side * sample.shape[2] // was[2] for side in shape[1:]))
    return torch.zeros((len(sample), *shape), dtype=torch.float64)


def _within_samples(args: Sequence[Any], kwargs: Mapping[str, Any]) -> bool:
    """Whether a mean leaves the first axis alone."""
    dims = args[1] if len(args) > 1 else kwargs.get("dim")
    given = args[0] if args else kwargs.get("input")
    if dims is None or not isinstance(given, Tensor):
        return False
    n = given.dim()
    listed = dims if isinstance(dims, list | tuple) else (dims,)
    return len(listed) > 0 and all(type(each) is int and each % n for each in listed)


def _how(name: str, at: Any) -> str:
    """How a parameter meets data as argument `at` of a function."""
    if name in SUMS or at == "bias" or at == BIASES.get(name):
        return "added"
    return "multiplied" if name in PRODUCTS else str(at)


def _only(place: Place) -> Callable[[Sequence[Any]], tuple[Any]]:
    return lambda values: (values[place],)


def _number(found: Sequence[Any]) -> int:
    value = found[0]
    numbers = set(value) if isinstance(value, list | tuple) else {value}
    return max(numbers) if all(type(each) is int for each in numbers) else 1 << 30


def _flat(values: Iterable[Any]) -> Iterable[Any]:
    for value in values:
        if isinstance(value, list | tuple):
            yield from _flat(value)
        else:
            yield value
