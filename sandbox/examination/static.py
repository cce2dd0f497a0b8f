"""The static check: shapes, parameters, operations and memory of a network, before anything is allocated."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from cambrian.sandbox.examination.meta import InitLog, build_on_meta, modules_of, parameters_of
from cambrian.sandbox.examination.report import StaticFacts
from cambrian.sandbox.examination.rules import ForwardTrace
from cambrian.sandbox.examination.tape import Tape
from cambrian.search_spaces import Genotype, ProposalError, Signature, Space

_MIB = 2**20


@dataclass(frozen=True)
class Examination:
    """A genotype's module on the meta device, and what one forward pass of it showed."""

    module: nn.Module
    modules: tuple[nn.Module, ...]
    parameters: tuple[nn.Parameter, ...]
    init: InitLog
    trace: ForwardTrace
    facts: StaticFacts
    tape: Tape | None


_latest = threading.local()


def check(space: Space, genotype: Genotype, signature: Signature, batch_size: int) -> StaticFacts:
    """`static_check` of the module that a canonical genotype stands for.

    Raises:
        ProposalError: from the space, or as in `static_check`.
        ValueError: the space holds code, which is never run outside a sandbox.
    """
    return _examine(space, genotype, signature, batch_size, inside=False)


def static_facts_inside(
    space: Space, genotype: Genotype, signature: Signature, batch_size: int
) -> StaticFacts:
    """`check` for code as well: to be called in a sandbox only, as it runs what a model may have written.

    Raises:
        ProposalError: as in `check`.
    """
    return _examine(space, genotype, signature, batch_size, inside=True)


def _examine(
    space: Space, genotype: Genotype, signature: Signature, batch_size: int, *, inside: bool
) -> StaticFacts:
    module, init = build_on_meta(space, genotype, signature, inside=inside)
    modules = modules_of(module)
    parameters = parameters_of(modules)
    facts, trace, tape = _traced(module, modules, parameters, signature, batch_size, record=True)
    # the identity of the same genotype is asked for next, and starts from the same module
    _latest.value = (
        space,
        genotype,
        signature,
        Examination(module, modules, parameters, init, trace, facts, tape),
    )
    return facts


def take_examination(
    space: Space, genotype: Genotype, signature: Signature, *, inside: bool = False
) -> Examination:
    """What `check` saw of this genotype, anew unless it was this thread's last; the caller may spoil it.

    Args:
        space: builds the network.
        genotype: canonical.
        signature: what the network takes and gives.
        inside: whether this process is a sandbox, so that code may run.

    Raises:
        ProposalError: as in `check`.
        ValueError: as in `check`, unless `inside`.
    """
    if getattr(_latest, "value", None) is None or _latest.value[:3] != (space, genotype, signature):
        _examine(space, genotype, signature, 2, inside=inside)
    found: Examination = _latest.value[3]
    _latest.value = None
    return found


def static_check(module: nn.Module, signature: Signature, batch_size: int) -> StaticFacts:
    """Run one forward pass on the meta device in the module's mode, and report what training would take.

    Args:
        module: built on the meta device, in training mode.
        signature: what it takes and gives.
        batch_size: samples of a training step.

    Raises:
        ProposalError: a layer cannot take what it is given, or the outputs have another shape than
            `(n, n_outputs)`; the message names the layer and the shapes.
    """
    facts, _, _ = trace_forward(module, signature, batch_size)
    return facts


def trace_forward(
    module: nn.Module, signature: Signature, batch_size: int, *, record: bool = False
) -> tuple[StaticFacts, ForwardTrace, Tape | None]:
    """`static_check`, the trace of the forward pass that it was read from, and its finished tape.

    There is no tape unless `record`, and none where it could not be played with other numbers.
    """
    modules = modules_of(module)
    return _traced(module, modules, parameters_of(modules), signature, batch_size, record=record)


