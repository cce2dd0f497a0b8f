"""Networks that have to be called to be told apart, and which those are."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from cambrian.sandbox.examination.meta import seeded
from cambrian.sandbox.examination.probe import build_for_probe
from cambrian.sandbox.examination.static import Examination
from cambrian.search_spaces import Genotype, Signature, Space

_Slot = tuple[dict[str, nn.Parameter | None], str, int]
"""Where a parameter lives, and its place among all."""


@dataclass
class Network:
    """A module that can be run with any weights.

    Attributes:
        module: on the CPU, in training mode, but for its parameters.
        slots: where those are to be put.
        twofold: whether evaluation could differ from training by more than batch norm and dropout account
            for.
        cautious: whether it may write to its weights.
        norms: batch norms that keep statistics.
        buffers: of all modules.
    """

    module: nn.Module
    slots: list[_Slot]
    twofold: bool
    cautious: bool
    norms: list[_BatchNorm]
    buffers: list[Tensor]

    def fill(self, values: Sequence[Tensor], *, learn: bool) -> list[nn.Parameter]:
        """Put `values` in, and batch norms back to their beginning; returns the parameters."""
        if self.cautious:
            values = [value.clone() for value in values]
        made = [nn.Parameter(value, requires_grad=learn) for value in values]
        for home, name, place in self.slots:
            home[name] = made[place]
        for norm in self.norms:
            if norm.training and not self.twofold:  # training does not look at them
                norm._buffers.update(running_mean=None, running_var=None, num_batches_tracked=None)
                continue
            norm._buffers["running_mean"] = torch.zeros(norm.num_features, dtype=torch.float64)
            norm._buffers["running_var"] = torch.ones(norm.num_features, dtype=torch.float64)
            norm._buffers["num_batches_tracked"] = torch.zeros((), dtype=torch.long)
        return made


class Unsure(Exception):
    """The evidence is weak."""


def network_of(
    seen: Examination, space: Space, genotype: Genotype, signature: Signature, *, twofold: bool, real: bool
) -> Network:
    """The module on the CPU in double precision, its parameters still to be put in.

    Raises:
        Unsure: its parameters depend on how many nodes the graph has; it has none on a small one.
    """
    module, modules, parameters = seen.module, seen.modules, seen.parameters
    # batch statistics start from known values; whatever else a constructor computed calls for the real one
    if real:
        with seeded():
            module = build_for_probe(space, genotype, signature).double()
        modules, parameters = tuple(module.modules()), tuple(module.parameters())
        if [p.shape for p in parameters] != [p.shape for p in seen.parameters]:
            raise Unsure
    places = {id(parameter): place for place, parameter in enumerate(parameters)}
    slots = [
        (child._parameters, name, places[id(parameter)])
        for child in modules
        for name, parameter in child._parameters.items()
        if parameter is not None
    ]
    return Network(
        module,
        slots,
        twofold,
        cautious=seen.trace.cuts,
        norms=[child for child in modules if isinstance(child, _BatchNorm) and child.track_running_stats],
        buffers=[each for child in modules for each in child._buffers.values() if each is not None],
    )


def of_torch(kind: type) -> bool:
    """Whether a class of modules is torch's own."""
    return kind.__module__.startswith("torch.")


def keeps_statistics(child: nn.Module) -> bool:
    """Whether a module other than a batch norm has buffers."""
    return bool(child._buffers) and not isinstance(child, _BatchNorm)


def has_tensors(child: nn.Module) -> bool:
    """Whether it holds tensors as plain attributes, which torch's own layers never do."""
    return any(isinstance(value, Tensor) for value in vars(child).values())


def makes_gradients(own: Iterable[nn.Module]) -> bool:
    """Whether a module's code names what changes gradients behind the back of its outputs."""
    return any(_names(type(child).__mro__, _OF_GRADIENTS) for child in own)


_OF_GRADIENTS = frozenset({"apply", "backward", "detach", "no_grad", "register_hook", "grad", "data"})


def evaluates_differently(modules: Iterable[nn.Module], own: Iterable[nn.Module]) -> bool:
    """Whether evaluation could differ from training by more than batch norm and dropout account for."""
    if any(map(keeps_statistics, modules)):
        return True
    return any(_names(type(child).__mro__, _OF_MODES) for child in own)


_OF_MODES = frozenset({"training"})


@functools.lru_cache(maxsize=4096)
def _names(kinds: tuple[type, ...], wanted: frozenset[str]) -> bool:
    """Whether code of a module's classes other than torch's uses one of the names."""
    for base in kinds:
        if base.__module__.split(".")[0] == "torch" or base is object:
            continue
        for member in vars(base).values():
            code = getattr(member, "__code__", None)
            if code is not None and not wanted.isdisjoint(code.co_names):
                return True
    return False
