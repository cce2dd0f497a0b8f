"""Writing the tape of a real module as it runs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from torch.nn import functional
from torch.overrides import TorchFunctionMode

from cambrian.sandbox.examination.calls import FLAT, NORM_ARGUMENTS
from cambrian.sandbox.examination.tape import EPSILON, Tape
from cambrian.sandbox.examination.watch import flattened


class Recorder(TorchFunctionMode):
    """Writes a tape of a pass on real numbers, and watches its activations."""

    def __init__(self, tape: Tape | None = None) -> None:
        super().__init__()
        self.tape = tape
        self.alive = True

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        named = dict(kwargs) if kwargs else {}
        if func is functional.batch_norm:
            named = dict(zip(NORM_ARGUMENTS, args, strict=False)) | named
            # a norm with nothing to normalise is one of zeros
            result = named["input"] * 0 if not named["input"].any() else func(**(named | {"eps": EPSILON}))
            args = ()
        else:
            result = func(*args, **named)
        if self.alive and func in FLAT:
            self.alive = not flattened(result, args[0] if args else named.get("input"))
        if self.tape is not None:
            self.tape.write(func, args, named, result)
        return result