def _traced(
    module: nn.Module,
    modules: Sequence[nn.Module],
    tensors: Sequence[nn.Parameter],
    signature: Signature,
    batch_size: int,
    *,
    record: bool,
) -> tuple[StaticFacts, ForwardTrace, Tape | None]:
    """`trace_forward` of a module whose parts are known."""
    kind = torch.float32 if signature.n_ids is None else torch.int64
    inputs = torch.empty((batch_size, *signature.input_shape), dtype=kind, device="meta")
    buffers = (each for child in modules for each in child._buffers.values() if each is not None)
    tape = Tape([*tensors, inputs], buffers, batch_size) if record else None
    trace = ForwardTrace(tape)
    try:
        with torch.no_grad(), trace:
            outputs = module(inputs)
    except Exception as error:  # any exception of a layer is the proposal's fault
        raise _located(module, inputs, error, signature) from error
    wanted = (batch_size, signature.n_outputs)
    if not isinstance(outputs, Tensor) or tuple(outputs.shape) != wanted:
        given = _shapes(outputs)
        raise ProposalError(
            f"the network's output has shape {given}, not (n, n_outputs) = {wanted}",
            hint=f"end with a layer of {signature.n_outputs} outputs on features of shape (n, width)",
        )
    facts = StaticFacts(
        parameters=sum(p.numel() for p in tensors if p.requires_grad),
        # one pass over a graph answers for all of its nodes
        flops=trace.flops if signature.graph is not None else trace.flops // batch_size,
        peak_memory_mb=_peak_bytes(tensors, inputs, trace) / _MIB,
        depth=sum(parameter.dim() > 1 for parameter in trace.used.values()),
    )
    if tape is not None:
        tape.finish(outputs)
    return facts, trace, tape if tape is not None and tape.whole else None


def _peak_bytes(parameters: Sequence[nn.Parameter], inputs: Tensor, trace: ForwardTrace) -> int:
    """Peak of one step of Adam in float32.

    Weights and both moments are always there. The peak is either where the backward pass starts, with every
    saved activation and two gradients as large as the largest one, or where the optimizer has all gradients.
    Buffers are left out: batch statistics are small beside the activations that they are taken from.
    """
    weights = sum(p.numel() * p.element_size() for p in parameters)
    backward = trace.saved + 2 * trace.largest + inputs.numel() * inputs.element_size()
    return 3 * weights + max(backward, weights)


def _located(module: nn.Module, inputs: Tensor, error: Exception, signature: Signature) -> ProposalError:
    """The failure again, with the innermost layer that raised it and the shapes it was given."""
    path: list[tuple[str, nn.Module, str]] = []
    names = {child: name for name, child in module.named_modules()}

    def enter(child: nn.Module, args: tuple[object, ...]) -> None:
        path.append((names[child], child, ", ".join(_shapes(arg) for arg in args)))

    def leave(child: nn.Module, args: tuple[object, ...], output: object) -> None:
        path.pop()

    cause = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    with ExitStack() as hooks, torch.no_grad(), ForwardTrace():
        for child in names:
            hooks.callback(child.register_forward_pre_hook(enter).remove)
            hooks.callback(child.register_forward_hook(leave).remove)
        try:
            module(inputs)
        except Exception as again:
            cause = str(again).strip().splitlines()[0] if str(again).strip() else type(again).__name__
    name, child, shapes = path[-1] if path else ("", module, _shapes(inputs))
    layer = type(child).__name__ if any(child.children()) else str(child)
    where = f"{name}, {layer}," if name else f"the network, {layer},"
    return ProposalError(
        f"{where} cannot take an input of shape {shapes}: {cause}",
        hint=f"{_meaning(signature)}; make this layer fit the one before it",
    )


def _meaning(signature: Signature) -> str:
    """What the dimensions of the tensors in a network of this signature mean."""
    if signature.graph is not None:
        return "inputs are ids of nodes (batch,), features of all nodes (nodes, channels)"
    if signature.vocabulary is not None:
        return "inputs are ids (batch, length), their embeddings (batch, length, channels)"
    axes = {1: "channels", 2: "length, channels", 3: "channels, height, width"}
    named = axes.get(len(signature.input_shape))
    return f"shapes are (batch, {named})" if named else f"inputs are (batch, *{signature.input_shape})"


def _shapes(value: object) -> str:
    if isinstance(value, Tensor):
        return str(tuple(value.shape))
    if isinstance(value, list | tuple):
        return f"[{', '.join(_shapes(item) for item in value)}]"
    return type(value).__name__
