"""What a network computes under canonical weights, on two probes that have nothing to do with each other."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from cambrian.sandbox.examination.canonical import (
    common_weights,
    first_values,
    form,
    roles,
    weights,
)
from cambrian.sandbox.examination.meta import seeded
from cambrian.sandbox.examination.network import (
    Network,
    Unsure,
    evaluates_differently,
    has_tensors,
    keeps_statistics,
    makes_gradients,
    network_of,
    of_torch,
)
from cambrian.sandbox.examination.probe import noise, probe
from cambrian.sandbox.examination.recorder import Recorder
from cambrian.sandbox.examination.static import Examination
from cambrian.sandbox.examination.tape import Tape
from cambrian.sandbox.examination.watch import Watch
from cambrian.search_spaces import Genotype, Signature, Space

MAX_FLOPS = 4e9
MAX_PARAMETERS = 20_000_000
"""Above these, for one pass over the probe, a network is not run."""

_DIGITS = 7
_MOST = 4
_ATTEMPTS = 3
_POSITIONS = 8
"""In the narrowest map that a batch norm sees, for one sample to do."""

_UNMOVED = 1e-9
"""Outputs that differ by less than this share of their size are the same: two matrices of one product were
summed in another order."""


@dataclass
class _Found:
    """What probe A tells.

    Attributes:
        attempt: how often other weights had to be tried before.
        numbers: of its outputs.
        roles: of each parameter.
        steady: whether the outputs are the same for all samples.
        learned: whether the roles are from gradients, so that a parameter without one may be idle.
    """

    attempt: int
    numbers: list[int]
    roles: list[tuple[Any, ...]]
    steady: bool
    learned: bool


def behaviour(
    seen: Examination, space: Space, genotype: Genotype, signature: Signature
) -> tuple[object, ...] | None:
    """What tells the network from others, as nested tuples of numbers and text.

    Args:
        seen: what the static check saw of it; its module is spoilt.
        space: builds it.
        genotype: canonical.
        signature: what it takes and gives.

    Returns:
        None where the evidence is weak, or too dear.
    """
    # nodes are probed on a small graph
    dear = signature.graph is None and seen.facts.flops * _MOST > MAX_FLOPS
    if dear or seen.facts.parameters > MAX_PARAMETERS:
        return None
    try:
        tool = prober(seen, space, genotype, signature)
        try:
            return tool.evidence()
        except RuntimeError:  # a picture that was shrunk did not fit after all
            if tool.signature == signature:
                raise
            return Tapes(seen, signature, tool.batch).evidence()
    except Exception:  # what only fails on real numbers is for its training to tell, not for its identity
        return None


def prober(seen: Examination, space: Space, genotype: Genotype, signature: Signature) -> Tapes:
    """What runs the two probes, for the arguments of `behaviour`: by tape alone wherever that tells all."""
    # few samples of a large input, but enough for statistics of a batch to be more than signs
    few = math.prod(signature.input_shape) > 64 and seen.trace.narrowest >= 4
    batch = 2 if few else _MOST
    own = [child for child in seen.modules if not of_torch(type(child))]
    real = (
        signature.graph is not None or any(map(keeps_statistics, seen.modules)) or any(map(has_tensors, own))
    )
    twofold = evaluates_differently(seen.modules, own)
    # gradients of plain operations tell no more than outputs do; those of one's own making may
    derive = space.kind == "code" or seen.trace.cuts or makes_gradients(own)
    if seen.tape is not None and not (real or twofold or derive):
        small = seen.tape.smallest()
        if small is None:
            return Tapes(seen, signature, batch)
        reduced = (*signature.input_shape[:1], small, small)
        signature = signature.model_copy(update={"input_shape": reduced})
        # samples that never meet outside of norms need no company, with positions enough for statistics
        positions = seen.trace.narrowest * small**2 / seen.tape.side**2
        if seen.tape.apart and positions >= _POSITIONS:
            batch = 1
        return Tapes(seen, signature, batch)
    return _Modules(
        seen,
        signature,
        batch,
        derive,
        network_of(seen, space, genotype, signature, twofold=twofold, real=real),
    )


class Tapes:
    """Evidence of a network whose tape is all there is to it.

    Args:
        seen: what the static check saw.
        signature: of the samples to take.
        batch: number of samples.
    """

    def __init__(self, seen: Examination, signature: Signature, batch: int) -> None:
        self.seen, self.signature, self.batch = seen, signature, batch
        self.tape = seen.tape
        self.shapes = [tuple(parameter.shape) for parameter in seen.parameters]
        self.forms = [form(shape) for shape in self.shapes]
        if self.tape is not None:
            self.tape.prepare()
        places = {id(parameter): place for place, parameter in enumerate(seen.parameters)}
        used = [places[key] for key in seen.trace.used if key in places]
        unused = sorted(set(range(len(self.shapes))).difference(used))
        self.order = [*used, *unused]

    def evidence(self) -> tuple[object, ...]:
        """See `behaviour`.

        Raises:
            Unsure: it is weak.
        """
        first = self.first()
        ranks, texts = self.ranks(first.roles), [repr(role) for role in first.roles]
        inputs = probe(self.batch, self.signature, 1)
        places = range(len(self.shapes))
        for attempt in range(_ATTEMPTS):
            keys = [
                (of, attempt, role, rank) for of, role, rank in zip(self.forms, texts, ranks, strict=True)
            ]
            outputs = self.second(keys, inputs)
            numbers = [_quantised(output) for output in outputs]
            if None not in numbers:
                break
        else:
            raise Unsure
        kept = self.tape.needed if self.tape is not None else set(places)
        if first.learned:
            idle = {place for place in kept if not first.roles[place][-1]}
            if idle:
                other = [("other", key) if place in idle else key for place, key in enumerate(keys)]
                if all(map(_alike, outputs, self.second(other, inputs))):
                    kept = kept - idle
                elif first.steady:
                    raise Unsure
        init = self.seen.init
        about = sorted(
            f"{first_values(init.provenance(parameter), shape)}{parameter.requires_grad}{role}"
            for place, (parameter, shape, role) in enumerate(
                zip(self.seen.parameters, self.shapes, texts, strict=True)
            )
            if place in kept
        )
        return first.attempt, first.numbers, attempt, numbers, about, self.norms(first, kept)

    def first(self) -> _Found:
        """Probe A, with one value for parameters of one form, or ranked ones at later attempts."""
        inputs = probe(self.batch, self.signature)
        for attempt in range(_ATTEMPTS):
            if attempt == 0:
                drawn = list(map(common_weights, self.shapes, self.forms))
            else:
                ranks = self.ranks([()] * len(self.shapes))
                drawn = [
                    weights(shape, (of, "A", attempt, rank))
                    for shape, of, rank in zip(self.shapes, self.forms, ranks, strict=True)
                ]
            found = self.look(drawn, inputs, attempt)
            if found is not None:
                return found
        raise Unsure

    def look(self, drawn: Sequence[Tensor], inputs: Tensor, attempt: int) -> _Found | None:
        """One attempt of probe A; None where it is too weak."""
        assert self.tape is not None
        watch = Watch()
        with torch.no_grad(), seeded():
            outputs = self.tape.play([*drawn, inputs], watch)
        numbers = _quantised(outputs)
        if numbers is None or not watch.alive:
            return None
        if not self.tape.plain:
            if len(inputs) == 1:  # a sample alone cannot show whether all are alike
                with torch.no_grad(), seeded():
                    outputs = torch.cat([outputs, self.tape.play([*drawn, probe(2, self.signature)[1:]])])
            if _steady(outputs):
                return None
        found: list[tuple[Any, ...]] = [
            tuple(sorted(watch.met.get(place, ()))) for place in range(len(drawn))
        ]
        counts = Counter((self.forms[place], found[place]) for place in self.tape.needed)
        tied = [place for place in self.tape.needed if counts[self.forms[place], found[place]] > 1]
        if tied:
            wanted = set(tied)
            values = [
                value.detach().requires_grad_() if place in wanted else value
                for place, value in enumerate(drawn)
            ]
            with torch.enable_grad(), seeded():
                outputs = self.tape.play([*values, inputs])
            gradients = roles(_gradients(outputs, [values[place] for place in tied]))
            for place, role in zip(tied, gradients, strict=True):
                found[place] = (found[place], role)
        return _Found(attempt, numbers, found, False, False)

    def second(self, keys: Sequence[object], inputs: Tensor) -> list[Tensor]:
        """Outputs of probe B for weights drawn by `keys`."""
        assert self.tape is not None
        values = [
            weights(shape, key) if place in self.tape.needed else None
            for place, (shape, key) in enumerate(zip(self.shapes, keys, strict=True))
        ]
        with torch.no_grad(), seeded():
            return [self.tape.play([*values, inputs])]

    def ranks(self, found: Sequence[tuple[Any, ...]]) -> list[int]:
        """The place of each parameter among those of its form and role, by first use."""
        counts: dict[object, int] = {}
        ranks = [0] * len(self.shapes)
        for place in self.order:
            key = self.forms[place], found[place]
            ranks[place] = counts.get(key, 0)
            counts[key] = ranks[place] + 1
        return ranks

    def norms(self, first: _Found, kept: set[int]) -> list[str]:
        """Of each batch norm that matters what its outputs did not show."""
        assert self.tape is not None
        told = []
        for index, (about, weight, bias) in enumerate(self.tape.norms):
            owned = [place for place in (weight, bias) if place is not None]
            if not owned or kept.intersection(owned):
                # a real module may have lost its statistics
                real = (
                    self.seen.trace.norms[index]
                    if len(self.seen.trace.norms) == len(self.tape.norms)
                    else about
                )
                told.append(repr((real, [first.roles[place] for place in owned])))
        return sorted(told)


class _Modules(Tapes):
    """Evidence of a network that has to be called, at least once on each probe."""

    def __init__(
        self, seen: Examination, signature: Signature, batch: int, derive: bool, network: Network
    ) -> None:
        super().__init__(seen, signature, batch)
        self.derive, self.network = derive, network
        self.tape = None

    @property
    def replays(self) -> bool:
        """Whether the tape of the last pass says what the module would do with other numbers."""
        whole = self.tape is not None and self.tape.whole
        return whole and not self.network.twofold and not self.network.cautious

    def look(self, drawn: Sequence[Tensor], inputs: Tensor, attempt: int) -> _Found | None:
        """See `Tapes.look`."""
        values = self.network.fill(drawn, learn=True)
        tape = Tape([*values, inputs], self.network.buffers)
        with torch.enable_grad(), seeded(), Recorder(tape) as recorder:
            outputs = self.network.module(inputs)
        tape.finish(outputs)
        tape.prepare()
        self.tape = tape
        if self.replays and not self.derive:
            return super().look(drawn, inputs, attempt)
        numbers = _quantised(outputs)
        if numbers is None or not recorder.alive:
            return None
        steady = _steady(outputs)
        if steady and not (tape.whole and tape.plain):
            return None
        found = [(role,) for role in roles(_gradients(outputs, values))]
        return _Found(attempt, numbers, found, steady, True)

    def second(self, keys: Sequence[object], inputs: Tensor) -> list[Tensor]:
        """See `Tapes.second`; the outputs of evaluation come with those of training where they may differ."""
        assert self.tape is not None
        if self.replays:
            return super().second(keys, inputs)
        drawn = [weights(shape, key) for shape, key in zip(self.shapes, keys, strict=True)]
        self.network.fill(drawn, learn=False)
        module = self.network.module
        with torch.no_grad(), seeded(), Recorder():
            outputs: list[Tensor] = [module(inputs)]
            if self.network.twofold:
                outputs.append(module.eval()(inputs))
                module.train()
        return outputs


def _gradients(outputs: Tensor, values: Sequence[Tensor]) -> Sequence[Tensor | None]:
    """Gradients of a projection of the outputs, by their scale."""
    if not outputs.requires_grad:
        return [None] * len(values)
    plain = outputs.detach()
    direction = noise((plain.numel(),), 5).view_as(plain) / plain.square().mean().sqrt()
    return torch.autograd.grad(outputs, values, direction, allow_unused=True)


def _steady(outputs: Tensor) -> bool:
    plain = outputs.detach()
    return bool((plain - plain[:1]).abs().max() < 1e-3 * plain.square().mean().sqrt())


def _alike(one: Tensor, other: Tensor) -> bool:
    return bool((one - other).abs().max() <= _UNMOVED * one.abs().max())


def _quantised(outputs: Any) -> list[int] | None:
    """Outputs `(batch, n_outputs)` as a few integers; None when they say little about the function.

    Scale and direction are kept apart, each to about seven digits: noise in the last bits of outputs, a
    million times smaller, almost never shifts a rounding. A handful of random projections of all outputs
    tells functions apart as well as all outputs would, with fewer roundings at risk.
    """
    if not isinstance(outputs, Tensor) or outputs.dtype != torch.float64:
        return None
    flat = outputs.detach().flatten()
    scale = float(flat.square().mean().sqrt())
    if not math.isfinite(scale) or scale < 1e-30:
        return None
    mixed = noise((8, flat.numel()), 7)
    numbers = (mixed @ (flat / scale)) / math.sqrt(flat.numel())
    return [round(number * 10**_DIGITS) for number in (math.log(scale), *numbers.tolist())]
